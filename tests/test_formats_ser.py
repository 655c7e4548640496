"""SER series and the EMI files beside them, compared with ncempy and rosettasciio."""

import json
import struct
from pathlib import Path

import numpy as np
import pytest
from commands import Program
from conftest import drifting_pixels
from hostile import refusal
from ncempy.io import ser
from reading import assert_cuts_are_noticed, assert_parts, assert_reads, assert_survives, look_at
from rsciio.tia import file_reader

from hrtemvae_hpc.movie.movie import Movie

PIXELS = drifting_pixels(5, 20, 30)
REAL = "128x128-TEM_search_1.ser"
TYPES = {"u1": 1, "u2": 2, "u4": 3, "i1": 4, "i2": 5, "i4": 6, "f4": 7, "f8": 8, "c8": 9}


def write(
    path: Path,
    pixels: np.ndarray = PIXELS,
    times: list[int] | None = None,
    delta: tuple[float, float] = (3e-11, 2e-11),
    version: int = 0x220,
    extra: int = 0,
) -> Path:
    """A series as TIA writes it, of which ncempy reads the pixels; ``extra`` images are planned, but not taken."""
    word = "<q" if version == 0x220 else "<i"
    count = len(pixels)
    head = struct.pack("<HHHiiii", 0x4949, 0x197, version, 0x4122, 0x4152, count + extra, count)
    table = len(head) + struct.calcsize(word) + 4 + 28 + len("Number") + 4
    dimension = struct.pack("<iddii", count, 0.0, 1.0, 0, len("Number")) + b"Number" + struct.pack("<i", 0)
    head += struct.pack(word, table) + struct.pack("<i", 1) + dimension
    begin = table + 2 * (count + extra) * struct.calcsize(word)
    data, tags, body = [], [], b""
    for i, image in enumerate(pixels):
        data.append(begin + len(body))
        rows, columns = image.shape
        for d in delta:
            body += struct.pack("<ddi", 0, d, 0)
        kind = TYPES[image.dtype.str[1:]]
        body += struct.pack("<hii", kind, columns, rows) + image[::-1].tobytes()
        tags.append(begin + len(body))
        body += struct.pack("<ii", 0x4152, (times or [1000 + 2 * t for t in range(count)])[i])
    padding = [0] * extra
    places = b"".join(struct.pack(word, place) for place in (*data, *padding, *tags, *padding))
    path.write_bytes(head + places + body)
    return path


def by_ncempy(path: Path) -> np.ndarray:
    with ser.fileSER(path) as file:
        return np.stack([file.getDataset(i)[0] for i in range(int(file.head["ValidNumberElements"]))])


@pytest.mark.parametrize("name", [REAL, "128x128-TEM_search.emi"])
def test_real_files(shared: Path, name: str) -> None:
    folder = shared / "data" / "formats"
    assert_reads(folder / name, by_ncempy(folder / REAL))
    (signal,) = file_reader(str(folder / name))
    assert_reads(folder / name, signal["data"][None])
    with Movie(folder / name) as movie:
        assert movie.pixel_size_nm == pytest.approx([axis["scale"] for axis in signal["axes"]])
        about = movie.source.description
        assert about.metadata["emi"] == ser.read_emi(folder / "128x128-TEM_search.emi")
        json.dumps(about.metadata, allow_nan=False)


def test_all_real_files_are_tested(shared: Path) -> None:
    assert sorted(p.name for p in (shared / "data" / "formats").glob("*.ser")) == [REAL]


@pytest.mark.parametrize("version", [0x210, 0x220])
@pytest.mark.parametrize("dtype", [d for d in TYPES if d != "c8"])
def test_types(tmp_path: Path, dtype: str, version: int) -> None:
    path = write(tmp_path / "movie_1.ser", PIXELS.astype(dtype), version=version)
    expected = file_reader(str(path))[0]["data"] if dtype == "u1" else by_ncempy(path)  # ncempy can't read that one
    np.testing.assert_array_equal(expected, PIXELS.astype(dtype))
    assert_parts(path, expected)
    with Movie(path) as movie:
        assert movie.pixel_size_nm == pytest.approx((0.02, 0.03))


