"""Folders of single frames as one movie: their order, what is missing or repeated, and what is refused."""

import os
import resource
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from commands import Program
from conftest import assert_refused, assert_same_maps, drifting_pixels
from dm_files import image_tags, taken_at, thumbnail, write_dm, write_images
from hostile import refusal
from ncempy.io import dm

from hrtemvae_hpc.area import Area
from hrtemvae_hpc.config import MovieSection
from hrtemvae_hpc.errors import InputError
from hrtemvae_hpc.files import content_of
from hrtemvae_hpc.movie.formats.dm import DM
from hrtemvae_hpc.movie.formats.dm_tags import read_tags
from hrtemvae_hpc.movie.formats.folder import like
from hrtemvae_hpc.movie.formats.names import gaps, missing, natural
from hrtemvae_hpc.movie.frames import Description
from hrtemvae_hpc.movie.movie import Movie

PIXELS = drifting_pixels(12, 20, 30)


def write_npy(path: Path, pixels: np.ndarray, **_: object) -> None:
    np.save(path, pixels)


def read_all(path: Path, **section: Any) -> np.ndarray:
    with Movie(path, MovieSection.model_validate(section)) as movie:
        return movie.read(slice(0, movie.shape[0]), movie.area)


def described(path: Path) -> Description:
    with Movie(path) as movie:
        return movie.source.description


def write_frames(folder: Path, name: str = "frame_{}.dm4", numbers: object = None, **about: Any) -> Path:
    folder.mkdir(exist_ok=True)
    for i, pixels in zip(numbers or range(len(PIXELS)), PIXELS, strict=False):  # type: ignore[call-overload]
        write_dm(folder / name.format(i), pixels, **about)
    return folder


def check_folder(folder: Path, expected: np.ndarray = PIXELS) -> Description:
    """The folder holds the ``expected`` frames, wherever one reads; returns its description."""
    assert read_all(folder).dtype == expected.dtype
    np.testing.assert_array_equal(read_all(folder), expected)
    np.testing.assert_array_equal(read_all(folder, frames=(1, 9, 3), roi=((2, 9), (5, 6))), expected[1:9:3, 2:9, 5:6])
    return described(folder)


WRITERS: dict[str, Callable[..., object]] = {
    "dm3": partial(write_dm, version=3),
    "dm4": write_dm,
    "npy": write_npy,
}


@pytest.mark.parametrize("ending", WRITERS)
@pytest.mark.parametrize("name", ["frame_{}", "frame {:04}", "{:02} at 200 kV"])
def test_a_folder_equals_the_stack(tmp_path: Path, ending: str, name: str) -> None:
    (tmp_path / "frames").mkdir()
    for i, pixels in enumerate(PIXELS):
        WRITERS[ending](tmp_path / "frames" / f"{name.format(i)}.{ending}", pixels)
    stack = tmp_path / f"stack.{ending}"
    WRITERS[ending](stack, PIXELS)
    about = check_folder(tmp_path / "frames", read_all(stack))
    assert about.notes == ()
    assert about.times_s is None


def test_frames_are_those_that_ncempy_reads(tmp_path: Path) -> None:
    folder = write_frames(tmp_path / "frames", scales=(0.02, 0.03), units=("nm", "nm"))
    expected = [dm.dmReader(str(folder / f"frame_{i}.dm4"))["data"] for i in range(12)]
    about = check_folder(folder, np.stack(expected))
    assert about.pixel_size_nm == pytest.approx((0.03, 0.02))


def test_few_headers_are_parsed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parsed = []

    def parse(path: Path) -> dict[str, Any]:
        parsed.append(path.name)
        return read_tags(path)

    monkeypatch.setattr("hrtemvae_hpc.movie.formats.dm_tags.read_tags", parse)
    check_folder(write_frames(tmp_path / "frames"))
    assert set(parsed) == {"frame_0.dm4", "frame_10.dm4"}  # longer names make other sizes


