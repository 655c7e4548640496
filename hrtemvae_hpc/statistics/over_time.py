"""Maps of series with gaps: how much they vary, how they follow time, and how certain that is.

Time, or what series are compared with instead, is the same for all latents of a window, so everything follows from one
sort of each series (Spearman 1904; scipy.stats.spearmanr gives the same rho).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hrtemvae_hpc.compiled import compiled
from hrtemvae_hpc.statistics.change import changes_on_cpu, changes_on_device
from hrtemvae_hpc.statistics.comparison import PERMUTATIONS
from hrtemvae_hpc.statistics.correlation import (
    autocorrelation_on_cpu,
    autocorrelation_on_device,
    rho_on_cpu,
    rho_on_device,
)
from hrtemvae_hpc.statistics.ranks import fill_ranks_on_cpu, fill_ranks_on_device
from hrtemvae_hpc.statistics.significance import PRODUCTS_BYTES, PermutationTest

MINIMUM_FRAMES = 3
MAPS = ("mean", "variance", "spearman", "time_correlated_variance")
# What else is kept of each window and latent; maps/certainty.py makes groups of the result from these.
CERTAINTY = ("noise", "change", "score", "chance", "autocorrelation", "even", "odd")
ALL_MAPS = (*MAPS, *CERTAINTY)
_ELEMENTS_AT_ONCE = {"cpu": 2**17, "cuda": 2**22}
_HALVES = slice(0, None, 2), slice(1, None, 2)


@dataclass(frozen=True)
class SeriesStatistics:
    """Maps of a set of windows: [windows, latents] float32 each, and valid_frames [windows] int32."""

    mean: Tensor
    variance: Tensor
    spearman: Tensor
    time_correlated_variance: Tensor
    noise: Tensor
    change: Tensor  # the first frame after the change point, counted among all
    score: Tensor  # of the change point, -1 to 1
    chance: Tensor  # the share of permutations with as large a rho
    autocorrelation: Tensor  # of neighbouring frames, less what rho explains; NaN where rho is not tested
    even: Tensor  # rho times variance of the even frames (the first, third...): its square is time-correlated variance
    odd: Tensor
    valid_frames: Tensor
    largest_rho: Tensor  # [permutations] float32, of all windows and latents


def working_bytes(frames: int, windows: int, latents: int) -> int:
    """Bytes that ``series_statistics`` takes on a CPU besides its input."""
    series = min(windows * latents, max(_ELEMENTS_AT_ONCE["cpu"] // frames, latents))
    ranks = 4 * frames * windows * latents + (8 + 4 + 8) * frames * series
    permuted = 36 * PERMUTATIONS * frames  # of a window with frames of its own
    return ranks + permuted + PRODUCTS_BYTES + 200 * windows * latents


def shared_bytes(frames: int) -> int:
    """Bytes of the permutations, which all threads share."""
    return 8 * PERMUTATIONS * frames


def series_statistics(z: Tensor, valid: Tensor, test: PermutationTest) -> SeriesStatistics:
    """Statistics over time of ``z`` [frames, windows, latents] where ``valid`` [frames, windows].

    Variance: population variance (ddof 0). Spearman: with what ``test`` compares, NaN for a constant series.
    Time-correlated variance: (rho * variance)^2. Noise: half the mean squared difference of neighbours (von Neumann et
    al. 1941, Ann. Math. Stat. 12, 153), frames that follow each other in ``z`` and are both valid; NaN without any.
    All are NaN for a window with fewer than 3 valid frames, what is of even or odd frames for fewer than 3 of these.
    Computed in float64, but permutations in float32.
    """
    frames, windows, latents = z.shape
    step = max(1, _ELEMENTS_AT_ONCE[z.device.type] // (frames * latents))
    masks, pattern = np.unique(valid.T.cpu().numpy(), axis=0, return_inverse=True)
    pattern = pattern.ravel()
    bases = _bases(test, masks)
    ranks = torch.empty(windows, latents, frames, device=z.device)
    values = _values_on_cpu if z.device.type == "cpu" else _values_on_device
    parts = []
    for i in range(0, windows, step):
        part = slice(i, i + step)
        parts.append(values(z[:, part], valid[:, part], bases, pattern[part], ranks[part]))
    found = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    squares = found.pop("squares")
    count = valid.sum(0)
    found["time_correlated_variance"] = (found["spearman"] * found["variance"]) ** 2
    found["autocorrelation"] = test.autocorrelation(found["autocorrelation"], count)
    enough = (count >= MINIMUM_FRAMES)[:, None]
    found = {name: torch.where(enough, each, torch.nan).float() for name, each in found.items()}
    chance, largest = test.test(found["spearman"], found["autocorrelation"], ranks, squares, masks, pattern)
    return SeriesStatistics(**found, chance=chance, valid_frames=count.int(), largest_rho=largest)


def _bases(test: PermutationTest, masks: np.ndarray) -> list[np.ndarray]:
    """Bases [patterns, 1 + quantities, frames] of comparison, of all frames in ``masks``, the even and the odd ones."""
    bases = []
    for half in (slice(None), *_HALVES):
        part = np.zeros_like(masks)
        part[:, half] = masks[:, half]
        bases.append(np.stack([test.basis(mask) for mask in part]))
    return bases


def _values_on_cpu(
    z: Tensor, valid: Tensor, bases: list[np.ndarray], pattern: np.ndarray, ranks: Tensor
) -> dict[str, Tensor]:
    """Values [windows, latents] float64 of the series ``z``; fills their ``ranks`` [windows, latents, frames]."""
    values, here = z.numpy(), valid.numpy()
    whole, *halves = bases
    found = {name: torch.empty(z.shape[1:], dtype=torch.float64) for name in ("mean", "variance", "noise")}
    _fill_moments(values, here, found["mean"].numpy(), found["variance"].numpy())
    _fill_noise(values, here, found["noise"].numpy())
    half_ranks = fill_ranks_on_cpu(values, here, ranks)
    found["spearman"], found["squares"] = rho_on_cpu(ranks, whole, pattern, slice(None))
    found["autocorrelation"] = autocorrelation_on_cpu(ranks, here, whole, pattern)
    found["change"], found["score"] = changes_on_cpu(ranks, here)
    for name, half, basis in zip(("even", "odd"), _HALVES, halves, strict=True):
        mean, variance = torch.empty(2, *z.shape[1:], dtype=torch.float64)
        _fill_moments(values[half], here[half], mean.numpy(), variance.numpy())
        rho, _ = rho_on_cpu(half_ranks, basis, pattern, half)
        found[name] = _half(rho * variance, valid[half])
    return found


def _values_on_device(
    z: Tensor, valid: Tensor, bases: list[np.ndarray], pattern: np.ndarray, ranks: Tensor
) -> dict[str, Tensor]:
    """The same in tensors' operations."""
    wide = z.double()
    whole, *halves = bases
    mean, variance = _moments(wide, valid)
    found = {"mean": mean, "variance": variance, "noise": _noise(wide, valid)}
    half_ranks = fill_ranks_on_device(z, valid, ranks)
    found["spearman"], found["squares"] = rho_on_device(ranks, whole, pattern, slice(None))
    found["autocorrelation"] = autocorrelation_on_device(ranks, valid, whole, pattern)
    found["change"], found["score"] = changes_on_device(ranks, valid)
    for name, half, basis in zip(("even", "odd"), _HALVES, halves, strict=True):
        rho, _ = rho_on_device(half_ranks, basis, pattern, half)
        found[name] = _half(rho * _moments(wide[half], valid[half])[1], valid[half])
    return found


