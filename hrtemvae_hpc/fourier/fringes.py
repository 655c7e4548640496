"""Lattice fringes of small images, found as peaks in the Fourier plane."""

import math

import torch
from torch import Tensor

_LONGEST_PERIOD = 0.5  # of the window's side; slower changes of intensity are thickness, not fringes
_WIDTH = 3.0  # spectrum pixels from a peak's radius within which noise is measured
_QUANTILE = 0.2  # of the power there: most of it may belong to other peaks
_FLOOR = 0.01  # of the mean power of the plane: the least noise that is assumed
_ORDERS = 2, 3  # of harmonics
_FUNDAMENTAL = 10.0  # strength of the fringes whose harmonic the highest peak is, at least


def find_fringes(windows: Tensor) -> tuple[Tensor, Tensor]:
    """Strength [n] and period [n] (pixels) of the strongest fringes in ``windows`` [n, size, size], float32.

    The strength is the height of the highest peak of the power spectrum in units of the mean power of noise at its
    distance from the centre, which follows from a low quantile of the power in the ring around there: of an
    exponential distribution the quantile q is -ln(1 - q) times the mean. The period is that of the peak's centre of
    mass over its 3 x 3 pixels, or that of a weaker peak at half or a third of the frequency, whose harmonic it is.
    """
    size = windows.shape[-1]
    taper = torch.hann_window(size, periodic=False)
    flat = windows - windows.mean((1, 2), keepdim=True)
    power = torch.fft.fftshift(torch.fft.fft2(flat * taper[:, None] * taper).abs() ** 2, dim=(1, 2))
    frequency = torch.fft.fftshift(torch.fft.fftfreq(size))
    radius = size * torch.hypot(frequency[:, None], frequency[None])
    inside = ((radius >= 1 / _LONGEST_PERIOD) & (radius < size / 2 - 1)).flatten()
    flattened = power.flatten(1)
    noise = _noise(flattened, radius.flatten())
    noise = noise.maximum(_FLOOR * flattened[:, inside].mean(1, keepdim=True)).clamp_min(1e-30)
    # The flank of something further in is not a peak.
    summit = power == torch.nn.functional.max_pool2d(power[:, None], 3, 1, 1)[:, 0]
    strengths = torch.where(inside & summit.flatten(1), flattened / noise, 0.0)
    strength, peak = strengths.max(1)
    rows, columns = _around(_fundamental(strengths, peak, size), size)
    weight = power[torch.arange(len(windows))[:, None, None], rows, columns].clamp_min(1e-30)
    weight = weight / weight.sum((1, 2), keepdim=True)
    centre = torch.hypot((weight * frequency[rows]).sum((1, 2)), (weight * frequency[columns]).sum((1, 2)))
    return strength, 1 / centre.clamp_min(1 / size)


def _around(peak: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Rows [n, 3, 1] and columns [n, 1, 3] of the pixels around ``peak`` [n]."""
    near = torch.arange(-1, 2)
    rows, columns = (peak // size)[:, None, None] + near[:, None], (peak % size)[:, None, None] + near
    return rows.clamp(0, size - 1), columns.clamp(0, size - 1)


def _fundamental(strengths: Tensor, peak: Tensor, size: int) -> Tensor:
    """The pixel [n] of the fringes whose harmonic ``peak`` [n] is, else ``peak``; ``strengths`` [n, pixels]."""
    centre, found = size // 2, peak
    for order in _ORDERS:
        row, column = (((each - centre) / order).round().long() + centre for each in (peak // size, peak % size))
        rows, columns = _around(row * size + column, size)
        # The harmonic of a peak that was found half a pixel off may lie that much further off.
        off_y = (order * (rows - centre) - (peak // size - centre)[:, None, None]).abs()
        off_x = (order * (columns - centre) - (peak % size - centre)[:, None, None]).abs()
        meets = (off_y.maximum(off_x) <= (order + 1) / 2).flatten(1)
        near = (rows * size + columns).flatten(1)
        highest, which = torch.where(meets, strengths.gather(1, near), 0.0).max(1)
        found = torch.where(highest >= _FUNDAMENTAL, near.gather(1, which[:, None])[:, 0], found)
    return found


def _noise(power: Tensor, radius: Tensor) -> Tensor:
    """The mean power of noise [n, pixels] at each pixel's ``radius`` [pixels], from ``power`` [n, pixels]."""
    noise = torch.zeros_like(power)
    for ring in range(int(radius.max()) + 1):
        around = power[:, (radius - ring).abs() <= _WIDTH]
        rank = max(1, round(_QUANTILE * around.shape[1]))
        noise[:, radius.round() == ring] = around.kthvalue(rank, dim=1, keepdim=True)[0] / -math.log(1 - _QUANTILE)
    return noise
