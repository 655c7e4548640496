"""Which lattices a model reconstructs."""

import math
from collections.abc import Sequence
from itertools import groupby

import torch
from torch import Tensor

from hrtemvae_hpc.model.model_file import Model
from hrtemvae_hpc.model.network import Decoder
from hrtemvae_hpc.model.reconstruction import correlation, decode
from hrtemvae_hpc.scaling import margin, scaled_windows
from hrtemvae_hpc.schemas import Scaling

_ALIKE = 0.9  # correlation of a window and its reconstruction
_SHORTEST = 4  # pixels
_PERIODS = 32  # about this many are tried, up to half a window
_PIXELS = 2**20  # of windows that are encoded at once
_SIGMA = 0.428  # of a spot, periods: the article's test lattice
# Poses of the lattices: degrees from rows and columns, and the shift along both in periods.
_POSES = ((0, 0.1, 0.6), (4, 0.3, 0.2), (-5, 0.8, 0.4), (2, 0.5, 0.9), (7, 0.7, 0.1))


def reconstructed_periods(model: Model) -> tuple[int, int] | None:
    """The shortest and the longest period (pixels) of the lattices that ``model`` reconstructs, and all between them.

    None if it has no decoder, or reconstructs none of those tried.
    """
    longest = model.architecture.window // 2
    if model.decoder is None or longest < _SHORTEST:
        return None
    periods = range(_SHORTEST, longest + 1, max(1, longest // _PERIODS))
    alike = zip(periods, reconstruction(model, model.decoder, periods), strict=True)
    runs = [list(run) for good, run in groupby(alike, lambda pair: pair[1] >= _ALIKE) if good]
    best = max(runs, key=len, default=None)
    return (best[0][0], best[-1][0]) if best else None


@torch.inference_mode()
def reconstruction(model: Model, decoder: Decoder, periods: Sequence[int]) -> list[float]:
    """How similar a window of a square lattice is to its reconstruction, for each period (pixels).

    The correlation of the pixels, as the median over some poses of a simulated lattice of dark spots.
    """
    window = model.architecture.window
    at_once = max(1, _PIXELS // (len(_POSES) * window**2))
    alike: list[float] = []
    for start in range(0, len(periods), at_once):
        windows = _lattices(window, periods[start : start + at_once], model.scaling)
        decoded = decode(decoder, model.encoder(windows)[0])
        alike += correlation(windows, decoded).view(-1, len(_POSES)).median(1).values.tolist()
    return alike


def _lattices(window: int, periods: Sequence[int], scaling: Scaling) -> Tensor:
    """Windows [periods x poses, 1, window, window] of square lattices of dark Gaussian spots, scaled to 0..1."""
    size = window + 2 * margin(scaling, window)
    axis = torch.arange(size) - (size - 1) / 2
    y, x, period = axis[:, None], axis[None], torch.tensor(periods)[:, None, None]
    drawn = []
    for degrees, along_y, along_x in _POSES:
        cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
        drawn.append(_row((y * cos - x * sin) / period + along_y) * _row((x * cos + y * sin) / period + along_x))
    return scaled_windows(-torch.stack(drawn, 1).view(-1, 1, size, size), window, scaling)


def _row(place: Tensor) -> Tensor:
    """A row of Gaussian spots of height 1 and period 1, at each ``place``."""
    from_spot = torch.remainder(place + 0.5, 1) - 0.5
    return torch.stack([torch.exp(-(((from_spot + spot) / _SIGMA) ** 2) / 2) for spot in (-1, 0, 1)]).sum(0)
