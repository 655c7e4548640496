"""Traces as files that other programs read: an HDF5 file in the manner of NeXus, and tables as CSV."""

import csv
import json
import shlex
import sys
from collections.abc import Iterable
from datetime import datetime, timezone
from pathlib import Path

import h5py
import numpy as np

from hrtemvae_hpc import __version__
from hrtemvae_hpc.files import hdf5_disk_errors, replacing
from hrtemvae_hpc.hdf5 import sign
from hrtemvae_hpc.interpretation.places import position
from hrtemvae_hpc.interpretation.trace import Traces
from hrtemvae_hpc.maps.result_writing import storable
from hrtemvae_hpc.statistics.series import RUNNING

_TITLES = {
    "z": "latent variables over time",
    "running_mean": f"means over {RUNNING} frames",
    "mean": "mean over time",
    "variance": "variance over time",
    "spearman": "Spearman's rho with time",
    "time_correlated_variance": "time-correlated variance (rho x variance)^2",
    "p": "chance of such a rho, by permutations of blocks of frames",
}


def write_hdf5(traces: Traces, path: Path) -> None:
    """Write all of ``traces``; the file appears by rename. Raises OSError if that fails."""
    with replacing(path) as aside, hdf5_disk_errors(), h5py.File(aside, "w") as file:
        sign(file, "trace")
        file.attrs.update(NX_class="NXroot", default="entry")
        entry = file.create_group("entry")
        entry.attrs.update(NX_class="NXentry", default="z")
        for name, data in (("z", traces.z), ("running_mean", traces.running)):
            group = _data(entry, name, data, ("frame", "place", "latent"))
            _write_frames(group, traces)
            group["place"] = np.arange(len(traces.places))
            group["latent"] = traces.latents
        for name, data in traces.statistics.items():
            group = _data(entry, name, data, ("place", "latent"))
            group["place"] = np.arange(len(traces.places))
            group["latent"] = traces.latents
        _write_frames(_data(entry, "valid", traces.valid.astype(np.uint8), ("frame", "place")), traces)
        _write_places(entry, traces)
        for i, views in enumerate(traces.views):
            group = _data(entry, f"windows_{i}", views.windows, ("frame", "y", "x"))
            group["frame"] = traces.again.movie.frame_indices[views.times]
            if views.reconstructions is not None:
                group["reconstruction"] = views.reconstructions
                group["difference"] = views.windows - views.reconstructions
                group["correlation"] = views.correlations
        _write_process(entry, traces)


def _data(entry: h5py.Group, name: str, values: np.ndarray, axes: tuple[str, ...]) -> h5py.Group:
    group = entry.create_group(name)
    group.attrs.update(NX_class="NXdata", signal="data", axes=list(axes))
    group["title"] = _TITLES.get(name, name.replace("_", " "))
    group.create_dataset("data", data=values)
    return group


def _write_frames(group: h5py.Group, traces: Traces) -> None:
    movie = traces.again.movie
    group["frame"] = movie.frame_indices
    if movie.times_s is not None:
        group["time"] = movie.times_s
        group["time"].attrs["units"] = "s"
        group.attrs["time_indices"] = 0


def _write_places(entry: h5py.Group, traces: Traces) -> None:
    """Names and centres of the places, and the windows [n, 3] of all: number of the place, row and column."""
    group = entry.create_group("places")
    group.attrs["NX_class"] = "NXcollection"
    group["name"] = [storable(place.name) for place in traces.places]
    group["centre"] = [position(traces.again.result, place) for place in traces.places]
    group["centre"].attrs["units"] = "pixel"
    group["window"] = np.concatenate([np.insert(place.windows, 0, i, 1) for i, place in enumerate(traces.places)])


def _write_process(entry: h5py.Group, traces: Traces) -> None:
    record = traces.again.result.process
    group = entry.create_group("process")
    group.attrs["NX_class"] = "NXprocess"
    facts = {
        "program": "hrtemvae",
        "version": __version__,
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command_line": shlex.join(sys.argv),
        "result": str(traces.again.result.path.absolute()),
        "movie": str(traces.again.movie.path.absolute()),
        "movie_fingerprint": record.movie_fingerprint,
        "model": record.model,
        "model_sha256": record.model_sha256,
        "configuration": json.dumps(record.configuration),
        "agreement": traces.agreement,
    }
    for key, value in facts.items():
        group[key] = storable(value)


def write_series(traces: Traces, path: Path) -> None:
    """Write the series as a table, a row for each place and frame. Raises OSError if that fails."""
    movie = traces.again.movie
    names = [f"z{latent}" for latent in traces.latents]
    head = ["place", "frame", "time_s", "valid", *names, *(f"{name}_mean{RUNNING}" for name in names)]

    def row(i: int, t: int) -> list[object]:
        time = "" if movie.times_s is None else f"{movie.times_s[t]:.9g}"
        about = i, int(movie.frame_indices[t]), time, int(traces.valid[t, i])
        return [*about, *_numbers(traces.z[t, i]), *_numbers(traces.running[t, i])]

    _write_table(path, head, (row(i, t) for i in range(len(traces.places)) for t in range(len(traces.z))))


def write_statistics(traces: Traces, path: Path) -> None:
    """Write what the series amount to, a row for each place and latent. Raises OSError if that fails."""
    result = traces.again.result
    size = result.process.pixel_size if result.units == "nm" else None
    names = list(traces.statistics)
    head = ["place", "name", "y_px", "x_px", "y_nm", "x_nm", "windows", "valid_frames", "latent", *names]
    rows = []
    for i, place in enumerate(traces.places):
        y, x = position(result, place)
        in_nm = ["", ""] if size is None else [f"{y * size[0]:.6g}", f"{x * size[1]:.6g}"]
        about = [i, place.name, f"{y:g}", f"{x:g}", *in_nm, len(place.windows), int(traces.valid_frames[i])]
        for k, latent in enumerate(traces.latents):
            rows.append([*about, int(latent), *_numbers(np.array([traces.statistics[name][i, k] for name in names]))])
    _write_table(path, head, rows)


def _numbers(values: np.ndarray) -> list[str]:
    """``values`` with all their digits, empty where there are none."""
    return ["" if np.isnan(value) else f"{value:.9g}" for value in values]


def _write_table(path: Path, head: list[str], rows: Iterable[list[object]]) -> None:
    with replacing(path) as aside, aside.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(head)
        table.writerows(rows)
