"""Segments that hold lattice fringes, cut from real micrographs."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

# A fringe stands out of the amorphous background as a peak in the power spectrum. Within a ring of the
# Fourier plane the power of noise is exponentially distributed; of the about 1,500 independent pixels of
# a 64 x 64 segment one exceeds the ring's mean 20 times with a probability of 1,500 exp(-20) = 3e-6.
FRINGE_THRESHOLD = 20.0
_LONGEST_PERIOD = 32.0  # pixels; slower changes of intensity are thickness, not fringes


def fringe_strength(segments: Tensor) -> Tensor:
    """Height [n] of each segment's highest peak in the Fourier plane, in units of its ring's mean power.

    ``segments`` is [n, size, size], float32.
    """
    size = segments.shape[-1]
    taper = torch.hann_window(size, periodic=False)
    flat = segments - segments.mean((1, 2), keepdim=True)
    power = torch.fft.rfft2(flat * taper[:, None] * taper).abs() ** 2
    fy, fx = torch.fft.fftfreq(size)[:, None], torch.fft.rfftfreq(size)[None]
    radius = torch.sqrt(fy**2 + fx**2)
    ring = (radius * size).round().long().flatten()
    total = torch.zeros(len(segments), int(ring.max()) + 1).index_add_(1, ring, power.flatten(1))
    ring_mean = (total / torch.bincount(ring))[:, ring]
    usable = (radius.flatten() > 1 / _LONGEST_PERIOD) & (radius.flatten() < 0.5)
    # The mean holds the peak itself: p / mean of the others, from p / mean of all.
    count = torch.bincount(ring)[ring]
    ratio = power.flatten(1) / ring_mean.clamp_min(1e-30)
    others = ratio * (count - 1) / (count - ratio).clamp_min(1e-6)
    return torch.where(usable & (count > 4), others, torch.zeros(())).amax(1)


def micrograph_images(paths: Iterable[Path]) -> Iterator[tuple[Path, np.ndarray]]:
    """Each real, two-dimensional image in the files that rosettasciio can read, float32."""
    from rsciio import IO_PLUGINS

    for path in sorted(paths):
        readers = [p for p in IO_PLUGINS if path.suffix.lstrip(".").lower() in p["file_extensions"]]
        for reader in readers:
            module = __import__(reader["api"], fromlist=["file_reader"])
            try:
                signals = module.file_reader(str(path))
            except (OSError, ValueError, KeyError, IndexError):
                continue  # another reader of the same extension may know this file
            for signal in signals:
                data = np.asarray(signal["data"])
                if data.ndim == 2 and data.dtype.kind in "iuf":
                    yield path, data.astype(np.float32)
            break


def cut_segments(image: np.ndarray, size: int, stride: int) -> Tensor:
    """The segments [n, size, size] of an image that hold fringes, each scaled to 0..1."""
    tensor = torch.from_numpy(np.ascontiguousarray(image))
    windows = tensor.unfold(0, size, stride).unfold(1, size, stride).reshape(-1, size, size)
    low, high = windows.amin((1, 2), keepdim=True), windows.amax((1, 2), keepdim=True)
    keep = (high > low).flatten() & torch.isfinite(windows).all(2).all(1)
    scaled = ((windows - low) / (high - low))[keep]
    return scaled[fringe_strength(scaled) > FRINGE_THRESHOLD] if len(scaled) else scaled
