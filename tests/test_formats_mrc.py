"""MRC files, compared with mrcfile, ncempy and rosettasciio."""

import bz2
import gzip
import json
import struct
from pathlib import Path
from typing import Any, Literal

import mrcfile
import numpy as np
import pytest
from commands import Program
from conftest import assert_refused, drifting_pixels
from hostile import refusal
from ncempy.io import mrc
from reading import assert_cuts_are_noticed, assert_parts, assert_reads, assert_survives, look_at, read_all
from rsciio.mrc import file_reader

from hrtemvae_hpc.movie.movie import Movie

PIXELS = drifting_pixels(5, 20, 30)
REAL = {"Custom_movie.mrc": None, "temp.mrc": 0.2}


def write(
    path: Path, pixels: np.ndarray = PIXELS, pixel_size: float = 0.5, extended: bytes = b"", kind: str = ""
) -> Path:
    """By mrcfile, with pixels of ``pixel_size`` angstrom."""
    with mrcfile.new(path, overwrite=True) as file:
        file.set_data(pixels)
        file.voxel_size = pixel_size
        if extended:
            file.set_extended_header(np.frombuffer(extended, "V1"))
            file.header.exttyp = kind
    return path


@pytest.mark.filterwarnings("ignore:Map ID string not found")
@pytest.mark.parametrize("name", REAL)
def test_real_files(shared: Path, name: str) -> None:
    path = shared / "data" / "formats" / name
    expected = mrc.mrcReader(path)["data"]
    assert_reads(path, expected)
    assert_reads(path, file_reader(str(path))[0]["data"])
    with mrcfile.open(path, permissive=True) as file:
        assert_reads(path, file.data)
    size = REAL[name]
    with Movie(path) as movie:
        assert movie.pixel_size_nm == (None if size is None else pytest.approx((size, size)))


def test_all_real_files_are_tested(shared: Path) -> None:
    assert sorted(REAL) == sorted(p.name for p in (shared / "data" / "formats").glob("*.mrc*"))


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("dtype", ["i1", "i2", "u2", "f4", "f2"])
def test_types_and_byte_orders(tmp_path: Path, dtype: str, order: Literal["<", ">"]) -> None:
    pixels = (PIXELS % 100).astype(np.dtype(dtype).newbyteorder(order))
    path = write(tmp_path / "movie.mrcs", pixels)
    with mrcfile.open(path) as file:
        np.testing.assert_array_equal(file.data, pixels)
    assert_parts(path, pixels)
    with Movie(path) as movie:
        assert movie.pixel_size_nm == pytest.approx((0.05, 0.05))


@pytest.mark.parametrize("signed", [True, False])
def test_bytes_have_a_sign_unless_imod_says_otherwise(tmp_path: Path, signed: bool) -> None:
    path = write(tmp_path / "movie.mrc", PIXELS.astype("i1"))
    content = bytearray(path.read_bytes())
    content[152:160] = struct.pack("<ii", 1146047817, int(signed))
    path.write_bytes(content)
    assert_reads(path, PIXELS.astype("i1") if signed else PIXELS.astype("u1"))


@pytest.mark.parametrize("size", [0, -1, 1, np.nan, np.inf, 1e9])
def test_nonsense_is_not_calibrated(tmp_path: Path, size: float) -> None:
    with Movie(write(tmp_path / "movie.mrc", pixel_size=size)) as movie:
        assert movie.pixel_size_nm is None
        assert bool(movie.source.description.notes) == (size == 1)


@pytest.mark.parametrize("kind", ["FEI1", "FEI2"])
def test_extended_headers_of_frames(tmp_path: Path, kind: str) -> None:
    dtype = mrcfile.dtypes.get_ext_header_dtype(kind.encode(), "<")
    extended = np.zeros(len(PIXELS), dtype)
    extended["Metadata size"], extended["Pixel size X"], extended["Pixel size Y"] = dtype.itemsize, 3e-11, 2e-11
    seconds = np.array([0, 0.25, 0.5, 1.5, 1.75])
    extended["Timestamp"] = 45000 + seconds / 86400
    path = write(tmp_path / "movie.mrc", PIXELS, extended=extended.tobytes(), kind=kind)
    assert_reads(path, PIXELS)
    with Movie(path) as movie:
        assert movie.pixel_size_nm == pytest.approx((0.02, 0.03))
        assert movie.source.description.times_s == pytest.approx(seconds, abs=1e-5)
        json.dumps(movie.source.description.metadata, allow_nan=False)
    extended["Timestamp"] = 45000
    with Movie(write(path, PIXELS, extended=extended.tobytes(), kind=kind)) as movie:
        assert movie.source.description.times_s is None


