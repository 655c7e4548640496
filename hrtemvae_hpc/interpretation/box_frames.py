"""The frames of a box of a movie as lattices are measured in them: hot pixels clipped, means over neighbours."""

import threading
from collections import OrderedDict

import numpy as np
import torch

from hrtemvae_hpc.area import Area
from hrtemvae_hpc.errors import InputError
from hrtemvae_hpc.movie.movie import Movie
from hrtemvae_hpc.movie.preprocess import clip_outliers

_SMALLEST = 48  # pixels on the side of a box


class BoxFrames:
    """Frames of ``area`` of a movie; they count through those that are not left out."""

    def __init__(self, movie: Movie, area: Area, left_out: np.ndarray, average: int) -> None:
        """``left_out`` [frames] bool; ``average`` frames, an odd number, make an image.

        The area is cut to what lies within all frames where the movie is followed. Raises InputError if too little is
        left.
        """
        self.movie, self.average = movie, average
        self.frames = np.flatnonzero(~left_out)
        self.area = _always_shown(movie, area, self.frames)
        self._read: OrderedDict[int, np.ndarray] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def count(self) -> int:
        """Frames that are not left out."""
        return len(self.frames)

    @property
    def place(self) -> Area:
        """The area in the movie's first frame."""
        return self.area.moved(self.movie.top, self.movie.left)

    def image(self, t: int) -> np.ndarray:
        """The mean [rows, columns] float32 of frame ``t`` and its neighbours, as many on either side.

        So it is the mean of what changes evenly at the time of ``t``; near the ends there are fewer. Raises InputError
        at frames that can't be decoded.
        """
        reach = min(self.average // 2, t, self.count - 1 - t)
        mean = sum(self._frame(s) for s in range(t - reach, t + reach + 1)) / np.float32(2 * reach + 1)
        return np.asarray(mean)

    def _frame(self, t: int) -> np.ndarray:
        with self._lock:
            if t in self._read:
                self._read.move_to_end(t)
                return self._read[t]
        index = int(self.frames[t])
        try:
            pixels = self.movie.read(slice(index, index + 1), self.area)[0].astype(np.float32)
        except OSError as error:
            number = self.movie.frame_indices[index]
            raise InputError(
                f"{self.movie.where}: can't be decoded at frame {number}; copy the movie again, or choose others with "
                "--frames."
            ) from error
        clipped = clip_outliers(torch.from_numpy(pixels)).numpy()
        finite = np.isfinite(clipped)
        if not finite.all():
            clipped = np.where(finite, clipped, clipped[finite].mean() if finite.any() else 0)
        with self._lock:
            self._read[t] = clipped
            while len(self._read) > 2 * self.average:
                self._read.popitem(last=False)
        return clipped


def _always_shown(movie: Movie, area: Area, frames: np.ndarray) -> Area:
    if movie.shown is not None:
        first, stop = movie.shown[frames, :, 0].max(0, initial=0), movie.shown[frames, :, 1].min(0, initial=2**31)
        spans = [
            slice(max(span.start, int(a)), min(span.stop, int(b))) for span, a, b in zip(area, first, stop, strict=True)
        ]
        area = Area(*spans)
    if min(area.height, area.width) < _SMALLEST:
        raise InputError(
            f"{movie.where}: {max(0, area.height)} x {max(0, area.width)} pixels of the box lie within all frames, but "
            f"{_SMALLEST} x {_SMALLEST} are needed; choose a larger box, or one farther from the border."
        )
    return area
