"""Where most happens in a movie: a few windows, apart from each other, for people and programs at a microscope."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hrtemvae_hpc.analysis.parts import TileMaps
from hrtemvae_hpc.maps.axes import Axis, spatial_axes
from hrtemvae_hpc.maps.certainty import chance_anywhere, enough_frames, typical_autocorrelation
from hrtemvae_hpc.maps.result import Result
from hrtemvae_hpc.statistics.over_time import ALL_MAPS

_MOST = 6  # places in one span
_CHANCE = 0.05  # that any rho of a movie without changes is as large, at most


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
    since_s: float | None  # its time since the movie's first frame, where times are known
    first_frame: int  # of the span that this was found in


@dataclass(frozen=True)
class Span:
    """Maps of a span of time that ends with the movie: [latents, rows, columns], but ``enough`` [rows, columns] bool.

    ``chance`` is that of such a rho anywhere, ``since`` the first frame after a change, and ``since_s`` its time;
    ``enough`` says which windows have enough frames.
    """

    first_frame: int
    correlated: np.ndarray
    rho: np.ndarray
    variance: np.ndarray
    chance: np.ndarray
    since: np.ndarray
    since_s: np.ndarray | None
    enough: np.ndarray

    @classmethod
    def of_result(cls, result: Result) -> "Span":
        """That of a whole result."""

        def maps(name: str) -> np.ndarray:
            return np.stack([result.maps(name, int(latent)) for latent in result.latent])

        return cls(
            first_frame=result.process.frames[0],
            correlated=maps("time_correlated_variance"),
            rho=maps("spearman"),
            variance=maps("variance"),
            chance=maps("significance"),
            since=maps("change/frame"),
            since_s=maps("change/time") if "change/time" in result.file["entry"] else None,
            enough=enough_frames(result.valid_frames),
        )

    @classmethod
    def of_bins(cls, maps: TileMaps, ratios: np.ndarray, frames: np.ndarray, times_s: np.ndarray | None) -> "Span":
        """That of bins of frames, with their mean numbers ``frames`` and ``times_s`` [bins].

        ``ratios`` as of ``chance_anywhere``.
        """
        found = dict(zip(ALL_MAPS, maps.maps, strict=True))
        rho, autocorrelation = found["spearman"], found["autocorrelation"]
        typical = typical_autocorrelation(autocorrelation)
        chance = chance_anywhere(rho, autocorrelation, typical, ratios, maps.largest_rho)
        numbers = np.arange(len(frames))
        return cls(
            first_frame=round(frames[0]),
            correlated=found["time_correlated_variance"],
            rho=rho,
            variance=found["variance"],
            chance=chance,
            since=np.interp(found["change"], numbers, frames),
            since_s=None if times_s is None else np.interp(found["change"], numbers, times_s),
            enough=enough_frames(maps.valid_frames),
        )


def axes_of_result(result: Result) -> list[Axis]:
    """The axes y and x of a result's windows."""
    process = result.process
    return spatial_axes(process.grid, process.region[::2], process.resampling, process.pixel_size)


def strongest_places(spans: Sequence[Span], axes: Sequence[Axis], apart: int) -> list[Place]:
    """The windows with most time-correlated variance in each of ``spans``, ``apart`` windows from each other or more.

    Only those in which the latent that follows time most does so beyond chance. A place of an earlier span is not
    repeated for the next.
    """
    places: list[Place] = []
    free = np.ones(spans[0].enough.shape, bool)
    for span in spans:
        correlated = np.nan_to_num(span.correlated)
        leading = correlated.argmax(0)[None]
        certain = np.take_along_axis(span.chance, leading, 0)[0] <= _CHANCE / len(spans)
        strength = np.where(certain & span.enough & free, correlated.sum(0), 0)
        for _ in range(_MOST):
            row, column = np.unravel_index(strength.argmax(), strength.shape)
            if not strength[row, column]:
                break
            places.append(_place(span, axes, int(leading[0, row, column]), int(row), int(column)))
            around = (
                slice(max(0, row - apart + 1), row + apart),
                slice(max(0, column - apart + 1), column + apart),
            )
            strength[around], free[around] = 0, False
    return places


def _place(span: Span, axes: Sequence[Axis], latent: int, row: int, column: int) -> Place:
    y, x = axes
    at = latent, row, column
    return Place(
        y=float(y.pixels[row] * y.size),
        x=float(x.pixels[column] * x.size),
        y_px=float(y.pixels[row]),
        x_px=float(x.pixels[column]),
        strength=float(np.nansum(span.correlated[:, row, column])),
        latent=latent,
        rho=float(span.rho[at]),
        variance=float(span.variance[at]),
        since_frame=round(float(span.since[at])),
        since_s=None if span.since_s is None else float(span.since_s[at]),
        first_frame=span.first_frame,
    )
