"""The result and the page of a recording so far, and where something happens in it."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from hrtemvae_hpc.analysis.compute import Means
from hrtemvae_hpc.analysis.parts import TileMaps
from hrtemvae_hpc.analysis.result_info import describe_inputs, resampling
from hrtemvae_hpc.files import saving
from hrtemvae_hpc.live.bins import Bins, TimeBins
from hrtemvae_hpc.live.encoding import LiveEncoder
from hrtemvae_hpc.live.places import Place, Span, strongest_places
from hrtemvae_hpc.maps.axes import spatial_axes
from hrtemvae_hpc.maps.report import write_result_page
from hrtemvae_hpc.maps.result_writing import ResultInfo, write_result
from hrtemvae_hpc.movie.movie import Movie
from hrtemvae_hpc.movie.preview import frames_to_show
from hrtemvae_hpc.statistics.comparison import Comparison
from hrtemvae_hpc.statistics.significance import PermutationTest
from hrtemvae_hpc.threads import on_threads
from hrtemvae_hpc.windows.cells import cells_for
from hrtemvae_hpc.windows.grid import Rectangle, Tiling

_ADVICE = "make room and run the same command again; what was encoded is kept."


@dataclass(frozen=True)
class Drawer:
    """Draws the maps of a recording so far as the result file ``path`` and the ``page``; ``key`` identifies it."""

    encoder: LiveEncoder
    path: Path
    page: Path
    key: str

    def draw(self, movie: Movie, bins: TimeBins, seconds: float) -> list[Place]:
        """Draw what ``bins`` hold of ``movie``, which is followed, after so many ``seconds``.

        Returns the places where most happens, in all of it and in its last frames. Raises Blocked if the disk is full.
        """
        job = self.encoder.job
        maps, means = self._maps(bins.whole)
        info = self._info(movie, bins.whole, means, seconds)
        with saving(self.path, _ADVICE):
            write_result(self.path, self.path.parent, info, [(self._tile, maps)])
        write_result_page(self.path, self.page, self.path.parent)
        spans = [_span(movie, bins.whole, maps, means)]
        spans += [_span(movie, recent, *self._maps(recent)) for recent in reversed(bins.recent)]
        axes = spatial_axes(job.grid, info.origin, info.resampling, info.pixel_size_nm)
        return strongest_places(spans, axes, -(-job.grid.window // job.grid.step))

    @property
    def _tile(self) -> Rectangle:
        """All windows."""
        return Rectangle(0, self.encoder.job.grid.rows, 0, self.encoder.job.grid.columns)

    def _maps(self, bins: Bins) -> tuple[TileMaps, Means]:
        job, tile = self.encoder.job, self._tile
        grid = job.grid
        test = PermutationTest(Comparison.with_time(len(bins)), job.engine.device)
        cells = cells_for(grid, job.engine.block, len(bins), job.engine.latents)
        means = Means(job.engine, job.reader, grid, test, cells, skip_bad_frames=True)
        maps = means.empty_maps(tile, np.empty(0, np.int64))

        def fill(block: Rectangle) -> np.ndarray:
            z, valid = bins.means(slice(block.row0, block.row1), slice(block.column0, block.column1))
            device = job.engine.device
            return means.fill_statistics(
                maps, tile, block, torch.from_numpy(z).to(device), torch.from_numpy(valid).to(device)
            )

        for largest in on_threads(self.encoder.pool, fill, Tiling(grid, job.engine.block, 1, 1).blocks(tile)):
            np.maximum(maps.largest_rho, largest, out=maps.largest_rho)
        return maps, means

    def _info(self, movie: Movie, bins: Bins, means: Means, seconds: float) -> ResultInfo:
        job = self.encoder.job
        frames = np.rint(bins.positions()).astype(int)
        return ResultInfo(
            identity=self.key,
            grid=job.grid,
            latent_source_index=job.model.latent_order,
            origin=(movie.top, movie.left),
            pixel_size_nm=movie.pixel_size_nm,
            frame_time_s=movie.frame_time_s,
            resampling=resampling(job),
            preview=frames_to_show(movie, None),
            curves=None,
            reconstructed=False,
            cells=means.cells,
            show_windows=None,
            ratios=means.test.ratios,
            times_s=_times(movie, frames),
            with_processes=False,
            process={
                **describe_inputs(job, movie),
                "recording": _describe(movie, bins),
                "frames": frames.tolist(),
                "ranks": [dataclasses.asdict(job.resources)],
                "encodings": bins.frames * job.grid.rows * job.grid.columns,
                "encodings_resumed": 0,
                "seconds": seconds,
                "seconds_by_stage": {},
                "bytes_read": 0,
                "read_amplification": 0.0,
            },
        )


def _span(movie: Movie, bins: Bins, maps: TileMaps, means: Means) -> Span:
    frames = bins.positions()
    return Span.of_bins(maps, means.test.ratios, frames, _times(movie, frames))


def _times(movie: Movie, frames: np.ndarray) -> np.ndarray | None:
    return None if movie.times_s is None else np.interp(frames, movie.frame_indices, movie.times_s)


def _describe(movie: Movie, bins: Bins) -> str:
    first, last = movie.frame_indices[[0, -1]]
    each = "" if bins.size == 1 else f", each value the mean of {bins.size}"
    return f"{bins.frames:,} of frames {first:,} to {last:,}{each}"
