"""How the scale of a movie fits that of a model: the factor by which frames are resampled, and what to warn of."""

import math

import numpy as np
import torch

from hrtemvae_hpc.area import Area
from hrtemvae_hpc.config import AnalysisConfig
from hrtemvae_hpc.errors import InputError
from hrtemvae_hpc.fourier.fringes import find_fringes
from hrtemvae_hpc.fourier.threshold import FRINGE_THRESHOLD
from hrtemvae_hpc.model.model_file import Model
from hrtemvae_hpc.model.periods import reconstructed_periods
from hrtemvae_hpc.movie.movie import Movie
from hrtemvae_hpc.movie.resample import Resampler, scaled_shape, source_area
from hrtemvae_hpc.movie.tiles import TilePixels

_ALIKE = 0.02  # relative difference of scales that is not worth resampling
_FAR = 1.25  # ratio of scales above which a movie is said to lie outside a model's
_LOOKED_AT = 512  # windows whose lattice period is measured, and where the first frame costs much of the movie
_LOOKED_AT_THERE = 32
_MUCH = 0.1, 2**28  # share of the movie, and bytes, that are decoded for it
_FEW = 0.05  # share of windows with fringes below which their period says nothing


def make_resampler(movie: Movie, model: Model, config: AnalysisConfig) -> Resampler | None:
    """What brings the frames of ``movie`` to the scale that ``config`` asks for, None where they stay as they are.

    Raises InputError where the model's scale is asked for and movie or model has none.
    """
    wanted = config.preprocess.resample
    if wanted is None:
        return None
    factor = _model_factor(movie, model) if wanted == "model" else wanted
    if abs(factor - 1) < _ALIKE:
        return None
    height, width = movie.shape[1:]
    try:
        return Resampler(height, width, scaled_shape(height, width, factor))
    except ValueError as error:
        raise InputError(
            f"{movie.where}: can't be resampled, {error}; check the pixel sizes of the movie and of model {model.name}."
        ) from error


def _model_factor(movie: Movie, model: Model) -> float:
    own = _pixel_size(movie)
    if own is None:
        raise InputError(f"{movie.where}: has no pixel size to scale from; give a number, --resample 2.5 for example.")
    if model.trained_on.pixel_size_nm is None:
        raise InputError(
            f"model {model.name}: knows no pixel size to scale to; give a number, --resample 2.5 for example."
        )
    return own / model.trained_on.pixel_size_nm


def _pixel_size(movie: Movie) -> float | None:
    return None if movie.pixel_size_nm is None else float(np.mean(movie.pixel_size_nm))


def lattice_period(movie: Movie, window: int, resampler: Resampler | None) -> tuple[float, float]:
    """Median period (pixels) of the lattice fringes in the first frame, and the share of its windows that hold any.

    The frame is resampled, but not filtered. (NaN, 0) where it can't be decoded.
    """
    rows, columns = resampler.shape if resampler else movie.shape[1:]
    places = [
        Area(slice(y, y + window), slice(x, x + window))
        for y in range(0, rows - window + 1, window)
        for x in range(0, columns - window + 1, window)
    ]
    chosen = [places[i] for i in np.random.default_rng(0).permutation(len(places))[:_LOOKED_AT]]
    few = chosen[:_LOOKED_AT_THERE]
    sources = [source_area(resampler, place) for place in few]
    frame_bytes = movie.chunk_grid.decoded_bytes(movie.area, slice(0, 1))
    few_bytes = sum(movie.chunk_grid.decoded_bytes(source, slice(0, 1)) for source in sources)
    try:
        if frame_bytes > max(_MUCH[0] * movie.chunk_grid.decoded_bytes(movie.area), _MUCH[1], few_bytes):
            patches = [
                _first_frame(movie, source, resampler).patch(place)[0]
                for source, place in zip(sources, few, strict=True)
            ]
        else:
            tile = _first_frame(movie, movie.area, resampler)
            patches = [tile.patch(place)[0] for place in chosen]
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
    return TilePixels.of(movie.read(slice(0, 1), area), area, resampler)


def describe_scale(movie: Movie, model: Model, resampler: Resampler | None) -> tuple[str, list[str]]:
    """A line on the lattice of the movie and those that the model reconstructs, and warnings where they don't fit."""
    trained_at = model.trained_on.pixel_size_nm
    known_periods = reconstructed_periods(model)
    period, share = lattice_period(movie, model.architecture.window, resampler)
    line = f"fringes in {share:.0%} of the windows of the first frame" + (
        f", median period {period:.1f} pixels" if share else ""
    )
    if known_periods:
        line += f"; the model reconstructs periods of {known_periods[0]} to {known_periods[1]} pixels"
    if resampler:
        height, width = resampler.shape
        more = height * width / (movie.shape[1] * movie.shape[2])
        line += f"; resampled to {height} x {width}, {more:.3g} times the windows"
    warnings = []
    own = _pixel_size(movie)
    if own and trained_at:
        analysed = own * movie.shape[1] / (resampler.shape[0] if resampler else movie.shape[1])
        if not 1 / _FAR <= analysed / trained_at <= _FAR:
            warnings.append(
                f"the frames have {analysed:.4g} nm/pixel, the model was trained at {trained_at:.4g}: its "
                "maps may mean little. --resample model brings the frames to the model's scale, at "
                f"{(own / trained_at) ** 2:.2g} times the windows of the movie as it is."
            )
    if known_periods and share > _FEW and not known_periods[0] - 0.5 <= period <= known_periods[1] + 0.5:
        factor = math.sqrt(known_periods[0] * known_periods[1]) / period
        warnings.append(
            f"the lattice period of {period:.1f} pixels lies outside those that the model reconstructs "
            f"({known_periods[0]} to {known_periods[1]}); --resample {factor:.2g} would bring it inside."
        )
    return line, warnings
