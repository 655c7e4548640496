"""The result file: a NeXus file of maps, with everything needed to know where they came from.

/entry (NXentry) holds NXdata groups time_correlated_variance, variance, spearman, mean and valid_frames, the first
and last frame as ``preview``, and /entry/process (NXprocess). It appears under its name only when complete.
"""

import contextlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Protocol

import h5py
import numpy as np

from hrtemvae_hpc.errors import InputError
from hrtemvae_hpc.files import hdf5_disk_errors, is_file, replacing, reserve
from hrtemvae_hpc.statistics.over_time import MAPS
from hrtemvae_hpc.windows.grid import Rectangle, WindowGrid

TITLES = {
    "time_correlated_variance": "time-correlated variance (rho x variance)^2",
    "variance": "variance over time",
    "spearman": "Spearman's rho with time",
    "mean": "mean over time",
}


class FinishedTile(Protocol):
    """The maps of one tile."""

    maps: np.ndarray
    valid_frames: np.ndarray
    bad_frames: np.ndarray


@dataclass(frozen=True)
class ResultInfo:
    """What a result holds beside its maps."""

    identity: str
    grid: WindowGrid
    latent_source_index: tuple[int, ...]
    origin: tuple[int, int]  # row and column of the region's first pixel in the movie's frame
    pixel_size_nm: tuple[float, float] | None
    frame_time_s: float | None
    resampling: tuple[float, float]  # analysed rows and columns a row and column of the movie
    preview: tuple[np.ndarray, int, tuple[int, int]]  # first and last frame, pixels binned into one, their indices
    process: Mapping[str, Any]


def write_result(
    path: Path, folder: Path, info: ResultInfo, tiles: Iterable[tuple[Rectangle, FinishedTile]]
) -> list[int]:
    """Assemble ``tiles`` in ``folder`` into ``path``, which appears by rename; returns the frames left out by some.

    Raises OSError when the disk is full or fails; nothing is left behind then.
    """
    with replacing(path, folder) as aside:
        reserve(aside, _size(info))
        with hdf5_disk_errors(), h5py.File(aside, "w") as file:
            return _write(file, info, tiles)


def _size(info: ResultInfo) -> int:
    grid, latents = info.grid, len(info.latent_source_index)
    return int(4 * grid.rows * grid.columns * (len(MAPS) * latents + 1) + info.preview[0].nbytes + 2**18)


def _write(file: h5py.File, info: ResultInfo, tiles: Iterable[tuple[Rectangle, FinishedTile]]) -> list[int]:
    grid, latents = info.grid, len(info.latent_source_index)
    file.attrs.update(NX_class="NXroot", default="entry", creator="hrtemvae_hpc")
    entry = file.create_group("entry")
    entry.attrs.update(NX_class="NXentry", default=MAPS[-1])
    entry["title"] = f"latent variables over time of {Path(info.process['movie']).name}"
    maps: list[h5py.Dataset] = []
    for name in reversed(MAPS):
        group = _map_group(entry, name, info)
        group["title"] = TITLES[name]
        group["latent"] = np.arange(latents)
        group["latent"].attrs["long_name"] = "latent variable, by variance over the training set"
        group["latent_source_index"] = np.array(info.latent_source_index)
        maps.insert(0, group.create_dataset("data", (latents, grid.rows, grid.columns), np.float32, fillvalue=np.nan))
    counts = _map_group(entry, "valid_frames", info, "y", "x")
    counts["title"] = "frames that count at each window"
    valid = counts.create_dataset("data", (grid.rows, grid.columns), np.int32)
    bad: set[int] = set()
    for tile, done in tiles:
        rows, columns = slice(tile.row0, tile.row1), slice(tile.column0, tile.column1)
        for dataset, values in zip(maps, done.maps, strict=True):
            dataset[:, rows, columns] = values
        valid[rows, columns] = done.valid_frames
        bad.update(int(frame) for frame in done.bad_frames)
    _write_preview(entry, info)
    _write_process(entry, info, sorted(bad))
    return sorted(bad)


def _map_group(entry: h5py.Group, name: str, info: ResultInfo, *axes: str) -> h5py.Group:
    group = entry.create_group(name)
    names = axes or ("latent", "y", "x")
    group.attrs.update(NX_class="NXdata", signal="data", axes=list(names))
    for letter, count, first, size, factor in _spatial_axes(info):
        pixels = (info.grid.centres(count) + 0.5) / factor - 0.5 + first
        index = names.index(letter)
        group[f"{letter}_pixel"] = pixels
        group[f"{letter}_pixel"].attrs.update(units="pixel", long_name=f"{letter} of the window's centre")
        group.attrs[f"{letter}_pixel_indices"] = index
        group[letter] = pixels if size is None else pixels * size
        group[letter].attrs.update(
            units="pixel" if size is None else "nm", long_name=f"{letter} of the window's centre"
        )
        group.attrs[f"{letter}_indices"] = index
    return group


