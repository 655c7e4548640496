"""Lattice fringes of small images, found as peaks in the Fourier plane."""

import torch
from torch import Tensor

# Within a ring of the Fourier plane the power of noise is exponentially distributed: one of the about 1,500
# independent pixels of a 64 x 64 segment exceeds the ring's mean 20 times with a probability of
# 1,500 exp(-20) = 3e-6.
FRINGE_THRESHOLD = 20.0
_LONGEST_PERIOD = 0.5  # of the segment's side; slower changes of intensity are thickness, not fringes


def find_fringes(segments: Tensor) -> tuple[Tensor, Tensor]:
    """Strength [n] and period [n] (pixels) of the strongest fringes in ``segments`` [n, size, size], float32.

    The strength is the height of the highest peak of the power spectrum in units of the mean power at its distance
    from the centre; above FRINGE_THRESHOLD it is no noise. The period is that of the peak's centre of mass over its
    3 x 3 pixels.
    """
    size = segments.shape[-1]
    taper = torch.hann_window(size, periodic=False)
    flat = segments - segments.mean((1, 2), keepdim=True)
    power = torch.fft.fftshift(torch.fft.fft2(flat * taper[:, None] * taper).abs() ** 2, dim=(1, 2))
    frequency = torch.fft.fftshift(torch.fft.fftfreq(size))
    fy, fx = frequency[:, None].expand(size, size), frequency[None].expand(size, size)
    radius = torch.hypot(fy, fx)
    ring = (radius * size).round().long().flatten()
    count = torch.bincount(ring)
    total = torch.zeros(len(segments), len(count)).index_add_(1, ring, power.flatten(1))
    mean = (total / count)[:, ring].clamp_min(1e-30)
    # The mean holds the peak itself: p / mean of the others, from p / mean of all.
    ratio = power.flatten(1) / mean
    others = ratio * (count[ring] - 1) / (count[ring] - ratio).clamp_min(1e-6)
    inside = (radius > 1 / (_LONGEST_PERIOD * size)) & (radius < 0.5) & (fy > -0.5) & (fx > -0.5)
    strength, peak = torch.where(inside.flatten() & (count[ring] > 4), others, 0.0).max(1)

    row, column = peak // size, peak % size
    near = torch.arange(-1, 2)
    rows = (row[:, None, None] + near[:, None]).clamp(0, size - 1)
    columns = (column[:, None, None] + near).clamp(0, size - 1)
    weight = power[torch.arange(len(segments))[:, None, None], rows, columns].clamp_min(1e-30)
    weight = weight / weight.sum((1, 2), keepdim=True)
    centre = torch.hypot((weight * frequency[rows]).sum((1, 2)), (weight * frequency[columns]).sum((1, 2)))
    return strength, 1 / centre.clamp_min(1 / size)
