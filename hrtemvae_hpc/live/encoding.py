"""The latents of frames as they arrive, on a grid that is coarse enough to keep up."""

import math
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import torch

from hrtemvae_hpc.analysis.compute import readable_windows
from hrtemvae_hpc.analysis.opened import Job
from hrtemvae_hpc.config import AnalysisConfig, StatisticsSection
from hrtemvae_hpc.live.kept import EncodedFrame
from hrtemvae_hpc.live.tracking import Tracker
from hrtemvae_hpc.movie.movie import Movie
from hrtemvae_hpc.movie.tiles import TileReader
from hrtemvae_hpc.threads import on_threads
from hrtemvae_hpc.windows.grid import Rectangle, Tiling, WindowGrid

_MOST_WINDOWS = 4096  # of a frame
_MOST_BYTES = 2**27  # of frames that are read together
_MOST_FRAMES = 16


def coarse(config: AnalysisConfig, grid: WindowGrid) -> AnalysisConfig:
    """``config`` for maps while a movie is recorded: of every n-th window of ``grid``, and compared with time."""
    every = math.ceil(math.sqrt(max(1.0, grid.rows * grid.columns / _MOST_WINDOWS)))
    windows = config.windows.model_copy(update={"step": every * config.windows.step})
    return config.model_copy(update={"windows": windows, "statistics": StatisticsSection()})


@dataclass
class LiveEncoder:
    """Encodes frames of a recording, and follows their drift if ``tracker`` is given."""

    job: Job
    tracker: Tracker | None
    pool: ThreadPoolExecutor

    @property
    def frames_at_once(self) -> int:
        """Frames that are read together."""
        movie = self.job.movie
        each = movie.area.pixels * movie.dtype.itemsize
        return int(max(1, min(_MOST_FRAMES, _MOST_BYTES // each)))

    def resume(self, movie: Movie, place: tuple[float, float]) -> None:
        """Follow drift from the only frame of ``movie`` on, in which the specimen is known to lie at ``place``."""
        if self.tracker:
            part, frame = self._region(movie), None
            with suppress(OSError):
                frame = part.read(slice(0, 1), part.area)[0]
            self.tracker.resume(frame, place)

    def encode(self, movie: Movie) -> list[EncodedFrame]:
        """The frames of ``movie`` with their latents; what can't be decoded is not valid."""
        places = self._follow(movie) if self.tracker else [(0.0, 0.0)] * movie.shape[0]
        reader = TileReader(movie, self.job.config.preprocess, self.job.reader.frame_scaling, self.job.reader.transform)
        engine, grid = self.job.engine, self.job.grid
        tile = Rectangle(0, grid.rows, 0, grid.columns)
        pixels = reader.read(grid.covered, skip_bad_frames=True)
        z = np.empty((movie.shape[0], *tile.shape, engine.latents), np.float32)

        def fill(block: Rectangle) -> None:
            readable = readable_windows(reader, grid, pixels, block)
            encoded, valid = engine.encode(pixels.patch(grid.area(block)), readable, pixels.frame_range)
            series = torch.where(valid[..., None], encoded, torch.nan).view(len(z), *block.shape, -1)
            z[:, block.row0 : block.row1, block.column0 : block.column1] = series.cpu().numpy()

        on_threads(self.pool, fill, Tiling(grid, engine.block, 1, 1).blocks(tile))
        frames = zip(movie.frame_indices.tolist(), places, z, strict=True)
        return [EncodedFrame(*each) for each in frames]

    def _follow(self, movie: Movie) -> list[tuple[float, float]]:
        """Where the specimen lies in each frame of ``movie``, which then follows it."""
        assert self.tracker is not None
        part = self._region(movie)
        places, shifts = [], []
        for t in range(movie.shape[0]):
            with suppress(OSError):  # what can't be decoded is not valid anywhere
                self.tracker.follow(part.read(slice(t, t + 1), part.area)[0])
            places.append(self.tracker.place)
            shifts.append(self.tracker.shift)
        movie.follow(np.array(shifts), np.zeros(len(shifts), np.bool_))
        return places

    def _region(self, movie: Movie) -> Movie:
        roi = self.job.config.drift.roi
        return movie.region(roi) if roi else movie
