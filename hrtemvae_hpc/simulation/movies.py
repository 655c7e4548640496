"""A movie with a known answer: two attached crystals; one rotates, one edge grows and one shrinks.

All of it may drift.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from hrtemvae_hpc.errors import InputError
from hrtemvae_hpc.movie.write import write_movie
from hrtemvae_hpc.outputs import Output, check_outputs, is_movie

PIXEL_SIZE_NM = 0.0145
FRAME_TIME_S = 0.8
PERIOD = 20.5  # pixels, 0.297 nm: the {200} planes of PbS
MISFIT_DEGREES = (13.7, 9.3)  # of the second crystal against the first, in the first and last frame
_FIRST_ANGLE = 7.0
_EDGE_SHIFT = 2.5  # periods by which each free edge moves
_HOT_PIXELS = 6
_CONTRAST = 0.45
_DRIFT_JITTER = 0.02  # of the drift, by which frames deviate from its smooth path
_MOST_DRIFT = 64.0  # pixels
_SIDES, _MOST_FRAMES = (192, 8192), 100_000  # that are simulated


@dataclass(frozen=True)
class Scene:
    """Where the crystals lie. Lengths in pixels, ``progress`` runs from 0 in the first frame to 1 in the last.

    The specimen is seen ``dy`` further down and ``dx`` further right than in the first frame.
    """

    rows: int
    columns: int
    dy: float = 0.0
    dx: float = 0.0

    @property
    def boundary(self) -> float:
        """Column where the crystals meet."""
        return 0.48 * self.columns

    def first(self, progress: float) -> np.ndarray:
        """Cover [rows, columns] of the first crystal, whose free edge grows to the left."""
        return self._between(self._left(progress), self.boundary)

    def second(self, progress: float) -> np.ndarray:
        """Cover [rows, columns] of the second crystal, whose free edge on the right shrinks."""
        return self._between(self.boundary, self._right(progress))

    def areas(self, progress: float) -> np.ndarray:
        """The pixels [2] that each crystal covers, to half the height of its soft edges, if it lies within a frame."""
        widths = np.array([self.boundary - self._left(progress), self._right(progress) - self.boundary])
        return widths * (self._bottom - self._top)

    def _left(self, progress: float) -> float:
        return 0.24 * self.columns - progress * _EDGE_SHIFT * PERIOD

    def _right(self, progress: float) -> float:
        return 0.84 * self.columns - progress * _EDGE_SHIFT * PERIOD

    @property
    def _top(self) -> float:
        return 0.17 * self.rows

    @property
    def _bottom(self) -> float:
        return 0.83 * self.rows

    def _between(self, left: float, right: float) -> np.ndarray:
        y, x = self._coordinates()
        soft = [x - left, right - x, y - self._top, self._bottom - y]
        cover = np.ones((self.rows, self.columns))
        for distance in soft:
            cover = cover / (1 + np.exp(-np.clip(distance / 1.5, -40, 40)))
        return cover

    def lattice(self, degrees: float) -> np.ndarray:
        """A square lattice of dark spots rotated by ``degrees`` about the middle of the boundary, -1..1."""
        y, x = self._coordinates()
        y, x = y - self.rows / 2, x - self.boundary
        a = math.radians(degrees)
        u, v = x * math.cos(a) + y * math.sin(a), y * math.cos(a) - x * math.sin(a)
        waves = (np.cos(2 * math.pi * u / PERIOD) + np.cos(2 * math.pi * v / PERIOD)) / 2
        return 1 - 2 * np.exp(2.2 * (waves - 1))

    def _coordinates(self) -> tuple[np.ndarray, np.ndarray]:
        """Each pixel's row [rows, 1] and column [1, columns] in the first frame."""
        return np.arange(self.rows)[:, None] - self.dy, np.arange(self.columns)[None] - self.dx


