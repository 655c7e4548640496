"""What a result was made of, opened again: the same movie, model, configuration and drift."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from hrtemvae_hpc.analysis.against import make_comparison, read_against
from hrtemvae_hpc.analysis.opened import make_engine
from hrtemvae_hpc.analysis.parts import describe_difference
from hrtemvae_hpc.analysis.scale import make_transform, with_scaling
from hrtemvae_hpc.config import AnalysisConfig
from hrtemvae_hpc.config_file import lists_to_tuples
from hrtemvae_hpc.errors import InputError
from hrtemvae_hpc.files import exists
from hrtemvae_hpc.maps.result import Result
from hrtemvae_hpc.model.model_file import Model, load_model, model_path
from hrtemvae_hpc.movie.movie import Movie
from hrtemvae_hpc.movie.tiles import TileReader
from hrtemvae_hpc.ranks.resources import arithmetic, bind_device, compute_threads
from hrtemvae_hpc.ranks.world import World
from hrtemvae_hpc.schemas import mistake
from hrtemvae_hpc.statistics.comparison import Comparison
from hrtemvae_hpc.windows.engine import Engine
from hrtemvae_hpc.windows.grid import WindowGrid


@dataclass(frozen=True)
class Reopened:
    """A result with its movie and model, ready to encode any of its windows again."""

    result: Result
    config: AnalysisConfig
    movie: Movie
    model: Model
    engine: Engine
    reader: TileReader
    comparison: Comparison  # what rho is computed with
    threads: int
    other_arithmetic: str  # how this machine computes otherwise than the result's; "" if it gives the same bits

    @property
    def grid(self) -> WindowGrid:
        """The windows of the result."""
        return self.result.process.grid

    @property
    def skip_bad_frames(self) -> bool:
        """Whether the analysis left out frames that can't be decoded."""
        return self.config.movie.on_bad_frame == "skip"

    @property
    def files(self) -> list[Path]:
        """The files that are read, besides the model."""
        return [self.result.path, *self.movie.files]


@contextmanager
def reopen(result: Result, movie: Path | None = None, model: Path | None = None) -> Iterator[Reopened]:
    """Open what ``result`` was made of, at the paths that it recorded or those given instead.

    Raises InputError if movie or model can't be found, or are not those of the result.
    """
    config = _configuration(result)
    network = _model(result, config, model)
    path = movie or Path(result.process.movie)
    if movie is None and not exists(path):
        raise InputError(f"{path}: the movie of {result.path} is not there; say where it is with --movie.")
    with Movie(path, config.movie, config.drift.roi) as opened:
        if opened.fingerprint != result.process.movie_fingerprint:
            raise InputError(
                f"{path}: is not the movie of {result.path}, or was changed since, by the size, the time and a sample "
                "of its files; name the right one with --movie (a copy keeps its time with cp -p)."
            )
        yield _ready(result, config, opened, network)


def _configuration(result: Result) -> AnalysisConfig:
    try:
        return AnalysisConfig.model_validate(lists_to_tuples(result.process.configuration))
    except ValidationError as error:
        raise InputError(
            f"{result.path}: its configuration is of another version of this program ({mistake(error)}); analyse the "
            "movie again."
        ) from error


def _model(result: Result, config: AnalysisConfig, given: Path | None) -> Model:
    path = model_path(given or config.encoding.model)
    if given is None and not exists(path):
        raise InputError(f"{path}: the model of {result.path} is not there; say where it is with --model.")
    model = load_model(path)
    if model.sha256 != result.process.model_sha256:
        raise InputError(
            f"{path}: is not the model of {result.path}, which is {result.process.model} with SHA-256 "
            f"{result.process.model_sha256}; name that one with --model."
        )
    return model


def _ready(result: Result, config: AnalysisConfig, movie: Movie, model: Model) -> Reopened:
    """Follow the drift as the analysis did, and make the engine that it had."""
    if movie.frame_indices.tolist() != result.process.frames:
        raise InputError(f"{result.path}: its frames are not those of its configuration; analyse the movie again.")
    curves = result.curves
    if curves is not None:
        shifts = np.stack([curves.applied_dy, curves.applied_dx], 1).astype(np.int64)
        skip = config.drift.on_blank_frame == "skip"
        movie.follow(shifts, curves.blank if skip else np.zeros_like(curves.blank))
    world = World()
    config = with_scaling(config, model)
    engine, windows = make_engine(model, bind_device(world), config), config.windows
    reader = TileReader(movie, config.preprocess, engine.scaling == "frame", make_transform(movie, model, config))
    grid = result.process.grid
    laid = reader.shape == (grid.height, grid.width) and (engine.window, windows.step) == (grid.window, grid.step)
    if not laid or engine.latents != len(result.latent):
        raise InputError(f"{result.path}: its windows are not those of its configuration; analyse the movie again.")
    against = None if config.statistics.against is None else read_against(Path(config.statistics.against), movie)
    comparison = make_comparison(movie, config, against, curves)
    differs = describe_difference(result.process.arithmetic, arithmetic(engine.device) | engine.arithmetic)
    return Reopened(result, config, movie, model, engine, reader, comparison, compute_threads(world), differs)
