"""How far the specimen has drifted in each frame of a recording, known as soon as the frame is.

An analysis measures drift in both directions of time, and more carefully; this is for maps that are drawn meanwhile.
"""

import numpy as np

from hrtemvae_hpc.drift.measure import Prepared, Reference, binned, binning_of
from hrtemvae_hpc.fourier.shift import band_pass

_STAY = 0.75  # pixels by which a shift in whole pixels may be off, so that it doesn't alternate between two
_RENEWED = 64  # frames that are measured against the sum of those before them, since the specimen changes


class Tracker:
    """Follows frames one after the other, each against a sum of those before it."""

    def __init__(self) -> None:
        self.place = (0.0, 0.0)  # of the last frame against the first, down and right, in pixels
        self.shift = (0, 0)  # by which areas move in it
        self._reference: Reference | None = None
        self._origin = (0.0, 0.0)  # of the reference
        self._followed = 0

    def resume(self, frame: np.ndarray | None, place: tuple[float, float]) -> None:
        """Go on after ``frame`` [rows, columns], which is known to have drifted to ``place``; None if it is lost."""
        self.place = place
        self._settle()
        if frame is not None:
            self._begin(_prepare(frame), place)

    def follow(self, frame: np.ndarray) -> None:
        """Find where ``frame`` [rows, columns] lies, of any integers or floats; where the last did if it can't be."""
        image = _prepare(frame)
        reference = self._reference or self._begin(image, self.place)
        if reference.follow(image).quality:
            (y, x), (dy, dx), binning = self._origin, reference.place, binning_of(frame.shape)
            self.place = y + binning * dy, x + binning * dx
        self._followed += 1
        if reference.is_lost or self._followed == _RENEWED:
            self._begin(image, self.place)
        self._settle()

    def _begin(self, image: Prepared, place: tuple[float, float]) -> Reference:
        self._reference, self._origin, self.place, self._followed = Reference(image), place, place, 0
        return self._reference

    def _settle(self) -> None:
        if max(abs(p - s) for p, s in zip(self.place, self.shift, strict=True)) > _STAY:
            self.shift = round(self.place[0]), round(self.place[1])


def _prepare(frame: np.ndarray) -> Prepared:
    return Prepared.of(band_pass(binned(frame, binning_of(frame.shape)))[0])