def test_a_frame_elsewhere_in_a_file_of_the_same_size(tmp_path: Path) -> None:
    folder = write_frames(tmp_path / "frames", tags={"Comment": "abcd"})
    longer = thumbnail(PIXELS[5]) | {"Name": "thumbnail 2"}
    path = write_images(folder / "frame_5.dm4", [longer, image_tags(PIXELS[5], "frame_5", tags={"Comment": "ab"})])
    assert path.stat().st_size == (folder / "frame_4.dm4").stat().st_size
    check_folder(folder)


@pytest.mark.parametrize("version", [3, 4])
def test_what_counts_as_alike_is_parsed_the_same(tmp_path: Path, version: int) -> None:
    """Whatever byte of a file is changed: if it is not parsed, nothing of importance is different in it."""
    pixels = PIXELS[0, :4, :4]
    about = {"scales": (0.02, 0.02), "units": ("nm", "nm"), "tags": taken_at(7)}
    example = DM.read(write_dm(tmp_path / "example.dm", pixels, version, **about))
    path = write_dm(tmp_path / "changed.dm", pixels, version, **about)
    content = path.read_bytes()
    alike = 0
    for at in range(len(content)):
        path.write_bytes(content[:at] + bytes([content[at] ^ (1 << at % 8)]) + content[at + 1 :])
        if (frame := like(example, path)) is None:
            continue
        alike += 1
        try:
            parsed = DM.read(path)
        except InputError:
            continue  # other tags are damaged, which makes no difference
        assert parsed.description.shape == (1, 4, 4)
        assert parsed.placement.dtype == example.placement.dtype
        assert parsed.description.pixel_size_nm == frame.scale_nm
        assert parsed.placement.offsets[0] == frame.offset
        assert parsed.clock_s in (frame.clock_s, None)  # None if the name of a group around it is damaged
    assert alike > len(content) / 3


def test_copies_of_a_real_file(shared: Path, tmp_path: Path) -> None:
    real = shared / "data" / "formats" / "dmTest_float32_nonSquare_diffPixelSize.dm4"
    original = DM.read(real)
    first = int(original.placement.offsets[0])
    content = bytearray(real.read_bytes())
    pixels = np.random.default_rng(0).random((12, 64, 128), np.float32)
    for i, frame in enumerate(pixels):
        content[first : first + frame.nbytes] = frame.tobytes()
        (tmp_path / f"{i:02}.dm4").write_bytes(content)
        np.testing.assert_array_equal(dm.dmReader(str(tmp_path / f"{i:02}.dm4"))["data"], frame)
    about = check_folder(tmp_path, pixels)
    assert about.pixel_size_nm == original.description.pixel_size_nm == pytest.approx((0.2, 1.0))
    assert about.notes == ()


@pytest.mark.parametrize(
    "other", [PIXELS[5].T.copy(), PIXELS[5].view(np.int16), PIXELS[5, :10].astype(np.uint32), PIXELS[5, 1:]]
)
def test_frames_of_another_shape_or_type_are_refused(tmp_path: Path, other: np.ndarray) -> None:
    """Also in a file of the same size."""
    folder = write_frames(tmp_path / "frames")
    write_dm(folder / "frame_5.dm4", other)
    sentence = refusal(lambda: Movie(folder))
    assert "frame_5.dm4: holds" in sentence
    assert "frame_0.dm4 20 x 30" in sentence


def test_frames_of_another_magnification_are_noted(tmp_path: Path) -> None:
    folder = write_frames(tmp_path / "frames", scales=(0.02, 0.02), units=("nm", "nm"))
    write_dm(folder / "frame_5.dm4", PIXELS[5], scales=(0.03, 0.02), units=("nm", "nm"))
    about = check_folder(folder)
    assert about.pixel_size_nm == pytest.approx((0.02, 0.02))
    assert about.notes == ("have pixels of another size than the first frame: frame_5.dm4",)


# Order, gaps and repetitions


def test_natural_order() -> None:
    names = ["a10b2", "a2b10", "a2b9", "a02b9", "b", "a", "10", "9", "a2", "A3"]
    assert sorted(names, key=natural) == ["9", "10", "A3", "a", "a2", "a02b9", "a2b9", "a2b10", "a10b2", "b"]


