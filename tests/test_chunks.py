"""Chunks decoded outside of HDF5, against HDF5's own reading."""

import re
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hrtemvae_hpc.area import Area
from hrtemvae_hpc.config import MovieSection, PreprocessSection
from hrtemvae_hpc.movie.chunks import decodes_outside, read_chunks
from hrtemvae_hpc.movie.movie import Movie
from hrtemvae_hpc.movie.tiles import TileReader


@st.composite
def selections(draw: st.DrawFn) -> tuple[tuple[int, ...], tuple[int, ...], tuple[slice, ...]]:
    """The shape of a dataset, that of its chunks, and what is read of it."""
    shape = draw(st.tuples(*[st.integers(1, 23)] * 3))
    chunk = tuple(draw(st.integers(1, n)) for n in shape)
    spans = []
    for n in shape:
        start = draw(st.integers(0, n - 1))
        spans.append(slice(start, draw(st.integers(start + 1, n)), draw(st.integers(1, 4))))
    return shape, chunk, tuple(spans)


@settings(max_examples=150, deadline=None)
@given(
    what=selections(),
    dtype=st.sampled_from(["u1", "<u2", ">u2", "<i4", ">f4", "<f8"]),
    shuffle=st.booleans(),
)
def test_reads_what_hdf5_reads(
    what: tuple[tuple[int, ...], tuple[int, ...], tuple[slice, ...]], dtype: str, shuffle: bool
) -> None:
    shape, chunk, selection = what
    pixels = np.random.default_rng(0).integers(0, 200, shape).astype(dtype)
    with h5py.File("movie", "w", driver="core", backing_store=False) as file:
        dataset = file.create_dataset("pixels", data=pixels, chunks=chunk, compression="gzip", shuffle=shuffle)
        expected = dataset[selection]
        found = np.zeros(expected.shape, np.dtype(dtype).newbyteorder("="))
        read_chunks(dataset, selection, found)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    "options",
    [
        {"compression": "lzf"},
        {"compression": "gzip", "fletcher32": True},
        {"compression": "gzip", "scaleoffset": 0},
        hdf5plugin.Blosc(),
        {"chunks": None},
        {},
        {"compression": "gzip", "chunks": (2, 64, 64)},
    ],
)
def test_other_storage_is_left_to_hdf5(options: Mapping[str, Any]) -> None:
    with h5py.File("movie", "w", driver="core", backing_store=False) as file:
        dataset = file.create_dataset("pixels", data=np.zeros((4, 128, 128), "u2"), **{"chunks": True, **options})
        assert not decodes_outside(dataset)


def test_numbers_that_hdf5_converts_are_left_to_it() -> None:
    with h5py.File("movie", "w", driver="core", backing_store=False) as file:
        twelve_bits = h5py.h5t.STD_U16LE.copy()
        twelve_bits.set_precision(12)
        options = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        options.set_chunk((1, 256, 256))
        options.set_deflate(4)
        space = h5py.h5s.create_simple((1, 256, 256))
        h5py.h5d.create(file.id, b"pixels", twelve_bits, space, options)
        file["pixels"][...] = 7
        assert file["pixels"].dtype == np.uint16
        assert not decodes_outside(file["pixels"])


@pytest.mark.parametrize("dtype", ["u1", "<u2", ">u2", "<i4", ">f4", "<f8", "f2"])
def test_ordinary_numbers_are_decoded_outside(dtype: str) -> None:
    with h5py.File("movie", "w", driver="core", backing_store=False) as file:
        dataset = file.create_dataset(
            "pixels", data=np.ones((1, 256, 256), dtype), compression="gzip", chunks=(1, 256, 256)
        )
        assert decodes_outside(dataset)


