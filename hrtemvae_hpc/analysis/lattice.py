"""The lattice of a movie: how long its period is, and whether the model reconstructs lattices like it."""

import math

import numpy as np
import torch

from hrtemvae_hpc.area import Area
from hrtemvae_hpc.fourier.fringes import find_fringes
from hrtemvae_hpc.fourier.threshold import FRINGE_THRESHOLD
from hrtemvae_hpc.model.model_file import Model
from hrtemvae_hpc.model.periods import reconstructed_periods
from hrtemvae_hpc.movie.movie import Movie
from hrtemvae_hpc.movie.resample import Resampler, source_area
from hrtemvae_hpc.movie.tiles import TilePixels
from hrtemvae_hpc.movie.transform import Transform

_MEASURED = 512  # windows whose lattice period is measured; fewer if the first frame costs much of the movie
_FEWER = 32
_MUCH = 0.1, 2**28  # share of the movie, and bytes, that are decoded for it
_FEW = 0.05  # share of windows with fringes below which their period says nothing


def lattice_period(movie: Movie, window: int, resampler: Resampler | None) -> tuple[float, float]:
    """Median period (pixels) of the lattice fringes in the first frame, and the share of its windows that hold any.

    The frame is resampled, but not filtered. (NaN, 0) if it can't be decoded.
    """
    rows, columns = resampler.shape if resampler else movie.shape[1:]
    places = [
        Area(slice(y, y + window), slice(x, x + window))
        for y in range(0, rows - window + 1, window)
        for x in range(0, columns - window + 1, window)
    ]
    chosen = [places[i] for i in np.random.default_rng(0).permutation(len(places))[:_MEASURED]]
    few = chosen[:_FEWER]
    sources = [source_area(resampler, place) for place in few]
    frame_bytes = movie.chunk_grid.decoded_bytes(movie.area, slice(0, 1))
    few_bytes = sum(movie.chunk_grid.decoded_bytes(source, slice(0, 1)) for source in sources)
    try:
        if frame_bytes > max(_MUCH[0] * movie.chunk_grid.decoded_bytes(movie.area), _MUCH[1], few_bytes):
            patches = [
                _first_frame(movie, source, resampler).patch(place).array()[0]
                for source, place in zip(sources, few, strict=True)
            ]
        else:
            tile = _first_frame(movie, movie.area, resampler)
            patches = [tile.patch(place).array()[0] for place in chosen]
    except OSError:
        return np.nan, 0.0
    finite = [torch.from_numpy(p.astype(np.float32)) for p in patches if np.isfinite(p).all()]
    if not finite:
        return np.nan, 0.0
    windows = torch.stack(finite)
    strength, period = find_fringes(windows)
    shown = strength > FRINGE_THRESHOLD
    return float(period[shown].median()) if shown.any() else np.nan, float(shown.float().mean())


def _first_frame(movie: Movie, area: Area, resampler: Resampler | None) -> TilePixels:
    """Pixels ``area`` of the first frame."""
    return TilePixels.of(movie.read(slice(0, 1), area), area, Transform(resampler))


def describe_lattice(movie: Movie, model: Model, resampler: Resampler | None) -> tuple[str, list[str]]:
    """A text about the movie's lattice and those that the model reconstructs, and warnings if they don't fit."""
    known_periods = reconstructed_periods(model)
    period, share = lattice_period(movie, model.architecture.window, resampler)
    line = f"fringes in {share:.0%} of the windows of the first frame" + (
        f", median period {period:.1f} pixels" if share else ""
    )
    if known_periods is None:
        return line, []
    shortest, longest = known_periods
    line += f"; the model reconstructs periods of {shortest} to {longest} pixels"
    if share <= _FEW or shortest - 0.5 <= period <= longest + 0.5:
        return line, []
    return line, [
        f"the lattice period of {period:.1f} pixels lies outside the range that the model reconstructs ({shortest} to "
        f"{longest}); --resample {math.sqrt(shortest * longest) / period:.2g} would bring it inside."
    ]
