"""Which chunks a read touches, against sets of chunk numbers, without a file."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from hrtemvae_hpc.movie.chunk_grid import ChunkGrid, line_together


@st.composite
def grids(draw: st.DrawFn) -> ChunkGrid:
    """A part of a small movie, every so many frames, in chunks of any size."""
    full = tuple(draw(st.integers(1, 30)) for _ in range(3))
    chunk = tuple(draw(st.integers(1, size)) for size in full)
    starts = [draw(st.integers(0, size - 1)) for size in full]
    stops = [draw(st.integers(start + 1, size)) for start, size in zip(starts, full, strict=True)]
    frames = np.arange(starts[0], stops[0], draw(st.integers(1, 4)))
    return ChunkGrid(
        full_shape=full,
        frames=frames,
        top=starts[1],
        left=starts[2],
        height=stops[1] - starts[1],
        width=stops[2] - starts[2],
        chunk=chunk,
        unit=chunk,
        itemsize=2,
    )


def places(grid: ChunkGrid, axis: int, span: slice) -> list[int]:
    """Where the frames, rows or columns of ``span`` lie in the file."""
    everything = [grid.frames, grid.top + np.arange(grid.height), grid.left + np.arange(grid.width)][axis]
    return everything[span].tolist()


def touched(grid: ChunkGrid, spans: tuple[slice, slice, slice]) -> set[tuple[int, int, int]]:
    numbers = [{p // grid.unit[axis] for p in places(grid, axis, span)} for axis, span in enumerate(spans)]
    return {(t, y, x) for t in numbers[0] for y in numbers[1] for x in numbers[2]}


def bytes_of(grid: ChunkGrid, chunks: set[tuple[int, int, int]]) -> int:
    def count(chunk: tuple[int, int, int]) -> int:
        sizes = (min(u, n - i * u) for i, u, n in zip(chunk, grid.unit, grid.full_shape, strict=True))
        return int(np.prod(list(sizes)))

    return grid.itemsize * sum(map(count, chunks))


@given(grids(), st.data())
def test_decoded_bytes_are_those_of_the_chunks_that_are_touched(grid: ChunkGrid, data: st.DataObject) -> None:
    spans = []
    for size in (len(grid.frames), grid.height, grid.width):
        start = data.draw(st.integers(0, size - 1))
        spans.append(slice(start, data.draw(st.integers(start + 1, size))))
    frames, rows, columns = spans
    assert grid.decoded_bytes(rows, columns, frames) == bytes_of(grid, touched(grid, (frames, rows, columns)))


@given(grids(), st.integers(1, 4000), st.booleans())
def test_regions_cover_everything_once_and_share_no_chunk(grid: ChunkGrid, most: int, whole: bool) -> None:
    regions = grid.regions(slice(0, grid.height), slice(0, grid.width), most, whole)
    covered = np.zeros((len(grid.frames), grid.height, grid.width), int)
    chunks: set[tuple[int, int, int]] = set()
    for region in regions:
        covered[region] += 1
        own = touched(grid, region)
        assert not chunks & own
        chunks |= own
    assert (covered == 1).all()


@given(grids())
def test_layers_and_pieces_end_where_chunks_do(grid: ChunkGrid) -> None:
    for axis, size, parts in (
        (0, len(grid.frames), grid.layers(slice(0, len(grid.frames)))),
        (1, grid.height, grid.pieces(1, slice(0, grid.height))),
        (2, grid.width, grid.pieces(2, slice(0, grid.width))),
    ):
        assert [i for part in parts for i in range(part.start, part.stop)] == list(range(size))
        for part in parts:
            assert len({p // grid.unit[axis] for p in places(grid, axis, part)}) == 1


def test_what_is_not_chunked_is_read_in_lines() -> None:
    assert line_together((10, 300, 400), "tyx", 2) == (1, 1, 400)
    assert line_together((10, 20, 30), "tyx", 2) == (10, 20, 30)
    assert line_together((1000, 300, 400), "yxt", 2) == (1000, 1, 1)
