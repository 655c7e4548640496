"""Whether two models, or one model on two sets of segments, describe lattices by the same latents."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from scipy.stats import spearmanr

from hrtemvae_hpc.errors import InputError
from hrtemvae_hpc.evaluation.movements import similarity
from hrtemvae_hpc.model.model_file import Model
from hrtemvae_hpc.training.batches import Segments
from hrtemvae_hpc.training.promotion import ACTIVE

_MOST = 4096


@dataclass(frozen=True)
class Basis:
    """How similar two sets of latents are, 1 if they are the same."""

    what: str
    numbers_by_name: dict[str, float]

    def numbers(self) -> dict[str, Any]:
        """For a JSON file."""
        return {"compared": self.what, **self.numbers_by_name}


def _means(model: Model, segments: Segments) -> np.ndarray:
    """Latents [n, latents] of at most 4,096 validation segments, in the model's order."""
    which = segments.validation[:: max(1, len(segments.validation) // _MOST)]
    with torch.inference_mode():
        parts = [model.encoder(x)[0] for x in segments.batches(which)]
    return torch.cat(parts).numpy()[:, list(model.latent_order)]


def compare_models(one: Model, other: Model, segments: Segments) -> Basis:
    """Match the latents of two models by their correlation over the same segments, one to one.

    Raises InputError if the windows of the models differ.
    """
    if one.architecture.window != other.architecture.window:
        raise InputError(
            f"models {one.name} and {other.name}: windows of {one.architecture.window} and "
            f"{other.architecture.window} pixels can't show the same segments."
        )
    a, b = _means(one, segments), _means(other, segments)
    a, b = a[:, a.var(0) > ACTIVE], b[:, b.var(0) > ACTIVE]
    if not a.shape[1] or not b.shape[1]:
        raise InputError(f"models {one.name} and {other.name}: no active latent to compare on these segments.")
    correlation = np.abs(np.corrcoef(a.T, b.T)[: a.shape[1], a.shape[1] :])
    matched = correlation[linear_sum_assignment(correlation, maximize=True)]
    return Basis(
        f"the latents of {one.name} and {other.name} on the same segments",
        {
            "mean correlation of matched latents": float(matched.mean()),
            "share of latents matched above 0.8": float((matched > 0.8).mean()),
            "variance of the second explained by the first, linearly": _explained(a, b),
        },
    )


def _explained(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a - a.mean(0), b - b.mean(0)
    residual = b - a @ np.linalg.lstsq(a, b, rcond=None)[0]
    return float(1 - residual.var() / b.var())


def compare_segments(model: Model, one: Segments, other: Segments) -> Basis:
    """Whether two sets of segments, of two microscopes for example, vary in the same latents of one model."""
    a, b = _means(model, one).var(0), _means(model, other).var(0)
    shared = (a > ACTIVE) & (b > ACTIVE)
    return Basis(
        f"the latents of {model.name} on {one.files[0].path.name} and {other.files[0].path.name}",
        {
            "similarity of the spectra of variance": similarity(a, b),
            "rank correlation of the spectra": float(spearmanr(a, b).statistic),
            "share of active latents that are active in both": float(
                shared.sum() / max(1, ((a > ACTIVE) | (b > ACTIVE)).sum())
            ),
        },
    )
