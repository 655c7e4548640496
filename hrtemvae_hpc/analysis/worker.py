"""Staging regions and computing tiles on one rank, in the background: the rank's main thread stays free to talk."""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import nullcontext
from dataclasses import dataclass
from enum import IntEnum
from typing import TypeVar

import numpy as np
import torch

from hrtemvae_hpc.analysis.parts import TileMaps
from hrtemvae_hpc.analysis.stage import Stage
from hrtemvae_hpc.movie.tiles import Region, TilePixels, TileReader
from hrtemvae_hpc.ranks.guard import doing
from hrtemvae_hpc.statistics.over_time import MAPS, series_statistics
from hrtemvae_hpc.windows.engine import Engine
from hrtemvae_hpc.windows.grid import Rectangle, Tiling, WindowGrid

S = TypeVar("S")
T = TypeVar("T")

STAGES = ("read", "encode", "statistics")
# Orders carried out at a time: threads begin on a staged tile before the last one is done.
AT_ONCE = 2


class Abandoned(Exception):
    """The tile in hand is dropped."""


class Task(IntEnum):
    """What a rank can be ordered to do."""

    END = 0
    REGIONS = 1
    TILE = 2


@dataclass(frozen=True)
class Order:
    """To stage ``count`` regions from ``first`` on, to compute tile ``first``, or to end with exit code ``first``."""

    task: Task
    first: int
    count: int = 1


@dataclass
class Finished:
    """An order that was carried out, and what it cost: seconds by stage (summed over threads) and decoded bytes."""

    order: Order
    seconds: dict[str, float]
    decoded_bytes: int
    maps: TileMaps | None = None  # of a tile


