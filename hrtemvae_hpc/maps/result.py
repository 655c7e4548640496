"""The result file: a NeXus file of maps, with everything needed to know where they came from.

/entry (NXentry) holds NXdata groups time_correlated_variance, variance, spearman, mean and valid_frames, those of
maps/certainty.py, the some frames as ``preview``, what was measured of each frame as ``drift``, and
/entry/process (NXprocess), with digests of all that. It appears under its name only when it is complete.
"""

import contextlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Protocol

import h5py
import numpy as np

from hrtemvae_hpc.errors import InputError, printable
from hrtemvae_hpc.files import hdf5_disk_errors, replacing, reserve, temporary_file
from hrtemvae_hpc.hdf5 import DAMAGED, check_array, check_inflated, open_hdf5, read_array, sign
from hrtemvae_hpc.maps.axes import axes_of, binned, map_dataset, map_group, spatial_axes
from hrtemvae_hpc.maps.certainty import CORRELATION, count_maps, create_groups, finish_groups, map_places
from hrtemvae_hpc.maps.digest import check_whole, seal
from hrtemvae_hpc.maps.drift_group import FrameCurves, read_curves, write_curves
from hrtemvae_hpc.maps.process_group import (
    WINDOWS_OF_PROCESS,
    ShownProcesses,
    read_processes,
    write_lattice_changes,
    write_processes,
)
from hrtemvae_hpc.maps.processes import MOST
from hrtemvae_hpc.maps.record import Record, read_record
from hrtemvae_hpc.maps.series_group import Series, SeriesWriter, read_series
from hrtemvae_hpc.maps.windows_group import KeptWindows, ShowWindows, read_windows, windows_bytes, write_windows
from hrtemvae_hpc.movie.preview import MOST_FRAMES, Preview
from hrtemvae_hpc.statistics.over_time import MAPS
from hrtemvae_hpc.windows.cells import Cells
from hrtemvae_hpc.windows.grid import Rectangle, WindowGrid

TITLES = {
    "time_correlated_variance": "time-correlated variance (rho x variance)^2",
    "variance": "variance over time",
    "spearman": "Spearman's rho with time",
    "mean": "mean over time",
}
_RECONSTRUCTION = "reconstruction"
_CORRELATED = MAPS.index("time_correlated_variance")
_MOST_LATENTS = 2**14


class FinishedTile(Protocol):
    """The maps of one tile."""

    maps: np.ndarray
    valid_frames: np.ndarray
    bad_frames: np.ndarray
    reconstruction: np.ndarray
    largest_rho: np.ndarray
    series: np.ndarray
    series_windows: np.ndarray


@dataclass(frozen=True)
class ResultInfo:
    """What a result holds besides its maps."""

    identity: str
    grid: WindowGrid
    latent_source_index: tuple[int, ...]
    origin: tuple[int, int]  # row and column of the region's first pixel in the movie's frame
    pixel_size_nm: tuple[float, float] | None
    frame_time_s: float | None
    resampling: tuple[float, float]  # analysed rows and columns per row and column of the movie
    preview: Preview
    curves: FrameCurves | None  # None where drift was not measured
    reconstructed: bool  # whether the model has a decoder
    cells: Cells  # whose series are kept
    show_windows: ShowWindows | None  # None if the model has no decoder
    process: Mapping[str, Any]
    ratios: np.ndarray  # of statistics.significance.PermutationTest
    times_s: np.ndarray | None = None  # [frames] since the first, if known
    compared_with: str = "time"  # what rho is of


def write_result(
    path: Path, folder: Path, info: ResultInfo, tiles: Iterable[tuple[Rectangle, FinishedTile]]
) -> list[int]:
    """Assemble ``tiles`` in ``folder`` into ``path``, which appears by rename; returns the frames left out by some.

    Raises OSError when the disk is full or fails; nothing is left behind then.
    """
    with replacing(path, folder) as aside:
        reserve(aside, _size(info))
        bad_frames = _write_file(aside, info, tiles)
        seal(aside)
        return bad_frames


def try_result(folder: Path, info: ResultInfo) -> None:
    """Check that a result with all of ``info`` can be written in ``folder``; nothing is left of it.

    Raises OSError if ``folder`` can't be written, InputError if something in ``info`` can't be stored.
    """
    window = info.grid.window
    smallest = WindowGrid(window, window, window, info.grid.step)
    with temporary_file(folder) as aside:
        _write_file(aside, replace(info, grid=smallest, show_windows=None), ())


def _write_file(path: Path, info: ResultInfo, tiles: Iterable[tuple[Rectangle, FinishedTile]]) -> list[int]:
    with hdf5_disk_errors(), h5py.File(path, "w") as file:
        return _write(file, info, tiles)


def _size(info: ResultInfo) -> int:
    grid, latents = info.grid, len(info.latent_source_index)
    per_frame = 128 * len(info.process["frames"]) if info.curves else 0
    maps = (len(MAPS) + count_maps(info)) * latents + 2 + MOST
    series = info.cells.bytes((grid.rows, grid.columns), latents)
    return int(
        4 * grid.rows * grid.columns * maps
        + series
        + windows_bytes(grid, MOST * WINDOWS_OF_PROCESS)
        + info.preview[0].nbytes
        + per_frame
        + 2**18
    )


