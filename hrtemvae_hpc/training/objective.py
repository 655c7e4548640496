"""What is minimised, and what a network starts from."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hrtemvae_hpc.model.network import VAE
from hrtemvae_hpc.training.train_config import LossSection


def reconstruction_loss(logits: Tensor, x: Tensor) -> Tensor:
    """Binary cross-entropy of windows ``x`` [n, 1, size, size] in 0..1, summed over pixels and windows, nats.

    Its floor is `entropy_floor`.
    """
    return F.binary_cross_entropy_with_logits(logits, x, reduction="sum")


def divergence(mean: Tensor, log_var: Tensor) -> Tensor:
    """Kullback-Leibler divergence of N(mean, exp(log_var)) from N(0, 1), summed over latents and windows, nats.

    Kingma and Welling, https://arxiv.org/abs/1312.6114, appendix B.
    """
    return -0.5 * (1 + log_var - mean**2 - log_var.exp()).sum()


def entropy_floor(x: Tensor) -> Tensor:
    """The least reconstruction loss that windows ``x`` allow: their own entropy, summed over pixels and windows."""
    return -(torch.xlogy(x, x) + torch.xlogy(1 - x, 1 - x)).sum()


def initialize(vae: VAE, generator: torch.Generator) -> None:
    """Weights as Keras draws them by default, which the published networks started from: Glorot uniform, no biases.

    Glorot and Bengio, AISTATS 2010.
    """
    for module in vae.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            nn.init.xavier_uniform_(module.weight, generator=generator)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def beta_at(epochs: float, loss: LossSection) -> float:
    """The weight of the divergence after ``epochs``: held at its first value, then rising in a line."""
    if epochs >= loss.hold + loss.warm_up:
        return loss.beta
    risen = max(0.0, epochs - loss.hold) / loss.warm_up if loss.warm_up else 0.0
    return loss.first + (loss.beta - loss.first) * risen


def learning_rate_at(step: int, steps: int, largest: float, rise: float) -> float:
    """A cosine schedule over ``steps``: a straight rise over their share ``rise``, then half a cosine down to zero."""
    up = rise * steps
    if step < up:
        return largest * (step + 1) / (up + 1)
    fall = torch.tensor((step - up) / max(1.0, steps - up) * torch.pi)
    return float(largest * 0.5 * (1 + torch.cos(fall)))
