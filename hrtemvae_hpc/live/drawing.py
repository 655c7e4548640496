"""The result and the page of a recording so far, and where something happens in it."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from hrtemvae_hpc.analysis.compute import Means
from hrtemvae_hpc.analysis.result_info import describe_inputs, resampling
from hrtemvae_hpc.files import saving
from hrtemvae_hpc.live.bins import TimeBins
from hrtemvae_hpc.live.encoding import LiveEncoder
from hrtemvae_hpc.live.places import Place, strongest_places
from hrtemvae_hpc.maps.report import opened_to_draw, write_result_page
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

        Returns the places where most happens. Raises Blocked if the disk is full.
        """
        job = self.encoder.job
        grid = job.grid
        test = PermutationTest(Comparison.with_time(len(bins)), job.engine.device)
        cells = cells_for(grid, job.engine.block, len(bins), job.engine.latents)
        means = Means(job.engine, job.reader, grid, test, cells, skip_bad_frames=True)
        tile = Rectangle(0, grid.rows, 0, grid.columns)
        maps = means.empty_maps(tile, np.empty(0, np.int64))

        def fill(block: Rectangle) -> np.ndarray:
            z, valid = bins.means(slice(block.row0, block.row1), slice(block.column0, block.column1))
            device = job.engine.device
            return means.fill_statistics(
                maps, tile, block, torch.from_numpy(z).to(device), torch.from_numpy(valid).to(device)
            )

        for largest in on_threads(self.encoder.pool, fill, Tiling(grid, job.engine.block, 1, 1).blocks(tile)):
            np.maximum(maps.largest_rho, largest, out=maps.largest_rho)
        info = self._info(movie, bins, means, seconds)
        with saving(self.path, _ADVICE):
            write_result(self.path, self.path.parent, info, [(tile, maps)])
        write_result_page(self.path, self.page, self.path.parent)
        with opened_to_draw(self.path) as result:
            return strongest_places(result)

    def _info(self, movie: Movie, bins: TimeBins, means: Means, seconds: float) -> ResultInfo:
        job = self.encoder.job
        frames = np.rint(bins.positions()).astype(int)
        times = None if movie.times_s is None else np.interp(frames, movie.frame_indices, movie.times_s)
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
            times_s=times,
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


def _describe(movie: Movie, bins: TimeBins) -> str:
    first, last = movie.frame_indices[[0, -1]]
    each = "" if bins.size == 1 else f", each value the mean of {bins.size}"
    return f"{bins.frames:,} of frames {first:,} to {last:,}{each}"