def _write(file: h5py.File, info: ResultInfo, tiles: Iterable[tuple[Rectangle, FinishedTile]]) -> list[int]:
    grid = info.grid
    sign(file, "result")
    file.attrs.update(NX_class="NXroot", default="entry")
    entry = file.create_group("entry")
    entry.attrs.update(NX_class="NXentry", default=MAPS[-1])
    entry["title"] = storable(f"latent variables over time of {Path(info.process['movie']).name}")
    maps: list[h5py.Dataset] = []
    for name in reversed(MAPS):
        title = TITLES[name].replace("with time", f"with {storable(info.compared_with)}")
        maps.insert(0, map_dataset(map_group(entry, name, title, info), "data", info))
    maps += create_groups(entry, info)
    counts = map_group(entry, "valid_frames", "valid frames of each window", info, first="")
    valid = counts.create_dataset("data", (grid.rows, grid.columns), np.int32)
    reconstruction = _write_reconstruction(entry, info) if info.reconstructed else None
    series = SeriesWriter(entry, info)
    strength = np.zeros((grid.rows, grid.columns))
    bad: set[int] = set()
    largest = np.zeros(0, np.float32)
    for tile, done in tiles:
        rows, columns = slice(tile.row0, tile.row1), slice(tile.column0, tile.column1)
        for dataset, values in zip(maps, done.maps, strict=True):
            dataset[:, rows, columns] = values
        valid[rows, columns] = done.valid_frames
        if reconstruction is not None:
            reconstruction[rows, columns] = done.reconstruction
        series.write(tile, done)
        bad.update(int(frame) for frame in done.bad_frames)
        largest = np.maximum(largest, done.largest_rho) if largest.size else done.largest_rho
        strength[rows, columns] = np.nansum(done.maps[_CORRELATED], 0)
    kept = series.finish()
    finish_groups(entry, info, largest)
    places = write_processes(entry, info, kept)
    _write_preview(entry, info)
    if info.show_windows:
        further = np.concatenate([np.zeros((2, 0), int), *places], 1)
        shown = write_windows(entry, info, strength, further, info.show_windows)
        write_lattice_changes(entry, shown, [each.shape[1] for each in places])
    if info.curves:
        write_curves(entry, info.curves)
    _write_process(entry, info, sorted(bad))
    return sorted(bad)


def _write_reconstruction(entry: h5py.Group, info: ResultInfo) -> h5py.Dataset:
    title = "correlation of windows with their reconstructions, corrected for noise"
    group = map_group(entry, _RECONSTRUCTION, title, info, first="")
    return group.create_dataset("data", (info.grid.rows, info.grid.columns), np.float32, fillvalue=np.nan)


def _write_preview(entry: h5py.Group, info: ResultInfo) -> None:
    images, binning, which = info.preview
    group = entry.create_group("preview")
    group.attrs.update(NX_class="NXdata", signal="data", axes=["frame", "y", "x"])
    group["title"] = "the first frame, some between, and the last"
    group.create_dataset("data", data=images, compression="gzip", shuffle=True)
    group["frame"] = which
    group["binning"] = binning
    for axis, count in zip(axes_of(info), images.shape[1:], strict=True):
        group[axis.name] = binned(axis, count, binning)
        group[axis.name].attrs["units"] = axis.units


def _write_process(entry: h5py.Group, info: ResultInfo, bad_frames: list[int]) -> None:
    process = entry.create_group("process")
    process.attrs["NX_class"] = "NXprocess"
    record = {
        "identity": info.identity,
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "window": info.grid.window,
        "step": info.grid.step,
        "resampling": info.resampling,
        **info.process,
        "bad_frames": bad_frames,
    }
    for key, value in record.items():
        try:
            clean = storable(value)
            process[key] = json.dumps(clean) if isinstance(clean, dict | list | type(None)) else clean
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise InputError(
                f"the {key.replace('_', ' ')} can't be stored in a result ({printable(str(error))}); change it."
            ) from error
    for key, number, units in (("pixel_size", info.pixel_size_nm, "nm"), ("frame_time", info.frame_time_s, "s")):
        if number is not None:
            process[key] = number
            process[key].attrs["units"] = units


def storable(value: Any) -> Any:
    """``value`` as HDF5 can hold it: what isn't UTF-8 in its strings, as in some paths, is escaped, and so is NUL."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")
    if isinstance(value, dict):
        return {storable(key): storable(item) for key, item in value.items()}
    return type(value)(map(storable, value)) if isinstance(value, list | tuple) else value


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
    if _RECONSTRUCTION not in entry:
        return None
    values = read_array(entry, f"{_RECONSTRUCTION}/data", "f", 2)
    _expect(values.shape == shape, f"{_RECONSTRUCTION} has shape {values.shape}, its record implies {shape}")
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
