"""The orders of one rank, carried out in the background: its main thread stays free for messages."""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import nullcontext
from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from hrtemvae_hpc.analysis.compute import Means
from hrtemvae_hpc.analysis.parts import TileMaps
from hrtemvae_hpc.movie.chunk_grid import Region
from hrtemvae_hpc.ranks.guard import doing
from hrtemvae_hpc.threads import on_threads
from hrtemvae_hpc.windows.grid import Rectangle, Tiling

STAGES = ("read", "encode", "statistics")
# Orders carried out at the same time: threads start on a staged tile before the last one is done.
AT_ONCE = 2


class Abandoned(Exception):
    """The current tile is dropped."""


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
    """One rank's orders, carried out on threads of their own."""

    def __init__(self, means: Means, threads: int) -> None:
        reader, covered = means.reader, means.grid.covered
        self.means = means
        self.regions = reader.regions(covered)
        self.stages_frames = reader.source(covered) == reader.movie.area and not reader.filters  # whole, unfiltered
        self.windows = 0  # encoded so far, by all threads, windows x frames
        self.activity = 0  # grows with every step, of reading too
        self._readers = ThreadPoolExecutor(threads, "read")
        engine = means.engine
        self._encoders = ThreadPoolExecutor(engine.at_once(threads), "encode", initializer=engine.begin_thread)
        self._lock = threading.Lock()
        self._one_tile = threading.Lock()  # one tile's pixels are held at a time
        self._carrier = ThreadPoolExecutor(AT_ONCE, "order")
        self._orders = deque[tuple[str, Future[Finished]]]()  # what each does
        self._abandoned = False

    def start(self, order: Order, tiling: Tiling) -> None:
        """Carry out ``order``; ``tiling`` knows its tile. Threads start on it once earlier orders need no more."""
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
        """Drop all orders, waiting at most ``patience`` seconds for their threads."""
        self._abandoned = True
        orders = [order for _, order in self._orders]
        for order in orders:
            order.cancel()
        wait(orders, patience)

    def _carry_out(self, order: Order, tiling: Tiling) -> Finished:
        self._check()
        if order.task is Task.REGIONS:
            return self._fill(order)
        with nullcontext() if self.means.stage else self._one_tile:
            return self._compute(order, tiling)

    def _check(self, windows: int = 0) -> None:
        with self._lock:
            self.windows += windows
            self.activity += 1
        if self.means.stage:
            self.means.stage.release_pages()
        if self._abandoned:
            raise Abandoned

    def _fill(self, order: Order) -> Finished:
        """Stage regions, one on each thread."""
        assert self.means.stage is not None
        pixels, reader = self.means.stage.pixels, self.means.reader

        def fill(region: Region) -> tuple[float, int]:
            began = time.monotonic()
            decoded = reader.fill(pixels, region, self.means.skip_bad_frames)
            reader.movie.check_unchanged()
            self._check()
            return time.monotonic() - began, decoded

        regions = self.regions[order.first : order.first + order.count]
        spent, decoded = zip(*on_threads(self._readers, fill, regions), strict=True)
        return Finished(order, {"read": sum(spent), "encode": 0.0, "statistics": 0.0}, sum(decoded))

    def _each(self, fill: Callable[[Region], int], slabs: Iterable[Region]) -> Iterable[int]:
        """``fill`` of each slab, on all threads where they can decode at the same time."""

        def checked(slab: Region) -> int:
            self._check()
            return fill(slab)

        parallel = self.means.reader.movie.decodes_in_parallel
        return on_threads(self._readers, checked, slabs) if parallel else map(checked, slabs)

    def _compute(self, order: Order, tiling: Tiling) -> Finished:
        tile = tiling.tiles[order.first]
        began = time.monotonic()
        pixels = self.means.pixels(tile, self._each)
        seconds = {"read": time.monotonic() - began, "encode": 0.0, "statistics": 0.0}
        bad_frames = pixels.bad_frames(self.means.grid.area(tile))
        maps = self.means.empty_maps(tile, self.means.reader.movie.frame_indices[bad_frames])

        def fill(block: Rectangle) -> tuple[tuple[float, float], np.ndarray]:
            return self.means.fill_block(maps, tile, block, pixels, self._check)

        for spent, largest in on_threads(self._encoders, fill, tiling.blocks(tile)):
            np.maximum(maps.largest_rho, largest, out=maps.largest_rho)
            for stage, s in zip(STAGES[1:], spent, strict=True):
                seconds[stage] += s
        return Finished(order, seconds, pixels.decoded_bytes, maps)


def describe(order: Order, tiling: Tiling) -> str:
    """What a rank is doing that carries out ``order``."""
    if order.task is Task.TILE:
        return f"working on tile {order.first} ({tiling.tiles[order.first]})"
    return f"staging regions {order.first} to {order.first + order.count - 1} of the movie"
