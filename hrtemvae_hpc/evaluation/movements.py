"""What each latent does while a lattice moves."""

import math
from dataclasses import dataclass

import numpy as np
import torch

from hrtemvae_hpc.errors import InputError
from hrtemvae_hpc.model.model_file import Model
from hrtemvae_hpc.model.periods import reconstructed_periods
from hrtemvae_hpc.simulation.movements import MOVEMENTS, PATCH, PERIOD, Movement, frames, still_inside
from hrtemvae_hpc.statistics.comparison import Comparison
from hrtemvae_hpc.statistics.over_time import series_statistics
from hrtemvae_hpc.statistics.significance import PermutationTest
from hrtemvae_hpc.windows.engine import Engine
from hrtemvae_hpc.windows.grid import Tiling, WindowGrid
from hrtemvae_hpc.windows.in_memory import for_engine

_HALF = 0.5
_STEP = 16  # pixels between windows


@dataclass(frozen=True)
class Response:
    """How the latents of a model follow one movement. Latents in the model's order."""

    movement: Movement
    variance: np.ndarray  # [latents, rows, columns] over the frames
    inside: np.ndarray  # [rows, columns] windows that hold nothing but lattice
    series: np.ndarray  # [frames, windows inside, latents]

    @property
    def share(self) -> np.ndarray:
        """Each latent's share [latents] of the variance of the windows inside."""
        total = self.variance[:, self.inside].sum(1)
        return np.asarray(total / total.sum())

    @property
    def leading(self) -> list[int]:
        """The fewest latents that hold more than half of the variance, by decreasing share."""
        order = np.argsort(self.share)[::-1]
        return [int(i) for i in order[: 1 + int((np.cumsum(self.share[order]) <= _HALF).sum())]]

    @property
    def explained(self) -> float:
        """The share of the variance that the leading latents hold."""
        return float(self.share[self.leading].sum())

    @property
    def return_error(self) -> float:
        """How far from its start the first leading latent ends, relative to its range; median over the windows."""
        z = self.series[:, :, self.leading[0]]
        return float(np.median(abs(z[-1] - z[0]) / np.maximum(np.ptp(z, axis=0), 1e-12)))


def respond(model: Model, movement: Movement, period: float, step: int) -> Response:
    """Encode the frames of ``movement``, windows ``step`` pixels apart, and follow the latents over them.

    Raises InputError if the model's window is too large for the lattice.
    """
    engine = Engine(model, torch.device("cpu"), "fp32", model.scaling, step)
    inside = still_inside(engine.window, step, period)
    if not inside.any():
        raise InputError(
            f"model {model.name}: no window of {engine.window} pixels stays inside the lattice, which is "
            f"{PATCH[1] - PATCH[0]} pixels wide; choose a model with a smaller window."
        )
    movie, frame_range = for_engine(np.stack(list(frames(movement, period))), model.scaling, engine.window)
    grid = WindowGrid(movie.shape[1], movie.shape[2], engine.window, step)
    tiling = Tiling(grid, engine.block, grid.rows, grid.columns)
    z = np.empty((len(movie), *inside.shape, engine.latents), np.float32)
    variance = np.empty((engine.latents, *inside.shape), np.float32)
    test = PermutationTest(Comparison.with_time(len(movie)), engine.device)
    for block in tiling.blocks(tiling.tiles[0]):
        y, x = grid.area(block)
        encoded, valid = engine.encode(movie[:, y, x], np.ones((len(movie), 1), bool), frame_range)
        rows, columns = slice(block.row0, block.row1), slice(block.column0, block.column1)
        z[:, rows, columns] = encoded.view(len(movie), *block.shape, -1)
        variance[:, rows, columns] = series_statistics(encoded, valid, test).variance.T.view(-1, *block.shape)
    return Response(movement, variance, inside, z[:, inside])


def lattice_period(model: Model) -> float:
    """The period (pixels) of the lattice a model is tested on: the article's, if the model reconstructs it."""
    known = reconstructed_periods(model)
    if known is None or known[0] <= PERIOD <= known[1]:
        return PERIOD
    return math.sqrt(known[0] * known[1])


def respond_to_all(model: Model, period: float) -> list[Response]:
    """The responses to all three movements, windows 16 pixels apart."""
    return [respond(model, movement, period, _STEP) for movement in MOVEMENTS]


def overlap(one: list[int], other: list[int]) -> float:
    """The share of two sets of latents that is in both (Jaccard's index): 0 if disjoint, 1 if the same."""
    return len(set(one) & set(other)) / len(set(one) | set(other))


def similarity(one: np.ndarray, other: np.ndarray) -> float:
    """The cosine between two spectra of variance [latents]: 0 if no latent is in both, 1 if they are alike."""
    return float(one @ other / np.sqrt((one @ one) * (other @ other)))
