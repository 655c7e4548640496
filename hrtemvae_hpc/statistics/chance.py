"""How large rho becomes by chance alone, where frames are few."""

from functools import cache

import numpy as np

FEW_FRAMES = 20
_DRAWN = 200_000  # ranks


@cache
def largest_by_chance(frames: int, latents: int, level: float = 0.95) -> float:
    """What the largest abs(rho) of a window's ``latents`` stays below with probability ``level``, if all is chance.

    For independent latents and ``frames``; of ranks drawn at random with a fixed seed. Student's t distribution, the
    usual approximation, is too low by 0.01 at 10 frames and 64 latents.
    """
    ranks = np.random.default_rng(0).random((_DRAWN, frames)).argsort(1) - (frames - 1) / 2
    time = np.arange(frames) - (frames - 1) / 2
    return float(np.quantile(np.abs(ranks @ time), level ** (1 / latents)) / (time @ time))


def few_frames_warning(frames: int, latents: int) -> str:
    """What to say about so few ``frames``, "" if they are enough."""
    if frames >= FEW_FRAMES:
        return ""
    return (
        f"with {frames} frames, large |rho| occur by chance: in one window of twenty, the largest of {latents} latents "
        f"exceeds {largest_by_chance(frames, latents):.2f}; analyse at least {FEW_FRAMES} frames."
    )