def test_the_old_extended_header_of_fei_is_read_as_ncempy_does(tmp_path: Path) -> None:
    extended = np.zeros((1024, 32), "<f4")
    extended[:, 11] = 4e-11
    path = write(tmp_path / "movie.mrc", PIXELS, extended=extended.tobytes())
    by_ncempy = mrc.mrcReader(path)
    assert_reads(path, by_ncempy["data"])
    with Movie(path) as movie:
        assert movie.pixel_size_nm == pytest.approx(by_ncempy["pixelSize"][1:] / 10)


@pytest.mark.parametrize("ending", ["map", "st", "rec", "ali", "anything"])
def test_other_endings(tmp_path: Path, ending: str) -> None:
    assert_reads(write(tmp_path / f"movie.{ending}"), PIXELS)
    (tmp_path / f"text.{ending}").write_text("no movie" * 1000)
    assert "is not an HDF5 file" in refusal(lambda: look_at(tmp_path / f"text.{ending}"))


@pytest.mark.parametrize(("pack", "ending"), [(gzip.compress, "gz"), (bz2.compress, "bz2")])
def test_a_compressed_file_is_refused(tmp_path: Path, pack: Any, ending: str) -> None:
    packed = tmp_path / f"movie.mrc.{ending}"
    packed.write_bytes(pack(write(tmp_path / "movie.mrc").read_bytes()))
    assert "decompress it first" in refusal(lambda: look_at(packed))


def test_other_modes_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "movie.mrc")
    content = bytearray(path.read_bytes())
    for mode in (3, 4, 7, 101, -5):
        content[12:16] = struct.pack("<i", mode)
        path.write_bytes(content)
        refusal(lambda: look_at(path))


def test_folders(tmp_path: Path) -> None:
    for i, image in enumerate(PIXELS):
        write(tmp_path / f"frame_{i + 8}.mrc", image)
    assert_parts(tmp_path, PIXELS)
    write(tmp_path / "frame_13.mrc", PIXELS[0], pixel_size=0.7)
    with Movie(tmp_path) as movie:
        assert movie.pixel_size_nm == pytest.approx((0.05, 0.05))
        assert "another size than the first frame: frame_13.mrc" in movie.source.description.notes[-1]
    write(tmp_path / "frame_13.mrc", PIXELS[0].astype("i2"))
    assert "frame_13.mrc: holds 20 x 30 pixels of int16" in refusal(lambda: look_at(tmp_path))


def test_cut_files(tmp_path: Path) -> None:
    path = write(tmp_path / "movie.mrc")
    frame = PIXELS[0].nbytes
    assert_cuts_are_noticed(path, [0, 4, 1023, 1024, 1024 + frame - 1, 1024 + frame, 1024 + 4 * frame + 7], PIXELS)


def test_false_claims(tmp_path: Path) -> None:
    path = write(tmp_path / "movie.mrc")
    places = (0, 4, 8, 12, 28, 32, 40, 44, 92, 104, 212)
    assert_survives(path, path.read_bytes(), places, (-1, 0, 2**31 - 1, 2**24, -(2**31)))


def test_the_command(tmp_path: Path, hrtemvae: Program, tiny_model_path: Path) -> None:
    path = write(tmp_path / "movie.mrc")
    outcome = hrtemvae("plan", path, "--model", tiny_model_path)
    assert outcome.code == 0, outcome.text
    assert "MRC" in outcome.text
    path.write_bytes(path.read_bytes()[:3000])
    assert_refused(hrtemvae("plan", path, "--model", tiny_model_path), "is cut off", "--frames 0:1")
    assert read_all(path, frames=(0, 1, None)).shape == (1, 20, 30)
