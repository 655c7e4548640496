"""What a training shows of itself: its losses as a table and a curve, and reconstructions of validation segments."""

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from hrtemvae_hpc.files import replacing
from hrtemvae_hpc.pages import DPI, grey_png, png

_IN_ROW = 12  # pairs
_SMALLEST, _GAP = 64, 4  # pixels

COLUMNS = (
    "epoch",
    "reconstruction",
    "divergence",
    "validation_reconstruction",
    "validation_divergence",
    "active_latents",
    "segments_per_second",
)


def write_losses(path: Path, history: list[dict[str, Any]]) -> None:
    """CSV: the losses of each epoch. Nats per segment."""
    table = io.StringIO()
    writer = csv.DictWriter(table, COLUMNS)
    writer.writeheader()
    writer.writerows(history)
    _write(path, table.getvalue().encode())


def draw_losses(path: Path, history: list[dict[str, Any]], floor: float) -> None:
    """PNG: the losses over the epochs; ``floor`` is the validation segments' entropy. Nats per segment."""
    epochs = [h["epoch"] for h in history]
    figure = Figure((9, 3), DPI)
    left, right = figure.subplots(1, 2)
    figure.subplots_adjust(0.07, 0.16, 0.99, 0.97, wspace=0.17)
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
    _write(path, png(figure))


def write_reconstructions(path: Path, segments: torch.Tensor, decoded: torch.Tensor) -> None:
    """PNG: ``segments`` [n, 1, size, size] above what the network makes of them, 0..1."""
    _write(path, pairs(segments[:, 0].numpy(), decoded[:, 0].numpy()))


def pairs(above: np.ndarray, below: np.ndarray) -> bytes:
    """PNG: images [n, size, size] in 0..1, each above its counterpart, twelve pairs per row."""
    count, size = len(above), above.shape[1]
    rows = -(-count // _IN_ROW)
    images = np.ones((rows, 2, _IN_ROW, size, size), np.float32)
    for i, pair in enumerate(zip(above, below, strict=True)):
        images[i // _IN_ROW, :, i % _IN_ROW] = pair
    return grey_png(mosaic(images.reshape(2 * rows, _IN_ROW, size, size)))


def mosaic(images: np.ndarray) -> np.ndarray:
    """Images [rows, columns, size, size] in 0..1 side by side [y, x], enlarged to at least 64 pixels each.

    White lines lie between them.
    """
    rows, columns, size, _ = images.shape
    times = -(-_SMALLEST // size)
    cells = np.ones((rows, columns, size * times + _GAP, size * times + _GAP), np.float32)
    cells[:, :, _GAP:, _GAP:] = images.repeat(times, 2).repeat(times, 3)
    joined: np.ndarray = cells.swapaxes(1, 2).reshape(rows * cells.shape[2], -1)
    return joined


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
