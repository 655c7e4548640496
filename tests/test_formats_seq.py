"""Sequences of StreamPix, written here after its manual: no library that is installed reads them."""

import struct
from pathlib import Path

import numpy as np
import pytest
from commands import Program
from conftest import drifting_pixels
from hostile import refusal
from reading import assert_cuts_are_noticed, assert_parts, assert_survives, look_at, read_all

from hrtemvae_hpc.movie.movie import Movie

PIXELS = drifting_pixels(5, 20, 30)
TIMES = (100.25, 100.5, 100.75, 102.0, 102.001)


def write(path: Path, pixels: np.ndarray = PIXELS, version: int = 5, kind: int = 100, compression: int = 0) -> Path:
    image, step = pixels[0].nbytes, pixels[0].nbytes + 512
    bits = pixels.dtype.itemsize * 8
    head = bytearray(8192 if version >= 5 else 1024)
    struct.pack_into("<L24sll", head, 0, 0xFEED, "Norpix seq\0".encode("utf-16-le"), version, 1024)
    struct.pack_into("<9L", head, 548, pixels.shape[2], pixels.shape[1], bits, bits, image, kind, len(pixels), 0, step)
    struct.pack_into("<d", head, 584, 4.0)
    struct.pack_into("<L", head, 620, compression)
    body = b""
    for frame, time in zip(pixels, TIMES, strict=True):
        milliseconds = round(time % 1 * 1000)
        body += (frame.tobytes() + struct.pack("<lHH", int(time), milliseconds, 0)).ljust(step, b"\0")
    path.write_bytes(head + body)
    return path


@pytest.mark.parametrize("version", [3, 4, 5])
@pytest.mark.parametrize("dtype", ["u1", "u2", "u4"])
def test_what_the_manual_describes(tmp_path: Path, dtype: str, version: int) -> None:
    path = write(tmp_path / "movie.seq", PIXELS.astype(dtype), version)
    assert_parts(path, PIXELS.astype(dtype))
    with Movie(path) as movie:
        assert movie.source.description.times_s == pytest.approx(np.array(TIMES) - TIMES[0])
        assert movie.pixel_size_nm is None


def test_other_content_is_refused(tmp_path: Path) -> None:
    assert "compressed or coloured" in refusal(lambda: look_at(write(tmp_path / "a.seq", kind=200)))
    assert "compressed or coloured" in refusal(lambda: look_at(write(tmp_path / "b.seq", compression=1)))


def test_cut_files(tmp_path: Path) -> None:
    path = write(tmp_path / "movie.seq")
    assert_cuts_are_noticed(path, [0, 5, 1023, 1024, 8192, 8193, 8192 + PIXELS[0].nbytes - 1], PIXELS)
    step = PIXELS[0].nbytes + 512
    path.write_bytes(path.read_bytes()[: 8192 + 3 * step + 20])
    np.testing.assert_array_equal(read_all(path), PIXELS[:3])
    with Movie(path) as movie:
        assert "counts 5 frames, but 3 are there" in movie.source.description.notes[0]


def test_false_claims(tmp_path: Path) -> None:
    path = write(tmp_path / "movie.seq")
    places = (0, 28, 32, *range(548, 588, 4), 620)
    assert_survives(path, path.read_bytes(), places, (0, 1, 32, 2**31 - 1, 2**32 - 1), "<I")


def test_the_command(tmp_path: Path, hrtemvae: Program, tiny_model_path: Path) -> None:
    outcome = hrtemvae("plan", write(tmp_path / "movie.seq"), "--model", tiny_model_path)
    assert outcome.code == 0, outcome.text
    assert "SEQ" in outcome.text
