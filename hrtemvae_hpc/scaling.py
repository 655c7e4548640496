"""How pixels become numbers from 0 to 1, which networks are given.

"window" scales each window by its own minimum and maximum, "frame" all windows of a frame by those of the frame.
"local" scales each pixel by the mean and the standard deviation of the pixels around it, so that it has one value for
all windows that hold it.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from hrtemvae_hpc.area import Area
from hrtemvae_hpc.compiled import compiled
from hrtemvae_hpc.schemas import Scaling

SIGMAS = 3.0  # from the mean that become 0 and 1
SAMPLED = 8  # every so many rows and columns are looked at for the level of a frame
PIECE = 16  # rows and columns that are transposed together
FLAT = 1e-13  # variance, relative to the mean square, that may be rounding


def margin(scaling: Scaling, window: int) -> int:
    """Pixels around a window of ``window`` x ``window`` pixels that its scaling depends on."""
    return window // 2 if scaling == "local" else 0


def scaled_windows(images: Tensor, window: int, scaling: Scaling) -> Tensor:
    """The windows [..., window, window] float32 in the middle of ``images`` with their margin, in 0..1."""
    if scaling == "local":
        around = margin(scaling, window)
        middle = Area(*(slice(around, around + window),) * 2)
        local = LocalScaling(images.shape[-2:], window)
        rows, columns = local.source(middle)
        return local.apply(images[..., rows, columns], middle)
    least, most = images.amin((-2, -1), keepdim=True), images.amax((-2, -1), keepdim=True)
    return ((images - least) / (most - least).clamp_min(1e-12)).float()


class LocalScaling:
    """Scales frames of a ``shape`` (rows and columns), as a whole or region by region, to the same values but rounding.

    Each pixel by the ``window`` x ``window`` pixels around it, with one more above and to the left if that is even;
    those outside of the frame and those that are not finite don't count. Their mean becomes 0.5, three standard
    deviations below it and less 0, three above it and more 1. Where all are alike, a pixel is 0.5.
    """

    def __init__(self, shape: Sequence[int], window: int) -> None:
        self._shape = shape
        self._window = window
        self._before, self._after = window // 2, (window - 1) // 2

    def source(self, area: Area) -> Area:
        """The area of the frame that the scaled ``area`` depends on."""
        spans = zip(area, self._shape, strict=True)
        return Area(*(slice(max(0, s.start - self._before), min(n, s.stop + self._after)) for s, n in spans))

    def apply(self, pixels: Tensor, area: Area) -> Tensor:
        """``area`` of scaled frames, float32, from the ``pixels`` [..., rows, columns] of its source.

        NaN where a pixel is not finite.
        """
        wide = F.pad(pixels.double(), self._missing(area), value=torch.nan)
        if wide.device.type == "cpu":
            scaled = torch.empty(*wide.shape[:-2], area.height, area.width)
            frames = wide.view(-1, *wide.shape[-2:]).numpy()
            levels = np.array([_level(frame) for frame in frames])
            _scale(frames, levels, scaled.view(-1, *scaled.shape[-2:]).numpy(), self._window)
            return scaled
        known = torch.isfinite(wide)
        some = torch.where(known, wide, torch.nan)[..., ::SAMPLED, ::SAMPLED].flatten(-2)
        level = some.nanmedian(-1).values.nan_to_num(0)[..., None, None]  # squares of high pixels lose digits
        wide = torch.where(known, wide - level, 0)
        count, total, square = (sums(x, self._window) for x in (known.double(), wide, wide**2))
        mean, variance = total / count, square / count - (total / count) ** 2
        inner = (..., slice(self._before, self._before + area.height), slice(self._before, self._before + area.width))
        scaled = ((wide[inner] - mean) / variance.sqrt() / (2 * SIGMAS) + 0.5).clamp(0, 1)
        scaled = torch.where(variance > FLAT * square / count, scaled, 0.5)
        return torch.where(known[inner], scaled, torch.nan).float()

    def _missing(self, area: Area) -> tuple[int, int, int, int]:
        """Columns before and after, and rows, by which the source of ``area`` is cut off at the frame's border."""
        pads: list[int] = []
        for inner, outer in zip(reversed(area), reversed(self.source(area)), strict=True):
            pads += [self._before - (inner.start - outer.start), self._after - (outer.stop - inner.stop)]
        return pads[0], pads[1], pads[2], pads[3]


