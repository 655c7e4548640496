"""Movies that HDF5 masters hold in parts, and scales that make no sense in HDF5 files and micrographs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np
import pytest
from commands import Program
from conftest import drifting_pixels
from hostile import refusal
from reading import assert_parts, assert_reads, look_at, read_all

from hrtemvae_hpc.movie.movie import Movie
from hrtemvae_hpc.segments.micrographs import read_micrographs

PIXELS = drifting_pixels(11, 40, 60)
DECTRIS: dict[str, Any] = {"chunks": (1, 40, 60), **hdf5plugin.Bitshuffle()}


def write(folder: Path, counts: Sequence[int], first: int = 1, **storage: Any) -> Path:
    """A master as Dectris writes it, with ``counts`` frames in its parts."""
    path, begin = folder / "movie_master.h5", 0
    with h5py.File(path, "w") as master:
        master.create_group("entry").attrs["NX_class"] = "NXentry"
        data = master.create_group("entry/data")
        data.attrs["NX_class"] = "NXdata"
        master["entry/instrument/detector/frame_time"] = 0.25
        for number, count in enumerate(counts, first):
            name = f"movie_data_{number:06}.h5"
            with h5py.File(folder / name, "w") as file:
                pixels = PIXELS[begin : begin + count]
                file.create_dataset("entry/data/data", data=pixels, maxshape=(None, 40, 60), **(storage or DECTRIS))
            data[f"data_{number:06}"] = h5py.ExternalLink(name, "entry/data/data")
            begin += count
    return path


@pytest.mark.parametrize("counts", [(11,), (4, 4, 3), (5, 5, 1), (1,) * 11])
def test_parts_are_one_movie(tmp_path: Path, counts: Sequence[int]) -> None:
    path = write(tmp_path, counts)
    assert_parts(path, PIXELS)
    with Movie(path) as movie:
        assert str(movie.storage) == "chunks of 1 x 40 x 60, bitshuffle"
        assert movie.frame_time_s == (0.25 if len(counts) > 1 else None)
        assert {file.name for file in movie.files} >= {f"movie_data_{i:06}.h5" for i in range(1, len(counts) + 1)}


@pytest.mark.parametrize("depth", [2, 3, 4])
@pytest.mark.parametrize("counts", [(4, 4, 3), (5, 1, 5), (6, 5)])
def test_chunks_of_several_frames(tmp_path: Path, depth: int, counts: Sequence[int]) -> None:
    """No two of the units that are read at a time share a chunk of the parts."""
    path = write(tmp_path, counts, chunks=(depth, 20, 30), compression="gzip")
    starts = np.cumsum([0, *counts])
    chunk_of = [(p, (t - starts[p]) // depth) for t in range(11) for p in [np.searchsorted(starts, t, "right") - 1]]
    with Movie(path) as movie:
        unit = movie.chunk_grid.unit[0]
        assert all(len(set(chunk_of[t : t + unit])) == 1 for t in range(0, 11, unit))
        for first in range(11):
            for step in (1, 3):
                pixels = movie.read(slice(first, 11, step), movie.area)
                np.testing.assert_array_equal(pixels, PIXELS[first::step])


@pytest.mark.parametrize("frames", ["0:11:3", "2:9", "9:11", "3:4", "1:11:5", "4:5:7"])
def test_frames_with_steps(tmp_path: Path, frames: str) -> None:
    first, last, step = (int(n) for n in (*frames.split(":"), "1")[:3])
    assert_reads(write(tmp_path, (4, 4, 3)), PIXELS[first:last:step], frames=frames)


@pytest.mark.parametrize("group", ["/", "/raw/"])
def test_numbers_count_not_names(tmp_path: Path, group: str) -> None:
    with h5py.File(tmp_path / "m.h5", "w") as file:
        for i in range(11):
            file[f"{group}data_{i}"] = PIXELS[i : i + 1]
    assert_reads(tmp_path / "m.h5", PIXELS)


def test_a_movie_beside_the_parts_comes_first(tmp_path: Path) -> None:
    path = write(tmp_path, (4, 4, 3))
    with h5py.File(path, "r+") as file:
        file["entry/data/data"] = PIXELS[::-1]
        file["entry/data"].attrs["signal"] = "data"
    assert_reads(path, PIXELS[::-1])
    assert_reads(path, PIXELS, dataset="/entry/data")
    assert_reads(path, PIXELS[4:8], dataset="/entry/data/data_000002")
    with h5py.File(path, "r+") as file:
        file["entry/data"].attrs["signal"] = "data_000001"
        del file["entry/data/data"]
    assert_reads(path, PIXELS)


def test_parts_that_are_not_needed_may_be_cut_off(tmp_path: Path) -> None:
    path = write(tmp_path, (4, 4, 3), chunks=None)
    last = tmp_path / "movie_data_000003.h5"
    last.write_bytes(last.read_bytes()[:-4000])
    assert "movie_data_000003.h5" in refusal(lambda: look_at(path))


def _gone(folder: Path) -> None:
    (folder / "movie_data_000002.h5").unlink()


def _without_number(folder: Path) -> None:
    with h5py.File(folder / "movie_master.h5", "r+") as file:
        del file["entry/data/data_000002"]


def _replaced(folder: Path, pixels: np.ndarray) -> None:
    with h5py.File(folder / "movie_data_000002.h5", "w") as file:
        file["entry/data/data"] = pixels


WRONG: dict[str, tuple[Any, str]] = {
    "gone": (_gone, "data_000002 in movie_data_000002.h5 is missing"),
    "no number 2": (_without_number, "the one before data_000003 (number 2) is missing"),
    "another shape": (lambda folder: _replaced(folder, PIXELS[:, 1:]), "data_000002 has shape (11, 39, 60)"),
    "another type": (lambda folder: _replaced(folder, PIXELS.astype("u4")), "type uint32"),
    "an image": (lambda folder: _replaced(folder, PIXELS[0]), "data_000002 has shape (40, 60)"),
}


@pytest.mark.parametrize("what", WRONG)
def test_parts_that_do_not_fit(tmp_path: Path, what: str) -> None:
    path = write(tmp_path, (4, 4, 3))
    spoil, words = WRONG[what]
    spoil(tmp_path)
    assert words in refusal(lambda: look_at(path))


def test_the_command(tmp_path: Path, hrtemvae: Program, tiny_model_path: Path) -> None:
    outcome = hrtemvae("plan", write(tmp_path, (4, 4, 3)), "--model", tiny_model_path)
    assert outcome.code == 0, outcome.text
    assert "11 frames" in outcome.text


# Scales


@pytest.mark.parametrize("scale", [-0.02, 0.0])
def test_scales_that_are_not_positive_calibrate_nothing(tmp_path: Path, scale: float) -> None:
    with h5py.File(tmp_path / "hyperspy.h5", "w") as file:
        file["Experiments/m/data"] = PIXELS
        for i, name in enumerate(("time", "y", "x")):
            axis = file.create_group(f"Experiments/m/axis-{i}")
            axis.attrs.update(name=name, scale=scale, offset=0.0, units="s" if i == 0 else "nm")
    with h5py.File(tmp_path / "dm5.h5", "w") as file:
        file["ImageList/[0]/ImageData/Data"] = PIXELS
        for i in range(3):
            dimension = file.create_group(f"ImageList/[0]/ImageData/Calibrations/Dimension/[{i}]")
            dimension.attrs.update(Scale=scale, Units="s" if i == 2 else "nm")
    for name in ("hyperspy.h5", "dm5.h5"):
        with Movie(tmp_path / name) as movie:
            assert (movie.pixel_size_nm, movie.frame_time_s) == (None, None)


def test_positions_may_decrease(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "m.h5", "w") as file:
        group = file.create_group("data/movie")
        group.attrs["emd_group_type"] = 1
        group["data"] = PIXELS
        for i, (name, count, units) in enumerate((("t", 11, "[s]"), ("y", 40, "[n_m]"), ("x", 60, "[n_m]")), 1):
            group[f"dim{i}"] = np.arange(count)[::-1] * 0.5
            group[f"dim{i}"].attrs.update(name=name, units=units)
    with Movie(tmp_path / "m.h5") as movie:
        assert movie.pixel_size_nm == pytest.approx((0.5, 0.5))


def test_a_micrograph_with_a_negative_scale_is_not_calibrated(shared: Path) -> None:
    """Whose scale of -1 nm was once taken as 1 nm."""
    first = next(iter(read_micrographs(shared / "data" / "formats" / "Custom_movie.mrc")))
    assert first.pixel_size_nm is None
    assert read_all(shared / "data" / "formats" / "Custom_movie.mrc").shape == (30, 16, 16)
