"""TVIPS files, written and read by rosettasciio."""

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import Program
from conftest import drifting_pixels
from hostile import refusal
from reading import assert_cuts_are_noticed, assert_parts, assert_reads, assert_survives, look_at, read_all
from rsciio.tvips import file_reader, file_writer

from hrtemvae_hpc.movie.movie import Movie

PIXELS = drifting_pixels(7, 20, 30)
FRAME_HEADER = 60  # bytes that rosettasciio writes before each frame


def write(
    path: Path, pixels: np.ndarray = PIXELS, frames_each: int = 0, frame_time: float = 0.25, **options: Any
) -> Path:
    """The first of the files, each with at most ``frames_each`` frames."""
    time, *sides = (
        {"name": name, "size": size, "scale": 2.0, "offset": 0, "units": "nm", "navigate": False}
        for name, size in zip(("time", "y", "x"), pixels.shape, strict=True)
    )
    axes = [{**time, "scale": frame_time, "units": "s", "navigate": True}, *sides]
    signal = {"data": pixels, "axes": axes, "metadata": {}, "attributes": {"_lazy": False}}
    frame = pixels[0].nbytes + FRAME_HEADER + options.get("frame_header_extra_bytes", 0)
    file_writer(
        str(path), signal, max_file_size=256 + frames_each * frame if frames_each else None, show_progressbar=False,
        **options,
    )  # fmt: skip
    return path


@pytest.mark.parametrize("dtype", ["u1", "u2"])
@pytest.mark.parametrize("extra", [0, 52])
@pytest.mark.parametrize("frames_each", [0, 3])
def test_what_rosettasciio_writes(tmp_path: Path, dtype: str, extra: int, frames_each: int) -> None:
    path = write(
        tmp_path / "movie_000.tvips", PIXELS.astype(dtype), frames_each, frame_header_extra_bytes=extra, mode=1
    )
    assert len(list(tmp_path.iterdir())) == (3 if frames_each else 1)
    (signal,) = file_reader(str(path))
    np.testing.assert_array_equal(signal["data"], PIXELS.astype(dtype))
    assert_parts(path, np.asarray(signal["data"]))
    with Movie(path) as movie:
        about = movie.source.description
        assert about.times_s == pytest.approx(np.arange(7) * signal["axes"][0]["scale"])
        assert len(set(movie.files)) == (3 if frames_each else 1)


def test_a_pixel_size_in_whole_nanometres_is_not_used(tmp_path: Path) -> None:
    path = write(tmp_path / "movie_000.tvips")
    content = path.read_bytes()
    path.write_bytes(content[:36] + struct.pack("<I", 2) + content[40:])
    assert file_reader(str(path))[0]["axes"][1]["scale"] == 2
    with Movie(path) as movie:
        assert movie.pixel_size_nm is None
        assert "2 whole nanometres" in movie.source.description.notes[0]
        assert movie.source.description.metadata["pixel size nm"] == 2


def test_frame_headers_of_version_1(tmp_path: Path) -> None:
    """Of 12 bytes, whatever the file's header says; rosettasciio refuses them."""
    first = np.zeros(64, "<u4")
    first[:5] = 256, 1, 30, 20, 16
    frames = [struct.pack("<III", t, 100 + t, 500) + image.tobytes() for t, image in enumerate(PIXELS)]
    (tmp_path / "movie_000.tvips").write_bytes(first.tobytes() + b"".join(frames))
    assert_reads(tmp_path / "movie_000.tvips", PIXELS)
    with Movie(tmp_path / "movie_000.tvips") as movie:
        assert movie.source.description.times_s == pytest.approx(np.arange(7))


def test_times_that_do_not_increase_are_not_used(tmp_path: Path) -> None:
    with Movie(write(tmp_path / "movie_000.tvips", frame_time=0)) as movie:
        assert movie.source.description.times_s is None


def test_parts_of_a_movie(tmp_path: Path) -> None:
    path = write(tmp_path / "movie_000.tvips", frames_each=2)
    other = write(tmp_path / "other_000.tvips", PIXELS[::-1].copy())
    assert "name the first one" in refusal(lambda: look_at(tmp_path / "movie_001.tvips"))
    assert_reads(path, PIXELS)
    assert_reads(other, PIXELS[::-1])
    (tmp_path / "movie_001.tvips").rename(tmp_path / "movie_007.tvips")
    assert "movie_001.tvips: is missing" in refusal(lambda: look_at(path))


def test_cut_files(tmp_path: Path) -> None:
    path = write(tmp_path / "movie_000.tvips")
    frame = PIXELS[0].nbytes + FRAME_HEADER
    assert_cuts_are_noticed(path, [0, 20, 255, 256, 300, 256 + frame - 1], PIXELS)
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    with Movie(path) as movie:
        assert "last frame is not complete" in " ".join(movie.source.description.notes)
    np.testing.assert_array_equal(read_all(path), PIXELS[:-1])
    path = write(tmp_path / "parts_000.tvips", frames_each=2)
    path.write_bytes(path.read_bytes()[:-1])
    assert "parts_000.tvips: is cut off" in refusal(lambda: look_at(path))


def test_false_claims(tmp_path: Path) -> None:
    path = write(tmp_path / "movie_000.tvips")
    assert_survives(path, path.read_bytes(), range(0, 80, 4), (0, 1, 8, 2**31 - 1, 2**32 - 1), "<I")


def test_the_command(tmp_path: Path, hrtemvae: Program, tiny_model_path: Path) -> None:
    outcome = hrtemvae("plan", write(tmp_path / "movie_000.tvips", frames_each=2), "--model", tiny_model_path)
    assert outcome.code == 0, outcome.text
    assert "TVIPS" in outcome.text
