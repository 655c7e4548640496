"""A movie found in an HDF5 file, and what its axes say."""

from dataclasses import dataclass

import numpy as np

from hrtemvae_hpc.movie.calibration import convert, is_reciprocal

Step = float | np.ndarray  # along an axis, or the positions [positions] float64 from the first where that varies
Scale = tuple[Step, str]
Scales = tuple[Scale | None, ...]


@dataclass(frozen=True)
class Located:
    """A movie inside a file, the order of its axes, and the step and units of those the file calibrates.

    ``scales`` has one entry an axis of the dataset, or one each for t, y and x where ``by_letter``.
    """

    dataset: str
    layout: str
    axes: str = "tyx"
    scales: Scales = (None, None, None)
    by_letter: bool = False
    parts: tuple[str, ...] = ()  # of a movie in several datasets, which lie in the group ``dataset``

    def calibration(self, axes: str) -> tuple[tuple[float, float] | None, float | None]:
        """Pixel size (rows, columns) in nm and frame time in s for the order ``axes``; None if not stated."""
        known: dict[str, float | None] = {"t": None, "y": None, "x": None}
        for letter, scale in self._by_letter(axes).items():
            if scale is not None and not isinstance(scale[0], np.ndarray):
                known[letter] = convert(scale[0], scale[1], "s" if letter == "t" else "nm")
        y, x = known["y"], known["x"]
        return (y, x) if y and x else None, known["t"]

    def times_s(self, axes: str) -> np.ndarray | None:
        """The times [frames] float64 in s from the first, for the order ``axes``; None if even or not stated."""
        positions, units = self._by_letter(axes)["t"] or (None, "")
        if not isinstance(positions, np.ndarray):
            return None
        last = convert(float(positions[-1]), units, "s")
        return None if last is None else positions * (last / positions[-1])

    def is_diffraction(self, axes: str) -> bool:
        """Whether rows or columns are calibrated in units of reciprocal space."""
        scales = self._by_letter(axes)
        return any(scale is not None and is_reciprocal(scale[1]) for scale in (scales["y"], scales["x"]))

    def _by_letter(self, axes: str) -> dict[str, Scale | None]:
        return dict(zip("tyx" if self.by_letter else axes, self.scales, strict=True))
