"""Movies of one perfect lattice that moves: the article's test of what a model responds to.

The values are those of Wang et al. (see CITATION.cff): 640 x 640 pixels, dark Gaussian spots at a period of 20.5
pixels on a square patch.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

SIZE = 640
PERIOD = 20.5  # pixels
PATCH = (130, 510)
_SIGMA = 8.775 / PERIOD  # of a spot, periods
_HEIGHT, _GROUND = 0.75, 0.2
_JITTER = 0.05  # pixel
_REACH = 4.5  # sigmas from its centre to which a spot is drawn


@dataclass(frozen=True)
class Movement:
    """What happens between the first frame and the last: a shift in periods along y and x, or a rotation in degrees."""

    name: str
    shift: tuple[float, float] = (0.0, 0.0)
    degrees: float = 0.0
    frames: int = 25


MOVEMENTS = (
    Movement("translation along y", shift=(1.0, 0.0)),
    Movement("translation along x", shift=(0.0, 1.0)),
    Movement("rotation by 90 degrees", degrees=90.0, frames=46),
)


def frames(movement: Movement, period: float = PERIOD, seed: int = 0) -> Iterator[np.ndarray]:
    """The frames [640, 640] float32 of ``movement``, for a lattice of ``period`` pixels; the last ends it.

    Each spot is displaced by about 0.05 pixel, constantly.
    """
    places = np.arange(PATCH[0], PATCH[1] + 0.5 * period, period)
    spots = np.stack(np.meshgrid(places, places, indexing="ij"), -1).reshape(-1, 2)
    spots = spots + np.random.default_rng(seed).normal(0, _JITTER, spots.shape)
    centre = (SIZE - 1) / 2
    for progress in np.linspace(0, 1, movement.frames):
        angle = math.radians(movement.degrees * progress)
        turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
        moved = (spots - centre) @ turn.T + centre + progress * period * np.array(movement.shift)
        yield _draw(moved, _SIGMA * period)


def still_inside(window: int, step: int, period: float = PERIOD) -> np.ndarray:
    """Which windows [rows, columns] hold nothing but lattice in every frame of every movement."""
    first = np.arange(0, SIZE - window + 1, step)
    # In the patch while it moves by a period, and in the circle that it covers while it rotates.
    low, high = PATCH[0] + period, PATCH[1] - period
    along = (first >= low) & (first + window <= high)
    farthest = np.maximum(abs(first - SIZE / 2), abs(first + window - SIZE / 2))
    corner = np.hypot(farthest[:, None], farthest[None])
    return np.asarray(along[:, None] & along[None] & (corner <= (PATCH[1] - PATCH[0]) / 2))


def _draw(spots: np.ndarray, sigma: float) -> np.ndarray:
    rows, columns = (_profiles(places, sigma) for places in spots.T)
    image = _GROUND + _HEIGHT * (rows.T @ columns)
    return np.asarray(image.max() - image, np.float32)


def _profiles(places: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussians [spots, SIZE] about ``places``, cut off where they are faint."""
    reach, pixels = math.ceil(_REACH * sigma), np.arange(SIZE)
    from_middle = pixels - np.rint(places)[:, None]
    profiles = np.exp(-((pixels - places[:, None]) ** 2) / (2 * sigma**2))
    return np.where((from_middle >= -reach) & (from_middle < reach), profiles, 0)
