"""Images of lattices with known answers."""

import numpy as np


def reflections(period: float, degrees: float, between: float = 90.0) -> np.ndarray:
    """Two reflections [2, 2] (row, column) of ``period`` pixels, the second ``between`` degrees from the first."""
    angles = np.radians([degrees, degrees + between])
    return np.stack([np.sin(angles), np.cos(angles)], 1) / period


def waves(shape: tuple[int, int], g: np.ndarray) -> np.ndarray:
    """The sum [rows, columns] of a cosine for each of the reflections ``g`` [n, 2]."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    return np.asarray(sum(np.cos(2 * np.pi * (a * y + b * x)) for a, b in g))


def noisy(image: np.ndarray, seed: int = 0, dose: float = 100.0) -> np.ndarray:
    """Counts [rows, columns] float32 of an ``image`` that varies about 0, at ``dose`` counts per pixel."""
    random = np.random.default_rng(seed)
    return np.asarray(random.poisson(dose * np.clip(1 + 0.2 * image, 0, None)), np.float32)


def two_crystals(
    shape: tuple[int, int] = (128, 160), period: float = 8.0, angles: tuple[float, float] = (5.0, 25.0), edge: int = 130
) -> np.ndarray:
    """A crystal in columns 20:75 and another in 75:``edge``, rows 20:108 [rows, columns]."""
    image = np.zeros(shape)
    for columns, angle in zip((slice(20, 75), slice(75, edge)), angles, strict=True):
        image[20:108, columns] = waves(shape, reflections(period, angle))[20:108, columns]
    return image
