"""Series that a result keeps: of one window in each cell, the one whose latents follow time most, in bins of frames.

A cell is a square of windows that lie within a block, so that it is the same for any tiling.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hrtemvae_hpc.windows.grid import WindowGrid

_MOST_BINS = 128
_LEAST_SHARE = 0.25  # of a window's width, along the side of a cell
_BYTES = 2**23  # beyond which cells are made larger, up to a block


@dataclass(frozen=True)
class Cells:
    """Cells of ``side`` x ``side`` windows, and bins of the frames of a movie."""

    side: int
    frames: int

    @property
    def frames_per_bin(self) -> int:
        """Frames whose mean is one value of a series."""
        return -(-self.frames // _MOST_BINS)

    @property
    def bins(self) -> int:
        """Values of a series."""
        return -(-self.frames // self.frames_per_bin)

    def shape(self, windows: tuple[int, int]) -> tuple[int, int]:
        """Rows and columns of cells on so many rows and columns of ``windows``."""
        return -(-windows[0] // self.side), -(-windows[1] // self.side)

    def bytes(self, windows: tuple[int, int], latents: int) -> int:
        """Bytes of the series of so many rows and columns of ``windows``, and of their places."""
        rows, columns = self.shape(windows)
        return rows * columns * (2 * latents * self.bins + 8)


def cells_for(grid: WindowGrid, block: int, frames: int, latents: int) -> Cells:
    """Cells for the windows of ``grid`` in a movie of ``frames``.

    They are a quarter of a window wide or more, and larger if there were too many; a whole number lies along a
    ``block``.
    """
    for side in (side for side in range(1, block) if block % side == 0):
        cells = Cells(side, frames)
        wide = side * grid.step >= _LEAST_SHARE * grid.window
        if wide and cells.bytes((grid.rows, grid.columns), latents) <= _BYTES:
            return cells
    return Cells(block, frames)


def strongest_windows(strength: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Row and column [cell rows, cell columns] of the strongest window of each cell; the first of equal ones.

    ``strength`` [rows, columns]; NaN counts less than anything.
    """
    rows, columns = strength.shape
    padded = np.full((-(-rows // side) * side, -(-columns // side) * side), -np.inf)
    padded[:rows, :columns] = np.nan_to_num(strength, nan=-1e300)
    cells = padded.reshape(len(padded) // side, side, -1, side).swapaxes(1, 2)
    best = cells.reshape(*cells.shape[:2], -1).argmax(2)
    first = np.ogrid[: cells.shape[0], : cells.shape[1]]
    return first[0] * side + best // side, first[1] * side + best % side


def binned_series(z: Tensor, valid: Tensor, frames_per_bin: int) -> np.ndarray:
    """Means [series, latents, bins] float16 of ``z`` [frames, series, latents] where ``valid`` [frames, series].

    NaN where no frame of a bin is valid; the last bin may have fewer frames. Computed in float64.
    """
    sums = torch.where(valid[..., None], z, 0).double().cumsum(0)
    counts = valid.cumsum(0)
    ends = torch.arange(frames_per_bin, len(z) + frames_per_bin, frames_per_bin, device=z.device).clamp(max=len(z)) - 1
    sums, counts = (torch.diff(each[ends], dim=0, prepend=torch.zeros_like(each[:1])) for each in (sums, counts))
    means = torch.where(counts > 0, sums.movedim(2, 0) / counts, torch.nan)
    return np.asarray(means.permute(2, 0, 1).half().cpu().numpy())
