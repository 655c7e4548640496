"""The group windows of a result: some windows at three times beside their reconstructions.

Results of earlier versions, and those of models without a decoder, have none.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import h5py
import numpy as np

from hrtemvae_hpc.hdf5 import check_array, check_inflated, read_array
from hrtemvae_hpc.maps.axes import Placed, axes_of
from hrtemvae_hpc.windows.cells import strongest_windows
from hrtemvae_hpc.windows.grid import WindowGrid

TIMES = 3
_GROUP = "windows"
_APART = 0.5  # of a window's width, along the side of the cells of which one window is shown, at least
_MOST = 100  # windows
_TITLES = {"row": "row of the window among all", "column": "column of the window among all"}


@dataclass(frozen=True)
class ShownWindows:
    """Windows at some times, and what the model makes of them, as 0 to 255 between the darkest and the brightest."""

    frames: tuple[int, ...]  # [times], as the movie counts them
    images: np.ndarray  # [windows, times, 2, rows, columns] uint8: window and reconstruction
    correlation: np.ndarray  # [windows, times] float32 of both; NaN where the window is not valid


@dataclass(frozen=True)
class KeptWindows:
    """What a result keeps of its windows: one in each cell of ``side`` x ``side`` windows, then some of processes."""

    side: int
    cells: tuple[int, int]  # rows and columns of cells
    places: np.ndarray  # [2, windows] row and column of these windows among all
    frames: np.ndarray  # [times]
    images: h5py.Dataset  # [windows, times, 2, rows, columns] uint8
    correlation: np.ndarray  # [windows, times]


# Of the windows at [n] rows and columns.
ShowWindows = Callable[[np.ndarray, np.ndarray], ShownWindows]


def windows_bytes(grid: WindowGrid, further: int) -> int:
    """About the bytes of the group with so many ``further`` windows."""
    return 2 * TIMES * (_MOST + further) * grid.window**2


def write_windows(
    entry: h5py.Group, info: Placed, strength: np.ndarray, further: Sequence[np.ndarray], show: ShowWindows
) -> list[np.ndarray]:
    """Write windows at three times: the strongest of each cell, by ``strength`` [rows, columns], and ``further`` ones.

    ``further``: several times rows and columns [2, n]. Returns the images [n, times, size, size] uint8 of each of
    these, without windows that are not valid at all times.
    """
    side = _side(info.grid)
    chosen = np.stack([each.ravel() for each in strongest_windows(strength, side)])
    places = np.concatenate([chosen, *further], 1)
    shown = show(*places)
    group = entry.create_group(_GROUP)
    group.attrs.update(NX_class="NXcollection", side=side)
    group["data"] = shown.images
    group["data"].attrs["long_name"] = "windows [window, time, itself or its reconstruction, y, x]"
    group["correlation"] = shown.correlation
    group["correlation"].attrs["long_name"] = "of window and reconstruction"
    group["frame"] = np.array(shown.frames)
    for (name, title), values, axis in zip(_TITLES.items(), places, axes_of(info), strict=True):
        group[name] = values.astype(np.int32)
        group[name].attrs["long_name"] = title
        group[axis.name] = (axis.pixels * axis.size)[values]
        group[axis.name].attrs.update(units=axis.units, long_name=f"{axis.name} of the window's centre")
    valid = np.isfinite(shown.correlation).all(1)
    ends = np.cumsum([chosen.shape[1], *(each.shape[1] for each in further)])
    return [shown.images[start:end, :, 0][valid[start:end]] for start, end in pairwise(ends)]


def _side(grid: WindowGrid) -> int:
    side = max(1, round(_APART * grid.window / grid.step))
    while -(-grid.rows // side) * -(-grid.columns // side) > _MOST:
        side += 1
    return side


def read_windows(entry: h5py.Group, grid: WindowGrid) -> KeptWindows | None:
    """The windows in ``entry``, None in a result without that group. Raises ValueError if they don't fit it."""
    if _GROUP not in entry:
        return None
    images = check_array(entry, f"{_GROUP}/data", "u", 5)
    check_inflated(images)
    side = int(entry[_GROUP].attrs["side"])
    places = np.stack([read_array(entry, f"{_GROUP}/{name}", "iu", 1) for name in _TITLES])
    frames = read_array(entry, f"{_GROUP}/frame", "iu", 1)
    correlation = read_array(entry, f"{_GROUP}/correlation", "f", 2)
    if side != _side(grid):
        raise ValueError(f"{_GROUP} has cells of {side} windows a side")
    cells, count = (-(-grid.rows // side), -(-grid.columns // side)), places.shape[1]
    fits = cells[0] * cells[1] <= count and frames.shape == (TIMES,) and correlation.shape == (count, TIMES)
    if not fits or images.dtype != np.uint8 or images.shape != (count, TIMES, 2, grid.window, grid.window):
        raise ValueError(f"{_GROUP} does not match the windows of its record")
    if (places < 0).any() or (places >= np.array([grid.rows, grid.columns])[:, None]).any():
        raise ValueError(f"{_GROUP} are of windows that are not there")
    return KeptWindows(side, cells, places, frames, images, correlation)
