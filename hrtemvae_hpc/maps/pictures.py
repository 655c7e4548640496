"""Maps and frames as small PNG files: one pixel per window, whose value is an index into the file's colours."""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from hrtemvae_hpc.maps.colours import table
from hrtemvae_hpc.pages import save_png

COLOURS = {
    "time_correlated_variance": "inferno",
    "variance": "viridis",
    "spearman": "RdBu_r",
    "mean": "cividis",
    "valid_frames": "gray",
    "process": "inferno",
    "group": "inferno",
    "excess_variance": "viridis",
    "change": "viridis",
    "significance": "gray",
    "reconstruction": "cividis",
}
NOT_NEGATIVE = ("time_correlated_variance", "variance", "valid_frames", "process", "group", "significance")
# Codes lie closer to each other where values are small, so that a logarithmic scale has something to show.
_POWER = {
    "time_correlated_variance": 4,
    "variance": 2,
    "spearman": 1,
    "mean": 1,
    "valid_frames": 1,
    "process": 1,
    "group": 2,
    "excess_variance": 1,
    "change": 1,
    "significance": 2,
    "reconstruction": 1,
}
_STEPS = 254
MOST_SAMPLES = 1024  # along a side


@dataclass(frozen=True)
class Coded:
    """A map as small integers: 0 where it has no value, else low + (high - low) * ((code - 1) / 254) ** power."""

    codes: np.ndarray  # [rows, columns] uint8
    low: float
    high: float
    power: int

    def values_of(self, codes: np.ndarray) -> np.ndarray:
        """The values that ``codes`` stand for, NaN for 0."""
        values = self.low + (self.high - self.low) * ((codes.astype(float) - 1) / _STEPS) ** self.power
        return np.where(codes > 0, values, np.nan)


def limits(name: str, values: np.ndarray) -> tuple[float, float]:
    """The range of values that the colours of a map of quantity ``name`` cover."""
    finite = values[np.isfinite(values)].astype(float)
    if name == "spearman":
        return -1.0, 1.0
    if name == "valid_frames":
        return 0.0, float(values.max())
    if not finite.size:
        return 0.0, 1.0
    low = 0.0 if name in NOT_NEGATIVE else float(np.percentile(finite, 0.5))
    high = float(np.percentile(finite, 99.5))
    return low, high if high > low else low + 1e-12


def code(name: str, values: np.ndarray) -> Coded:
    """``values`` [rows, columns] of quantity ``name`` as small integers that cover all finite values."""
    known = np.isfinite(values)
    low, high = (-1.0, 1.0) if name == "spearman" else (0.0, 0.0)
    if name != "spearman" and known.any():
        low, high = float(values[known].min()), float(values[known].max())
        if name in NOT_NEGATIVE:
            low = 0.0
    shares = (np.where(known, values, low).astype(float) - low) / ((high - low) or 1.0)
    codes = 1 + np.rint(_STEPS * shares.clip(0, 1) ** (1 / _POWER[name]))
    return Coded(np.where(known, codes, 0).astype(np.uint8), low, high, _POWER[name])


def map_png(name: str, coded: Coded, shown: tuple[float, float]) -> bytes:
    """PNG of one byte per window, its code, with the colours of ``name`` for values in ``shown``; 0 is transparent."""
    low, high = shown
    values = np.nan_to_num(coded.values_of(np.arange(_STEPS + 2)))
    places = np.rint(255 * ((values - low) / ((high - low) or 1.0)).clip(0, 1)).astype(int)
    picture = Image.fromarray(coded.codes)
    picture.putpalette(table(COLOURS[name])[places].tobytes())
    return save_png(picture, transparency=0)


def frame_png(image: np.ndarray) -> bytes:
    """PNG of a frame [y, x] in 255 greys, without its extremes; transparent where a pixel is not finite."""
    known = np.isfinite(image)
    low, high = np.percentile(image[known], (0.5, 99.5)).astype(float) if known.any() else (0.0, 1.0)
    shares = (np.where(known, image, low).astype(float) - low) / ((high - low) or 1.0)
    greys = np.where(known, 1 + np.rint(_STEPS * shares.clip(0, 1)), 0)
    return save_png(Image.fromarray(greys.astype(np.uint8)), transparency=0)


def binning_of(shape: tuple[int, ...], most: int = MOST_SAMPLES) -> tuple[int, int]:
    """How many rows and columns of an image of ``shape`` become one, so that it has at most ``most`` per side."""
    rows, columns = (-(-n // most) for n in shape)
    return rows, columns


def thinned(values: np.ndarray, most: int = MOST_SAMPLES) -> np.ndarray:
    """``values`` [rows, columns] with at most ``most`` per side: means of finite values, NaN where there are none."""
    steps = binning_of(values.shape, most)
    if max(steps) == 1:
        return values
    known = np.isfinite(values)
    total, count = np.where(known, values, 0), known.astype(np.int32)
    for axis, step in enumerate(steps):
        starts = np.arange(0, values.shape[axis], step)
        total, count = (np.add.reduceat(a, starts, axis, a.dtype) for a in (total, count))
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)
