"""Writing a result file: a NeXus file of maps, with everything needed to know where they came from.

/entry (NXentry) holds NXdata groups time_correlated_variance, variance, spearman, mean and valid_frames, those of
maps/certainty.py, processes, series, some windows and frames, what was measured of each frame as ``drift``, and
/entry/process (NXprocess), with digests of all that. It appears under its name only when it is complete.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Protocol

import h5py
import numpy as np

from hrtemvae_hpc.errors import InputError, printable
from hrtemvae_hpc.files import hdf5_disk_errors, replacing, reserve, temporary_file
from hrtemvae_hpc.hdf5 import sign
from hrtemvae_hpc.maps.axes import axes_of, binned, map_dataset, map_group
from hrtemvae_hpc.maps.certainty import count_maps, create_groups, finish_groups
from hrtemvae_hpc.maps.digest import seal
from hrtemvae_hpc.maps.drift_group import FrameCurves, write_curves
from hrtemvae_hpc.maps.process_group import WINDOWS_OF_PROCESS, signed_maps, windows_of, write_processes
from hrtemvae_hpc.maps.process_lattice import lattice_change
from hrtemvae_hpc.maps.process_merging import merge_alike
from hrtemvae_hpc.maps.processes import MOST, find_processes
from hrtemvae_hpc.maps.result import RECONSTRUCTION, TITLES
from hrtemvae_hpc.maps.series_group import Series, SeriesWriter
from hrtemvae_hpc.maps.windows_group import ShowWindows, windows_bytes, write_windows
from hrtemvae_hpc.movie.preview import Preview
from hrtemvae_hpc.statistics.over_time import MAPS
from hrtemvae_hpc.windows.cells import Cells
from hrtemvae_hpc.windows.grid import Rectangle, WindowGrid

_CORRELATED = MAPS.index("time_correlated_variance")


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
    with_processes: bool = True  # whether processes are searched for, which takes seconds


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
    _write_preview(entry, info)
    if info.with_processes:
        _write_processes(entry, info, strength, kept)
    if info.curves:
        write_curves(entry, info.curves)
    _write_process(entry, info, sorted(bad))
    return sorted(bad)


def _write_processes(entry: h5py.Group, info: ResultInfo, strength: np.ndarray, kept: Series) -> None:
    """Processes with the ``kept`` series, and windows that show them; ``strength`` as of ``write_windows``."""
    wide, changes = info.grid.window / info.grid.step, None
    signed = signed_maps(entry, len(info.latent_source_index))
    found = find_processes(signed, wide)
    if info.show_windows:
        places = [windows_of(part) for part in found.maps]
        shown = write_windows(entry, info, strength, places, info.show_windows)
        found, changes = merge_alike(found, [lattice_change(each) for each in shown], wide)
    write_processes(entry, info, signed, found, changes, kept)


def _write_reconstruction(entry: h5py.Group, info: ResultInfo) -> h5py.Dataset:
    title = "correlation of windows with their reconstructions, corrected for noise"
    group = map_group(entry, RECONSTRUCTION, title, info, first="")
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
