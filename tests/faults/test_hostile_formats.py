"""DM, TIFF and HDF5 files that are cut, changed or made to mislead: read or refused in little time and memory."""

import os
import struct
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile
from conftest import drifting_pixels
from dm_files import taken_at, write_dm
from hostile import refusal, within_budget
from reading import assert_cuts_are_noticed, assert_reads, assert_survives, look_at, read_all
from tiff_files import DECODED, WAYS
from tiff_files import PIXELS as TIFF_PIXELS
from tiff_files import write as write_tiff

from hrtemvae_hpc.errors import InputError
from hrtemvae_hpc.movie.movie import Movie

PIXELS = drifting_pixels(5, 4, 4)


@pytest.mark.parametrize("version", [3, 4])
def test_any_changed_byte_of_a_dm_file_is_read_or_refused(tmp_path: Path, version: int) -> None:
    """Never more than what the file holds, and never another error than InputError."""
    content = write_dm(tmp_path / "movie.dm4", PIXELS, version, tags=taken_at(1)).read_bytes()
    path = tmp_path / "changed.dm4"

    def read_each() -> None:
        for at in range(version, len(content), 3):
            changed = bytearray(content)
            changed[at] ^= (0xFF, 0x01, 0x80)[at // 3 % 3]
            path.write_bytes(changed)
            try:
                read_all(path)
            except (InputError, OSError):
                continue

    assert within_budget(read_each) is None


def with_tags(path: Path, body: bytes, sparse: int = 0) -> Path:
    """A DM4 file with ``body`` as its root group, and then zeros that take no room."""
    path.write_bytes(struct.pack(">IQI", 4, len(body) + sparse, 1) + body)
    os.truncate(path, path.stat().st_size + sparse)
    return path


MANY = b"\1\0" + struct.pack(">Q", 2**62)
STRING = b"\x15\0\1a" + struct.pack(">Q", 0) + b"%%%%" + struct.pack(">QQI", 2, 18, 2**32 - 1)
DEEP = b"".join(b"\x14" + struct.pack(">H", 60_000) + b"a" * 60_000 + bytes(8) + MANY for _ in range(60))
TAGS = {
    "2^62 tags in 100 GB of zeros": (MANY, 10**11),
    "a text of 4 GB": (MANY + STRING, 2**33),
    "a label in 60 groups with names of 60,000 letters": (MANY + DEEP + STRING, 2**30),
    "nothing": (b"", 0),
}


@pytest.mark.parametrize("what", TAGS)
def test_hostile_tags_of_dm_files(tmp_path: Path, what: str) -> None:
    path = with_tags(tmp_path / "movie.dm4", *TAGS[what])
    refusal(lambda: Movie(path))


@pytest.mark.parametrize("way", ["as tifffile does", "ImageJ", "OME", "deflated", "deflated tiles", "BigTIFF"])
def test_cut_tiff_files(tmp_path: Path, way: str) -> None:
    path = write_tiff(tmp_path / "movie.tif", **{**WAYS, **DECODED}[way])
    size = path.stat().st_size
    assert_cuts_are_noticed(path, [0, 3, 8, 100, 300, *range(size // 9, size, size // 9), size - 2], TIFF_PIXELS)


@pytest.mark.parametrize("way", ["as tifffile does", "ImageJ", "OME", "deflated tiles", "BigTIFF"])
def test_false_claims_of_tiff_files(tmp_path: Path, way: str) -> None:
    path = write_tiff(tmp_path / "movie.tif", TIFF_PIXELS[:2], **{**WAYS, **DECODED}[way])
    with tifffile.TiffFile(path) as file:
        tags = [tag for page in file.pages for tag in page.tags]
        width = 8 if file.is_bigtiff else 4
    places = [4, 8, *(tag.offset + 4 for tag in tags), *(tag.offset + 4 + width for tag in tags)]
    assert_survives(path, path.read_bytes(), places, (0, 1, 2**31 - 1, 2**32 - 1), "<I")
    kinds = [tag.offset + 2 for tag in tags]
    assert_survives(path, path.read_bytes(), kinds, (0, 2, 5, 16, 99), "<H")


def test_thousands_of_parts_of_an_hdf5_file(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "m.h5", "w", libver="latest") as file:
        for i in range(5000):
            file.create_dataset(f"data_{i}", data=np.zeros((3, 8, 8), np.uint8))
    assert "in 5,000 parts" in refusal(lambda: look_at(tmp_path / "m.h5"))
    assert_reads(tmp_path / "m.h5", np.zeros((3, 8, 8), np.uint8), dataset="data_77")
