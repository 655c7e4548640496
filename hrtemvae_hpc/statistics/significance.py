"""Whether rho is larger than chance and autocorrelation make it: permutations of blocks of frames.

Series that are correlated in time have larger rho than independent values, even without a trend. So blocks of frames
are permuted, the same for all windows: correlations within a block remain. For those across its borders, which are
lost, rho is corrected: it is divided by the ratio of its standard deviations with the true order and with permuted
blocks, in a series whose neighbours correlate as this one's do (an autoregressive one of order one).
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from hrtemvae_hpc.compiled import compiled
from hrtemvae_hpc.statistics.comparison import Comparison, Floats, Mask

FEWEST_FRAMES = 5
_AUTOCORRELATIONS = np.linspace(0, 0.98, 50)
_PRODUCTS_AT_ONCE = {"cpu": 2**19, "cuda": 2**25}
PRODUCTS_BYTES = 4 * _PRODUCTS_AT_ONCE["cpu"]
_ROUNDING = 1e-5  # by which two rho may differ and count as equal


class PermutationTest:
    """Permutations of what series are compared with, on a device.

    A window is tested if it has at least ``FEWEST_FRAMES`` valid frames, and half of those that are used.
    """

    def __init__(self, comparison: Comparison, device: torch.device) -> None:
        self.comparison = comparison
        self.count = len(comparison.orders)
        used, even = comparison.used, np.arange(len(comparison.used)) % 2 == 0
        self._bases = {mask.tobytes(): comparison.basis(mask) for mask in (used, used & even, used & ~even)}
        permuted = comparison.permuted(used)
        self._permuted = torch.from_numpy(permuted).to(device)
        self.ratios = _ratios(self.basis(used)[0], permuted)

    def basis(self, mask: Mask) -> Floats:
        """The comparison's basis of ``mask``; those of all used frames, the even and the odd ones are kept."""
        known = self._bases.get(mask.tobytes())
        return self.comparison.basis(mask) if known is None else known

    def autocorrelation(self, estimated: Tensor, count: Tensor) -> Tensor:
        """That of neighbours [windows, latents], 0 to 0.98; NaN for windows that are not tested.

        It is ``estimated`` too low from few frames: from n, by (2 + 4 a) / n for a series less its trend (Shaman &
        Stine 1988, J. Am. Stat. Assoc. 83, 842), which is added. ``count`` [windows] are the valid frames.
        """
        n = count[:, None]
        true = (n * estimated + 2) / (n - 4).clamp(min=1)
        tested = (n >= FEWEST_FRAMES) & (2 * n >= int(self.comparison.used.sum()))
        return torch.where(tested, true.clamp(0, _AUTOCORRELATIONS[-1]), torch.nan)

    def test(
        self,
        rho: Tensor,
        autocorrelation: Tensor,
        ranks: Tensor,
        squares: Tensor,
        masks: Mask,
        pattern: np.ndarray,
    ) -> tuple[Tensor, Tensor]:
        """The share of permutations, the true order included, whose rho is as large as the corrected one.

        And the largest rho [permutations] of all these series. ``rho`` and ``autocorrelation`` are [windows, latents],
        as is the share; ``ranks`` [windows, latents, frames] and ``squares`` are as statistics.correlation has them;
        window w has the frames ``masks[pattern[w]]`` [frames].
        """
        limits = correct(rho.cpu().numpy(), autocorrelation.cpu().numpy(), self.ratios)
        corrected = torch.from_numpy(limits).to(rho.device)
        above = torch.zeros_like(corrected)
        largest = torch.zeros(self.count, device=ranks.device)
        count = _count_on_cpu if ranks.device.type == "cpu" else _count_on_device
        step = max(1, _PRODUCTS_AT_ONCE[ranks.device.type] // max(1, self.count))
        for number, mask in enumerate(masks):
            windows = torch.from_numpy(np.flatnonzero(pattern == number)).to(ranks.device)
            windows = windows[~corrected[windows].isnan().all(1)]
            if not len(windows):
                continue
            whole = np.array_equal(mask, self.comparison.used)
            permuted = self._permuted if whole else torch.from_numpy(self.comparison.permuted(mask)).to(ranks.device)
            series = (ranks if len(windows) == len(ranks) else ranks[windows]).view(-1, ranks.shape[-1])
            length = squares[windows].sqrt().float().view(-1)
            inverse = torch.where(length > 0, 1 / length, 0)
            reached = torch.nan_to_num(corrected[windows].view(-1), torch.inf) - _ROUNDING
            counts = torch.empty(len(series), device=ranks.device)
            for i in range(0, len(series), step):
                part = slice(i, i + step)
                count(series[part] @ permuted.T, inverse[part], reached[part], counts[part], largest)
            above[windows] = counts.view(len(windows), -1)
        return torch.where(corrected.isnan(), torch.nan, (1 + above) / (1 + self.count)), largest


def _count_on_cpu(products: Tensor, inverse: Tensor, reached: Tensor, counts: Tensor, largest: Tensor) -> None:
    """How many abs(rho), ``products`` [series, permutations] times ``inverse`` [series], are ``reached`` or larger.

    Fills ``counts`` [series] and raises ``largest`` [permutations].
    """
    _fill_counts(products.numpy(), inverse.numpy(), reached.numpy(), counts.numpy(), largest.numpy())


@compiled(fastmath={"nnan", "reassoc"})
def _fill_counts(products: Any, inverse: Any, reached: Any, counts: Any, largest: Any) -> None:
    for i in range(len(products)):
        least, factor, count = reached[i], inverse[i], 0
        for p in range(len(largest)):
            rho = abs(products[i, p] * factor)
            count += rho >= least
            largest[p] = max(largest[p], rho)
        counts[i] = count


def _count_on_device(products: Tensor, inverse: Tensor, reached: Tensor, counts: Tensor, largest: Tensor) -> None:
    """The same in tensors' operations."""
    rho = (products * inverse[:, None]).abs()
    counts.copy_((rho >= reached[:, None]).sum(1))
    torch.maximum(largest, rho.amax(0), out=largest)


def correct(rho: np.ndarray, autocorrelation: np.ndarray, ratios: np.ndarray) -> np.ndarray:
    """abs(rho) as permuted blocks would have it: over the ratio at its autocorrelation. All maps are of one shape."""
    return np.asarray(np.abs(rho) / np.interp(autocorrelation, _AUTOCORRELATIONS, ratios), np.float32)


def family_wise(corrected: np.ndarray, largest: np.ndarray) -> np.ndarray:
    """The share of permutations whose ``largest`` rho [permutations] of all windows and latents reaches ``corrected``.

    The true order counts as one. Of movies without any trend, one in twenty has a value of 0.05 or less anywhere
    (Westfall & Young 1993, Resampling-based multiple testing, chapter 2; Nichols & Holmes 2002, Human Brain Mapping 15,
    1). NaN where ``corrected``, of any shape, is.
    """
    below = np.searchsorted(np.sort(largest), corrected - _ROUNDING)
    chance = (1 + len(largest) - below) / (1 + len(largest))
    return np.where(np.isnan(corrected), np.nan, chance).astype(np.float32)


def _ratios(x: Floats, permuted: np.ndarray) -> np.ndarray:
    """The ratio of rho's standard deviations, true order over permuted blocks, for each of ``_AUTOCORRELATIONS``.

    The variance of x.r is the sum over lags of x's products at this lag times the autocovariance a^lag of r.
    """
    length = np.sqrt(x @ x) or 1.0
    powers = _AUTOCORRELATIONS[:, None] ** np.arange(len(x))
    true, blocks = (powers @ _lagged(rows) for rows in (x[None] / length, permuted))
    ratios = np.sqrt(np.divide(true, blocks, out=np.ones_like(true), where=blocks > 0))
    return np.maximum.accumulate(np.maximum(1.0, ratios))


def _lagged(rows: np.ndarray) -> np.ndarray:
    """Mean over ``rows`` [rows, frames] of the sum of products at each lag [frames], of both signs."""
    frames = rows.shape[1]
    power = np.zeros(frames + 1)
    for row in rows:
        power += np.abs(np.fft.rfft(row, 2 * frames)) ** 2
    products = np.fft.irfft(power / max(1, len(rows)), 2 * frames)[:frames]
    products[1:] *= 2
    return np.asarray(products)
