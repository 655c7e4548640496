"""How the scale of a movie fits that of a model, and how its pixels are resampled and scaled for it."""

import numpy as np

from hrtemvae_hpc.config import AnalysisConfig
from hrtemvae_hpc.errors import InputError
from hrtemvae_hpc.model.model_file import Model
from hrtemvae_hpc.movie.movie import Movie
from hrtemvae_hpc.movie.resample import Resampler, scaled_shape
from hrtemvae_hpc.movie.transform import Transform
from hrtemvae_hpc.scaling import LocalScaling

_ALIKE = 0.02  # relative difference of scales that is not worth resampling
_FAR = 1.25  # ratio of scales above which a movie is said to lie outside a model's


def with_scaling(config: AnalysisConfig, model: Model) -> AnalysisConfig:
    """``config`` with the scaling of windows that ``model`` was trained with, unless it names one."""
    scaling = config.windows.scaling or model.scaling
    return config.model_copy(update={"windows": config.windows.model_copy(update={"scaling": scaling})})


def make_transform(movie: Movie, model: Model, config: AnalysisConfig) -> Transform:
    """What happens to the pixels of ``movie`` before ``model`` gets them; raises InputError as ``make_resampler``."""
    resampler = make_resampler(movie, model, config)
    shape = movie.shape[1:] if resampler is None else resampler.shape
    local = config.windows.scaling == "local"
    return Transform(resampler, LocalScaling(shape, model.architecture.window) if local else None)


def make_resampler(movie: Movie, model: Model, config: AnalysisConfig) -> Resampler | None:
    """The resampler that brings the frames of ``movie`` to the scale that ``config`` asks for, None if there is none.

    Raises InputError if the model's scale is requested and movie or model has none.
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
            f"{movie.where}: can't be resampled ({error}); check the pixel sizes of movie and model {model.name}."
        ) from error


def _model_factor(movie: Movie, model: Model) -> float:
    size = _pixel_size(movie)
    if size is None:
        raise InputError(f"{movie.where}: has no pixel size to scale from; give a factor such as --resample 2.5.")
    if model.trained_on.pixel_size_nm is None:
        raise InputError(f"model {model.name}: has no pixel size to scale to; give a factor such as --resample 2.5.")
    return size / model.trained_on.pixel_size_nm


def _pixel_size(movie: Movie) -> float | None:
    return None if movie.pixel_size_nm is None else float(np.mean(movie.pixel_size_nm))


def describe_scale(movie: Movie, model: Model, resampler: Resampler | None) -> tuple[str, list[str]]:
    """A text about the resampling ("" without), and warnings if the model was trained at another scale."""
    height, width = movie.shape[1:]
    rows, columns = resampler.shape if resampler else (height, width)
    more = rows * columns / (height * width)
    line = f"resampled to {rows} x {columns}, {more:.3g} times the windows" if resampler else ""
    size, trained_at = _pixel_size(movie), model.trained_on.pixel_size_nm
    if not size or not trained_at:
        return line, []
    analysed = size * height / rows
    if 1 / _FAR <= analysed / trained_at <= _FAR:
        return line, []
    return line, [
        f"the frames have {analysed:.4g} nm/pixel, but the model was trained at {trained_at:.4g}: its maps may "
        f"mean little. --resample model brings the frames to the model's scale, with "
        f"{(size / trained_at) ** 2:.2g} times the windows."
    ]