@pytest.mark.parametrize(
    ("numbers", "lost"),
    [
        ([0, 1, 2, 3], None),
        ([7], None),
        ([1, 2, 4, 5], "3"),
        ([10, 20, 40, 50], "30"),
        ([0, 1, 2, 3, 4, 5, 6, 7, 16], "8, 9, 10, 11, 12 and 3 more"),
        ([1, 1000, 10**15], None),
        ([3, 2, 1], None),
        ([1, 1, 3], None),
    ],
)
def test_gaps(numbers: list[int], lost: str | None) -> None:
    assert gaps(numbers) == lost


def test_missing_counts_the_last_number_that_differs() -> None:
    assert missing(["200kV_run2_1.dm4", "200kV_run2_2.dm4", "200kV_run2_4.dm4"]) == "3"
    assert missing(["1200_01.dm4", "1201_02.dm4", "1207_04.dm4"]) == "3"
    assert missing(["a_1.dm4", "b_3.dm4"]) is None


def test_missing_and_repeated_frames_are_noted(tmp_path: Path) -> None:
    folder = write_frames(tmp_path / "frames", numbers=[0, 1, 2, 5, 6, 7, 8, 9, 10, 11, 12, 13])
    write_dm(folder / "frame_7.dm4", PIXELS[4])
    blank = np.zeros_like(PIXELS[0])
    for number in (10, 11):
        write_dm(folder / f"frame_{number}.dm4", blank)
    assert described(folder).notes == (
        "frames are missing, by the names of the files: 3, 4",
        "look like repetitions of the frame before: frame_7.dm4",
    )


def test_times_of_the_files(tmp_path: Path) -> None:
    folder = tmp_path / "frames"
    folder.mkdir()
    seconds = np.array([0.0, 0.5, 1, 1.5, 4, 4.25, 5, 6, 7, 8, 9, 10]) + 12.75
    for i, (pixels, second) in enumerate(zip(PIXELS, seconds, strict=True)):
        write_dm(folder / f"frame_{i}.dm4", pixels, tags=taken_at(second))
    about = check_folder(folder)
    assert about.times_s == pytest.approx(seconds - seconds[0], abs=1e-5)
    assert about.frame_time_s is None
    even = described(write_even(tmp_path / "even"))
    assert even.frame_time_s == pytest.approx(0.04, rel=1e-4)


def write_even(folder: Path) -> Path:
    folder.mkdir()
    for i, pixels in enumerate(PIXELS):
        write_dm(folder / f"frame_{i}.dm4", pixels, tags=taken_at(0.04 * i))
    return folder


def test_names_count_where_times_contradict_them(tmp_path: Path) -> None:
    folder = write_even(tmp_path / "frames")
    write_dm(folder / "frame_5.dm4", PIXELS[5], tags=taken_at(0.01))
    about = check_folder(folder)
    assert about.times_s is None
    assert len(about.notes) == 1
    assert "contradict" in about.notes[0]
    assert "frame_5.dm4" in about.notes[0]


def test_names_of_two_kinds_are_noted(tmp_path: Path) -> None:
    folder = write_frames(tmp_path / "frames")
    write_dm(folder / "dark.dm4", PIXELS[0])
    assert described(folder).notes[0] == "the names are of 2 kinds, in this order: dark.dm4, frame_#.dm4"


# In situ trees


