"""Loops that are compiled to machine code the first time they are called."""

from collections.abc import Callable
from typing import Any

import numba


def compiled(fastmath: set[str]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Compile a function of arrays and numbers; it runs without Python's lock.

    The machine code is kept for later processes, beside the source or in the user's cache, where one can be written.
    ``fastmath`` names what LLVM may assume of floating point numbers.
    """

    def compile_(function: Callable[..., Any]) -> Callable[..., Any]:
        options: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": fastmath}
        try:
            return numba.njit(cache=True, **options)(function)  # type: ignore[no-any-return]
        except RuntimeError:  # no folder for the cache
            return numba.njit(**options)(function)  # type: ignore[no-any-return]

    return compile_
