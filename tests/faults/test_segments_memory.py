"""Segments of a stack far larger than the memory that cutting them takes."""

import re
from collections.abc import Callable
from pathlib import Path

import h5py
import mrcfile
import numpy as np
import pytest
from commands import Program
from conftest import write_micrograph
from tifffile import imread

SIDE = 512
SHAPE = 6000, SIDE, SIDE
BYTES = 2 * int(np.prod(SHAPE))  # 3 GB
BOUND = 750_000_000
SHOWN = (3, 4003)  # the only frames that the sparse file holds


def mrc_header(path: Path) -> None:
    with mrcfile.new(path) as file:
        file.set_data(np.zeros((1, SIDE, SIDE), np.uint16))
        file.header.nz = SHAPE[0]


def npy_header(path: Path) -> None:
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<u2", "fortran_order": False, "shape": SHAPE})


@pytest.mark.parametrize(("name", "header"), [("m.mrc", mrc_header), ("m.npy", npy_header)])
def test_a_sparse_stack(hrtemvae: Program, tmp_path: Path, name: str, header: Callable[[Path], None]) -> None:
    path = tmp_path / name
    header(path)
    begin = 1024 if name == "m.mrc" else path.stat().st_size
    with path.open("r+b") as file:
        for seed, frame in enumerate(SHOWN):
            pixels = imread(write_micrograph(tmp_path / "m.tif", seed, size=SIDE))
            file.seek(begin + frame * pixels.nbytes)
            file.write(pixels.tobytes())
        file.truncate(begin + BYTES)
    running = hrtemvae.start(
        "segments", name, "-o", "s.h5", "--frames", "3:6000:2000", "--stride", 32, script="peak_memory.py"
    )
    assert running.wait() == 0, running.text
    peak = re.search(r"^peak (\d+)$", running.text, re.MULTILINE)
    assert peak
    assert int(peak[1]) < BOUND < BYTES / 4
    with h5py.File(tmp_path / "s.h5") as file:
        frames = file["frame"][...]
    assert len(frames) > 100
    assert set(frames.tolist()) == set(SHOWN)
