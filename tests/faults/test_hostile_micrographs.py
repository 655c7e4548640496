"""Micrographs with false claims: they are left out with a reason, in little time and memory."""

import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from commands import Program
from conftest import assert_refused
from hostile import refusal

from hrtemvae_hpc.segments.micrographs import read_micrographs


def tiff_bomb(path: Path) -> None:
    strip = zlib.compress(bytes(2 * 512 * 40_000))
    strips = (strip for _ in range(80))
    tifffile.imwrite(path, strips, shape=(40_960, 40_000), dtype=np.uint16, rowsperstrip=512, compression="zlib")


def tiff_of_claims(path: Path) -> None:
    tifffile.imwrite(path, np.zeros((64, 64), np.uint16), metadata=None)
    content = bytearray(path.read_bytes())
    for tag in (256, 257):  # width and height, one number each
        place = content.index(struct.pack("<HHI", tag, 4, 1)) + 8
        content[place : place + 4] = struct.pack("<I", 65_535)
    path.write_bytes(content)


def mrc_of_claims(path: Path) -> None:
    header = bytearray(1024)
    header[:16] = struct.pack("<4i", 2**30, 2**30, 1, 6)
    header[208:212] = b"MAP "
    header[212:216] = b"DD\0\0"
    path.write_bytes(bytes(header) + bytes(1000))


def noise(path: Path) -> None:
    path.write_bytes(np.random.default_rng(0).bytes(5000))


def empty(path: Path) -> None:
    path.write_bytes(b"")


def dm4_of_claims(path: Path) -> None:
    path.write_bytes(struct.pack(">IQI", 4, 2**60, 1) + struct.pack(">BBQ", 1, 0, 2**62) + bytes(200))


def names_of_escapes(path: Path) -> None:
    tifffile.imwrite(path, np.zeros((64, 64), np.uint16), description="\x1b[2Jhrtemvae: result: fake")


HOSTILE: dict[str, Callable[[Path], None]] = {
    "bomb.tif": tiff_bomb,
    "claims.tif": tiff_of_claims,
    "claims.mrc": mrc_of_claims,
    "claims.dm4": dm4_of_claims,
    **{f"noise.{ending}": noise for ending in ("tif", "mrc", "dm3", "dm4", "ser", "emd", "h5", "hspy", "blo", "tvips")},
    **{f"empty.{ending}": empty for ending in ("tif", "mrc", "dm3", "dm4", "ser", "emd", "h5")},
}


@pytest.mark.parametrize("name", HOSTILE)
def test_claims_are_bounded(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    HOSTILE[name](path)
    assert str(path) in refusal(lambda: list(read_micrographs(path)))


def test_a_folder_of_them_is_refused_file_by_file(hrtemvae: Program, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for name, make in HOSTILE.items():
        if name != "bomb.tif":
            make(folder / name)
    names_of_escapes(folder / "\x1b[2J.tif")
    outcome = hrtemvae("segments", folder, "-o", "s.h5")
    assert_refused(outcome, "no segment with lattice fringes")
    assert "\x1b" not in outcome.text
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in"]
