"""Mean, variance, Spearman's rho with time and time-correlated variance of series with gaps.

Time has no ties and is already sorted, so rho needs one sort of each series: the ranks of the values, averaged
where they tie, against the ranks of the time (Spearman 1904; scipy.stats.spearmanr gives the same numbers).
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hrtemvae_hpc.compiled import compiled
from hrtemvae_hpc.statistics.sort import sort_series

MINIMUM_FRAMES = 3
MAPS = ("mean", "variance", "spearman", "time_correlated_variance")
_ELEMENTS_AT_ONCE = {"cpu": 2**17, "cuda": 2**22}
_LAST = np.iinfo(np.int64).max


@dataclass(frozen=True)
class SeriesStatistics:
    """Maps of a set of windows: [windows, latents] float32 each, and valid_frames [windows] int32."""

    mean: Tensor
    variance: Tensor
    spearman: Tensor
    time_correlated_variance: Tensor
    valid_frames: Tensor


def working_bytes(frames: int, windows: int, latents: int) -> int:
    """Bytes that ``series_statistics`` takes on a CPU besides its input."""
    at_once = max(_ELEMENTS_AT_ONCE["cpu"], frames * latents)
    return 8 * min(frames * windows * latents, at_once) + 100 * windows * latents


def series_statistics(z: Tensor, valid: Tensor) -> SeriesStatistics:
    """Statistics over time of ``z`` [frames, windows, latents] where ``valid`` [frames, windows].

    Variance: population variance (ddof 0). Spearman: NaN for a constant series. Time-correlated variance:
    (rho * variance)^2. All are NaN for a window with fewer than 3 valid frames. Computed in float64.
    """
    frames, windows, latents = z.shape
    step = max(1, _ELEMENTS_AT_ONCE[z.device.type] // (frames * latents))
    moments = _moments_on_cpu if z.device.type == "cpu" else _moments_on_device
    parts = [moments(z[:, i : i + step], valid[:, i : i + step]) for i in range(0, windows, step)]
    mean, variance, rho = (torch.cat(maps) for maps in zip(*parts, strict=True))
    count = valid.sum(0)
    enough = (count >= MINIMUM_FRAMES)[:, None]
    correlated = (rho * variance) ** 2
    mean, variance, rho, correlated = (
        torch.where(enough, m, torch.nan).float() for m in (mean, variance, rho, correlated)
    )
    return SeriesStatistics(mean, variance, rho, correlated, count.int())


def _moments_on_cpu(z: Tensor, valid: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, variance and rho [windows, latents] float64."""
    values, here = z.numpy(), valid.numpy()
    keys = np.empty((*values.shape[1:], len(values)), np.int64)
    _fill_keys(values.view(np.int32), here, keys)
    sort_series(keys.reshape(-1, len(values)))
    maps = [np.empty(values.shape[1:]) for _ in range(3)]
    _fill_moments(values, here, *maps[:2])
    _fill_rho(keys, here, maps[2])
    mean, variance, rho = map(torch.from_numpy, maps)
    return mean, variance, rho


@compiled(fastmath=set())
def _fill_keys(bits, valid, keys):  # type: ignore[no-untyped-def]
    """Whole numbers that sort like the values, with the frame in their lower half; frames left out come last.

    ``bits`` [frames, windows, latents] are the values' own, as int32; keys are [windows, latents, frames].
    """
    frames, windows, latents = bits.shape
    for w in range(windows):
        for t in range(frames):
            if valid[t, w]:
                for k in range(latents):
                    value = bits[t, w, k]
                    value = 0 if value == -0x80000000 else value  # -0 is 0
                    keys[w, k, t] = (np.int64(value ^ ((value >> 31) & 0x7FFFFFFF)) << 32) | t
            else:
                keys[w, :, t] = _LAST


@compiled(fastmath=set())
def _fill_moments(z, valid, mean, variance):  # type: ignore[no-untyped-def]
    frames, windows, latents = z.shape
    for w in range(windows):
        count = np.float64(valid[:, w].sum())
        mean[w] = 0
        variance[w] = 0
        for t in range(frames):
            if valid[t, w]:
                for k in range(latents):
                    mean[w, k] += z[t, w, k]
        mean[w] /= count
        for t in range(frames):
            if valid[t, w]:
                for k in range(latents):
                    variance[w, k] += (z[t, w, k] - mean[w, k]) ** 2
        variance[w] /= count


@compiled(fastmath=set())
def _fill_rho(keys, valid, rho):  # type: ignore[no-untyped-def]
    """``keys`` are sorted."""
    windows, latents, frames = keys.shape
    time = np.empty(frames, np.int64)
    for w in range(windows):
        count = 0
        for t in range(frames):
            time[t] = count
            count += valid[t, w]
        n = np.float64(count)
        time_squares = n * (n * n - 1) / 3
        for k in range(latents):
            products, rank_squares, i = 0, 0, 0
            while i < count:
                value, stop = keys[w, k, i] >> 32, i + 1
                while stop < count and keys[w, k, stop] >> 32 == value:
                    stop += 1
                # Twice the centred ranks are whole numbers: sums of their products are exact.
                rank = i + stop - count
                for j in range(i, stop):
                    products += rank * (2 * time[keys[w, k, j] & 0xFFFFFFFF] - (count - 1))
                rank_squares += (stop - i) * rank * rank
                i = stop
            rho[w, k] = products / np.sqrt(rank_squares * time_squares)


def _moments_on_device(z: Tensor, valid: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The same in tensors' operations."""
    n = valid.sum(0).double()[:, None]
    here, wide = valid[..., None], z.double()
    mean = torch.where(here, wide, 0).sum(0) / n
    variance = torch.where(here, (wide - mean) ** 2, 0).sum(0) / n
    return mean, variance, _spearman_with_time(wide, valid)


def _spearman_with_time(z: Tensor, valid: Tensor) -> Tensor:
    """Spearman's rho [windows, latents] of ``z`` [frames, windows, latents] with the order of its valid frames."""
    frames = len(z)
    count = valid.sum(0)
    values, by_value = torch.sort(torch.where(valid[..., None], z, torch.inf), dim=0, stable=True)
    rank = _doubled_average_ranks(values) - (count - 1)[:, None]
    time = 2 * (valid.cumsum(0) - 1) - (count - 1)
    time = time[..., None].expand_as(z).gather(0, by_value)
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
