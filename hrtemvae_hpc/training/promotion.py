"""From a trained network to the model in use: it is written aside, read back, validated, and only then renamed."""

import shlex
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hrtemvae_hpc import __version__
from hrtemvae_hpc.errors import InputError, printable
from hrtemvae_hpc.files import saving
from hrtemvae_hpc.model.model_file import Model, TrainedOn, load_model, save_model
from hrtemvae_hpc.model.network import VAE
from hrtemvae_hpc.ranks.resources import image_in_use
from hrtemvae_hpc.training.batches import Segments
from hrtemvae_hpc.training.objective import reconstruction_loss
from hrtemvae_hpc.training.train_config import TrainConfig

_ENOUGH = 20_000  # training segments that make an average
ACTIVE = 0.01  # variance of a latent's mean above which it is active: Burda et al., https://arxiv.org/abs/1509.00519


def as_model(vae: VAE, variance: np.ndarray, config: TrainConfig, segments: Segments, history: dict[str, Any]) -> Model:
    """``vae`` as a model, latents ordered by their ``variance`` [latents]; ``history`` goes into its provenance."""
    return Model(
        name=config.model.name,
        encoder=vae.encoder,
        decoder=vae.decoder,
        scaling=segments.scaling,
        latent_order=tuple(int(i) for i in np.argsort(variance, kind="stable")),
        trained_on=TrainedOn(segments.pixel_size_nm),
        provenance={
            "program": f"hrtemvae {__version__}",
            "command_line": printable(shlex.join(sys.argv)),
            "configuration": config.model_dump(mode="json"),
            "segments": [
                {
                    "file": printable(f.path.name),
                    "sha256": f.sha256,
                    "segments": len(f.segments),
                    "sources": len(f.sources),
                }
                for f in segments.files
            ],
            "variance_over_training": variance.tolist(),
            **image_in_use(),
            **history,
        },
    )


def store(model: Model, path: Path, weights: str) -> None:
    """Write ``model`` to ``path`` with its ``weights`` as fp32 or fp16. Raises Blocked if the disk is full."""
    with saving(path, "make room and run the same command again."):
        save_model(model, path, torch.float16 if weights == "fp16" else torch.float32)


class NothingLearned(InputError):
    """A trained network is no better than the average segment."""


@torch.inference_mode()
def validate_saved(path: Path, segments: Segments, active: int) -> float:
    """Reconstruction loss (nats per segment) of the model in ``path``, of ``active`` latents, on validation segments.

    Raises NothingLearned unless a latent is active and the loss is finite and less than that of answering the average
    training segment for all.
    """
    model = load_model(path)
    if model.decoder is None:
        raise InputError(f"{path}: has no decoder.")
    which = segments.validation
    average = torch.logit(segments.average(segments.training[:: 1 + len(segments.training) // _ENOUGH]), eps=1e-6)
    loss = flat = 0.0
    for x in segments.batches(which):
        loss += float(reconstruction_loss(model.decoder(model.encoder(x)[0]), x)) / len(which)
        flat += float(reconstruction_loss(average.expand_as(x), x)) / len(which)
    if active == 0 or not loss < flat:
        raise NothingLearned(
            f"the trained network has learned nothing ({active} latents active, {loss:.1f} nats per validation "
            f"segment, the average segment {flat:.1f}) and is not put into use; train for more epochs, or lower "
            f"loss.beta. It stays at {path}."
        )
    return loss
