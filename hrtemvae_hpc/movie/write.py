"""Writing a movie as a NeXus file that this program and any NeXus viewer understand."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import h5py
import numpy as np

from hrtemvae_hpc.errors import InputError
from hrtemvae_hpc.files import hdf5_disk_errors, replacing, writing
from hrtemvae_hpc.hdf5 import DAMAGED, open_hdf5, read_array, sign


def write_movie(
    path: Path,
    frames: Iterable[np.ndarray],
    shape: tuple[int, int, int],
    dtype: np.dtype,
    pixel_size_nm: float,
    frame_time_s: float,
    truth: Mapping[str, np.ndarray],
) -> None:
    """Write ``frames`` [rows, columns] to /entry/data, gzip in chunks of a frame, and ``truth`` to /entry/truth.

    The file appears by rename. Raises InputError if it can't be written.
    """
    with writing(path), replacing(path) as aside, hdf5_disk_errors(), h5py.File(aside, "w") as file:
        sign(file, "movie")
        file.attrs["default"] = "entry"
        entry = file.create_group("entry")
        entry.attrs.update(NX_class="NXentry", default="data")
        data = entry.create_group("data")
        data.attrs.update(NX_class="NXdata", signal="data", axes=["time", "y", "x"])
        for name, count, step, units in (
            ("time", shape[0], frame_time_s, "s"),
            ("y", shape[1], pixel_size_nm, "nm"),
            ("x", shape[2], pixel_size_nm, "nm"),
        ):
            data[name] = np.arange(count) * step
            data[name].attrs["units"] = units
        pixels = data.create_dataset("data", shape, dtype, chunks=(1, *shape[1:]), compression="gzip", shuffle=True)
        for t, frame in enumerate(frames):
            pixels[t] = frame
        for name, values in truth.items():
            entry.require_group("truth")[name] = values


def read_truth(path: Path, frame: tuple[int, int]) -> dict[str, np.ndarray]:
    """The masks [rows, columns] bool of a ``frame`` that was given to ``write_movie``.

    Raises InputError if the file has none.
    """
    try:
        with open_hdf5(path, "the movie") as file:
            truth = file["entry/truth"]
            return {name: read_array(truth, name, "b") for name in truth if truth[name].shape == frame}
    except DAMAGED as error:
        raise InputError(f"{path}: is not a simulated movie; make one with `hrtemvae simulate`.") from error
