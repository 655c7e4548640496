"""What is done to frames when a movie is converted: detector corrections, then sums of pixels and of frames."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hrtemvae_hpc.errors import InputError


@dataclass(frozen=True)
class Corrections:
    """The arithmetic on frames [rows, columns]: (frame - dark) x gain, bad pixels, then sums of pixels."""

    dark: np.ndarray | None = None  # [rows, columns]
    gain: np.ndarray | None = None  # [rows, columns]
    bad: "BadPixels | None" = None
    binning: int = 1  # pixels on the side of a square that is summed

    @property
    def change_pixels(self) -> bool:
        """Whether pixels become others at all."""
        return self._touch_pixels or self.binning > 1

    def dtype(self, stored: np.dtype, together: int = 1) -> np.dtype:
        """The type of sums of ``together`` corrected frames of type ``stored``.

        Integers stay integers, of the smallest type that holds any sum, unless a dark or gain image makes them
        float32. Raises InputError if no type holds the sums.
        """
        corrected = self.corrected(stored)
        terms = together * self.binning**2
        if terms == 1:
            return corrected
        if corrected.kind == "f":
            return np.promote_types(corrected, np.float32)
        bounds = np.iinfo(corrected)
        kind = "u" if corrected.kind == "u" else "i"
        for size in (1, 2, 4, 8):
            wide = np.iinfo(np.dtype(f"{kind}{size}"))
            if wide.min <= terms * int(bounds.min) and terms * int(bounds.max) <= wide.max:
                return np.dtype(f"{kind}{size}")
        raise InputError(f"no integer type holds sums of {terms} pixels of type {stored}; lower --bin or --sum.")

    def shape(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of a corrected frame; those at the edges that fill no bin are cut off."""
        return height // self.binning, width // self.binning

    def add(self, frame: np.ndarray, total: np.ndarray) -> None:
        """Correct ``frame`` and add it to ``total``, which has the shape and dtype of the results."""
        if self._touch_pixels:
            frame = frame.astype(self.corrected(frame.dtype))
            if self.dark is not None:
                frame -= self.dark.astype(frame.dtype, copy=False)
            if self.gain is not None:
                frame *= self.gain.astype(frame.dtype, copy=False)
            if self.bad is not None:
                self.bad.repair(frame)
        add_bins(frame, self.binning, total)

    def corrected(self, stored: np.dtype) -> np.dtype:
        """The type that pixels of type ``stored`` are corrected in: float32, or float64 where they are, or as stored.

        Pixels stay as they are stored where there is neither a dark nor a gain image.
        """
        if self.dark is None and self.gain is None:
            return stored
        return np.dtype(np.float64 if stored == np.float64 else np.float32)

    @property
    def _touch_pixels(self) -> bool:
        return not (self.dark is None and self.gain is None and self.bad is None)


def add_bins(frame: np.ndarray, binning: int, total: np.ndarray) -> None:
    """Add to ``total`` [rows, columns] the sums of ``binning`` x ``binning`` pixels of ``frame``, in its dtype.

    Row after row, then column after column: the order in which floats are added never changes.
    """
    height, width = total.shape
    frame = frame[: height * binning, : width * binning]
    if binning == 1:
        np.add(total, frame, out=total)
        return
    rows = frame[::binning].astype(total.dtype)
    for i in range(1, binning):
        rows += frame[i::binning]
    columns = rows[:, ::binning].copy()
    for i in range(1, binning):
        columns += rows[:, i::binning]
    total += columns


@dataclass(frozen=True)
class BadPixels:
    """Bad pixels, each with the good ones nearest to it; those with equally many are repaired together."""

    groups: Sequence[tuple[np.ndarray, np.ndarray]]  # places [n] of bad pixels, and of good ones [n, neighbours]

    @classmethod
    def of(cls, bad: np.ndarray) -> "BadPixels":
        """From a mask [rows, columns] bool.

        The neighbours of a bad pixel are the good ones among the 8 around it; where none is good, those of the
        smallest square around it that holds any. Raises InputError if there is no good pixel at all.
        """
        if bad.all():
            raise InputError("all pixels are bad; name another file with --bad-pixels.")
        from scipy.ndimage import distance_transform_cdt  # takes a while to load

        height, width = bad.shape
        distances = distance_transform_cdt(bad, "chessboard")
        groups = []
        for distance in np.unique(distances[bad]):
            y, x = np.nonzero(distances == distance)
            ring = _ring(int(distance))
            near_y, near_x = y[:, None] + ring[0], x[:, None] + ring[1]
            good = (near_y >= 0) & (near_y < height) & (near_x >= 0) & (near_x < width)
            good[good] = ~bad[near_y[good], near_x[good]]
            places, near = y * width + x, near_y * width + near_x
            counts = good.sum(1)
            for count in np.unique(counts):
                chosen = counts == count
                groups.append((places[chosen], near[chosen][good[chosen]].reshape(-1, count)))
        return cls(groups)

    def repair(self, frame: np.ndarray) -> None:
        """Replace the bad pixels of a contiguous ``frame`` by the median of their neighbours, rounded in integers."""
        pixels = frame.reshape(-1)
        for places, near in self.groups:
            medians = np.median(pixels[near], axis=1)
            pixels[places] = medians if frame.dtype.kind == "f" else np.rint(medians)


def _ring(distance: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of the border of a square, relative to its centre."""
    y, x = np.mgrid[-distance : distance + 1, -distance : distance + 1]
    border = np.maximum(abs(y), abs(x)) == distance
    return y[border], x[border]
