"""All measurements of one model, as numbers."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hrtemvae_hpc.errors import InputError
from hrtemvae_hpc.evaluation.groups import Group, find_groups
from hrtemvae_hpc.evaluation.movements import Response, lattice_period, overlap, respond_to_all, similarity
from hrtemvae_hpc.model.model_file import Model
from hrtemvae_hpc.training.batches import Segments, segments_for
from hrtemvae_hpc.training.objective import divergence, entropy_floor, reconstruction_loss
from hrtemvae_hpc.training.promotion import ACTIVE

_EXAMPLES = 24


@dataclass(frozen=True)
class Reconstruction:
    """How a model reproduces validation segments, from the mean of their latents. Nats per segment."""

    segments: int
    loss: float
    floor: float  # their entropy
    average: float  # the cost of answering their average for all of them
    divergence: float
    variance: np.ndarray  # [latents] of the means, in the model's order
    examples: tuple[np.ndarray, np.ndarray]  # [n, size, size] segments and their reconstructions

    @property
    def explained(self) -> float:
        """The share of what lies between the average segment and the floor that the model explains."""
        return (self.average - self.loss) / (self.average - self.floor)


@dataclass(frozen=True)
class Measured:
    """What is known about a model from its training, and from validation segments if there are any."""

    model: Model
    reconstruction: Reconstruction | None

    @property
    def variance(self) -> np.ndarray | None:
        """Variance [latents] over the training set, in the model's order; over validation segments if not known.

        None if neither is.
        """
        variance = self.model.provenance.get("variance_over_training")
        if variance is not None:
            return np.asarray(variance)[list(self.model.latent_order)]
        return self.reconstruction.variance if self.reconstruction else None

    @property
    def active(self) -> int | None:
        """Latents whose variance is above 0.01."""
        return None if self.variance is None else int((self.variance > ACTIVE).sum())

    def numbers(self) -> dict[str, Any]:
        """All of it for a JSON file."""
        r = self.reconstruction
        return {
            "model": self.model.name,
            "sha256": self.model.sha256,
            "active_latents": self.active,
            "variance": None if self.variance is None else self.variance.tolist(),
            "reconstruction": r
            and {
                "segments": r.segments,
                "loss": r.loss,
                "floor": r.floor,
                "average_segment": r.average,
                "divergence": r.divergence,
                "explained": r.explained,
            },
        }


@dataclass(frozen=True)
class Evaluation(Measured):
    """The same, and how its latents follow lattices that move."""

    period: float  # pixels, of the lattice that moved
    responses: list[Response]
    groups: list[Group]

    @property
    def overlaps(self) -> list[tuple[str, str, float, float]]:
        """Each pair of movements, the overlap of their leading sets and the similarity of their spectra."""
        pairs = [(a, b) for i, a in enumerate(self.responses) for b in self.responses[i + 1 :]]
        return [
            (a.movement.name, b.movement.name, overlap(a.leading, b.leading), similarity(a.share, b.share))
            for a, b in pairs
        ]

    def numbers(self) -> dict[str, Any]:
        """All of it for a JSON file."""
        return super().numbers() | {
            "lattice_period_pixels": self.period,
            "movements": {
                m.movement.name: {
                    "leading_latents": m.leading,
                    "explained": m.explained,
                    "return_error": m.return_error if m.movement.degrees == 0 else None,
                    "share": m.share.tolist(),
                }
                for m in self.responses
            },
            "overlaps": [dict(zip(("of", "and", "leading", "similarity"), o, strict=True)) for o in self.overlaps],
            "groups": {g.change: {"latents": g.latents, "share": g.share.tolist()} for g in self.groups},
        }


def evaluate(model: Model, segments: Path | None, period: float | None = None) -> Evaluation:
    """Measure ``model`` on moving lattices of ``period`` pixels, and on the validation part of ``segments`` if given.

    Its groups come from lattices of all periods that it reconstructs.

    Raises InputError if the segments don't fit the model.
    """
    if period is None:
        period = lattice_period(model)
    reconstruction = None if segments is None else reconstruct(model, segments_for(model, segments))
    return Evaluation(model, reconstruction, period, respond_to_all(model, period), find_groups(model, period))


@torch.inference_mode()
def reconstruct(model: Model, segments: Segments) -> Reconstruction:
    """Reconstruct the validation ``segments``. Raises InputError if the model has no decoder."""
    if model.decoder is None:
        raise InputError(f"model {model.name}: has no decoder, so nothing can be reconstructed.")
    which = segments.validation
    average = torch.logit(segments.average(which), eps=1e-6)
    totals, means = np.zeros(4), []
    for x in segments.batches(which):
        mean, log_var = model.encoder(x)
        flat = reconstruction_loss(average.expand_as(x), x)
        losses = (reconstruction_loss(model.decoder(mean), x), entropy_floor(x), flat)
        totals += [float(loss) for loss in (*losses, divergence(mean, log_var))]
        means.append(mean)
    shown = segments.load(which[:: max(1, len(which) // _EXAMPLES)][:_EXAMPLES])
    decoded = torch.sigmoid(model.decoder(model.encoder(shown)[0]))
    variance = torch.cat(means).var(0, correction=0).numpy()
    loss, floor, flat_loss, kl = totals / len(which)
    return Reconstruction(
        segments=len(which),
        loss=float(loss),
        floor=float(floor),
        average=float(flat_loss),
        divergence=float(kl),
        variance=variance[list(model.latent_order)],
        examples=(shown[:, 0].numpy(), decoded[:, 0].numpy()),
    )