def write_tree(folder: Path, seconds: list[int], rate: int = 4, lost: tuple[int, ...] = (), **about: Any) -> np.ndarray:
    """Frames in folders of hours, minutes and seconds, without the ``lost``; returns the frames that are there."""
    pixels = drifting_pixels(len(seconds) * rate, 12, 14)
    for i, frame in enumerate(pixels):
        second, number = seconds[i // rate], i % rate
        parts = f"Hour_{second // 3600:02}", f"Minute_{second // 60 % 60:02}", f"Second_{second % 60:02}"
        inside = folder.joinpath(*parts)
        inside.mkdir(parents=True, exist_ok=True)
        if i not in lost:
            write_dm(inside / f"movie_{'_'.join(parts)}_Frame_{number:04}.dm4", frame, **about)
    return np.delete(pixels, lost, axis=0)


def test_in_situ_trees(tmp_path: Path) -> None:
    seconds = [58, 59, 60, 61, 3599, 3600]
    expected = write_tree(tmp_path / "movie", seconds, scales=(0.5, 0.5), units=("Å", "Å"))
    write_dm(tmp_path / "movie" / "movie.dm4", expected[0], tags={"In-situ": {"Recorded": {"# Frames": np.uint32(24)}}})
    (tmp_path / "movie" / "Hour_00" / "notes.txt").write_text("no frame")
    about = check_folder(tmp_path / "movie", expected)
    assert about.pixel_size_nm == pytest.approx((0.05, 0.05))
    assert about.times_s == pytest.approx(np.array([s - 58 + f / 4 for s in seconds for f in range(4)]))
    assert about.frame_time_s is None


def test_an_even_tree_has_a_frame_time(tmp_path: Path) -> None:
    write_tree(tmp_path, [0, 1, 2])
    assert described(tmp_path).frame_time_s == pytest.approx(0.25)
    assert described(tmp_path).notes == ()


def test_missing_frames_and_seconds_of_a_tree(tmp_path: Path) -> None:
    expected = write_tree(tmp_path, [0, 1, 2, 5], lost=(4, 10))
    about = check_folder(tmp_path, expected)
    assert about.notes == (
        "frames are missing, by the names of the files: seconds 3, 4; in second 1 frames 0; in second 2 frames 2",
    )
    assert about.times_s is not None
    assert about.times_s[4] == 1.25


def test_a_tree_that_contains_itself(tmp_path: Path) -> None:
    expected = write_tree(tmp_path / "movie", [0, 1, 2])
    for inside in ("", "Hour_00", "Hour_00/Minute_00", "Hour_00/Minute_00/Second_00"):
        (tmp_path / "movie" / inside / "Hour_01").symlink_to(tmp_path / "movie")
    check_folder(tmp_path / "movie", expected)


# What else lies in folders


def test_other_files_do_not_count(tmp_path: Path) -> None:
    folder = write_frames(tmp_path / "frames")
    (folder / "notes.txt").write_text("seen")
    (folder / "Thumbs.db").write_bytes(bytes(4000))
    (folder / "preview.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (folder / "._frame_3.dm4").write_bytes(b"of a Mac")
    (folder / ".frame_99.dm4").write_bytes((folder / "frame_3.dm4").read_bytes())
    (folder / "empty").touch()
    (folder / "inside.dm4").mkdir()
    os.mkfifo(folder / "pipe.dm4")
    (folder / "lost.dm4").symlink_to(folder / "nothing")
    for kind in ("result", "movie"):
        with h5py.File(folder / f"{kind}.h5", "w") as file:
            file.attrs["content"] = content_of(kind)
    assert check_folder(folder).notes == ()


def foreign_hdf5(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["movie"] = PIXELS


UNFIT: dict[str, tuple[Callable[[Path], object], str]] = {
    "frame_3.npy": (lambda p: np.save(p, PIXELS[0]), "another format (NumPy)"),
    "movie.h5": (foreign_hdf5, "HDF5"),
    "frame_5.dm4": (lambda p: os.truncate(p, 700), "damaged or cut off"),
    "frame_6.dm4": (lambda p: os.truncate(p, 0), "damaged or empty"),
    "frame_99.dm4": (lambda p: p.write_bytes(b"x" * 3000), "damaged or empty"),
    "frame_98.dm4": (lambda p: write_dm(p, PIXELS), "holds 12 frames"),
    "a.dm4": (lambda p: write_dm(p, PIXELS), "holds 12 frames"),
    "frame_0.dm4": (lambda p: write_dm(p, PIXELS[0, 0]), "no image"),
    "frame_97.dm4": (lambda p: p.symlink_to("/proc/self/mem"), "can't be read"),
}


@pytest.mark.parametrize("name", UNFIT)
def test_what_does_not_fit_is_named(tmp_path: Path, name: str) -> None:
    folder = write_frames(tmp_path / "frames")
    spoil, words = UNFIT[name]
    spoil(folder / name)
    sentence = refusal(lambda: Movie(folder))
    assert sentence.startswith(f"{folder / name}: ")
    assert words in sentence


def test_folders_without_frames(tmp_path: Path) -> None:
    assert "without frames of a known format" in refusal(lambda: Movie(tmp_path))
    (tmp_path / "Hour_00" / "Minute_00").mkdir(parents=True)
    assert "without frames of a known format" in refusal(lambda: Movie(tmp_path))
    foreign_hdf5(tmp_path / "movie.h5")
    shutil.rmtree(tmp_path / "Hour_00")
    assert "name one" in refusal(lambda: Movie(tmp_path))


def test_names_that_act_on_a_terminal(tmp_path: Path) -> None:
    folder = write_frames(tmp_path / "frames")
    np.save(folder / "\x1b[2J\rframe.npy", PIXELS[0])
    os.rename(os.fsencode(folder / "frame_4.dm4"), os.fsencode(folder) + b"/frame_4\xff.dm4")
    refusal(lambda: Movie(folder))
    (folder / "\x1b[2J\rframe.npy").unlink()
    assert all(note.isprintable() for note in described(folder).notes)


def test_a_movie_of_one_file_in_a_folder(tmp_path: Path) -> None:
    write_dm(tmp_path / "stack.dm4", PIXELS)
    (tmp_path / "notes.txt").write_text("seen")
    check_folder(tmp_path)


# Many files


@contextmanager
def few_descriptors(count: int) -> Iterator[None]:
    """No more than ``count`` files can be open beyond those that are."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(name) for name in os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + count, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_more_files_than_can_be_open(tmp_path: Path) -> None:
    """Read by many threads at once, in any order."""
    pixels = drifting_pixels(700, 8, 9)
    for i, frame in enumerate(pixels):
        np.save(tmp_path / f"frame_{i}.npy", frame)
    areas = [Area(slice(y, y + 4), slice(x, x + 5)) for y in range(4) for x in range(4)]
    with few_descriptors(300), Movie(tmp_path) as movie, ThreadPoolExecutor(16) as threads:
        read = list(threads.map(lambda area: movie.read(slice(0, 700), area), areas))
        opened = len(os.listdir("/proc/self/fd"))
    for area, part in zip(areas, read, strict=True):
        np.testing.assert_array_equal(part, pixels[:, area.rows, area.columns])
    assert opened - len(os.listdir("/proc/self/fd")) == 256


def test_changes_are_noticed(tmp_path: Path) -> None:
    folder = write_frames(tmp_path / "frames")
    with Movie(folder) as movie:
        assert not movie.has_changed(thorough=True)
        fingerprint = movie.fingerprint
        write_dm(folder / "frame_8.dm4", PIXELS[0])
        assert movie.has_changed(thorough=True)
        os.truncate(folder / "frame_8.dm4", 900)
        with pytest.raises(OSError, match="ends too early"):
            movie.read(slice(8, 9), movie.area)
    write_dm(folder / "frame_8.dm4", PIXELS[8])
    write_dm(folder / "frame_12.dm4", PIXELS[8] + 1)
    with Movie(folder) as movie:
        assert movie.fingerprint != fingerprint


# The command


def test_through_the_command(hrtemvae: Program, tmp_path: Path, tiny_model_path: Path) -> None:
    pixels = drifting_pixels(12, 70, 90)
    folder = tmp_path / "run.7"
    folder.mkdir()
    for i, frame in enumerate(pixels):
        write_dm(folder / f"frame_{i}.dm4", frame)
    np.save(tmp_path / "stack.npy", pixels)
    model = ("--model", tiny_model_path)
    for cwd, name in ((tmp_path, "run.7/"), (folder, "."), (tmp_path, "stack.npy")):
        done = hrtemvae("analyze", name, *model, cwd=cwd)
        assert done.code == 0, done.text
    assert_same_maps(tmp_path / "run.7.maps.h5", tmp_path / "stack.maps.h5")
    assert_same_maps(folder / "run.7.maps.h5", tmp_path / "stack.maps.h5")
    planned = hrtemvae("plan", folder, *model)  # beside our own result
    assert planned.code == 0, planned.text
    assert "12 frames of 70 x 90" in planned.text
    assert_refused(hrtemvae("plan", folder, "--axes", "tyx", *model), "folder", "--axes")
    write_dm(folder / "frame_12.dm4", pixels[0, 1:])
    assert_refused(hrtemvae("plan", folder, *model), "frame_12.dm4", "69 x 90")
