"""Single windows as the network sees them, at a few times, beside what it makes of them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hrtemvae_hpc.analysis.single_windows import reconstruct, scaled_window
from hrtemvae_hpc.errors import InputError
from hrtemvae_hpc.interpretation.places import Place
from hrtemvae_hpc.interpretation.reopen import Reopened
from hrtemvae_hpc.windows.grid import Rectangle


@dataclass(frozen=True)
class Views:
    """One window at some times: pixels scaled to 0..1, NaN where it is not valid."""

    times: np.ndarray  # [times] int, frames of what was analysed
    windows: np.ndarray  # [times, window, window] float32
    reconstructions: np.ndarray | None  # the same; None if the model has no decoder
    correlations: np.ndarray | None  # [times] of window and reconstruction


def times_to_show(valid: np.ndarray) -> np.ndarray:
    """The first, the middle and the last frame that is ``valid`` [frames]; none if none is."""
    shown = np.flatnonzero(valid)
    return shown[[0, len(shown) // 2, -1]] if len(shown) else shown


def times_of(again: Reopened, frames: Sequence[int]) -> np.ndarray:
    """The analysed frames that have the indices ``frames`` in the file; InputError if one was not analysed."""
    known = again.movie.frame_indices
    for frame in frames:
        if frame not in known:
            raise InputError(f"--show {frame}: was not analysed; frames {known[0]} to {known[-1]} were.")
    return np.searchsorted(known, frames)


def view(again: Reopened, place: Place, times: np.ndarray) -> Views:
    """The window in the middle of ``place`` at ``times`` [times]."""
    row, column = place.middle
    reader, area = again.reader, again.grid.area(Rectangle(row, row + 1, column, column + 1))
    windows = np.empty((len(times), again.grid.window, again.grid.window), np.float32)
    for window, t in zip(windows, times, strict=True):
        part = reader.of_frames(slice(t, t + 1))
        window[:] = scaled_window(reader, again.grid, part.read(area, again.skip_bad_frames), row, column)
    if again.model.decoder is None:
        return Views(times, windows, None, None)
    return Views(times, windows, *reconstruct(again.model, windows))