def simulate_movie(
    path: Path, frames: int, rows: int, columns: int, dose: float, seed: int, drift: float = 0.0
) -> Path:
    """Write the movie (uint16, gzip, one chunk a frame) with its truth, and return ``path``.

    ``dose`` is in electrons per pixel and frame. The specimen drifts ``drift`` pixels down and half as many to the
    right. /entry/truth holds misfit_degrees [frames], area_px [frames, 2] of the first and the second crystal, the
    masks [rows, columns] rotating, growing, shrinking and still, as the first frame shows them, and if it drifts
    drift_px [frames, 2] (down, right). Raises InputError for values that make no movie.
    """
    sides_fit = _SIDES[0] <= min(rows, columns) and max(rows, columns) <= _SIDES[1]
    if not (3 <= frames <= _MOST_FRAMES and sides_fit and 0 < dose < 1e6 and 0 <= seed < 2**63):
        raise InputError(
            f"a movie of {frames} frames of {rows} x {columns} at {dose:g} electrons per pixel, seed {seed}, can't be "
            f"simulated; give 3 to {_MOST_FRAMES:,} frames of {_SIDES[0]} to {_SIDES[1]} pixels a side, a dose between "
            "0 and 1e6 and a seed of 0 or more."
        )
    if not 0 <= drift <= _MOST_DRIFT:
        raise InputError(f"a drift of {drift:g} pixels can't be simulated; give 0 to {_MOST_DRIFT:g}.")
    check_outputs([Output(path, "the movie", is_movie)])
    scene = Scene(rows, columns)
    misfit = np.linspace(*MISFIT_DEGREES, frames)
    ends = [(scene.first(p) > 0.5, scene.second(p) > 0.5) for p in (0.0, 1.0)]
    truth = {
        "misfit_degrees": misfit,
        "area_px": np.stack([scene.areas(p) for p in np.linspace(0, 1, frames)]),
        "rotating": ends[0][1] & ends[1][1],
        "growing": ends[1][0] & ~ends[0][0],
        "shrinking": ends[0][1] & ~ends[1][1],
        "still": ends[0][0] & ends[1][0] | ~(ends[0][0] | ends[1][0] | ends[0][1] | ends[1][1]),
    }
    path_of_drift = drift_path(frames, drift, seed)
    if drift:
        truth["drift_px"] = path_of_drift
    images = _frames(scene, misfit, path_of_drift, dose, np.random.default_rng(seed))
    write_movie(path, images, (frames, rows, columns), np.dtype(np.uint16), PIXEL_SIZE_NM, FRAME_TIME_S, truth)
    return path


def drift_path(frames: int, drift: float, seed: int) -> np.ndarray:
    """How far the specimen has moved down and right since the first frame [frames, 2], pixels: a curve with jitter."""
    progress = np.linspace(0, 1, frames)
    down = np.sin(math.pi / 2 * progress) ** 2
    right = 0.5 * progress + 0.1 * np.sin(2 * math.pi * progress)
    jitter = np.random.default_rng([seed, 1]).normal(0, _DRIFT_JITTER, (frames, 2))
    path = drift * (np.stack([down, right], 1) + jitter)
    return np.asarray(path - path[0])


def _frames(
    scene: Scene, misfit: np.ndarray, drift: np.ndarray, dose: float, random: np.random.Generator
) -> Iterator[np.ndarray]:
    """The frames of ``scene`` [rows, columns] with ``misfit`` [frames] (degrees) and ``drift`` [frames, 2] (pixels)."""
    shape = (scene.rows, scene.columns)
    amorphous = _grains(shape, random)
    hot = random.integers(0, scene.rows, _HOT_PIXELS), random.integers(0, scene.columns, _HOT_PIXELS)
    for t, (angle, (dy, dx)) in enumerate(zip(misfit, drift.tolist(), strict=True)):
        progress = t / (len(misfit) - 1)
        moved = replace(scene, dy=dy, dx=dx)
        first, second = moved.first(progress), moved.second(progress)
        image = first * moved.lattice(_FIRST_ANGLE) + second * moved.lattice(_FIRST_ANGLE + angle)
        image += 0.12 * _moved(amorphous, dy, dx) * (1 - 0.5 * (first + second)) + 0.05 * _grains(shape, random)
        electrons = random.poisson(dose * np.clip(1 + _CONTRAST * image, 0.02, None)).astype(float)
        electrons[hot] += random.poisson(8 * dose, _HOT_PIXELS)
        yield np.minimum(electrons, np.iinfo(np.uint16).max).astype(np.uint16)


def _grains(shape: tuple[int, int], random: np.random.Generator) -> np.ndarray:
    """The speckle of an amorphous film: white noise low-passed at 0.1 cycles per pixel, unit deviation."""
    fy, fx = np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1])[None]
    spectrum = np.fft.rfft2(random.standard_normal(shape)) * np.exp(-(fy**2 + fx**2) / (2 * 0.1**2))
    grains = np.fft.irfft2(spectrum, s=shape)
    return np.asarray(grains / grains.std())


def _moved(grains: np.ndarray, dy: float, dx: float) -> np.ndarray:
    """``grains`` further down and right, by the Fourier shift theorem; what leaves the frame comes in opposite."""
    if dy == dx == 0:
        return grains
    fy, fx = np.fft.fftfreq(grains.shape[0])[:, None], np.fft.rfftfreq(grains.shape[1])[None]
    ramp = np.exp(-2j * math.pi * (fy * dy + fx * dx))
    return np.asarray(np.fft.irfft2(np.fft.rfft2(grains) * ramp, s=grains.shape))
