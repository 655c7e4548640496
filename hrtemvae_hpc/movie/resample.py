"""Frames at another scale, as a whole or one region at a time, to the same values."""

import numpy as np
import torch
from torch import Tensor

from hrtemvae_hpc.area import Area

FACTORS = (0.05, 20.0)  # that frames may be scaled by


def scaled_shape(height: int, width: int, factor: float) -> tuple[int, int]:
    """Rows and columns of a frame that is scaled by ``factor``; raises ValueError outside ``FACTORS``."""
    if not FACTORS[0] <= factor <= FACTORS[1]:
        raise ValueError(f"a factor of {factor:.3g} lies outside {FACTORS[0]:g} to {FACTORS[1]:g}")
    return max(1, round(height * factor)), max(1, round(width * factor))


class Resampler:
    """Resamples frames of ``height`` x ``width`` pixels to ``shape``.

    Cubic convolution (Keys, IEEE Trans. ASSP 29, 1153, 1981, a = -0.5), widened where it shrinks, so that nothing is
    aliased; its weights sum to 1 at the border too. This is the "bicubic" of PyTorch's and Pillow's resize.
    """

    def __init__(self, height: int, width: int, shape: tuple[int, int]) -> None:
        self.shape = shape
        self._axes = tuple(_taps(old, new) for old, new in zip((height, width), self.shape, strict=True))

    def source(self, area: Area) -> Area:
        """The area of the frame that ``area`` of the resampled frame is made of."""
        return Area(self._source(0, area.rows), self._source(1, area.columns))

    def apply(self, pixels: Tensor, area: Area) -> Tensor:
        """Resampled pixels ``area`` of frames, from the ``pixels`` [..., rows, columns] of its source.

        Returns the dtype of ``pixels``, floating. A resampled pixel that touches a non-finite one is NaN.
        """
        by_row, by_column = (self._matrix(axis, span, pixels.dtype).to(pixels.device) for axis, span in enumerate(area))
        if pixels.is_cuda and pixels.dtype == torch.float32:  # whose products may be in a narrower type
            return self.apply(pixels.double(), area).float()
        finite = torch.isfinite(pixels)
        if finite.all():
            return by_row @ pixels @ by_column.T
        touched = (by_row != 0).to(pixels) @ (~finite).to(pixels) @ (by_column != 0).to(pixels).T
        resampled = by_row @ torch.where(finite, pixels, 0) @ by_column.T
        return torch.where(touched > 0, torch.nan, resampled)

    def whole(self, frame: Tensor) -> Tensor:
        """The whole ``frame`` [height, width] at the new scale."""
        return self.apply(frame, Area.whole(*self.shape))

    def _source(self, axis: int, span: slice) -> slice:
        first, weights = self._axes[axis]
        return slice(int(first[span.start]), int(first[span.stop - 1]) + weights.shape[1])

    def _matrix(self, axis: int, span: slice, dtype: torch.dtype) -> Tensor:
        first, weights = self._axes[axis]
        source = self._source(axis, span)
        matrix = torch.zeros(span.stop - span.start, source.stop - source.start, dtype=dtype)
        columns = torch.from_numpy(first[span] - source.start)[:, None] + torch.arange(weights.shape[1])
        return matrix.scatter_(1, columns, torch.from_numpy(weights[span]).to(dtype))


def source_area(resampler: Resampler | None, area: Area) -> Area:
    """The area of the movie's frame that ``area`` of its analysed, perhaps resampled, frame is made of."""
    return area if resampler is None else resampler.source(area)


def _taps(old: int, new: int) -> tuple[np.ndarray, np.ndarray]:
    """For each of ``new`` pixels the first of the ``old`` ones it is made of, and their weights [new, taps]."""
    scale = old / new
    widening = max(1.0, scale)
    centre = (np.arange(new) + 0.5) * scale - 0.5
    count = min(old, int(np.ceil(4 * widening)) + 1)
    first = np.clip(np.floor(centre - 2 * widening).astype(int) + 1, 0, old - count)
    distance = np.abs(first[:, None] + np.arange(count) - centre[:, None]) / widening
    near = (1.5 * distance - 2.5) * distance**2 + 1
    far = ((-0.5 * distance + 2.5) * distance - 4) * distance + 2
    weights = np.where(distance < 1, near, np.where(distance < 2, far, 0.0))
    return first, weights / weights.sum(1, keepdims=True)
