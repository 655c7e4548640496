"""Single windows as the network sees them, at a few times, beside what it makes of them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from hrtemvae_hpc.analysis.compute import readable_windows
from hrtemvae_hpc.errors import InputError
from hrtemvae_hpc.interpretation.places import Place
from hrtemvae_hpc.interpretation.reopen import Reopened
from hrtemvae_hpc.model.reconstruction import correlation, decode
from hrtemvae_hpc.movie.tiles import TileReader
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
    windows = np.empty((len(times), again.grid.window, again.grid.window), np.float32)
    for window, t in zip(windows, times, strict=True):
        window[:] = _window(again, Rectangle(row, row + 1, column, column + 1), int(t))
    known = torch.from_numpy(np.isfinite(windows[:, 0, 0]))
    if again.model.decoder is None:
        return Views(times, windows, None, None)
    reconstructions, alike = np.full_like(windows, np.nan), np.full(len(times), np.nan, np.float32)
    if known.any():
        shown = torch.from_numpy(windows)[known][:, None]
        decoded = decode(again.model.decoder, again.model.encoder(shown)[0])
        reconstructions[known], alike[known] = decoded[:, 0], correlation(shown, decoded)
    return Views(times, windows, reconstructions, alike)


def _window(again: Reopened, window: Rectangle, t: int) -> np.ndarray:
    """A window [window, window] float32 of frame ``t``, scaled as the analysis does; NaN if it is not valid."""
    reader, area = again.reader, again.grid.area(window)
    part = TileReader(again.movie.part(slice(t, t + 1)), reader.preprocess, reader.frame_scaling, reader.resampler)
    tile = part.read(area, again.skip_bad_frames)
    pixels = tile.patch(area)[0].astype(np.float64)
    low, high = (pixels.min(), pixels.max()) if tile.frame_range is None else tile.frame_range[0]
    usable = (
        readable_windows(again.reader, again.grid, tile, window)[0, 0]
        and np.isfinite(pixels).all()
        and np.isfinite([low, high]).all()
    )
    scaled = (pixels - low) / (high - low) if usable and high > low else np.full(pixels.shape, np.nan)
    return scaled.astype(np.float32)
