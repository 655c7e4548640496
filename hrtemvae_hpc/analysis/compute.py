"""The maps of a tile: pixels are read or taken from the stage, windows encoded, series reduced to statistics."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from time import monotonic

import numpy as np
import torch
from torch import Tensor

from hrtemvae_hpc.analysis.parts import TileMaps
from hrtemvae_hpc.analysis.stage import Stage
from hrtemvae_hpc.movie.chunk_grid import Region
from hrtemvae_hpc.movie.tiles import TilePixels, TileReader
from hrtemvae_hpc.statistics.over_time import ALL_MAPS, series_statistics
from hrtemvae_hpc.statistics.significance import PermutationTest
from hrtemvae_hpc.windows.cells import Cells, binned_series, strongest_windows
from hrtemvae_hpc.windows.engine import Engine
from hrtemvae_hpc.windows.grid import Rectangle, WindowGrid


@dataclass(frozen=True)
class Means:
    """What one rank needs to compute tiles. They are cut from ``stage`` if the movie is staged, else read from it."""

    engine: Engine
    reader: TileReader
    grid: WindowGrid
    test: PermutationTest
    cells: Cells
    skip_bad_frames: bool
    stage: Stage | None = None

    def pixels(
        self, tile: Rectangle, each: Callable[[Callable[[Region], int], Iterable[Region]], Iterable[int]]
    ) -> TilePixels:
        """All frames of a tile's pixels; ``each`` has slabs of them read.

        Raises InputError if a frame can't be decoded, or the movie changed meanwhile.
        """
        area = self.grid.area(tile)
        pixels = self.stage.pixels if self.stage else self.reader.read(area, self.skip_bad_frames, each)
        self.reader.movie.check_unchanged()
        return pixels

    def empty_maps(self, tile: Rectangle, bad_frames: np.ndarray) -> TileMaps:
        """The maps of a tile, to be filled block by block; ``bad_frames`` [n] int64 as TileMaps keeps them."""
        cells = self.cells.shape(tile.shape)
        return TileMaps(
            np.empty((len(ALL_MAPS), self.engine.latents, *tile.shape), np.float32),
            np.empty(tile.shape, np.int32),
            bad_frames,
            np.full(tile.shape, np.nan, np.float32),
            np.zeros(self.test.count, np.float32),
            np.empty((*cells, self.engine.latents, self.cells.bins), np.float16),
            np.empty((2, *cells), np.int32),
        )

    def fill_block(
        self, maps: TileMaps, tile: Rectangle, block: Rectangle, pixels: TilePixels, check: Callable[[int], None]
    ) -> tuple[tuple[float, float], np.ndarray]:
        """Compute the maps of one block of a tile; returns the seconds of encoding and of statistics.

        And the block's own ``largest_rho``.

        ``check`` gets the number of windows after each batch; an exception it raises ends this.
        """
        began = monotonic()
        patch = pixels.patch(self.grid.area(block))
        z, valid = self.engine.encode(
            patch, readable_windows(self.reader, self.grid, pixels, block), pixels.frame_range, check
        )
        encoded = monotonic()
        largest = self.fill_statistics(maps, tile, block, z, valid)
        if self.engine.reconstruction:
            rows, columns = block.within(tile)
            maps.reconstruction[rows, columns] = self.engine.reconstruction.correlations(patch, z, valid)
        return (encoded - began, monotonic() - encoded), largest

    def fill_statistics(
        self, maps: TileMaps, tile: Rectangle, block: Rectangle, z: Tensor, valid: Tensor
    ) -> np.ndarray:
        """Fill in what follows from the latents of one block of a tile; returns its ``largest_rho``.

        ``z`` [frames, windows, latents] float32 and ``valid`` [frames, windows] bool, as the engine encodes them.
        """
        rows, columns = block.within(tile)
        with torch.inference_mode():
            statistics = series_statistics(z, valid, self.test)
            self._keep_series(maps, tile, block, z, valid, statistics.time_correlated_variance)
        for i, name in enumerate(ALL_MAPS):
            series = getattr(statistics, name).T.reshape(-1, *block.shape)
            maps.maps[i, :, rows, columns] = series.cpu().numpy()
        maps.valid_frames[rows, columns] = statistics.valid_frames.view(block.shape).cpu().numpy()
        return statistics.largest_rho.cpu().numpy()

    def _keep_series(
        self, maps: TileMaps, tile: Rectangle, block: Rectangle, z: Tensor, valid: Tensor, correlated: Tensor
    ) -> None:
        side = self.cells.side
        strength = correlated.double().sum(1).view(block.shape).cpu().numpy()
        row, column = strongest_windows(strength, side)
        chosen = torch.from_numpy((row * block.shape[1] + column).ravel()).to(z.device)
        series = binned_series(z[:, chosen], valid[:, chosen], self.cells.frames_per_bin)
        first_row, first_column = (block.row0 - tile.row0) // side, (block.column0 - tile.column0) // side
        rows, columns = (slice(first, first + n) for first, n in zip((first_row, first_column), row.shape, strict=True))
        maps.series[rows, columns] = series.reshape(*row.shape, *series.shape[1:])
        maps.series_windows[:, rows, columns] = row + block.row0, column + block.column0


def readable_windows(reader: TileReader, grid: WindowGrid, pixels: TilePixels, block: Rectangle) -> np.ndarray:
    """Which windows of a block [frames, windows] lie within a frame and hold no pixel that could not be decoded."""
    size, step = grid.window, grid.step
    rows = [
        reader.transform.shown(grid.area(Rectangle(i, i + 1, block.column0, block.column1))).rows
        for i in range(block.row0, block.row1)
    ]
    columns = [
        reader.transform.shown(grid.area(Rectangle(block.row0, block.row1, i, i + 1))).columns
        for i in range(block.column0, block.column1)
    ]
    readable = pixels.shows(rows, columns).reshape(len(pixels.pixels), block.windows)
    area = grid.area(block)
    for t in pixels.bad_frames(area):
        unreadable = pixels.unreadable(t, area)
        windows = np.lib.stride_tricks.sliding_window_view(unreadable, (size, size))[::step, ::step]
        readable[t] &= ~windows.any((2, 3)).ravel()
    return readable
