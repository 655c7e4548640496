"""Windows that a result shows at three times beside their reconstructions."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hrtemvae_hpc.analysis.opened import Job
from hrtemvae_hpc.analysis.single_windows import reconstruct, scaled_window
from hrtemvae_hpc.analysis.stage import Stage
from hrtemvae_hpc.maps.windows_group import ShownWindows
from hrtemvae_hpc.movie.tiles import TilePixels


@dataclass(frozen=True)
class WindowViewer:
    """Shows windows of the first, the middle and the last of some frames, from the stage if there is one."""

    job: Job
    frames: Sequence[int]  # as the movie counts them
    stage: Stage | None

    def __call__(self, rows: np.ndarray, columns: np.ndarray) -> ShownWindows:
        """The windows at ``rows`` and ``columns`` [n]; what can't be decoded is shown black."""
        job, shown = self.job, [self.frames[i] for i in (0, len(self.frames) // 2, -1)]
        size = job.grid.window
        windows = np.empty((len(rows), len(shown), size, size), np.float32)
        for number, t in enumerate(np.searchsorted(job.movie.frame_indices, shown)):
            frame = self._frame(int(t))
            for window, row, column in zip(windows, rows, columns, strict=True):
                window[number] = scaled_window(job.reader, job.grid, frame, int(row), int(column))
        again, alike = reconstruct(job.model, windows.reshape(-1, size, size))
        pairs = np.nan_to_num(np.stack([windows, again.reshape(windows.shape)], 2))
        return ShownWindows(
            tuple(shown), np.round(255 * pairs.clip(0, 1)).astype(np.uint8), alike.reshape(windows.shape[:2])
        )

    def _frame(self, t: int) -> TilePixels:
        if self.stage:
            return self.stage.pixels.frame(t)
        return self.job.reader.of_frames(slice(t, t + 1)).read(self.job.grid.covered, skip_bad_frames=True)
