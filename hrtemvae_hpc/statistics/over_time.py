"""Mean, variance, Spearman's rho with time and time-correlated variance of series with gaps.

Time has no ties and is already sorted, so rho needs one sort of each series: the ranks of the values, averaged
where they tie, against the ranks of the time (Spearman 1904; scipy.stats.spearmanr gives the same numbers).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

MINIMUM_FRAMES = 3
MAPS = ("mean", "variance", "spearman", "time_correlated_variance")
_ELEMENTS_AT_ONCE = 2**22


@dataclass(frozen=True)
class SeriesStatistics:
    """Maps of a set of windows: [windows, latents] float32 each, and valid_frames [windows] int32."""

    mean: Tensor
    variance: Tensor
    spearman: Tensor
    time_correlated_variance: Tensor
    valid_frames: Tensor


def working_bytes(frames: int, windows: int, latents: int) -> int:
    """Bytes that ``series_statistics`` takes beside its input."""
    at_once = max(_ELEMENTS_AT_ONCE, frames * latents)
    return min(frames * windows * latents, at_once) * 64


def series_statistics(z: Tensor, valid: Tensor) -> SeriesStatistics:
    """Statistics over time of ``z`` [frames, windows, latents] where ``valid`` [frames, windows].

    Variance: population variance (ddof 0). Spearman: NaN for a constant series. Time-correlated variance:
    (rho * variance)^2. All are NaN for a window with fewer than 3 valid frames. Computed in float64.
    """
    frames, windows, latents = z.shape
    step = max(1, _ELEMENTS_AT_ONCE // (frames * latents))
    parts = [_statistics(z[:, i : i + step].double(), valid[:, i : i + step]) for i in range(0, windows, step)]
    return SeriesStatistics(*(torch.cat(maps) for maps in zip(*parts, strict=True)))


def _statistics(z: Tensor, valid: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    count = valid.sum(0)
    n = count.double()[:, None]
    here = valid[..., None]
    mean = torch.where(here, z, 0).sum(0) / n
    variance = torch.where(here, (z - mean) ** 2, 0).sum(0) / n
    rho = spearman_with_time(z, valid)
    enough = (count >= MINIMUM_FRAMES)[:, None]
    maps = [torch.where(enough, m, torch.nan).float() for m in (mean, variance, rho, (rho * variance) ** 2)]
    return maps[0], maps[1], maps[2], maps[3], count.int()


def spearman_with_time(z: Tensor, valid: Tensor) -> Tensor:
    """Spearman's rho [windows, latents] of ``z`` [frames, windows, latents] with the order of its valid frames."""
    frames = len(z)
    count = valid.sum(0)
    # Frames that are left out sort behind all others.
    values, by_value = torch.sort(torch.where(valid[..., None], z, torch.inf), dim=0, stable=True)
    rank = _doubled_average_ranks(values) - (count - 1)[:, None]
    time = 2 * (valid.cumsum(0) - 1) - (count - 1)
    time = time[..., None].expand_as(z).gather(0, by_value)
    # Twice the centred ranks are whole numbers: sums of their products are exact in float64.
    counted = (torch.arange(frames, device=z.device)[:, None] < count)[..., None]
    rank = torch.where(counted, rank, 0).double()
    time = torch.where(counted, time, 0).double()
    n = count.double()[:, None]
    time_squares = n * (n**2 - 1) / 3
    return (rank * time).sum(0) / torch.sqrt((rank**2).sum(0) * time_squares)


def _doubled_average_ranks(values: Tensor) -> Tensor:
    """Twice the ranks (from 0) of sorted ``values`` along dimension 0; equal values share their average rank."""
    position = torch.arange(len(values), device=values.device)[:, None, None].expand(values.shape)
    starts = torch.ones_like(values, dtype=torch.bool)
    starts[1:] = values[1:] != values[:-1]
    ends = torch.ones_like(starts)
    ends[:-1] = starts[1:]
    first = torch.where(starts, position, 0).cummax(0).values
    last = torch.where(ends, position, len(values)).flip(0).cummin(0).values.flip(0)
    return first + last
