"""Arithmetic on windows, blocks and tiles."""

import numpy as np
from hypothesis import assume, given
from hypothesis import strategies as st

from hrtemvae_hpc.area import Area
from hrtemvae_hpc.windows.grid import Rectangle, Tiling, WindowGrid, cut

sizes = st.integers(1, 200)


@given(height=sizes, width=sizes, window=st.integers(1, 80), step=st.integers(1, 100))
def test_grid_holds_every_window_that_fits_and_no_other(height: int, width: int, window: int, step: int) -> None:
    assume(min(height, width) >= window)
    grid = WindowGrid(height, width, window, step)
    assert grid.rows == len(range(0, height - window + 1, step))
    assert grid.columns == len(range(0, width - window + 1, step))
    last = grid.area(Rectangle(grid.rows - 1, grid.rows, grid.columns - 1, grid.columns))
    assert (last.height, last.width) == (window, window)
    assert last.rows.stop <= height < last.rows.stop + step
    assert last.columns.stop <= width < last.columns.stop + step
    assert grid.covered == Area(slice(0, last.rows.stop), slice(0, last.columns.stop))


def test_published_example() -> None:
    grid = WindowGrid(640, 640, 64, 8)
    assert (grid.rows, grid.columns) == (73, 73)
    assert WindowGrid(4096, 4096, 64, 8).rows ** 2 == 255_025


@given(rows=sizes, columns=sizes, a=sizes, b=sizes)
def test_cut_covers_each_position_once(rows: int, columns: int, a: int, b: int) -> None:
    covered = np.zeros((rows, columns), int)
    for piece in cut(Rectangle(0, rows, 0, columns), a, b):
        assert piece.shape[0] <= a
        assert piece.shape[1] <= b
        assert piece.windows > 0
        covered[piece.row0 : piece.row1, piece.column0 : piece.column1] += 1
    assert (covered == 1).all()


@given(
    height=st.integers(16, 200),
    width=st.integers(16, 200),
    step=st.integers(1, 9),
    block=st.integers(1, 5),
    tile=st.tuples(st.integers(1, 6), st.integers(1, 6)),
)
def test_every_tiling_has_the_same_blocks(
    height: int, width: int, step: int, block: int, tile: tuple[int, int]
) -> None:
    grid = WindowGrid(height, width, 16, step)
    whole = Tiling(grid, block, grid.rows, grid.columns)
    tiling = Tiling(grid, block, *tile)
    blocks = {b for t in tiling.tiles for b in tiling.blocks(t)}
    assert blocks == set(whole.blocks(whole.tiles[0]))


@given(start=st.integers(0, 50), count=st.integers(1, 20), window=st.integers(1, 64), step=st.integers(1, 16))
def test_centres_lie_in_the_middle_of_the_pixels(start: int, count: int, window: int, step: int) -> None:
    grid = WindowGrid(2000, 2000, window, step)
    centres = grid.centres(start + count)
    for pixels in grid.area(Rectangle(start, start + count, start, start + count)):
        assert centres[start] == (pixels.start + pixels.start + window - 1) / 2
        assert centres[-1] == (pixels.stop - window + pixels.stop - 1) / 2