def _half(values: Tensor, valid: Tensor) -> Tensor:
    return torch.where((valid.sum(0) >= MINIMUM_FRAMES)[:, None], values, torch.nan)


@compiled(fastmath=set())
def _fill_moments(z: Any, valid: Any, mean: Any, variance: Any) -> None:
    frames, windows, latents = z.shape
    for w in range(windows):
        count = 0.0
        for k in range(latents):
            mean[w, k] = variance[w, k] = 0.0
        for t in range(frames):
            if valid[t, w]:
                count += 1
                for k in range(latents):
                    mean[w, k] += z[t, w, k]
        for k in range(latents):
            mean[w, k] /= count
        for t in range(frames):
            if valid[t, w]:
                for k in range(latents):
                    variance[w, k] += (z[t, w, k] - mean[w, k]) ** 2
        for k in range(latents):
            variance[w, k] /= count


@compiled(fastmath=set())
def _fill_noise(z: Any, valid: Any, noise: Any) -> None:
    frames, windows, latents = z.shape
    for w in range(windows):
        pairs = 0
        for k in range(latents):
            noise[w, k] = 0.0
        for t in range(1, frames):
            if valid[t, w] and valid[t - 1, w]:
                pairs += 1
                for k in range(latents):
                    noise[w, k] += (np.float64(z[t, w, k]) - z[t - 1, w, k]) ** 2
        for k in range(latents):
            noise[w, k] /= 2.0 * pairs


def _moments(z: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    n, here = valid.sum(0).double()[:, None], valid[..., None]
    mean = torch.where(here, z, 0).sum(0) / n
    return mean, torch.where(here, (z - mean) ** 2, 0).sum(0) / n


def _noise(z: Tensor, valid: Tensor) -> Tensor:
    pairs = valid[1:] & valid[:-1]
    return torch.where(pairs[..., None], (z[1:] - z[:-1]) ** 2, 0).sum(0) / (2 * pairs.sum(0)[:, None])