def _spatial_axes(info: ResultInfo) -> Iterable[tuple[str, int, int, float | None, float]]:
    sizes = info.pixel_size_nm or (None, None)
    yield "y", info.grid.rows, info.origin[0], sizes[0], info.resampling[0]
    yield "x", info.grid.columns, info.origin[1], sizes[1], info.resampling[1]


def _write_preview(entry: h5py.Group, info: ResultInfo) -> None:
    images, binning, which = info.preview
    group = entry.create_group("preview")
    group.attrs.update(NX_class="NXdata", signal="data", axes=["frame", "y", "x"])
    group["title"] = "first and last frame"
    group.create_dataset("data", data=images, compression="gzip", shuffle=True)
    group["frame"] = which
    for (letter, _, first, size, _), count in zip(_spatial_axes(info), images.shape[1:], strict=True):
        pixels = first + (np.arange(count) + 0.5) * binning - 0.5
        group[letter] = pixels if size is None else pixels * size
        group[letter].attrs["units"] = "pixel" if size is None else "nm"


def _write_process(entry: h5py.Group, info: ResultInfo, bad_frames: list[int]) -> None:
    process = entry.create_group("process")
    process.attrs["NX_class"] = "NXprocess"
    process["identity"] = info.identity
    process["date"] = datetime.now(timezone.utc).isoformat(timespec="seconds")
    process["window"] = info.grid.window
    process["step"] = info.grid.step
    process["resampling"] = info.resampling
    if info.pixel_size_nm is not None:
        process["pixel_size"] = info.pixel_size_nm
        process["pixel_size"].attrs["units"] = "nm"
    if info.frame_time_s is not None:
        process["frame_time"] = info.frame_time_s
        process["frame_time"].attrs["units"] = "s"
    for key, value in {**info.process, "bad_frames": bad_frames}.items():
        process[key] = json.dumps(value) if isinstance(value, dict | list | type(None)) else value


def result_identity(path: Path) -> tuple[str, list[int]]:
    """The identity of the analysis that a result file holds, "" where it is none, and the frames it left out."""
    try:
        with h5py.File(path, "r", locking=False) as file:
            process = file["entry/process"]
            return str(process["identity"].asstr()[()]), json.loads(process["bad_frames"].asstr()[()])
    except (OSError, KeyError, TypeError, AttributeError, ValueError):
        return "", []


@dataclass(frozen=True)
class Result:
    """A result file, opened for drawing. Axes in nm where calibrated, else pixels."""

    path: Path
    file: h5py.File
    latent: np.ndarray
    y: np.ndarray
    x: np.ndarray
    units: str
    valid_frames: np.ndarray
    preview: np.ndarray
    preview_y: np.ndarray
    preview_x: np.ndarray
    preview_frames: tuple[int, int]
    process: dict[str, Any]

    @property
    def together(self) -> np.ndarray:
        """The time-correlated variances of all latents, summed [rows, columns]; NaN where no latent has one."""
        total = np.zeros(self.valid_frames.shape)
        known = np.zeros(self.valid_frames.shape, bool)
        for latent in self.latent:
            values = self.maps("time_correlated_variance", latent)
            total += np.nan_to_num(values)
            known |= np.isfinite(values)
        return np.where(known, total, np.nan)

    def maps(self, name: str, latent: int) -> np.ndarray:
        """The map [rows, columns] of quantity ``name`` for one latent."""
        return np.asarray(self.file[f"entry/{name}/data"][latent])


@contextlib.contextmanager
def open_result(path: Path):  # type: ignore[no-untyped-def]
    """A result file as ``Result``; raises InputError where it isn't one."""
    if not is_file(path):
        raise InputError(f"{path}: there is no such result file; make one with `hrtemvae analyze`.")
    try:
        file = h5py.File(path, "r", locking=False)
    except OSError as error:
        raise InputError(f"{path}: not a readable HDF5 file; name a result of `hrtemvae analyze`.") from error
    with file:
        try:
            entry = file["entry"]
            group, preview, process = entry[MAPS[-1]], entry["preview"], entry["process"]
            result = Result(
                path,
                file,
                group["latent"][...],
                group["y"][...],
                group["x"][...],
                str(group["y"].attrs["units"]),
                entry["valid_frames/data"][...],
                preview["data"][...],
                preview["y"][...],
                preview["x"][...],
                (int(preview["frame"][0]), int(preview["frame"][1])),
                {"resampling": [1.0, 1.0], **{name: _plain(process[name]) for name in process}},
            )
        except KeyError as error:
            raise InputError(f"{path}: an HDF5 file, but not a result of `hrtemvae analyze` ({error}).") from error
        yield result


def _plain(dataset: h5py.Dataset) -> Any:
    if h5py.check_string_dtype(dataset.dtype):
        text = dataset.asstr()[()]
        if text[:1] in "[{n":
            with contextlib.suppress(ValueError):
                return json.loads(text)
        return text
    return dataset[()].tolist()