def test_a_dataset_that_lacks_chunks_is_left_to_hdf5() -> None:
    with h5py.File("movie", "w", driver="core", backing_store=False) as file:
        dataset = file.create_dataset("pixels", (4, 256, 256), "u2", chunks=(1, 256, 256), compression="gzip")
        dataset[:3] = 1
        assert not decodes_outside(dataset)
        dataset[3] = 1
        assert decodes_outside(dataset)


@pytest.mark.parametrize(("skipped", "unpack"), [(0b10, False), (0b01, True), (0b11, False)])
def test_filters_that_a_chunk_was_written_without(skipped: int, unpack: bool, tmp_path: Path) -> None:
    pixels = np.arange(64, dtype="u2").reshape(1, 8, 8)
    with h5py.File(tmp_path / "movie.h5", "w") as file:
        dataset = file.create_dataset("pixels", (1, 8, 8), "u2", chunks=(1, 8, 8), compression="gzip", shuffle=True)
        raw = pixels.tobytes()
        if not skipped & 1:
            raw = np.frombuffer(raw, "u1").reshape(-1, 2).T.tobytes()
        dataset.id.write_direct_chunk((0, 0, 0), zlib.compress(raw) if unpack else raw, filter_mask=skipped)
    with h5py.File(tmp_path / "movie.h5") as file:
        found = np.empty((1, 8, 8), "u2")
        read_chunks(file["pixels"], (slice(0, 1), slice(0, 8), slice(0, 8)), found)
    np.testing.assert_array_equal(found, pixels)


@pytest.mark.parametrize("damage", [b"no gzip at all", zlib.compress(bytes(100)), zlib.compress(bytes(128))[:-5]])
def test_a_damaged_chunk_is_an_error(damage: bytes) -> None:
    with h5py.File("movie", "w", driver="core", backing_store=False) as file:
        dataset = file.create_dataset("pixels", (2, 8, 8), "u2", chunks=(1, 8, 8), compression="gzip")
        dataset[0] = 1
        dataset.id.write_direct_chunk((1, 0, 0), damage)
        found = np.empty((1, 8, 8), "u2")
        read_chunks(dataset, (slice(0, 1), slice(0, 8), slice(0, 8)), found)
        assert (found == 1).all()
        with pytest.raises(OSError, match="read"):
            read_chunks(dataset, (slice(1, 2), slice(0, 8), slice(0, 8)), found)


def test_a_damaged_index_of_chunks_costs_the_frames_below_it(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).poisson(100, (200, 128, 128)).astype("u2")
    path = tmp_path / "movie.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("movie", data=pixels, chunks=(1, 128, 128), compression="gzip")
    stored = path.read_bytes()
    leaf = max(m.start() for m in re.finditer(rb"TREE\x01\x00", stored))  # the last node of the index
    path.write_bytes(stored[:leaf] + b"gone" + stored[leaf + 4 :])
    with Movie(path) as movie:
        tile = TileReader(movie, PreprocessSection(), False).read(Area.whole(64, 64), skip_bad_frames=True)
    assert 0 < tile.damaged.sum() < 100
    np.testing.assert_array_equal(tile.pixels[~tile.damaged], pixels[~tile.damaged, :64, :64])


@pytest.mark.parametrize("axes", ["tyx", "yxt", "xty"])
def test_every_order_of_axes(axes: str, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 999, (7, 120, 130)).astype(">u2")
    order = ["tyx".index(a) for a in axes]
    with h5py.File(tmp_path / "movie.h5", "w") as file:
        chunks = tuple((4, 100, 110)[i] for i in order)
        file.create_dataset("pixels", data=pixels.transpose(order), chunks=chunks, compression="gzip")
    with Movie(tmp_path / "movie.h5", MovieSection(axes=axes, frames=(1, 6, 2), roi=((3, 19), (2, 27)))) as movie:
        assert movie.decodes_in_parallel
        found = movie.read(slice(1, 3), Area(slice(2, 15), slice(1, 20)))
    np.testing.assert_array_equal(found, pixels[1:6:2, 3:19, 2:27][1:3, 2:15, 1:20])
