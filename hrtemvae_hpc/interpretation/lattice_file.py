"""Measured lattices as files that other programs read: HDF5 in the manner of NeXus, and a table as CSV."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import h5py
import numpy as np

from hrtemvae_hpc import __version__
from hrtemvae_hpc.files import hdf5_disk_errors, replacing, writing
from hrtemvae_hpc.hdf5 import sign
from hrtemvae_hpc.interpretation.areas import change_of
from hrtemvae_hpc.interpretation.lattice_latents import LatentsOfBox
from hrtemvae_hpc.interpretation.measure_box import BoxLattices
from hrtemvae_hpc.interpretation.spectra import frequencies
from hrtemvae_hpc.maps.result_writing import storable

COLUMNS = ("frame", "time_s", "box", "lattice", "angle_degrees", "misfit_degrees", "spacing_1", "spacing_2",
           "contrast", "area", "units")  # fmt: skip
PHASES = {"rotation": "degrees", "xx": "1", "yy": "1", "xy": "1"}


def units_of(box: BoxLattices) -> tuple[tuple[float, float], str]:
    """Size of a pixel along rows and columns, and its unit: nm, or pixel where the movie has no scale."""
    size = box.box.movie.pixel_size_nm
    return ((1.0, 1.0), "pixel") if size is None else (size, "nm")


def write_csv(path: Path, boxes: Sequence[BoxLattices]) -> None:
    """Write one line a frame, box and lattice. The misfit is that against the first lattice of the box.

    Areas are in square ``units``. Empty where a lattice was not found. The file appears by rename. Raises InputError if
    it can't be written.
    """
    with writing(path), replacing(path) as aside, aside.open("w", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(COLUMNS)
        for number, box in enumerate(boxes, 1):
            size, units = units_of(box)
            movie, frames = box.box.movie, box.box.frames
            angles, misfits, spacings = box.angles(size), box.misfits(size)[0], box.spacings(size)
            for t, index in enumerate(frames):
                time = "" if movie.times_s is None else f"{movie.times_s[index]:.9g}"
                for i, area in enumerate(box.area[:, t] * size[0] * size[1]):
                    values = angles[i, t], misfits[i, t], *spacings[i, :, t], box.contrast[i, t]
                    shown = ["" if np.isnan(value) else f"{value:.6g}" for value in values]
                    rows.writerow([movie.frame_indices[index], time, number, i + 1, *shown, f"{area:.6g}", units])


def write_lattices(
    path: Path, boxes: Sequence[BoxLattices], latents: Sequence[LatentsOfBox | None], facts: Mapping[str, object]
) -> None:
    """Write all that was measured, with the ``latents`` of each box of a result.

    The file appears by rename. Raises InputError if it can't be written.
    """
    with writing(path), replacing(path) as aside, hdf5_disk_errors(), h5py.File(aside, "w") as file:
        sign(file, "lattices")
        file.attrs.update(NX_class="NXroot", default="entry")
        entry = file.create_group("entry")
        entry.attrs.update(NX_class="NXentry", default="box_1")
        for number, (box, own) in enumerate(zip(boxes, latents, strict=True), 1):
            _write_box(entry.create_group(f"box_{number}"), box)
            if own:
                _write_latents(entry[f"box_{number}"], box, own)
        process = entry.create_group("process")
        process.attrs["NX_class"] = "NXprocess"
        for name, value in {"version": __version__, **facts}.items():
            process[name] = storable(value)


def _write_box(group: h5py.Group, box: BoxLattices) -> None:
    size, units = units_of(box)
    movie, frames = box.box.movie, box.box.frames
    rows, columns = box.box.place
    group.attrs.update(NX_class="NXsubentry", default="lattices")
    group["place"] = [rows.start, rows.stop, columns.start, columns.stop]
    group["place"].attrs["long_name"] = "rows and columns of the movie's first frame, first and last + 1"
    lattices = _data(group, "lattices", "angle", ("lattice", "frame"))
    lattices["lattice"] = np.arange(1, len(box.area) + 1)
    lattices["frame"] = movie.frame_indices[frames]
    if movie.times_s is not None:
        lattices["time"] = movie.times_s[frames]
        lattices["time"].attrs["units"] = "s"
        lattices.attrs["time_indices"] = 1
    most = np.full((len(box.area), 2, box.box.count, 2), np.nan)
    for i, g in enumerate(box.physical(size)):
        most[i, : len(g)] = g
    for name, values, unit, text in (
        ("angle", box.angles(size), "degrees", "angle of the first reflection, clockwise from the rows' direction"),
        ("misfit", box.misfits(size), "degrees", "rotation [first, second, frame] of the second against the first"),
        ("spacing", box.spacings(size), units, "spacing [lattice, reflection, frame]"),
        ("reflection", most, f"1/{units}", "reflection [lattice, reflection, frame, (row, column)]"),
        ("contrast", box.contrast, "1", "amplitude of the fringes over the mean"),
        ("area", box.area * size[0] * size[1], f"{units}^2", "area"),
    ):
        lattices[name] = values
        lattices[name].attrs.update(units=unit, long_name=text)
    _write_views(group, box, size, units)


def _write_latents(group: h5py.Group, box: BoxLattices, own: LatentsOfBox) -> None:
    data = _data(group, "latents", "z", ("frame", "latent"))
    data["frame"] = box.box.movie.frame_indices[box.box.frames]
    data["latent"] = np.arange(own.z.shape[1])
    data["z"] = own.z
    data["window"] = own.window
    data["window"].attrs["long_name"] = "row and column of the window among those of the result"
    data["rho"], data["quantity"] = own.rho, own.quantities
    data["rho"].attrs["long_name"] = "Spearman's rho [quantity, latent]"
    if own.images is not None and own.simulated is not None:
        data["simulated_z"] = own.simulated
        data["simulated_window"] = own.images


def _write_views(group: h5py.Group, box: BoxLattices, size: tuple[float, float], units: str) -> None:
    views = box.views
    shown = box.box.movie.frame_indices[box.box.frames[[view.frame for view in views]]]
    axes: dict[str, np.ndarray] = {"shown_frame": shown}
    for axis, span, pixel, count in zip("yx", box.box.place, size, views[0].labels.shape, strict=True):
        axes[axis] = (span.start + np.arange(count) * box.step) * pixel
    first, last = views[0].labels, views[-1].labels
    change = np.stack([change_of(first == i, last == i) for i in range(len(box.area))])
    maps: dict[str, tuple[tuple[str, ...], np.ndarray]] = {
        "image": (("shown_frame", "y", "x"), np.stack([view.image for view in views])),
        "areas": (("shown_frame", "y", "x"), np.stack([view.labels + 1 for view in views]).astype(np.uint8)),
        "change": (("lattice", "y", "x"), change),
        "power": (("shown_frame", "ky", "kx"), np.stack([view.power for view in views])),
    }
    nowhere = np.full(first.shape, np.nan, np.float32)
    for name in PHASES:
        own = [
            [nowhere if view.phases[i] is None else getattr(view.phases[i], name) for view in views]
            for i in range(len(box.area))
        ]
        maps[name] = ("lattice", "shown_frame", "y", "x"), np.array(own)
    ky, kx = frequencies((box.box.area.height, box.box.area.width))
    axes["ky"], axes["kx"] = ky[:: box.step, 0] / size[0], kx[0, :: box.step] / size[1]
    axes["lattice"] = np.arange(1, len(box.area) + 1)
    for name, (names, values) in maps.items():
        data = _data(group, name, "data", names)
        data.create_dataset("data", data=values, compression="gzip", shuffle=True)
        for axis in names:
            data[axis] = axes[axis]
            if axis in ("y", "x", "ky", "kx"):
                data[axis].attrs["units"] = units if axis in "yx" else f"1/{units}"
    group["areas/data"].attrs["long_name"] = "number of the lattice, 0 where there is none"
    group["change/data"].attrs["long_name"] = "from the first frame to the last: 1 lost, 2 gained, 3 kept"


def _data(group: h5py.Group, name: str, signal: str, axes: tuple[str, ...]) -> h5py.Group:
    data = group.create_group(name)
    data.attrs.update(NX_class="NXdata", signal=signal, axes=list(axes))
    return data
