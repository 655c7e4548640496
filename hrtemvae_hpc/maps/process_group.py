"""The group processes of a result: what was found in its maps, and its course in time. Earlier versions have none."""

from collections.abc import Sequence
from dataclasses import dataclass

import h5py
import numpy as np

from hrtemvae_hpc.hdf5 import read_array
from hrtemvae_hpc.maps.axes import Placed, map_group
from hrtemvae_hpc.maps.certainty import enough_frames
from hrtemvae_hpc.maps.process_lattice import NO_LATTICE, LatticeChange
from hrtemvae_hpc.maps.process_series import Course, course_of
from hrtemvae_hpc.maps.processes import (
    MOST,
    Processes,
    SignedMaps,
    leading_latents,
    no_processes,
    place_of,
)
from hrtemvae_hpc.maps.series_group import Series

_GROUP = "processes"
WINDOWS_OF_PROCESS = 16
_SIGNED = {"even": "reproducibility/even", "odd": "reproducibility/odd"}
_FIELDS = {"weights": "each latent's share", "direction": "1 where a latent rises throughout, -1 where it falls"}
_NUMBERS = {
    "reproducibility": "correlation of even and odd frames at its place",
    "change": "how much changes, summed over windows and latents, each between 0 and 1",
}
_LATTICE = {
    "strength": ("", "power of the lattice's fringes at the end, relative to the start"),
    "turned": ("degrees", "by which the lattice turns, clockwise"),
    "shifted": ("periods", "by which the whole lattice shifts: the most between any two of three times"),
}


@dataclass(frozen=True)
class ShownProcesses:
    """The processes of a result, and when they happen."""

    found: Processes
    series: np.ndarray  # [processes, bins] how far each has come, of maps.process_series
    span: np.ndarray  # [processes, 2] first and last frame of its time, as the movie counts them; -1 if unknown
    lattice: list[LatticeChange]  # of each process


def signed_maps(entry: h5py.Group, latents: int) -> SignedMaps:
    """The maps of a complete ``entry`` that processes are found in."""

    def read(frames: str, latent: int) -> np.ndarray:
        if frames in _SIGNED:
            return np.asarray(entry[_SIGNED[frames]][latent])
        return np.asarray(entry["spearman/data"][latent] * entry["variance/data"][latent])

    valid = entry["valid_frames/data"][...]
    known = enough_frames(valid) & (valid > 0)
    noise = np.array([_median(entry["noise/data"][latent][known]) for latent in range(latents)])
    return SignedMaps(read, noise, known)


def windows_of(part: np.ndarray) -> np.ndarray:
    """Some windows [2, n] of a process, rows and columns, from the half of its place where it is strongest."""
    inside = np.stack(np.nonzero(place_of(part)))
    order = np.argsort(-part[tuple(inside)], kind="stable")
    half = max(min(WINDOWS_OF_PROCESS, order.size), order.size // 2)
    chosen = np.unique(np.linspace(0, half - 1, min(half, WINDOWS_OF_PROCESS)).round().astype(int))
    return inside[:, order[chosen]]


def write_processes(
    entry: h5py.Group,
    info: Placed,
    signed: SignedMaps,
    found: Processes,
    changes: Sequence[LatticeChange] | None,
    series: Series,
) -> None:
    """Write the processes ``found`` in ``signed``, with ``changes`` of their lattices if known, and their course."""
    if not found:  # readers of NeXus may stumble over empty maps
        entry.create_group(_GROUP).attrs.update(NX_class="NXcollection", count=0)
        return
    group = map_group(entry, _GROUP, "processes: what changes together at one place", info, first="process")
    group.attrs["count"] = len(found)
    group["data"] = found.maps
    group["process"] = np.arange(1, len(found) + 1)
    for name, title in _FIELDS.items():
        group[name] = getattr(found, name)
        group[name].attrs["long_name"] = title
    for name, title in _NUMBERS.items():
        group[name] = getattr(found, name)
        group[name].attrs["long_name"] = title
    courses = [_course(entry, signed, series, *each) for each in zip(found.maps, found.weights, strict=True)]
    group["series"] = np.stack([course.series for course in courses]).astype(np.float32)
    group["series"].attrs["long_name"] = "how far it has come, in standard deviations of one frame's noise"
    group["frame"] = series.frames
    frames = np.append(series.frames, -1)
    group["span"] = np.array([[frames[course.start], frames[course.end]] for course in courses])
    group["span"].attrs["long_name"] = (
        "first and last frame in which it changes at least half as fast as at its fastest"
    )
    if changes is None:
        return
    group["name"] = [change.name for change in changes]
    for name, (units, title) in _LATTICE.items():
        group[name] = np.array([getattr(change, name) for change in changes], np.float32)
        group[name].attrs.update(units=units, long_name=title)


def _median(values: np.ndarray) -> float:
    finite = values[np.isfinite(values)]
    return float(np.median(finite)) if finite.size else 0.0


def _course(entry: h5py.Group, signed: SignedMaps, series: Series, part: np.ndarray, weights: np.ndarray) -> Course:
    """The course of a process, from the series of its leading latents in its place."""
    row, column = series.windows
    chosen = place_of(part)[row, column]
    latents = leading_latents(weights)
    values = series.of(chosen)[:, latents]
    at = row[chosen], column[chosen]
    flat = values.reshape(-1, values.shape[2])
    noise = np.stack([entry["noise/data"][latent][at] for latent in latents], 1)
    share = np.stack([signed.saturated("all", latent)[at] for latent in latents], 1)
    return course_of(flat, share.ravel(), noise.ravel(), series.cells.frames_per_bin)


def read_processes(entry: h5py.Group, latents: int, shape: tuple[int, int]) -> ShownProcesses | None:
    """The processes in ``entry``, None in a result that has no such group. Raises ValueError if they don't fit it."""
    if _GROUP not in entry:
        return None
    if int(entry[_GROUP].attrs["count"]) == 0:
        return ShownProcesses(no_processes(latents, shape), np.zeros((0, 0)), np.zeros((0, 2), int), [])
    maps = read_array(entry, f"{_GROUP}/data", "f", 3)
    count = len(maps)
    weights, direction = (read_array(entry, f"{_GROUP}/{name}", "f", 2) for name in _FIELDS)
    sure, change = (read_array(entry, f"{_GROUP}/{name}", "f", 1) for name in _NUMBERS)
    series = read_array(entry, f"{_GROUP}/series", "f", 2)
    span = read_array(entry, f"{_GROUP}/span", "i", 2)
    of_latents, of_all = [(count, latents)] * 2, [(count,)] * 2
    expected = [(count, *shape), *of_latents, *of_all, (count, series.shape[1]), (count, 2)]
    if count > MOST or [a.shape for a in (maps, weights, direction, sure, change, series, span)] != expected:
        raise ValueError(f"{_GROUP} does not match the windows and latents of its record")
    return ShownProcesses(Processes(maps, weights, direction, sure, change), series, span, _read_lattice(entry, count))


def _read_lattice(entry: h5py.Group, count: int) -> list[LatticeChange]:
    if f"{_GROUP}/strength" not in entry:  # the model had no decoder
        return [NO_LATTICE] * count
    values = [read_array(entry, f"{_GROUP}/{name}", "f", 1) for name in _LATTICE]
    if any(len(each) != count for each in values):
        raise ValueError(f"{_GROUP} has lattices of another number of processes")
    return [LatticeChange(*map(float, each)) for each in zip(*values, strict=True)]
