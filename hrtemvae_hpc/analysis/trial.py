"""How fast a rank encodes and decodes, from a short trial on the first block of windows."""

import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from hrtemvae_hpc.movie.tiles import TileReader
from hrtemvae_hpc.threads import on_threads
from hrtemvae_hpc.windows.engine import Engine
from hrtemvae_hpc.windows.grid import Rectangle, WindowGrid


def measure_rates(engine: Engine, reader: TileReader, grid: WindowGrid, threads: int) -> tuple[float, float]:
    """Windows/s and decoded bytes/s, of all ``threads`` together.

    A CPU encodes short batches for it. Frames that can't be decoded are left to the analysis.
    """
    first = Rectangle(0, min(engine.block, grid.rows), 0, min(engine.block, grid.columns))
    frames = engine.frames_at_once(first.windows)
    if engine.device.type == "cpu":
        frames = max(1, frames // 4)
    began = time.monotonic()
    pixels, decoded = reader.sample(grid.area(first), frames)
    decode_rate = decoded / max(time.monotonic() - began, 1e-6)
    if reader.movie.decodes_in_parallel:
        decode_rate *= threads
    readable = np.ones((frames, first.windows), bool)[: pixels.shape[0]]
    frame_range = np.tile([0.0, 1.0], (len(readable), 1)) if reader.frame_scaling else None

    def encode(_: int) -> int:
        return engine.encode(pixels, readable, frame_range)[1].numel()

    at_once = engine.at_once(threads)
    with ThreadPoolExecutor(at_once, "trial", initializer=engine.begin_thread) as pool:
        on_threads(pool, encode, range(at_once))  # the first call of each thread pays for setting up
        began = time.monotonic()
        windows = sum(on_threads(pool, encode, range(at_once)))
        return windows / max(time.monotonic() - began, 1e-6), decode_rate