def sums(x: Tensor, window: int) -> Tensor:
    """The sums over every square of ``window`` pixels of ``x`` [..., rows, columns].

    Sums of 2 pixels make those of 4, these make those of 8, and so on.
    """
    for axis in (-2, -1):
        last, total, done, width = x.shape[axis] - window, torch.zeros(()), 0, 1
        while done < window:
            if window & width:
                total, done = total + x.narrow(axis, done, last + 1), done + width
            left = max(0, x.shape[axis] - width)
            x = x.narrow(axis, 0, left) + x.narrow(axis, min(width, x.shape[axis]), left)
            width *= 2
        x = total
    return x


def _level(frame: np.ndarray) -> float:
    """About the median of ``frame`` [rows, columns]: squares of what is left above it keep their digits."""
    some = frame[::SAMPLED, ::SAMPLED]
    some = some[np.isfinite(some)]
    return float(np.median(some)) if len(some) else 0.0


@compiled(fastmath=set())
def _scale(frames, levels, out, window):  # type: ignore[no-untyped-def]
    """Scale ``frames`` [n, rows, columns] to ``out`` [n, rows - window + 1, columns - window + 1]."""
    before, height, width = window // 2, out.shape[1], out.shape[2]
    values, squares, known = np.empty(frames.shape[1:]), np.empty(frames.shape[1:]), np.empty(frames.shape[1:])
    for t in range(len(frames)):
        level, known_pixels = levels[t], 0
        for y in range(len(values)):
            pixels, value, square, one = frames[t, y], values[y], squares[y], known[y]
            for x in range(len(pixels)):
                one[x] = 1.0 if abs(pixels[x]) < np.inf else 0.0
                value[x] = pixels[x] - level if one[x] else 0.0
                square[x] = value[x] * value[x]
                known_pixels += one[x] > 0
        totals, total_squares = _square_sums(values, window), _square_sums(squares, window)
        if known_pixels == values.size:
            counts = np.full((height, width), np.float64(window**2))
        else:
            counts = _square_sums(known, window)
        for y in range(height):
            pixels, scaled = values[y + before, before:], out[t, y]
            total, square, count, one = totals[y], total_squares[y], counts[y], known[y + before, before:]
            for x in range(width):
                mean, mean_square = total[x] / count[x], square[x] / count[x]
                variance = mean_square - mean * mean
                number = (pixels[x] - mean) / np.sqrt(variance) / (2 * SIGMAS) + 0.5
                number = min(max(number, 0.0), 1.0) if variance > FLAT * mean_square else 0.5
                scaled[x] = number if one[x] else np.nan


@compiled(fastmath=set())
def _square_sums(values, window):  # type: ignore[no-untyped-def]
    """The sums over all squares of ``window`` pixels of ``values`` [rows, columns], by their first row and column."""
    return _transposed(_column_sums(_transposed(_column_sums(values, window)), window))


@compiled(fastmath=set())
def _column_sums(values, window):  # type: ignore[no-untyped-def]
    """The sums over ``window`` pixels below each other of ``values`` [rows, columns], by their first row.

    Blocks of so many rows are summed from each row to their end, and from their begin to each row: every sum is one of
    the first and one of the second kind (van Herk, Pattern Recognition Letters 13, 517, 1992).
    """
    rows, columns = values.shape
    sums = np.empty((rows - window + 1, columns))
    total = np.empty(columns)
    for begin in range(0, len(sums), window):
        stop = min(begin + window, len(sums))
        total[:] = 0
        for y in range(begin + window - 1, begin - 1, -1):
            for x in range(columns):
                total[x] += values[y, x]
                if y < stop:
                    sums[y, x] = total[x]
        total[:] = 0
        for y in range(begin + 1, stop):
            for x in range(columns):
                total[x] += values[y + window - 1, x]
                sums[y, x] += total[x]
    return sums


@compiled(fastmath=set())
def _transposed(values):  # type: ignore[no-untyped-def]
    """``values`` [rows, columns] with rows and columns exchanged, piece by piece, as caches like it."""
    rows, columns = values.shape
    out = np.empty((columns, rows))
    for first_row in range(0, rows, PIECE):
        for first_column in range(0, columns, PIECE):
            for x in range(first_column, min(first_column + PIECE, columns)):
                for y in range(first_row, min(first_row + PIECE, rows)):
                    out[x, y] = values[y, x]
    return out
