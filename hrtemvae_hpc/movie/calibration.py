"""Units of microscopes to nanometres and seconds."""

import re

import numpy as np

_METRE = re.compile("m|met(re|er)s?")
_SECOND = re.compile("s|secs?|seconds?")
_NAMED = re.compile("(A|Å|Å|[aå]ngstr[oö]ms?)|microns?", re.IGNORECASE)  # of lengths, without prefixes
_PREFIXES = {  # and their powers of ten
    "": 0, "f": -15, "p": -12, "n": -9, "u": -6, "µ": -6, "μ": -6, "m": -3, "c": -2, "k": 3,
    "femto": -15, "pico": -12, "nano": -9, "micro": -6, "milli": -3, "centi": -2, "kilo": 3,
}  # fmt: skip
_LONGER = {"min": 60, "mins": 60, "minute": 60, "minutes": 60, "h": 3600, "hour": 3600, "hours": 3600}
_SENSIBLE = 1e-15, 1e15  # nanometres of a pixel, seconds of a frame


def convert(value: float, units: str, to: str) -> float | None:
    """``value`` in ``units`` as a number of ``to``, "nm" or "s".

    None if the units are unknown or of the other kind, or the number is not positive or makes no sense.
    Berkeley EMD writes units as ``[n_m]``; ``A`` and ``Å`` are both read as angstrom.
    """
    plain = units.strip().strip("[]").replace("_", "")
    if to == "s" and plain.lower() in _LONGER:
        number = float(value) * _LONGER[plain.lower()]
    elif (power := _power(plain, to)) is not None:
        number = float(value) * 10**power if power >= 0 else float(value) / 10**-power
    else:
        return None
    return number if _SENSIBLE[0] <= number <= _SENSIBLE[1] else None


def _power(units: str, to: str) -> int | None:
    """The power of ten that one of ``units`` is in ``to``, None if they are unknown or of another kind."""
    if to == "nm" and (named := _NAMED.fullmatch(units)):
        return -1 if named[1] else 3
    unit, base = (_METRE, 9) if to == "nm" else (_SECOND, 0)
    for text in (units, units.lower()) if len(units) > 2 else (units,):
        for prefix, power in _PREFIXES.items():
            if text.startswith(prefix) and unit.fullmatch(text[len(prefix) :]):
                return base + power
    return None


def is_reciprocal(units: str) -> bool:
    """Whether ``units`` are those of diffraction patterns, such as 1/nm."""
    return "1/" in units or "^-1" in units


def spacing(positions: np.ndarray) -> float | None:
    """The distance of evenly spaced positions; None if they are fewer than two or not even."""
    if positions.ndim != 1 or len(positions) < 2 or positions.dtype.kind not in "iuf":
        return None
    steps = np.diff(positions.astype(float))
    mean = float(steps.mean())
    even = mean != 0 and np.isfinite(mean) and bool(np.allclose(steps, mean, rtol=1e-3, atol=1e-9 * abs(mean)))
    return abs(mean) if even else None
