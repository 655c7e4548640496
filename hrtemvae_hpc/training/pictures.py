"""What a training shows of itself: its losses as a table and a curve, and reconstructions of validation segments."""

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from hrtemvae_hpc.files import replacing
from hrtemvae_hpc.pages import DPI, png

COLUMNS = (
    "epoch",
    "reconstruction",
    "divergence",
    "validation_reconstruction",
    "validation_divergence",
    "active_latents",
    "segments_per_second",
)


def write_losses(folder: Path, history: list[dict[str, Any]], floor: float) -> None:
    """losses.csv and losses.png in ``folder``; ``floor`` is the validation segments' entropy. Nats per segment."""
    table = io.StringIO()
    writer = csv.DictWriter(table, COLUMNS)
    writer.writeheader()
    writer.writerows(history)
    _write(folder / "losses.csv", table.getvalue().encode())
    _write(folder / "losses.png", _curves(history, floor))


def _curves(history: list[dict[str, Any]], floor: float) -> bytes:
    epochs = [h["epoch"] for h in history]
    figure = Figure((9, 3), DPI, layout="constrained")
    left, right = figure.subplots(1, 2)
    for name, label in (("reconstruction", "training"), ("validation_reconstruction", "validation, from the mean")):
        left.plot(epochs, [h[name] for h in history], ".-", label=label)
    left.axhline(floor, color="0.5", linestyle=":", label="entropy of the validation segments")
    left.set(xlabel="epoch", ylabel="cross-entropy, nats per segment")
    left.legend(fontsize=8)
    for name, label in (("divergence", "training"), ("validation_divergence", "validation")):
        right.plot(epochs, [h[name] for h in history], ".-", label=f"divergence, {label}")
    right.plot(epochs, [h["active_latents"] for h in history], ".-", color="0.5", label="active latents (number)")
    right.set(xlabel="epoch", ylabel="nats per segment")
    right.legend(fontsize=8)
    return png(figure)


def write_reconstructions(path: Path, segments: torch.Tensor, decoded: torch.Tensor) -> None:
    """PNG: ``segments`` [n, 1, size, size] above what the network makes of them, 0..1."""
    _write(path, pairs(segments[:, 0].numpy(), decoded[:, 0].numpy()))


def pairs(above: np.ndarray, below: np.ndarray) -> bytes:
    """PNG: images [n, size, size] in 0..1, each above its counterpart, twelve a row."""
    in_row = 12
    rows = -(-len(above) // in_row)
    figure = Figure((in_row * 0.85, rows * 1.75), DPI, layout="constrained")
    grid = figure.subplots(2 * rows, in_row, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for i, (top, bottom) in enumerate(zip(above, below, strict=True)):
        row, column = 2 * (i // in_row), i % in_row
        grid[row, column].imshow(top, cmap="gray", vmin=0, vmax=1)
        grid[row + 1, column].imshow(bottom, cmap="gray", vmin=0, vmax=1)
    return png(figure)


class TensorBoard:
    """The same numbers as files for TensorBoard."""

    def __init__(self, folder: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder / "tensorboard"))

    def write(self, entry: dict[str, Any]) -> None:
        """Add what is known of an epoch."""
        for name in COLUMNS[1:]:
            self._writer.add_scalar(name, entry[name], entry["epoch"])
        self._writer.flush()


def _write(path: Path, content: bytes) -> None:
    with replacing(path) as aside:
        aside.write_bytes(content)
