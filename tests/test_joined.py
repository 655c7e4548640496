"""Several files converted to one movie: movies one after another, and single frames."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from commands import Program
from conftest import assert_refused, drifting_pixels
from dm_files import taken_at, write_dm
from hostile import refusal

from hrtemvae_hpc.area import Area
from hrtemvae_hpc.config import MovieSection
from hrtemvae_hpc.errors import InputError
from hrtemvae_hpc.movie.formats.dm_tags import read_tags
from hrtemvae_hpc.movie.joined import open_movies
from hrtemvae_hpc.movie.movie import Movie

PIXELS = drifting_pixels(13, 150, 170)
SECONDS = np.array([0, 0.5, 1, 1.5, 4, 4.25, 5, 6, 7, 8, 9, 10, 12.5])


def contents(path: Path) -> dict[str, np.ndarray]:
    """The pixels and axes of a converted movie, and the digests of its frames."""
    with h5py.File(path, "r") as file:
        names = [f"data/{name}" for name in ("data", "time", "y", "x")]
        return {name: file["entry"][name][...] for name in (*names, "digests")}


def pixels_of(path: Path) -> np.ndarray:
    return contents(path)["data/data"]


def write_frames(folder: Path, ending: str = "dm4", **about: Any) -> list[Path]:
    """A file of each of the frames, in the order in which a shell lists them."""
    folder.mkdir()
    for i, frame in enumerate(PIXELS):
        path = folder / f"frame_{i}.{ending}"
        np.save(path, frame) if ending == "npy" else write_dm(path, frame, **about)
    return sorted(folder.iterdir())


# Single frames


@pytest.mark.parametrize("ending", ["dm4", "npy"])
def test_listed_frames_equal_the_folder_and_the_stack(hrtemvae: Program, tmp_path: Path, ending: str) -> None:
    scale: dict[str, Any] = {"scales": (0.02, 0.02, 1), "units": ("nm", "nm", "")} if ending == "dm4" else {}
    frames = write_frames(tmp_path / "frames", ending, **scale)
    stack = tmp_path / f"stack.{ending}"
    np.save(stack, PIXELS) if ending == "npy" else write_dm(stack, PIXELS, **scale)
    for inputs, output in ((frames, "list.h5"), (["frames"], "folder.h5"), ([stack], "stack.h5")):
        made = hrtemvae("convert", *inputs, "-o", output)
        assert made.code == 0, made.text
    of_list, of_folder, of_stack = (contents(tmp_path / f"{name}.h5") for name in ("list", "folder", "stack"))
    for name, values in of_list.items():
        np.testing.assert_array_equal(values, of_folder[name])
        np.testing.assert_array_equal(values, of_stack[name])
    np.testing.assert_array_equal(of_list["data/data"], PIXELS)


def test_listed_frames_are_described_as_the_folder(tmp_path: Path) -> None:
    """Their times, and what is missing or repeated."""
    frames = write_frames(tmp_path / "frames")
    for i, second in enumerate(SECONDS):
        write_dm(tmp_path / "frames" / f"frame_{i}.dm4", PIXELS[i - (i == 3)], tags=taken_at(second))
    (tmp_path / "frames" / "frame_7.dm4").unlink()
    with (
        open_movies([path for path in frames if path.exists()], MovieSection()) as listed,
        Movie(tmp_path / "frames") as folder,
    ):
        assert folder.times_s is not None
        assert listed.times_s is not None
        np.testing.assert_array_equal(listed.times_s, folder.times_s)
        assert listed.times_s == pytest.approx(np.delete(SECONDS, 7), abs=1e-5)
        assert listed.source.description.notes == folder.source.description.notes
        assert listed.source.description.notes == (
            "frames are missing, by the names of the files: 7",
            "look like repetitions of the frame before: frame_3.dm4",
        )
        assert set(listed.files) == set(folder.files)


def test_uneven_times_are_kept(hrtemvae: Program, tmp_path: Path) -> None:
    write_frames(tmp_path / "frames")
    for i, second in enumerate(SECONDS):
        write_dm(tmp_path / "frames" / f"frame_{i}.dm4", PIXELS[i], tags=taken_at(second))
    assert hrtemvae("convert", "frames", "-o", "c.h5", "--frames", "1:13").code == 0
    with Movie(tmp_path / "frames") as frames, Movie(tmp_path / "c.h5") as movie:
        assert movie.frame_time_s is None
        assert movie.times_s == pytest.approx(SECONDS[1:] - SECONDS[1], abs=1e-5)
        assert frames.times_s is not None
        np.testing.assert_allclose(movie.times_s, frames.times_s[1:] - frames.times_s[1], rtol=0, atol=1e-12)
    planned = hrtemvae("plan", "c.h5", "--step", 32, "--pixel-size", 0.02)
    assert "frames at uneven times" in planned.text


def test_few_headers_are_parsed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = write_frames(tmp_path / "frames")
    parsed = []

    def parse(path: Path) -> dict[str, Any]:
        parsed.append(path.name)
        return read_tags(path)

    monkeypatch.setattr("hrtemvae_hpc.movie.formats.dm_tags.read_tags", parse)
    with open_movies(frames, MovieSection()) as movie:
        np.testing.assert_array_equal(movie.read(slice(0, 13), movie.area), PIXELS)
    assert set(parsed) == {"frame_0.dm4", "frame_10.dm4"}  # longer names make other sizes


OTHERS: dict[str, Callable[[Path], object]] = {
    "stack.dm4": lambda path: write_dm(path, PIXELS[:3]),
    "stack.npy": lambda path: np.save(path, PIXELS[:3]),
    "still.npy": lambda path: np.save(path, PIXELS[0]),
}


@pytest.mark.parametrize("name", OTHERS)
def test_frames_and_something_else_are_joined(tmp_path: Path, name: str) -> None:
    """A stack, or a frame in another format."""
    frames = write_frames(tmp_path / "frames")
    OTHERS[name](tmp_path / name)
    with open_movies([*frames, tmp_path / name, tmp_path / "frames"], MovieSection()) as movie:
        read = movie.read(slice(0, movie.shape[0]), movie.area)
    others = PIXELS[: len(read) - 26]
    assert len(others) in (1, 3)
    assert movie.path == tmp_path / "frames"
    np.testing.assert_array_equal(read[:26], np.concatenate([PIXELS, PIXELS]))
    np.testing.assert_array_equal(read[26:], others)


def test_listed_frames_that_are_not_alike_are_refused(tmp_path: Path) -> None:
    frames = write_frames(tmp_path / "frames")
    write_dm(tmp_path / "frames" / "frame_5.dm4", PIXELS[5, 1:])
    sentence = refusal(lambda: open_movies(frames, MovieSection()))
    assert sentence.startswith(f"{tmp_path / 'frames' / 'frame_5.dm4'}: holds 149 x 170 pixels of uint16")
    assert "leave it out" in sentence
    np.save(tmp_path / "frames" / "frame_5.npy", PIXELS[5])
    assert "--dataset" in refusal(lambda: open_movies(frames, MovieSection(dataset="m")))
    gone = tmp_path / "frames" / "frame_99.dm4"
    (tmp_path / "frames" / "frame_5.dm4").unlink()
    assert "no such file" in refusal(lambda: open_movies([frames[0], gone], MovieSection()))


# Movies


def test_joined_files_are_one_movie(hrtemvae: Program, tmp_path: Path) -> None:
    for i, frame in enumerate(PIXELS):
        np.save(tmp_path / f"frame_{i}.npy", frame)
    made = hrtemvae("convert", *sorted(tmp_path.glob("frame_*.npy")), "-o", "c.h5", "--frames", "2:13:3")
    assert made.code == 0, made.text
    np.testing.assert_array_equal(pixels_of(tmp_path / "c.h5"), PIXELS[2:13:3])


@pytest.mark.parametrize("frames", [(None, None, None), (1, 12, None), (3, 13, 4), (0, 13, 7)])
def test_joined_movies_of_several_frames(tmp_path: Path, frames: tuple[int | None, int | None, int | None]) -> None:
    """In HDF5 and NumPy files, more of them than stay open, read by many threads."""
    paths = []
    for i, (a, b) in enumerate([(0, 5), (5, 6), (6, 13)]):
        if i == 1:
            np.save(tmp_path / f"m{i}.npy", PIXELS[a:b])
            paths.append(tmp_path / f"m{i}.npy")
        else:
            with h5py.File(tmp_path / f"m{i}.h5", "w") as file:
                file.create_dataset("m", data=PIXELS[a:b], chunks=(2, 150, 170), compression="gzip")
            paths.append(tmp_path / f"m{i}.h5")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hrtemvae_hpc.movie.joined._KEPT_OPEN", 1)
        with open_movies(paths, MovieSection(frames=frames)) as movie:
            read = movie.read(slice(0, movie.shape[0]), movie.area)
            areas = [Area(slice(y, y + 50), slice(x, x + 34)) for y in (0, 50, 100) for x in range(0, 170, 34)]
            with ThreadPoolExecutor(8) as threads:
                tiles = list(threads.map(lambda area: movie.read(slice(0, movie.shape[0]), area), areas))
    expected = PIXELS[slice(*frames)]
    np.testing.assert_array_equal(read, expected)
    for area, tile in zip(areas, tiles, strict=True):
        np.testing.assert_array_equal(tile, expected[:, area.rows, area.columns])


def test_times_that_do_not_go_on_are_not_used(tmp_path: Path) -> None:
    for name in "ab":
        with h5py.File(tmp_path / f"{name}.h5", "w") as file:
            file.create_group("m").attrs.update(NX_class="NXdata", signal="data", axes=["time", "y", "x"])
            file.attrs["default"] = "m"
            file["m/data"], file["m/time"] = PIXELS, SECONDS
            file["m/time"].attrs["units"] = "s"
    with open_movies([tmp_path / "a.h5", tmp_path / "b.h5"], MovieSection()) as movie:
        assert movie.times_s is None
        assert "don't go on" in movie.source.description.notes[0]


def test_joined_files_of_other_shapes_are_refused(hrtemvae: Program, tmp_path: Path) -> None:
    npy = tmp_path / "movie.npy"
    np.save(npy, PIXELS)
    np.save(tmp_path / "other.npy", PIXELS[:, 1:])
    np.save(tmp_path / "type.npy", PIXELS.astype("f4"))
    assert_refused(hrtemvae("convert", npy, "other.npy", "-o", "c.h5"), "other.npy", "149 x 170", "150 x 170")
    assert_refused(hrtemvae("convert", npy, "type.npy", "-o", "c.h5"), "type.npy", "float32", "uint16")


def test_frames_of_a_joined_movie_that_differ_in_scale_are_not_calibrated(tmp_path: Path) -> None:
    for name, size in (("a", 0.1), ("b", 0.2)):
        with h5py.File(tmp_path / f"{name}.h5", "w") as file:
            file["m"] = PIXELS
            file["m"].attrs["pixel_size_nm"] = size
    with open_movies([tmp_path / "b.h5", tmp_path / "a.h5"], MovieSection()) as movie:
        assert movie.path.name == "a.h5"
        assert movie.pixel_size_nm is None
        assert "different sizes of a pixel" in movie.source.description.notes[0]
    with pytest.raises(InputError, match="no such file"):
        open_movies([tmp_path / "a.h5", tmp_path / "c.h5"], MovieSection())
