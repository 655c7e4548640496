"""Reading a result file, which maps/result_writing.py describes; everything in it is checked first."""

import contextlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from hrtemvae_hpc.errors import InputError, printable
from hrtemvae_hpc.hdf5 import DAMAGED, check_array, check_inflated, open_hdf5, read_array
from hrtemvae_hpc.maps.axes import binned, spatial_axes
from hrtemvae_hpc.maps.certainty import CORRELATION, map_places
from hrtemvae_hpc.maps.digest import check_whole
from hrtemvae_hpc.maps.drift_group import FrameCurves, read_curves
from hrtemvae_hpc.maps.process_group import (
    ShownProcesses,
    read_processes,
)
from hrtemvae_hpc.maps.record import Record, read_record
from hrtemvae_hpc.maps.series_group import Series, read_series
from hrtemvae_hpc.maps.windows_group import KeptWindows, read_windows
from hrtemvae_hpc.movie.preview import MOST_FRAMES
from hrtemvae_hpc.statistics.over_time import MAPS

TITLES = {
    "time_correlated_variance": "time-correlated variance (rho x variance)^2",
    "variance": "variance over time",
    "spearman": "Spearman's rho with time",
    "mean": "mean over time",
}
RECONSTRUCTION = "reconstruction"
_MOST_LATENTS = 2**14


@dataclass(frozen=True)
class Identity:
    """Which analysis a result is of, and what its numbers were computed with."""

    analysis: str
    arithmetic: dict[str, str]
    bad_frames: list[int]


def result_identity(path: Path) -> Identity:
    """The identity of the result file ``path``; raises InputError if it is not a result, or not as it was written."""
    check_whole(path)
    with open_hdf5(path, "the result") as file:
        try:
            process = file["entry/process"]
            text, arithmetic, bad = (process[name].asstr()[()] for name in ("identity", "arithmetic", "bad_frames"))
            return Identity(text, json.loads(arithmetic), json.loads(bad))
        except DAMAGED as error:
            raise InputError(f"{path}: is not a result of `hrtemvae analyze`; name another output with -o.") from error


@dataclass(frozen=True)
class Result:
    """A result file, opened for drawing. Axes and extents in nm where calibrated, else pixels."""

    path: Path
    file: h5py.File
    latent: np.ndarray
    latent_source_index: np.ndarray
    y: np.ndarray
    x: np.ndarray
    units: str
    spacing: tuple[float, float]  # of windows along y and x
    valid_frames: np.ndarray
    preview: np.ndarray
    preview_frames: tuple[int, ...]
    preview_extent: tuple[float, float, float, float]  # left, right, bottom, top
    curves: FrameCurves | None
    reconstruction: np.ndarray | None  # [rows, columns], None if the model had no decoder
    process: Record
    reproducibility: np.ndarray | None  # [latents]: whether maps of even and odd frames agree; None in older results
    processes: ShownProcesses | None  # None in older results
    series: Series | None  # None in older results
    windows: KeptWindows | None  # None in older results, and if the model had no decoder

    @property
    def extent(self) -> tuple[float, float, float, float]:
        """Outer borders (left, right, bottom, top) of the maps."""
        return _extent(self.y, self.x, self.spacing)

    @property
    def together(self) -> np.ndarray:
        """The time-correlated variances of all latents, summed [rows, columns]; NaN where no latent has one."""
        return self._summed(self.latent)

    def group(self, name: str) -> np.ndarray:
        """The map [rows, columns] of a group of the model's latents, one of ``process.model_groups``.

        The square root of their summed time-correlated variances, which unlike those grows in proportion to the
        variance; NaN where no latent has one.
        """
        return np.asarray(np.sqrt(self._summed(self.process.model_groups[name])))

    def _summed(self, latents: Iterable[int]) -> np.ndarray:
        total = np.zeros(self.valid_frames.shape)
        known = np.zeros(self.valid_frames.shape, bool)
        for latent in latents:
            values = self.maps("time_correlated_variance", latent)
            total += np.nan_to_num(values)
            known |= np.isfinite(values)
        return np.where(known, total, np.nan)

    def maps(self, name: str, latent: int) -> np.ndarray:
        """The map [rows, columns] of ``name`` for one latent: of a group, or a dataset such as "change/frame"."""
        return np.asarray(self.file[f"entry/{name}" if "/" in name else f"entry/{name}/data"][latent])


def _extent(y: np.ndarray, x: np.ndarray, spacing: tuple[float, float]) -> tuple[float, float, float, float]:
    dy, dx = spacing
    return x[0] - dx / 2, x[-1] + dx / 2, y[-1] + dy / 2, y[0] - dy / 2


