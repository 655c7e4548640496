"""The group series of a result: latents over time of one window in each cell. Results of earlier versions have none."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import h5py
import numpy as np

from hrtemvae_hpc.hdf5 import check_array, check_inflated, read_array
from hrtemvae_hpc.maps.axes import Placed, axes_of
from hrtemvae_hpc.windows.cells import Cells
from hrtemvae_hpc.windows.grid import Rectangle

_GROUP = "series"
_TITLES = {"row": "row of the window among all", "column": "column of the window among all"}


class Sampled(Placed, Protocol):
    """A result's windows, frames and cells."""

    @property
    def cells(self) -> Cells: ...
    @property
    def process(self) -> Mapping[str, object]: ...
    @property
    def times_s(self) -> np.ndarray | None: ...


class SampledTile(Protocol):
    """The series of one tile."""

    series: np.ndarray
    series_windows: np.ndarray


@dataclass(frozen=True)
class Series:
    """Latents over time of one window in each cell, the one whose latents follow time most there."""

    cells: Cells
    data: h5py.Dataset  # [cell rows, cell columns, latents, bins] float16; NaN where no frame of a bin is valid
    windows: np.ndarray  # [2, cell rows, cell columns] row and column of these windows among all
    frames: np.ndarray  # [bins] first frame of each bin, as the movie counts them

    def of(self, chosen: np.ndarray) -> np.ndarray:
        """Series [n, latents, bins] float32 of the cells ``chosen`` [cell rows, cell columns] bool, row by row."""
        found = [self.data[row][columns] for row, columns in enumerate(chosen) if columns.any()]
        return np.concatenate(found).astype(np.float32) if found else np.empty((0, *self.data.shape[2:]), np.float32)


class SeriesWriter:
    """Fills the group tile by tile."""

    def __init__(self, entry: h5py.Group, info: Sampled) -> None:
        self._info, self._group = info, entry.create_group(_GROUP)
        cells = info.cells.shape((info.grid.rows, info.grid.columns))
        shape = *cells, len(info.latent_source_index), info.cells.bins
        self._data = self._group.create_dataset("data", shape, np.float16, fillvalue=np.nan)
        self._windows = np.zeros((2, *cells), np.int32)

    def write(self, tile: Rectangle, done: SampledTile) -> None:
        """Write what ``done`` holds of the cells of ``tile``."""
        side = self._info.cells.side
        first, count = (tile.row0 // side, tile.column0 // side), done.series.shape
        rows, columns = (slice(start, start + n) for start, n in zip(first, count[:2], strict=True))
        self._data[rows, columns] = done.series
        self._windows[:, rows, columns] = done.series_windows

    def finish(self) -> Series:
        """Write which windows the series are of, and when their values are; returns the group's content."""
        group, info = self._group, self._info
        group.attrs.update(NX_class="NXdata", signal="data", axes=[".", ".", "latent", "frame"])
        group.attrs.update(side=info.cells.side, frames_per_value=info.cells.frames_per_bin)
        group["title"] = "latents over time of the window of each cell that follows time most"
        for name, values in zip(_TITLES, self._windows, strict=True):
            group[name] = values
            group[name].attrs["long_name"] = _TITLES[name]
        for axis, values in zip(axes_of(info), self._windows, strict=True):
            group[axis.name] = (axis.pixels * axis.size)[values]
            group[axis.name].attrs.update(units=axis.units, long_name=f"{axis.name} of the window's centre")
        group["latent"] = np.arange(len(info.latent_source_index))
        every = slice(None, None, info.cells.frames_per_bin)
        frames = np.asarray(info.process["frames"])[every]
        group["frame"] = frames
        group["frame"].attrs["long_name"] = "first frame of a value"
        if info.times_s is not None:
            group["time"] = info.times_s[every]
            group["time"].attrs.update(units="s", long_name="its time since the first frame")
        return Series(info.cells, self._data, self._windows, frames)


def read_series(entry: h5py.Group, latents: int, shape: tuple[int, int], frames: int) -> Series | None:
    """The series in ``entry``, None in a result that has no such group. Raises ValueError if they don't fit it.

    ``shape``: rows and columns of windows.
    """
    if _GROUP not in entry:
        return None
    data = check_array(entry, f"{_GROUP}/data", "f", 4)
    side = int(entry[_GROUP].attrs["side"])
    if not 0 < side <= max(shape):
        raise ValueError(f"{_GROUP} has cells of {side} windows a side")
    cells = Cells(side, frames)
    across = cells.shape(shape)
    windows = np.stack([read_array(entry, f"{_GROUP}/{name}", "iu", 2) for name in _TITLES])
    first = read_array(entry, f"{_GROUP}/frame", "iu", 1)
    expected = (*across, latents, cells.bins), (2, *across), (cells.bins,)
    fits = (data.shape, windows.shape, first.shape) == expected and data.dtype == np.float16
    check_inflated(data)
    if not fits or (windows < 0).any() or (windows >= np.array(shape)[:, None, None]).any():
        raise ValueError(f"{_GROUP} does not match the windows and latents of its record")
    return Series(cells, data, windows, first)
