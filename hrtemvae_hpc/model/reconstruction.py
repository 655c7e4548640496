"""Windows that a model decodes from their latents, and how similar they are to the windows themselves."""

import torch
from torch import Tensor

from hrtemvae_hpc.model.network import Decoder


@torch.inference_mode()
def decode(decoder: Decoder, z: Tensor) -> Tensor:
    """The windows [n, 1, window, window] in 0..1 of latents ``z`` [n, latents] in the network's own order."""
    return torch.sigmoid(decoder(z))


def correlation(one: Tensor, other: Tensor) -> Tensor:
    """Pearson's correlation [n] of windows [n, 1, rows, columns] with others; 0 if one is flat."""
    a, b = ((w - w.mean((1, 2, 3), keepdim=True)).flatten(1) for w in (one, other))
    return torch.cosine_similarity(a, b, 1, 1e-12)
