"""Pictures of an evaluation."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from hrtemvae_hpc.evaluation.evaluate import Evaluation, Measured
from hrtemvae_hpc.evaluation.movements import Response
from hrtemvae_hpc.pages import DPI, png
from hrtemvae_hpc.simulation.movements import frames
from hrtemvae_hpc.training.promotion import ACTIVE

_MAPS = 4


def variance_curves(measured: Sequence[Measured], names: Sequence[str]) -> bytes:
    """PNG: variance of each latent over the training set (or the validation segments), in the model's order."""
    figure = Figure((7.5, 2.8), DPI, layout="constrained")
    axes = figure.subplots()
    for m, name in zip(measured, names, strict=True):
        if m.variance is not None:
            axes.semilogy(np.maximum(m.variance, 1e-6), ".-", label=name)
    axes.axhline(ACTIVE, color="0.5", linestyle=":", label="threshold of active latents")
    axes.set(xlabel="latent variable", ylabel="variance over segments")
    axes.legend(fontsize=8)
    return png(figure)


def spectra(evaluation: Evaluation) -> bytes:
    """PNG: the share of each latent in the variance of each movement, leading latents coloured."""
    responses = evaluation.responses
    figure = Figure((9, 1.7 * len(responses)), DPI, layout="constrained")
    for axes, response in zip(figure.subplots(len(responses), 1, sharex=True), responses, strict=True):
        colours = ["tab:red" if i in response.leading else "0.7" for i in range(len(response.share))]
        axes.bar(np.arange(len(response.share)), response.share, color=colours)
        axes.set_title(response.movement.name, fontsize=9)
        axes.set_ylabel("share", fontsize=8)
        for latent in response.leading:
            axes.annotate(f"z{latent}", (latent, response.share[latent]), ha="center", va="bottom", fontsize=6)
        axes.margins(y=0.18)
    axes.set_xlabel("latent variable")
    return png(figure)


def movement_maps(evaluation: Evaluation) -> bytes:
    """PNG: for each movement the first frame, the maps of variance of its leading latents, and one over time."""
    responses = evaluation.responses
    figure = Figure(((_MAPS + 2) * 1.9, len(responses) * 1.95), DPI)
    grid = figure.subplots(len(responses), _MAPS + 2, squeeze=False)
    figure.subplots_adjust(0.005, 0.03, 0.99, 0.96, wspace=0.1, hspace=0.12)
    for row, response in zip(grid, responses, strict=True):
        first = next(iter(frames(response.movement, evaluation.period)))
        row[0].imshow(first, cmap="gray")
        row[0].set_title(response.movement.name, fontsize=7)
        shown = np.argsort(response.share)[::-1][:_MAPS]
        for axes, latent in zip(row[1:], shown, strict=False):
            axes.imshow(response.variance[latent], cmap="viridis")
            axes.set_title(f"z{latent}: {response.share[latent]:.0%}", fontsize=7)
        for axes in row[:-1]:
            axes.set(xticks=[], yticks=[])
        _series(row[-1], response, shown)
    return png(figure)


def _series(axes: Axes, response: Response, shown: np.ndarray) -> None:
    """The latents of the window in the middle over the frames."""
    middle = response.series.shape[1] // 2
    for latent in shown:
        axes.plot(response.series[:, middle, latent], linewidth=1, label=f"z{latent}")
    axes.set_title("over the frames, one window", fontsize=7)
    axes.tick_params(labelsize=6)
    axes.legend(fontsize=5, loc="upper right")


def learning_curves(measured: Sequence[Measured], names: Sequence[str]) -> bytes:
    """PNG: cross-entropy of the validation segments after each epoch that the models' provenance records."""
    figure = Figure((7.5, 2.8), DPI, layout="constrained")
    axes = figure.subplots()
    for m, name in zip(measured, names, strict=True):
        history = m.model.provenance["history"]
        axes.plot([h["epoch"] for h in history], [h["validation_reconstruction"] for h in history], ".-", label=name)
    axes.set(xlabel="epoch", ylabel="nats per segment")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(fontsize=8)
    return png(figure)


def against_size(measured: Sequence[Measured]) -> bytes:
    """PNG: reconstruction loss and active latents against the number of latents of each model."""
    ordered = sorted(measured, key=lambda m: m.model.architecture.latents)
    size = [e.model.architecture.latents for e in ordered]
    figure = Figure((8, 2.8), DPI, layout="constrained")
    left, right = figure.subplots(1, 2)
    known = [(n, e.reconstruction) for n, e in zip(size, ordered, strict=True) if e.reconstruction]
    left.plot([n for n, _ in known], [r.loss for _, r in known], ".-", label="cross-entropy")
    left.plot([n for n, _ in known], [r.floor for _, r in known], ":", color="0.5", label="floor")
    left.set(ylabel="nats per segment")
    left.legend(fontsize=8)
    counted = [(n, e.active) for n, e in zip(size, ordered, strict=True) if e.active is not None]
    right.plot(size, size, color="0.85", linewidth=5, label="all")
    right.plot([n for n, _ in counted], [a for _, a in counted], ".-", label="active")
    right.set(ylabel="number")
    right.legend(fontsize=8)
    for axes in (left, right):
        axes.set_xscale("log", base=2)
        axes.set_xticks(size, [str(n) for n in size])
        axes.set_xlabel("latent variables")
    return png(figure)
