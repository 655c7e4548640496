"""What the names of files say about their order, and about frames that are missing."""

import os
import re
from collections.abc import Iterable, Sequence
from itertools import pairwise
from math import gcd

_DIGITS = re.compile("([0-9]+)")
_SHOWN = 5


def natural(name: str) -> tuple[tuple[str | int, ...], str]:
    """What to sort names by: numbers in them count as numbers, so that frame_2 comes before frame_10."""
    parts = _DIGITS.split(name)
    return tuple(int(part) if i % 2 else part for i, part in enumerate(parts)), name


def missing(names: Sequence[str]) -> str | None:
    """The gaps in the numbers of ``names``, which are in natural order, in words; None if there are none.

    Names count if they differ in one number only, or else in the last number of those that differ. Numbers of which
    most are missing count nothing.
    """
    split = [_DIGITS.split(name) for name in names]
    if len({tuple(parts[::2]) for parts in split}) != 1:
        return None
    columns = list(zip(*(map(int, parts[1::2]) for parts in split), strict=True))
    varying = [column for column in columns if len(set(column)) > 1]
    return gaps(varying[-1]) if varying else None


def gaps(numbers: Sequence[int]) -> str | None:
    """The numbers that are missing among ``numbers``, in words, as ``missing`` counts."""
    steps = [b - a for a, b in pairwise(numbers)]
    if not steps or min(steps) <= 0:
        return None
    step = gcd(*steps)
    lost = (numbers[-1] - numbers[0]) // step + 1 - len(numbers)
    if not 0 < lost <= len(numbers):
        return None
    absent = (number for a, b in pairwise(numbers) for number in range(a + step, b, step))
    return listed([str(number) for number, _ in zip(absent, range(_SHOWN), strict=False)], lost)


def listed(names: Iterable[str], count: int) -> str:
    """The first few of ``count`` names."""
    shown = list(names)[:_SHOWN]
    return ", ".join(shown) + (f" and {count - len(shown)} more" if count > len(shown) else "")


def patterns(names: Iterable[str]) -> list[str]:
    """Names with # for each number but in their endings, each once, in order."""
    split = (os.path.splitext(name) for name in names)
    return list(dict.fromkeys(_DIGITS.sub("#", stem) + ending for stem, ending in split))
