"""The axes of maps: windows along y and x, in nm where the movie is calibrated, else in pixels."""

from typing import NamedTuple, Protocol

import h5py
import numpy as np

from hrtemvae_hpc.windows.grid import WindowGrid

_SENSIBLE_NM = 1e-6, 1e6  # sizes of a pixel with which axes are drawn


class Placed(Protocol):
    """Where the windows of a result lie."""

    @property
    def grid(self) -> WindowGrid: ...
    @property
    def latent_source_index(self) -> tuple[int, ...]: ...
    @property
    def origin(self) -> tuple[int, int]: ...
    @property
    def pixel_size_nm(self) -> tuple[float, float] | None: ...
    @property
    def resampling(self) -> tuple[float, float]: ...


class Axis(NamedTuple):
    """Rows or columns of windows."""

    name: str
    first: int  # pixel of the region, in the movie's frame
    size: float  # of a pixel of the movie
    units: str
    pixels: np.ndarray  # centres, in pixels of the movie
    spacing: float  # of windows


def spatial_axes(
    grid: WindowGrid,
    origin: tuple[int, int],
    resampling: tuple[float, float],
    pixel_size_nm: tuple[float, float] | None,
) -> list[Axis]:
    """The axes y and x: in nm if pixels have a sensible size, else in pixels."""
    low, high = _SENSIBLE_NM
    calibrated = pixel_size_nm is not None and all(low <= size <= high for size in pixel_size_nm)
    sizes, units = (pixel_size_nm, "nm") if pixel_size_nm and calibrated else ((1.0, 1.0), "pixel")
    return [
        Axis(
            name,
            first,
            size,
            units,
            (grid.centres(count) + 0.5) / factor - 0.5 + first,
            grid.step / factor * size,
        )
        for name, count, first, size, factor in zip(
            "yx", (grid.rows, grid.columns), origin, sizes, resampling, strict=True
        )
    ]


def axes_of(info: Placed) -> list[Axis]:
    """The axes y and x of a result that is written."""
    return spatial_axes(info.grid, info.origin, info.resampling, info.pixel_size_nm)


def binned(axis: Axis, count: int, binning: int) -> np.ndarray:
    """Centres of ``count`` pixels, each binned from ``binning``, in the units of ``axis``."""
    return np.asarray((axis.first + (np.arange(count) + 0.5) * binning - 0.5) * axis.size)


def map_group(entry: h5py.Group, name: str, title: str, info: Placed, first: str = "latent") -> h5py.Group:
    """A new NXdata group with axes, for a signal ``data`` [``first``, y, x], or [y, x] if that is empty."""
    group = entry.create_group(name)
    names = [*([first] if first else []), "y", "x"]
    group.attrs.update(NX_class="NXdata", signal="data", axes=names)
    for axis in axes_of(info):
        index = names.index(axis.name)
        group[f"{axis.name}_pixel"] = axis.pixels
        group[f"{axis.name}_pixel"].attrs.update(units="pixel", long_name=f"{axis.name} of the window's centre")
        group.attrs[f"{axis.name}_pixel_indices"] = index
        group[axis.name] = axis.pixels * axis.size
        group[axis.name].attrs.update(units=axis.units, long_name=f"{axis.name} of the window's centre")
        group.attrs[f"{axis.name}_indices"] = index
    group["title"] = title
    if first == "latent":
        group["latent"] = np.arange(len(info.latent_source_index))
        group["latent"].attrs["long_name"] = "latent variable, by variance over the training set"
        group["latent_source_index"] = np.array(info.latent_source_index)
    return group


def map_dataset(group: h5py.Group, name: str, info: Placed) -> h5py.Dataset:
    """A new dataset [latent, y, x] float32 in ``group``, NaN until it is written."""
    shape = len(info.latent_source_index), info.grid.rows, info.grid.columns
    return group.create_dataset(name, shape, np.float32, fillvalue=np.nan)
