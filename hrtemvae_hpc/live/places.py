"""Where most happens in a result: a few windows, apart from each other, for people and programs at a microscope."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from hrtemvae_hpc.maps.axes import spatial_axes
from hrtemvae_hpc.maps.certainty import enough_frames
from hrtemvae_hpc.maps.result import Result

_MOST = 8
_CHANCE = 0.05  # that any rho of the movie is as large, at most


@dataclass(frozen=True)
class Place:
    """A window, and the latent that follows time most in it."""

    y: float  # of its centre, in the result's units
    x: float
    y_px: float  # in pixels of the movie's frame
    x_px: float
    strength: float  # the summed time-correlated variance of all latents
    latent: int
    rho: float
    variance: float
    since_frame: int  # the first after its change
    since_s: float | None  # the same in seconds, where times are known

    def as_json(self) -> dict[str, Any]:
        """The same as an object of JSON."""
        return asdict(self)


def strongest_places(result: Result) -> list[Place]:
    """The windows of ``result`` with most time-correlated variance, a window apart or more, the strongest first.

    Only those in which the latent that follows time most does so beyond chance.
    """
    correlated = np.nan_to_num(np.stack([result.maps("time_correlated_variance", k) for k in result.latent]))
    leading = correlated.argmax(0)
    rows, columns = np.indices(leading.shape)
    chance = np.stack([result.maps("significance", k) for k in result.latent])[leading, rows, columns]
    strength = np.where((chance <= _CHANCE) & enough_frames(result.valid_frames), correlated.sum(0), 0)
    apart = -(-result.process.window // result.process.step)
    places: list[Place] = []
    while len(places) < _MOST and strength.any():
        row, column = np.unravel_index(strength.argmax(), strength.shape)
        places.append(_place(result, int(row), int(column), int(leading[row, column]), float(strength[row, column])))
        strength[max(0, row - apart + 1) : row + apart, max(0, column - apart + 1) : column + apart] = 0
    return places


def _place(result: Result, row: int, column: int, latent: int, strength: float) -> Place:
    process = result.process
    y, x = spatial_axes(process.grid, process.region[::2], process.resampling, process.pixel_size)
    timed = "change/time" in result.file["entry"]
    return Place(
        y=float(result.y[row]),
        x=float(result.x[column]),
        y_px=float(y.pixels[row]),
        x_px=float(x.pixels[column]),
        strength=strength,
        latent=latent,
        rho=float(result.maps("spearman", latent)[row, column]),
        variance=float(result.maps("variance", latent)[row, column]),
        since_frame=int(result.maps("change/frame", latent)[row, column]),
        since_s=float(result.maps("change/time", latent)[row, column]) if timed else None,
    )
