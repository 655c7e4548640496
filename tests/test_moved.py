"""Reading areas that lie elsewhere in each frame, against cutting them out of the whole movie one by one."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hrtemvae_hpc.area import Area
from hrtemvae_hpc.config import MovieSection, PreprocessSection
from hrtemvae_hpc.movie.movie import Movie
from hrtemvae_hpc.movie.tiles import TileReader

FRAMES, ROWS, COLUMNS = 9, 40, 52
PIXELS = np.random.default_rng(3).integers(1, 60000, (FRAMES, ROWS, COLUMNS)).astype(np.uint16)
STORAGES: dict[str, dict[str, Any]] = {
    "contiguous": {},
    "frames": {"chunks": (1, ROWS, COLUMNS), "compression": "gzip"},
    "deep": {"chunks": (4, 16, 16), "compression": "lzf"},
}

shifts = st.lists(st.tuples(st.integers(-45, 45), st.integers(-60, 60)), min_size=FRAMES, max_size=FRAMES)


@pytest.fixture(scope="module")
def movies(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("moved")
    paths = {name: folder / f"{name}.h5" for name in STORAGES}
    for name, path in paths.items():
        with h5py.File(path, "w") as file:
            file.create_dataset("m", data=PIXELS, **STORAGES[name])
    paths["numpy"] = folder / "numpy.npy"
    np.save(paths["numpy"], PIXELS.astype(">u2"))
    return paths


def cut(frame: np.ndarray, top: int, left: int, height: int, width: int) -> np.ndarray:
    """The pixels of an area one by one, zero beyond the frame."""
    out = np.zeros((height, width), frame.dtype)
    for y in range(height):
        for x in range(width):
            if 0 <= top + y < frame.shape[0] and 0 <= left + x < frame.shape[1]:
                out[y, x] = frame[top + y, left + x]
    return out


@pytest.mark.parametrize("storage", [*STORAGES, "numpy"])
@given(moves=shifts, roi=st.sampled_from([None, ((5, 33), (8, 50))]), step=st.integers(1, 3))
def test_pixels_are_read_where_they_lie(
    movies: dict[str, Path], storage: str, moves: list[tuple[int, int]], roi: None, step: int
) -> None:
    area = Area(slice(3, 19), slice(2, 27))
    with Movie(movies[storage], MovieSection(roi=roi, frames=(None, None, step))) as movie:
        count = movie.shape[0]
        movie.follow(np.array(moves)[:count], np.zeros(count, bool))
        read = movie.read(slice(1, count), area)
        for image, t in zip(read, range(1, count), strict=True):
            dy, dx = moves[t]
            frame = PIXELS[movie.frame_indices[t]]
            expected = cut(frame, movie.top + 3 + dy, movie.left + 2 + dx, 16, 25)
            np.testing.assert_array_equal(image, expected)


@given(moves=shifts, top=st.integers(0, 20), left=st.integers(0, 20))
def test_decoded_bytes_count_the_chunks_that_are_touched(
    movies: dict[str, Path], moves: list[tuple[int, int]], top: int, left: int
) -> None:
    area = Area(slice(top, top + 13), slice(left, left + 9))
    with Movie(movies["deep"]) as movie:
        movie.follow(np.array(moves), np.zeros(FRAMES, bool))
        decoded = 0
        for first in range(0, FRAMES, 4):
            frames = range(first, min(first + 4, FRAMES))
            spans = []
            for axis, (span, size) in enumerate(zip(area, (ROWS, COLUMNS), strict=True)):
                places = [moves[t][axis] for t in frames] if any(map(any, moves)) else [0]
                low, high = max(0, span.start + min(places)), min(size, span.stop + max(places))
                spans.append(sum(min(16, size - 16 * i) for i in {p // 16 for p in range(low, high)}))
            decoded += len(frames) * spans[0] * spans[1]
        assert movie.chunk_grid.decoded_bytes(area) == 2 * decoded


@given(moves=shifts, left_out=st.sets(st.integers(0, FRAMES - 1)))
def test_what_lies_within_each_frame(movies: dict[str, Path], moves: list[tuple[int, int]], left_out: set[int]) -> None:
    with Movie(movies["frames"], MovieSection(roi=((5, 33), (8, 50)))) as movie:
        movie.follow(np.array(moves), np.isin(np.arange(FRAMES), list(left_out)))
        tile = TileReader(movie, PreprocessSection(), False).read(movie.area, False)
        rows = [slice(i, i + 8) for i in range(0, 21, 4)]
        columns = [slice(i, i + 8) for i in range(0, 35, 4)]
        shows = tile.shows(rows, columns)
    whole = np.ones((ROWS, COLUMNS), bool)
    for t, (dy, dx) in enumerate(moves):
        inside = cut(whole, 5 + dy, 8 + dx, 28, 42)
        for i, y in enumerate(rows):
            for j, x in enumerate(columns):
                assert shows[t, i, j] == (inside[y, x].all() and t not in left_out)


def test_a_movie_that_does_not_move_is_read_as_before(movies: dict[str, Path]) -> None:
    with Movie(movies["contiguous"]) as movie:
        in_place = movie.reads_in_place
        movie.follow(np.zeros((FRAMES, 2), int), np.zeros(FRAMES, bool))
        assert movie.shown is None
        assert not movie.is_moved
        assert movie.reads_in_place == in_place


def test_a_frame_is_scaled_by_the_pixels_that_lie_within_it(movies: dict[str, Path]) -> None:
    moves = np.array([(3 * t, -2 * t) for t in range(FRAMES)])
    with Movie(movies["deep"]) as movie:
        movie.follow(moves, np.zeros(FRAMES, bool))
        tile = TileReader(movie, PreprocessSection(), True).read(Area(slice(4, 20), slice(9, 30)), False)
    assert tile.frame_range is not None
    for t, (dy, dx) in enumerate(moves):
        inside = PIXELS[t, dy:, : COLUMNS + dx]
        np.testing.assert_array_equal(tile.frame_range[t], (inside.min(), inside.max()))
        np.testing.assert_array_equal(tile.pixels[t], cut(PIXELS[t], 4 + dy, 9 + dx, 16, 21))
