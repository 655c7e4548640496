"""The group processes of a result: what was found in its maps, and when these change. Earlier versions have none."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import h5py
import numpy as np

from hrtemvae_hpc.hdf5 import read_array
from hrtemvae_hpc.maps.axes import Placed, map_group
from hrtemvae_hpc.maps.certainty import enough_frames
from hrtemvae_hpc.maps.processes import (
    MOST,
    Processes,
    find_processes,
    leading_latents,
    no_processes,
    place_of,
)

_GROUP = "processes"
_SIGNED = {"even": "reproducibility/even", "odd": "reproducibility/odd"}
_QUARTILES = 25, 50, 75
_FIELDS = {"weights": "each latent's share", "direction": "1 where a latent rises throughout, -1 where it falls"}


class Analysed(Placed, Protocol):
    """A result's windows and what its record holds."""

    @property
    def process(self) -> Mapping[str, object]: ...


@dataclass(frozen=True)
class ShownProcesses:
    """The processes of a result, and when they change."""

    found: Processes
    change: np.ndarray  # [processes, 3] quartiles of the change points at a process's place, as frames


def write_processes(entry: h5py.Group, info: Analysed) -> None:
    """Find the processes in the maps of ``entry``, which are complete, and write their group."""

    def signed(frames: str, latent: int) -> np.ndarray:
        if frames in _SIGNED:
            return np.asarray(entry[_SIGNED[frames]][latent])
        return np.asarray(entry["spearman/data"][latent] * entry["variance/data"][latent])

    latents = len(info.latent_source_index)
    valid = entry["valid_frames/data"][...]
    known = enough_frames(valid) & (valid > 0)
    noise = np.array([_median(entry["noise/data"][latent][known]) for latent in range(latents)])
    found = find_processes(signed, noise, known, info.grid.window / info.grid.step)
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
    group["reproducibility"] = found.reproducibility
    group["reproducibility"].attrs["long_name"] = "correlation of even and odd frames at its place"
    group["change"] = np.stack([_when(entry, *each) for each in zip(found.maps, found.weights, strict=True)])
    group["change"].attrs["long_name"] = "first frame after a quarter, half and three quarters of its change points"


def _median(values: np.ndarray) -> float:
    finite = values[np.isfinite(values)]
    return float(np.median(finite)) if finite.size else 0.0


def _when(entry: h5py.Group, part: np.ndarray, weights: np.ndarray) -> np.ndarray:
    place = place_of(part)
    frames = np.concatenate([entry["change/frame"][latent][place] for latent in leading_latents(weights)])
    known = frames[np.isfinite(frames)]
    return np.percentile(known, _QUARTILES) if known.size else np.full(len(_QUARTILES), np.nan)


def read_processes(entry: h5py.Group, latents: int, shape: tuple[int, int]) -> ShownProcesses | None:
    """The processes in ``entry``, None in a result that has no such group. Raises ValueError if they don't fit it."""
    if _GROUP not in entry:
        return None
    if int(entry[_GROUP].attrs["count"]) == 0:
        return ShownProcesses(no_processes(latents, shape), np.zeros((0, len(_QUARTILES))))
    maps = read_array(entry, f"{_GROUP}/data", "f", 3)
    count = len(maps)
    weights, direction = (read_array(entry, f"{_GROUP}/{name}", "f", 2) for name in _FIELDS)
    sure, change = read_array(entry, f"{_GROUP}/reproducibility", "f", 1), read_array(entry, f"{_GROUP}/change", "f", 2)
    expected = [(count, *shape), (count, latents), (count, latents), (count,), (count, len(_QUARTILES))]
    if count > MOST or [a.shape for a in (maps, weights, direction, sure, change)] != expected:
        raise ValueError(f"{_GROUP} does not match the windows and latents of its record")
    return ShownProcesses(Processes(maps, weights, direction, sure), change)
