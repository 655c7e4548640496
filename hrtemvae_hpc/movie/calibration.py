"""Units of microscopes to nanometres and seconds."""

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from pint import UnitRegistry

_UNCALIBRATED = {"", "px", "pix", "pixel", "pixels", "undefined", "none"}


@lru_cache(maxsize=1)
def _registry() -> "UnitRegistry[float]":
    from pint import UnitRegistry

    return UnitRegistry()


def convert(value: float, units: str, to: str) -> float | None:
    """``value`` in ``units`` as a number of ``to``; None where the units are unknown or of another kind
    or the number is not positive.

    Berkeley EMD writes units as ``[n_m]``; ``A`` and ``Å`` are both read as angstrom.
    """
    plain = units.strip().strip("[]").replace("_", "")
    if plain.lower() in _UNCALIBRATED or not (np.isfinite(value) and value > 0):
        return None
    if plain == to:
        return float(value)  # most movies; loading pint takes a third of a second
    try:
        return float(_registry().Quantity(value, "angstrom" if plain in ("A", "Å") else plain).to(to).magnitude)
    except Exception:  # noqa: BLE001  any text may stand where a unit is expected, and pint parses it as an expression
        return None


def spacing(positions: np.ndarray) -> float | None:
    """The distance of evenly spaced positions; None where they are fewer than two or not even."""
    if positions.ndim != 1 or len(positions) < 2 or positions.dtype.kind not in "iuf":
        return None
    steps = np.diff(positions.astype(float))
    mean = float(steps.mean())
    even = mean != 0 and bool(np.allclose(steps, mean, rtol=1e-3, atol=1e-9 * abs(mean)))
    return abs(mean) if even else None
