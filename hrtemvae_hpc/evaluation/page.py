"""The pages of an evaluation and of a comparison, and their numbers as JSON."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hrtemvae_hpc.errors import InputError
from hrtemvae_hpc.evaluation.compare import Basis
from hrtemvae_hpc.evaluation.evaluate import Evaluation
from hrtemvae_hpc.evaluation.figures import against_size, movement_maps, spectra, variance_curves
from hrtemvae_hpc.evaluation.traversal import draw_traversal
from hrtemvae_hpc.files import replacing, writing
from hrtemvae_hpc.model.model_file import Model
from hrtemvae_hpc.model.periods import reconstructed_periods
from hrtemvae_hpc.outputs import NUMBERS
from hrtemvae_hpc.pages import inline, write_page
from hrtemvae_hpc.scaling import margin, scaled_windows
from hrtemvae_hpc.simulation.movements import MOVEMENTS, frames
from hrtemvae_hpc.training.pictures import pairs

_HERE = Path(__file__).parent
_TRAVERSED = 8


def lattice_window(model: Model, period: float) -> np.ndarray:
    """The middle window [window, window] of the test lattice, float32, scaled to 0..1 as ``model`` gets it.

    Raises InputError if the lattice's image is smaller.
    """
    frame, window = next(iter(frames(MOVEMENTS[0], period))), model.architecture.window
    around = margin(model.scaling, window)
    first = (frame.shape[0] - window) // 2 - around
    if first < 0:
        raise InputError(f"model {model.name}: its window of {window} pixels is too large for the test lattice.")
    part = slice(first, first + window + 2 * around)
    return scaled_windows(torch.from_numpy(frame[part, part]), window, model.scaling).numpy()


def leading_latents(evaluation: Evaluation, count: int = _TRAVERSED) -> list[int]:
    """The latents that vary most in any of the movements, by movement, without repetition."""
    ranked = [np.argsort(r.share)[::-1][:count] for r in evaluation.responses]
    mixed = [int(latent) for rank in zip(*ranked, strict=True) for latent in rank]
    return list(dict.fromkeys(mixed))[:count]


def write_evaluation(evaluation: Evaluation, page: Path) -> Path:
    """Draw ``evaluation`` as ``page``, with its numbers in a JSON file beside it; returns the page.

    Raises InputError if they can't be written.
    """
    model = evaluation.model
    window = lattice_window(model, evaluation.period)
    traversal = inline(draw_traversal(model, window, leading_latents(evaluation))) if model.decoder else ""
    reconstruction = evaluation.reconstruction
    write_page(
        _HERE / "evaluation.html.j2",
        page,
        e=evaluation,
        model=model,
        understood=reconstructed_periods(model),
        spectra=inline(spectra(evaluation)),
        maps=inline(movement_maps(evaluation)),
        curve=inline(variance_curves([evaluation], [model.name])),
        traversal=traversal,
        examples=inline(pairs(*reconstruction.examples)) if reconstruction else "",
    )
    write_json(page.with_suffix(".json"), evaluation.numbers())
    return page


def write_comparison(evaluations: list[Evaluation], names: list[str], basis: Basis | None, page: Path) -> Path:
    """Draw several evaluations side by side as ``page``, with their numbers beside it; returns the page.

    Raises InputError if they can't be written.
    """
    sizes = {e.model.architecture.latents for e in evaluations}
    write_page(
        _HERE / "comparison.html.j2",
        page,
        evaluations=evaluations,
        names=names,
        basis=basis,
        movements=[m.name for m in MOVEMENTS],
        curve=inline(variance_curves(evaluations, names)),
        sizes=inline(against_size(evaluations)) if len(sizes) > 1 else "",
        examples=[
            (name, inline(pairs(*e.reconstruction.examples)))
            for name, e in zip(names, evaluations, strict=True)
            if e.reconstruction
        ],
    )
    numbers: dict[str, Any] = {"models": [e.numbers() for e in evaluations]}
    if basis:
        numbers["basis"] = basis.numbers()
    write_json(page.with_suffix(".json"), numbers)
    return page


def write_json(path: Path, numbers: dict[str, Any]) -> None:
    """Write ``numbers`` to ``path``, marked as ours. Raises InputError if that fails."""
    with writing(path), replacing(path) as aside:
        aside.write_text(json.dumps(NUMBERS | numbers, indent=1), encoding="utf-8")
