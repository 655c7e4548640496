"""Movies that are still being written: which of their frames can be read, and when they have ended."""

import shutil
import struct
import time
from pathlib import Path

import numpy as np
import pytest
import tifffile
from conftest import drifting_pixels
from recorder import recording

from hrtemvae_hpc.config import MovieSection
from hrtemvae_hpc.errors import InputError
from hrtemvae_hpc.live.recording import Recording, count_written
from hrtemvae_hpc.movie.movie import Movie

PIXELS = drifting_pixels(16, 40, 50)


def follow(path: Path, settle_s: float = 60.0, section: MovieSection | None = None) -> Recording:
    return Recording(path, section or MovieSection(), None, settle_s)


def assert_holds(one: Recording, frames: int) -> None:
    """All frames but the newest can be read, and are what was written."""
    one.look()
    assert one.count == frames - 1, one.obstacle
    if one.count:
        movie = one.frames(slice(0, one.count))
        np.testing.assert_array_equal(movie.read(slice(0, one.count), movie.area), PIXELS[: one.count])


@pytest.mark.parametrize("mode", ["swmr", "flushed"])
def test_an_hdf5_file_that_grows(tmp_path: Path, mode: str) -> None:
    with recording(tmp_path / "movie.h5", PIXELS, mode) as recorder:
        one = follow(tmp_path / "movie.h5")
        for frames in (3, 1, 5, 7):
            recorder.write(frames)
            written = one.count + 1 if one.count else 0
            assert_holds(one, written + frames)
        recorder.finish()
        one.look()
        assert one.has_ended == (mode == "swmr")  # other files don't say it
        one.close()


def test_frames_that_are_reserved_do_not_count(tmp_path: Path) -> None:
    with recording(tmp_path / "movie.h5", PIXELS, "reserved") as recorder:
        one = follow(tmp_path / "movie.h5")
        recorder.write(5)
        one.look()
        assert one.count == 7  # those of two chunks, of which the rest is empty
        assert [count_written(one, known) for known in (0, 3, 5)] == [5, 5, 5]
        recorder.write(11)
        assert_holds(one, 16)
        one.close()


def test_a_file_open_in_a_writer_is_named_as_such(tmp_path: Path) -> None:
    path = tmp_path / "movie.h5"
    with recording(path, PIXELS) as recorder:
        recorder.write(5)
        with pytest.raises(InputError, match=r"still being written.*--follow"):
            Movie(path)


def test_a_folder_of_frames_that_grows(tmp_path: Path) -> None:
    one = follow(tmp_path / "frames")
    one.look()
    assert "there is no such file" in one.obstacle
    (tmp_path / "frames").mkdir()
    for number, image in enumerate(PIXELS):
        tifffile.imwrite(tmp_path / "frames" / f"frame{number}.tif", image)
        if number % 5 == 2:
            assert_holds(one, number + 1)
    half = (tmp_path / "frames" / "frame3.tif").read_bytes()[:1000]
    (tmp_path / "frames" / "frame16.tif").write_bytes(half)
    one.look()
    assert one.count == 12  # as at the last look that found only complete files
    assert "frame16.tif" in one.obstacle
    (tmp_path / "frames" / "frame16.tif").unlink()
    assert_holds(one, 16)
    one.close()


def test_a_raw_file_that_grows(tmp_path: Path) -> None:
    head, step = bytearray(8192), PIXELS[0].nbytes + 8  # of StreamPix, see test_formats_seq.py
    struct.pack_into("<L24sll", head, 0, 0xFEED, "Norpix seq\0".encode("utf-16-le"), 5, 1024)
    struct.pack_into("<9L", head, 548, 50, 40, 16, 16, PIXELS[0].nbytes, 100, 0, 0, step)
    path = tmp_path / "movie.seq"
    one = follow(path)
    for frames, more in ((3, 0), (7, 100), (16, 0)):
        body = b"".join(frame.tobytes() + struct.pack("<lHH", 1, 0, 0) for frame in PIXELS[: frames + 1])
        path.write_bytes(bytes(head) + body[: frames * step + more])
        assert_holds(one, frames)
    one.close()