@contextlib.contextmanager
def open_result(path: Path) -> Iterator[Result]:
    """A result file as ``Result``; raises InputError if it isn't one, or not as it was written."""
    check_whole(path)
    with open_hdf5(path, "the result") as file:
        yield read_result(path, file)


def read_result(path: Path, file: h5py.File) -> Result:
    """What the open file ``path`` holds, whose digests are not checked; raises InputError if it is not a result."""
    try:
        return _read(path, file)
    except DAMAGED as error:
        why = printable(" ".join(str(error).strip("\"'").split()))[:200]
        raise InputError(f"{path}: is not a result of `hrtemvae analyze` ({why}); name one.") from error


def _read(path: Path, file: h5py.File) -> Result:
    entry = file["entry"]
    record = read_record(entry["process"])
    shape = record.grid.rows, record.grid.columns
    valid = read_array(entry, "valid_frames/data", "i", 2)
    _expect(
        valid.shape == shape and valid.size > 0, f"valid_frames has shape {valid.shape}, its record implies {shape}"
    )
    top, _, left, _ = record.region
    y, x = spatial_axes(record.grid, (top, left), record.resampling, record.pixel_size)
    latent = read_array(entry, f"{MAPS[-1]}/latent", "iu", 1)
    count = len(latent)
    _expect(0 < count <= _MOST_LATENTS and np.array_equal(latent, np.arange(count)), "its latents are not numbered")
    source = read_array(entry, f"{MAPS[-1]}/latent_source_index", "iu", 1)
    _expect(len(source) == count, f"latent_source_index has {len(source)} numbers for {count} latents")
    known = all(latent < count for group in record.model_groups.values() for latent in group)
    _expect(known, f"model_groups name latents beyond its {count}")
    further = map_places(entry)
    for place in (*(f"{name}/data" for name in MAPS), *further):
        _check_maps(entry, place, (count, *shape))
    reproducibility = read_array(entry, CORRELATION, "f", 1) if further else None
    _expect(reproducibility is None or len(reproducibility) == count, f"{CORRELATION} is not of {count} latents")
    for axis in (y, x):
        _check_axis(entry, f"{MAPS[-1]}/{axis.name}", axis.pixels * axis.size, axis.units)
    preview = read_array(entry, "preview/data", "f", 3)
    _expect(2 <= len(preview) <= MOST_FRAMES and preview.size > 0, f"preview has shape {preview.shape}")
    frames = read_array(entry, "preview/frame", "iu", 1)
    _expect(len(frames) == len(preview), f"preview is not of {len(frames)} frames")
    binning = int(read_array(entry, "preview/binning", "iu", 0))
    _expect(1 <= binning <= max(record.movie_shape[1:]), f"preview is binned by {binning}")
    pixels = [binned(axis, n, binning) for axis, n in zip((y, x), preview.shape[1:], strict=True)]
    return Result(
        path,
        file,
        latent,
        source,
        y.pixels * y.size,
        x.pixels * x.size,
        y.units,
        (y.spacing, x.spacing),
        valid,
        preview,
        tuple(map(int, frames)),
        _extent(pixels[0], pixels[1], (binning * y.size, binning * x.size)),
        read_curves(entry, len(record.frames)),
        _read_reconstruction(entry, shape),
        record,
        reproducibility,
        read_processes(entry, count, shape),
        read_series(entry, count, shape, len(record.frames)),
        read_windows(entry, record.grid),
    )


def _read_reconstruction(entry: h5py.Group, shape: tuple[int, int]) -> np.ndarray | None:
    if RECONSTRUCTION not in entry:
        return None
    values = read_array(entry, f"{RECONSTRUCTION}/data", "f", 2)
    _expect(values.shape == shape, f"{RECONSTRUCTION} has shape {values.shape}, its record implies {shape}")
    return values


def _check_maps(entry: h5py.Group, place: str, shape: tuple[int, int, int]) -> None:
    name, maps = place.removesuffix("/data"), check_array(entry, place, "f", 3)
    _expect(maps.shape == shape, f"{name} has shape {maps.shape}, its record implies {shape}")
    _expect(maps.dtype.itemsize == 4, f"{name} has type {maps.dtype}")
    check_inflated(maps)


def _check_axis(entry: h5py.Group, name: str, positions: np.ndarray, units: str) -> None:
    stored = read_array(entry, name, "f", 1)
    same = stored.shape == positions.shape and np.allclose(stored, positions, rtol=1e-9, atol=1e-9)
    _expect(same and entry[name].attrs["units"] == units, f"{name} does not match the windows of its record")


def _expect(condition: bool, otherwise: str) -> None:
    if not condition:
        raise ValueError(otherwise)
