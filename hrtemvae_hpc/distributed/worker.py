"""Computing tiles on one rank, in the background, so that the rank's main thread stays free to talk."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch

from hrtemvae_hpc.distributed.guard import doing
from hrtemvae_hpc.distributed.parts import TileMaps
from hrtemvae_hpc.movie.tiles import TilePixels, TileReader
from hrtemvae_hpc.statistics.over_time import MAPS, series_statistics
from hrtemvae_hpc.windows.engine import Engine
from hrtemvae_hpc.windows.grid import Rectangle, Tiling, WindowGrid

STAGES = ("read", "encode", "statistics")


class Abandoned(Exception):
    """The tile in hand is dropped."""


@dataclass
class Finished:
    """A tile, its maps and what they cost: seconds by stage (summed over threads) and decoded bytes."""

    index: int
    maps: TileMaps
    seconds: dict[str, float]
    decoded_bytes: int


class Worker:
    """One rank's engine and reader, computing one tile at a time in a thread of its own."""

    def __init__(
        self, engine: Engine, reader: TileReader, grid: WindowGrid, threads: int, skip_bad_frames: bool
    ) -> None:
        self.engine = engine
        self.reader = reader
        self.grid = grid
        self.threads = threads
        self.skip_bad_frames = skip_bad_frames
        self.windows = 0  # encoded so far, by all threads, windows x frames
        self.activity = 0  # grows with every step, of reading too
        self._pool = ThreadPoolExecutor(threads, "encode", initializer=lambda: torch.set_num_threads(1))
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._abandoned = False
        self._outcome: Finished | BaseException | None = None

    def start(self, index: int, tiling: Tiling) -> None:
        """Begin tile ``index`` of ``tiling``."""
        tile = tiling.tiles[index]
        doing(f"working on tile {index} ({tile})")

        def work() -> None:
            try:
                self._outcome = self._compute(index, tile, tiling)
            except BaseException as error:  # noqa: BLE001  handed to the main thread by poll
                self._outcome = error

        self._thread = threading.Thread(target=work, name=f"tile {index}", daemon=True)
        self._thread.start()

    def poll(self) -> Finished | None:
        """The finished tile, None while it is under way; raises what the computing raised."""
        if self._thread is None or self._thread.is_alive():
            return None
        self._thread = None
        outcome, self._outcome = self._outcome, None
        doing("waiting for a tile")
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    def abandon(self, patience: float) -> None:
        """Drop the tile in hand, waiting at most ``patience`` seconds for its threads."""
        self._abandoned = True
        if self._thread is not None:
            self._thread.join(patience)

    def _check(self, windows: int = 0) -> None:
        with self._lock:
            self.windows += windows
            self.activity += 1
        if self._abandoned:
            raise Abandoned

    def _compute(self, index: int, tile: Rectangle, tiling: Tiling) -> Finished:
        began = time.monotonic()
        rows = self.grid.pixels(tile.row0, tile.row1)
        columns = self.grid.pixels(tile.column0, tile.column1)
        pixels = self.reader.read(rows, columns, self.skip_bad_frames, self._check)
        seconds = {"read": time.monotonic() - began, "encode": 0.0, "statistics": 0.0}
        done = TileMaps(
            np.empty((len(MAPS), self.engine.latents, *tile.shape), np.float32),
            np.empty(tile.shape, np.int32),
            self.reader.movie.frame_indices[sorted(pixels.undecoded)],
        )
        jobs = [self._pool.submit(self._block, block, tile, pixels, done) for block in tiling.blocks(tile)]
        try:
            for job in jobs:
                for stage, spent in zip(STAGES[1:], job.result(), strict=True):
                    seconds[stage] += spent
        finally:
            for job in jobs:
                job.cancel()
        return Finished(index, done, seconds, pixels.decoded_bytes)

    def _block(self, block: Rectangle, tile: Rectangle, pixels: TilePixels, done: TileMaps) -> tuple[float, float]:
        began = time.monotonic()
        rows = slice(block.row0 - tile.row0, block.row1 - tile.row0)
        columns = slice(block.column0 - tile.column0, block.column1 - tile.column0)
        patch_rows = self.grid.pixels(block.row0, block.row1)
        patch_columns = self.grid.pixels(block.column0, block.column1)
        patch = pixels.patch(patch_rows, patch_columns)
        readable = self._readable(pixels, block, patch_rows, patch_columns)
        z, valid = self.engine.encode(patch, readable, pixels.frame_range, self._check)
        if self.engine.device.type == "cuda":
            torch.cuda.synchronize(self.engine.device)
        encoded = time.monotonic()
        with torch.inference_mode():
            statistics = series_statistics(z, valid)
        for i, name in enumerate(MAPS):
            maps = getattr(statistics, name).T.reshape(-1, *block.shape)
            done.maps[i, :, rows, columns] = maps.cpu().numpy()
        done.valid_frames[rows, columns] = statistics.valid_frames.view(block.shape).cpu().numpy()
        return encoded - began, time.monotonic() - encoded

    def _readable(self, pixels: TilePixels, block: Rectangle, rows: slice, columns: slice) -> np.ndarray:
        """Which windows of a block [frames, windows] hold no pixel that could not be decoded."""
        readable = np.ones((len(pixels.pixels), block.windows), bool)
        size, step = self.grid.window, self.grid.step
        for t in pixels.undecoded:
            unreadable = pixels.unreadable(t, rows, columns)
            windows = np.lib.stride_tricks.sliding_window_view(unreadable, (size, size))[::step, ::step]
            readable[t] = ~windows.any((2, 3)).ravel()
        return readable

    def trial(self) -> tuple[float, float]:
        """Rates measured on the first block: windows/s of all threads, and decoded bytes/s.

        Frames that can't be decoded are left to the analysis.
        """
        first = Rectangle(0, min(self.engine.block, self.grid.rows), 0, min(self.engine.block, self.grid.columns))
        rows, columns = self.grid.pixels(0, first.row1), self.grid.pixels(0, first.column1)
        frames = max(1, self.engine.batch // first.windows)
        began = time.monotonic()
        pixels, decoded = self.reader.sample(rows, columns, frames)
        decode_rate = decoded / max(time.monotonic() - began, 1e-6)
        readable = np.ones((len(pixels), first.windows), bool)
        frame_range = np.tile([0.0, 1.0], (len(pixels), 1)) if self.reader.frame_scaling else None

        def encode() -> int:
            return self.engine.encode(pixels, readable, frame_range)[1].numel()

        self._pool.submit(encode).result()  # the first call pays for setting up
        began = time.monotonic()
        windows = sum(job.result() for job in [self._pool.submit(encode) for _ in range(self.threads)])
        return windows / max(time.monotonic() - began, 1e-6), decode_rate