def test_an_mrc_file_whose_head_promises_more(tmp_path: Path) -> None:
    head = bytearray(1024)
    struct.pack_into("<4i", head, 0, 50, 40, 16, 6)
    struct.pack_into("<3i", head, 28, 50, 40, 16)
    head[208:212], head[212:216] = b"MAP ", b"\x44\x44\0\0"
    path = tmp_path / "movie.mrc"
    one = follow(path)
    for frames in (4, 9, 16):
        path.write_bytes(bytes(head) + PIXELS[:frames].tobytes() + b"\0" * 100 * (frames < 16))
        assert_holds(one, frames)
    one.close()


def test_it_ends_when_it_has_not_changed(tmp_path: Path) -> None:
    one = follow(tmp_path / "movie.h5", 0.4)
    one.look()
    time.sleep(0.5)
    one.look()
    assert not one.has_ended  # it has not begun
    with recording(tmp_path / "other.h5", PIXELS, "flushed") as recorder:
        recorder.write(5)
        recorder.finish()
    shutil.copyfile(tmp_path / "other.h5", tmp_path / "movie.h5")
    one.look()
    assert not one.has_ended
    time.sleep(0.5)
    assert one.has_ended
    one.close()


def test_selected_frames(tmp_path: Path) -> None:
    with recording(tmp_path / "movie.h5", PIXELS) as recorder:
        one = follow(tmp_path / "movie.h5", section=MovieSection(frames=(2, 11, 3)))
        recorder.write(6)
        one.look()
        assert one.count == 1  # frame 2; frame 5 is the newest
        recorder.write(10)
        one.look()
        assert one.count == 3
        assert one.frames(slice(1, 3)).frame_indices.tolist() == [5, 8]
        one.close()


def test_the_age_of_frames(tmp_path: Path) -> None:
    with recording(tmp_path / "movie.h5", PIXELS) as recorder:
        one = follow(tmp_path / "movie.h5")
        recorder.write(5)
        one.look()
        one.note_arrival(one.count)
        time.sleep(0.2)
        recorder.write(5)
        one.look()
        one.note_arrival(one.count)
        assert one.age(4) - one.age(9) >= 0.2
        one.forget(9)
        assert one.age(4) == pytest.approx(one.age(9), abs=0.05)
        one.close()


def test_another_movie_in_its_place_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "frames"
    path.mkdir()
    for number, image in enumerate(PIXELS):
        tifffile.imwrite(path / f"frame{number}.tif", image)
    one = follow(path)
    assert_holds(one, 16)
    for file in list(path.iterdir())[:6]:
        file.unlink()
    with pytest.raises(InputError, match="another movie took its place"):
        one.look()
    one.close()


def test_empty_frames_count_once_another_follows(tmp_path: Path) -> None:
    pixels = PIXELS.copy()
    pixels[[3, 4, 9, 10, 11]] = 0
    for frames, written in ((12, 9), (13, 9), (14, 13)):
        np.save(tmp_path / "movie.npy", pixels[:frames])
        one = follow(tmp_path / "movie.npy")
        one.look()
        assert one.count == frames - 1
        assert {count_written(one, known) for known in range(5, 10)} == {written}
        one.close()


def test_a_movie_under_the_same_name_is_another_one(tmp_path: Path) -> None:
    path, other = tmp_path / "movie.npy", tmp_path / "other.npy"
    np.save(path, PIXELS)
    np.save(other, PIXELS)
    one = follow(path)
    one.look()
    other.replace(path)
    with pytest.raises(InputError, match="another movie took its place"):
        one.look()
    one.close()


def test_a_movie_that_vanishes_has_ended(tmp_path: Path) -> None:
    np.save(tmp_path / "movie.npy", PIXELS)
    one = follow(tmp_path / "movie.npy", 0.2)
    one.look()
    (tmp_path / "movie.npy").unlink()
    one.look()
    assert not one.has_ended
    assert "there is no such file" in one.obstacle
    time.sleep(0.3)
    assert one.has_ended
