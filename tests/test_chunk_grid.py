"""Which chunks a read touches, against sets of chunk numbers, without a file."""

from collections.abc import Sequence

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from hrtemvae_hpc.area import Area
from hrtemvae_hpc.movie.chunk_grid import ChunkGrid, line_together


@st.composite
def grids(draw: st.DrawFn) -> ChunkGrid:
    """A part of a small movie, every so many frames, in chunks of any size."""
    full = draw(st.tuples(*[st.integers(1, 30)] * 3))
    chunk = draw(st.tuples(*(st.integers(1, size) for size in full)))
    starts = [draw(st.integers(0, size - 1)) for size in full]
    stops = [draw(st.integers(start + 1, size)) for start, size in zip(starts, full, strict=True)]
    frames = np.arange(starts[0], stops[0], draw(st.integers(1, 4)))
    return ChunkGrid(
        full_shape=full,
        frames=frames,
        area=Area(slice(starts[1], stops[1]), slice(starts[2], stops[2])),
        chunk=chunk,
        unit=chunk,
        itemsize=2,
    )


def places(grid: ChunkGrid, axis: int, span: slice) -> list[int]:
    """Where the frames, rows or columns of ``span`` lie in the file."""
    everything = [grid.frames, *(np.arange(span.start, span.stop) for span in grid.area)][axis]
    found: list[int] = everything[span].tolist()
    return found


def touched(grid: ChunkGrid, spans: Sequence[slice]) -> set[tuple[int, int, int]]:
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
    for size in (len(grid.frames), grid.area.height, grid.area.width):
        start = data.draw(st.integers(0, size - 1))
        spans.append(slice(start, data.draw(st.integers(start + 1, size))))
    frames, *area = spans
    assert grid.decoded_bytes(Area(*area), frames) == bytes_of(grid, touched(grid, spans))


@given(grids(), st.integers(1, 4000), st.booleans())
def test_regions_cover_everything_once_and_share_no_chunk(grid: ChunkGrid, most: int, whole: bool) -> None:
    height, width = grid.area.height, grid.area.width
    covered = np.zeros((len(grid.frames), height, width), int)
    chunks: set[tuple[int, int, int]] = set()
    for frames, area in grid.regions(Area.whole(height, width), most, whole):
        spans = (frames, *area)
        covered[spans] += 1
        found = touched(grid, spans)
        assert not chunks & found
        chunks |= found
    assert (covered == 1).all()


@given(grids())
def test_layers_and_pieces_end_where_chunks_do(grid: ChunkGrid) -> None:
    frames, height, width = len(grid.frames), grid.area.height, grid.area.width
    rows, columns = grid.pieces(Area.whole(height, width))
    for axis, size, parts in (
        (0, frames, grid.layers(slice(0, frames))),
        (1, height, rows),
        (2, width, columns),
    ):
        assert [i for part in parts for i in range(part.start, part.stop)] == list(range(size))
        for part in parts:
            assert len({p // grid.unit[axis] for p in places(grid, axis, part)}) == 1


def test_unchunked_datasets_are_read_in_lines() -> None:
    assert line_together((10, 300, 400), "tyx", 2) == (1, 1, 400)
    assert line_together((10, 20, 30), "tyx", 2) == (10, 20, 30)
    assert line_together((1000, 300, 400), "yxt", 2) == (1000, 1, 1)