class Worker:
    """One rank's engine and reader, carrying out orders on threads of their own.

    Tiles are cut from ``stage`` where the movie is staged, read from the movie otherwise.
    """

    def __init__(
        self, engine: Engine, reader: TileReader, grid: WindowGrid, threads: int, skip_bad_frames: bool
    ) -> None:
        self.engine = engine
        self.reader = reader
        self.grid = grid
        self.skip_bad_frames = skip_bad_frames
        self.stage: Stage | None = None
        self.regions = reader.regions(grid.pixels(0, grid.rows), grid.pixels(0, grid.columns))
        held = reader.held(grid.pixels(0, grid.rows), grid.pixels(0, grid.columns))
        self.stages_frames = held == reader.frame and not reader.filters  # whole ones, as they are
        self.windows = 0  # encoded so far, by all threads, windows x frames
        self.activity = 0  # grows with every step, of reading too
        self._readers = ThreadPoolExecutor(threads, "read")
        self._encoders = ThreadPoolExecutor(engine.at_once(threads), "encode", initializer=engine.begin_thread)
        self.threads = threads
        self._lock = threading.Lock()
        self._one_tile = threading.Lock()  # one tile's pixels are held at a time
        self._carrier = ThreadPoolExecutor(AT_ONCE, "order")
        self._orders = deque[tuple[str, Future[Finished]]]()  # what each does
        self._abandoned = False

    def start(self, order: Order, tiling: Tiling) -> None:
        """Carry out ``order``; ``tiling`` knows its tile. Threads turn to it when those begun before need no more."""
        self._orders.append((describe(order, tiling), self._carrier.submit(self._carry_out, order, tiling)))
        doing(self._orders[0][0])

    def poll(self, patience: float) -> Finished | None:
        """The oldest order if it is carried out within ``patience`` seconds, else None.

        Raises what that raised, after which no further order is carried out.
        """
        if not self._orders or self._abandoned:
            time.sleep(patience)
            return None
        if not wait([self._orders[0][1]], patience).done:
            return None
        _, order = self._orders.popleft()
        doing(self._orders[0][0] if self._orders else "waiting for an order")
        try:
            return order.result()
        except BaseException:
            self.abandon(0)
            raise

    def abandon(self, patience: float) -> None:
        """Drop all orders, waiting at most ``patience`` seconds for the threads of those in hand."""
        self._abandoned = True
        orders = [order for _, order in self._orders]
        for order in orders:
            order.cancel()
        wait(orders, patience)

    def _carry_out(self, order: Order, tiling: Tiling) -> Finished:
        self._check()
        if order.task is Task.REGIONS:
            return self._fill(order)
        with nullcontext() if self.stage else self._one_tile:
            return self._compute(order, tiling)

    def _check(self, windows: int = 0) -> None:
        with self._lock:
            self.windows += windows
            self.activity += 1
        if self.stage:
            self.stage.let_go()
        if self._abandoned:
            raise Abandoned

    def _fill(self, order: Order) -> Finished:
        """Stage regions, one on each thread."""
        assert self.stage is not None
        pixels = self.stage.pixels

        def fill(region: Region) -> tuple[float, int]:
            began = time.monotonic()
            decoded = self.reader.fill(pixels, region, self.skip_bad_frames)
            self.reader.movie.check_unchanged()
            self._check()
            return time.monotonic() - began, decoded

        regions = self.regions[order.first : order.first + order.count]
        spent, decoded = zip(*_on_threads(self._readers, fill, regions), strict=True)
        return Finished(order, {"read": sum(spent), "encode": 0.0, "statistics": 0.0}, sum(decoded))

    def _each(self, fill: Callable[[Region], int], slabs: Iterable[Region]) -> Iterable[int]:
        """``fill`` of each slab, on all threads where they can decode at the same time."""

        def checked(slab: Region) -> int:
            self._check()
            return fill(slab)

        parallel = self.reader.movie.decodes_in_parallel
        return _on_threads(self._readers, checked, slabs) if parallel else map(checked, slabs)

    def _compute(self, order: Order, tiling: Tiling) -> Finished:
        tile = tiling.tiles[order.first]
        rows = self.grid.pixels(tile.row0, tile.row1)
        columns = self.grid.pixels(tile.column0, tile.column1)
        began = time.monotonic()
        staged = self.stage and self.stage.pixels
        pixels = staged or self.reader.read(rows, columns, self.skip_bad_frames, self._each)
        self.reader.movie.check_unchanged()
        seconds = {"read": time.monotonic() - began, "encode": 0.0, "statistics": 0.0}
        done = TileMaps(
            np.empty((len(MAPS), self.engine.latents, *tile.shape), np.float32),
            np.empty(tile.shape, np.int32),
            self.reader.movie.frame_indices[pixels.bad_frames(rows, columns)],
        )
        for spent in _on_threads(
            self._encoders, lambda block: self._block(block, tile, pixels, done), tiling.blocks(tile)
        ):
            for stage, s in zip(STAGES[1:], spent, strict=True):
                seconds[stage] += s
        return Finished(order, seconds, pixels.decoded_bytes, done)

    def _block(self, block: Rectangle, tile: Rectangle, pixels: TilePixels, done: TileMaps) -> tuple[float, float]:
        began = time.monotonic()
        rows = slice(block.row0 - tile.row0, block.row1 - tile.row0)
        columns = slice(block.column0 - tile.column0, block.column1 - tile.column0)
        patch_rows = self.grid.pixels(block.row0, block.row1)
        patch_columns = self.grid.pixels(block.column0, block.column1)
        patch = pixels.patch(patch_rows, patch_columns)
        readable = self._readable(pixels, block, patch_rows, patch_columns)
        z, valid = self.engine.encode(patch, readable, pixels.frame_range, self._check)
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
        for t in pixels.bad_frames(rows, columns):
            unreadable = pixels.unreadable(t, rows, columns)
            windows = np.lib.stride_tricks.sliding_window_view(unreadable, (size, size))[::step, ::step]
            readable[t] = ~windows.any((2, 3)).ravel()
        return readable

    def trial(self) -> tuple[float, float]:
        """Rates on the first block: windows/s and decoded bytes/s, of all threads.

        A CPU encodes short batches for it. Frames that can't be decoded are left to the analysis.
        """
        first = Rectangle(0, min(self.engine.block, self.grid.rows), 0, min(self.engine.block, self.grid.columns))
        rows, columns = self.grid.pixels(0, first.row1), self.grid.pixels(0, first.column1)
        frames = self.engine.frames_at_once(first.windows)
        if self.engine.device.type == "cpu":
            frames = max(1, frames // 4)
        began = time.monotonic()
        pixels, decoded = self.reader.sample(rows, columns, frames)
        decode_rate = decoded / max(time.monotonic() - began, 1e-6)
        if self.reader.movie.decodes_in_parallel:
            decode_rate *= self.threads
        readable = np.ones((len(pixels), first.windows), bool)
        frame_range = np.tile([0.0, 1.0], (len(pixels), 1)) if self.reader.frame_scaling else None

        def encode() -> int:
            return self.engine.encode(pixels, readable, frame_range)[1].numel()

        each = range(self.engine.at_once(self.threads))
        _on_threads(self._encoders, lambda _: encode(), each)  # the first call of each thread pays for setting up
        began = time.monotonic()
        windows = sum(_on_threads(self._encoders, lambda _: encode(), each))
        return windows / max(time.monotonic() - began, 1e-6), decode_rate


def _on_threads(pool: ThreadPoolExecutor, function: Callable[[S], T], items: Iterable[S]) -> list[T]:
    """``function`` of each item, on the threads of ``pool``; nothing further is begun once one has failed."""
    jobs = [pool.submit(function, item) for item in items]
    try:
        return [job.result() for job in jobs]
    finally:
        for job in jobs:
            job.cancel()


def describe(order: Order, tiling: Tiling) -> str:
    """What a rank does that carries out ``order``."""
    if order.task is Task.TILE:
        return f"working on tile {order.first} ({tiling.tiles[order.first]})"
    return f"staging regions {order.first} to {order.first + order.count - 1} of the movie"