def test_images_that_were_not_taken_are_left_out(tmp_path: Path) -> None:
    path = write(tmp_path / "movie_1.ser", extra=7)
    assert_reads(path, PIXELS)
    with Movie(path) as movie:
        np.testing.assert_array_equal(movie.source.description.times_s, [0, 2, 4, 6, 8])


def test_times(tmp_path: Path) -> None:
    with Movie(write(tmp_path / "movie_1.ser", times=[100, 102, 104, 109, 110])) as movie:
        np.testing.assert_array_equal(movie.source.description.times_s, [0, 2, 4, 9, 10])
        assert movie.frame_time_s is None
    with Movie(write(tmp_path / "fast_1.ser", times=[100, 100, 101, 101, 102])) as movie:
        assert movie.source.description.times_s is None
        assert "whole seconds" in movie.source.description.notes[0]


@pytest.mark.parametrize("delta", [(0.0, 0.0), (-1e-11, -1e-11), (1e7, 1e7), (np.nan, 1e-11), (1.0, 1.0)])
def test_nonsense_is_not_calibrated(tmp_path: Path, delta: tuple[float, float]) -> None:
    with Movie(write(tmp_path / "movie_1.ser", delta=delta)) as movie:
        assert movie.pixel_size_nm is None


def test_an_emi_file_opens_its_only_series(tmp_path: Path) -> None:
    emi = tmp_path / "movie [1].emi"
    emi.write_bytes(b"JK\0\2\0")
    assert "movie [1]_1.ser, which is missing" in refusal(lambda: look_at(emi))
    write(tmp_path / "movie [1]_1.ser")
    assert_reads(emi, PIXELS)
    write(tmp_path / "movie [1]_2.ser")
    assert "movie [1]_1.ser, movie [1]_2.ser" in refusal(lambda: look_at(emi))


def test_a_folder_of_series_beside_their_emi_files(tmp_path: Path) -> None:
    for i, image in enumerate(PIXELS):
        write(tmp_path / f"frame{i}_1.ser", image[None], times=[50 + i])
        (tmp_path / f"frame{i}.emi").write_bytes(b"JK\0\2\0")
    assert_reads(tmp_path, PIXELS)


def test_other_content_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "movie_1.ser", PIXELS.astype("c8"))
    assert "complex64" in refusal(lambda: look_at(path))
    content = bytearray(write(path).read_bytes())
    content[6:10] = struct.pack("<i", 0x4120)
    path.write_bytes(content)
    assert "spectra" in refusal(lambda: look_at(path))
    content = bytearray(write(path).read_bytes())
    with ser.fileSER(path) as file:
        second = file.head["DataOffsetArray"][2]
    content[second + 42 : second + 46] = struct.pack("<i", 31)
    path.write_bytes(content)
    assert "image 2 differs" in refusal(lambda: look_at(path))


def test_cut_files(tmp_path: Path) -> None:
    path = write(tmp_path / "movie_1.ser")
    with ser.fileSER(path) as file:
        begins = file.head["DataOffsetArray"]
    middles = [begins[1] + 20, begins[1] + 50, begins[2] + 700, begins[4] + 1249]
    assert_cuts_are_noticed(path, [0, 5, 20, 40, 70, 100, begins[0], begins[0] + 60, *middles], PIXELS)


def test_false_claims(tmp_path: Path) -> None:
    path = write(tmp_path / "movie_1.ser")
    words = [2, 4, 6, 10, 14, 18, 22, 26, 30, 34, 54, 68, 72, 76, 80, 96, 112, 116, 120, 190, 194, 198, 202]
    assert_survives(path, path.read_bytes(), words, (-1, 0, 2**31 - 1, -(2**31)))


def test_the_command(tmp_path: Path, hrtemvae: Program, tiny_model_path: Path) -> None:
    outcome = hrtemvae("plan", write(tmp_path / "movie_1.ser"), "--model", tiny_model_path)
    assert outcome.code == 0, outcome.text
    assert "SER" in outcome.text
