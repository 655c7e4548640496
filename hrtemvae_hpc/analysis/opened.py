"""A movie and a model, opened together on each rank, and what computes tiles of them."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from hrtemvae_hpc import __version__
from hrtemvae_hpc.analysis.against import check_partial, read_against
from hrtemvae_hpc.analysis.parts import describe_difference
from hrtemvae_hpc.analysis.plan import Plan, check_smallest_read, make_plan
from hrtemvae_hpc.analysis.scale import make_transform, with_scaling
from hrtemvae_hpc.analysis.stage import StageRoom, stage_room
from hrtemvae_hpc.analysis.trial import measure_rates
from hrtemvae_hpc.config import AnalysisConfig
from hrtemvae_hpc.drift.drift import Drift
from hrtemvae_hpc.drift.measure import binning_of
from hrtemvae_hpc.drift.table import read_drift
from hrtemvae_hpc.errors import Blocked, InputError
from hrtemvae_hpc.model.model_file import Model, load_model, model_path
from hrtemvae_hpc.movie.movie import Movie
from hrtemvae_hpc.movie.tiles import TileReader
from hrtemvae_hpc.movie.transform import Transform
from hrtemvae_hpc.processor import has_bfloat16
from hrtemvae_hpc.ranks.node import node_free_bytes
from hrtemvae_hpc.ranks.resources import (
    RankResources,
    arithmetic,
    bind_device,
    compute_threads,
    device_name,
    process_bytes,
)
from hrtemvae_hpc.ranks.world import World
from hrtemvae_hpc.statistics.over_time import MINIMUM_FRAMES
from hrtemvae_hpc.windows.engine import Engine
from hrtemvae_hpc.windows.grid import Tiling, WindowGrid

_LEAST_SIDE = 16  # pixels that are left of a region's side, after binning, to measure drift in it


@dataclass(frozen=True)
class Opened:
    """A movie and a model that can be analysed together."""

    config: AnalysisConfig
    movie: Movie
    model: Model
    transform: Transform
    grid: WindowGrid
    given_drift: Drift | None  # of the table in the configuration
    against: np.ndarray | None  # [frames], of the log in the configuration

    @property
    def files(self) -> list[Path]:
        """The files that are read."""
        drift = [Path(self.config.drift.correct)] if self.given_drift is not None else []
        log = [Path(self.config.statistics.against)] if self.config.statistics.against else []
        return [*self.movie.files, model_path(self.config.encoding.model), *drift, *log]


@dataclass(frozen=True)
class Job:
    """What every rank needs to compute tiles of a movie."""

    config: AnalysisConfig
    movie: Movie
    model: Model
    grid: WindowGrid
    engine: Engine
    reader: TileReader
    resources: RankResources
    given_drift: Drift | None
    against: np.ndarray | None

    @property
    def arithmetic(self) -> dict[str, str]:
        """What determines the last bits of the result."""
        return arithmetic(self.engine.device) | self.engine.arithmetic

    @property
    def identity(self) -> dict[str, object]:
        """Everything that determines what the numbers of the result mean."""
        c = self.config
        given = self.given_drift
        drift = c.drift.correct if given is None else [given.dy.tolist(), given.dx.tolist()]
        return {
            "movie": self.movie.fingerprint,
            "region": [self.movie.top, self.movie.left, *self.movie.shape],
            "frames": self.movie.frame_indices.tolist(),
            "calibration": [self.movie.pixel_size_nm, self.movie.frame_time_s],
            "model": self.model.sha256,
            "drift": [c.drift.model_dump(exclude={"correct"}), drift],
            "preprocess": c.preprocess.model_dump(),
            "frame": self.reader.shape,
            "windows": c.windows.model_dump(),
            "precision": c.encoding.precision,
            "statistics": [None if self.against is None else self.against.tolist(), c.statistics.partial],
            "version": __version__,
        }


@contextmanager
def open_inputs(world: World, path: Path, config: AnalysisConfig) -> Iterator[Opened]:
    """Open movie and model on every rank. Raises InputError if they can't be analysed together."""
    model = world.on_all(lambda: load_model(model_path(config.encoding.model)))
    with world.on_all(lambda: Movie(path, config.movie, config.drift.roi)) as movie:
        yield world.on_all(lambda: fit(movie, model, config))


def fit(movie: Movie, model: Model, config: AnalysisConfig) -> Opened:
    """Lay windows of the model over the movie; raises InputError if it has too few frames or too small ones."""
    config = with_scaling(config, model)
    transform = make_transform(movie, model, config)
    frames, height, width = movie.shape
    if transform.resampler:
        height, width = transform.resampler.shape
    window = model.architecture.window
    if frames < MINIMUM_FRAMES:
        raise InputError(
            f"{movie.where}: {frames} frame{'s' * (frames != 1)} can't vary over time (at least {MINIMUM_FRAMES} "
            "are needed); check --frames and --axes."
        )
    if min(height, width) < window:
        raise InputError(
            f"{movie.where}: {height} x {width} pixels are smaller than the model's window of {window}; "
            "check --roi, --axes and --resample, or choose a model with a smaller window."
        )
    given = None
    if config.drift.correct not in ("auto", "none"):
        given = read_drift(Path(config.drift.correct), movie.frame_indices, *movie.full_shape[1:])
    check_partial(config)
    if config.drift.correct != "none" and config.drift.roi:
        _check_drift_region(movie.region(config.drift.roi))
    log = config.statistics.against
    against = None if log is None else read_against(Path(log), movie)
    grid = WindowGrid(height, width, window, config.windows.step)
    return Opened(config, movie, model, transform, grid, given, against)


def _check_drift_region(region: Movie) -> None:
    """Raise InputError if drift can't be measured in ``region``, as it is too narrow."""
    height, width = region.shape[1:]
    least = _LEAST_SIDE * binning_of((height, width))
    if min(height, width) < least:
        raise InputError(
            f"{region.where}: --drift-roi names {height} x {width} pixels, in which no drift can be measured; name at "
            f"least {least} along each side."
        )


def prepare(world: World, opened: Opened) -> Job:
    """Make this rank ready to compute tiles, and try it out. Every rank calls this.

    Raises InputError if the memory is too small for any tile, Blocked if a rank's device can't be used.
    """
    threads, room = compute_threads(world), stage_room(world)
    return world.on_all(lambda: _prepare(world, opened, threads, room))


def _prepare(world: World, opened: Opened, threads: int, room: StageRoom) -> Job:
    config, movie, grid = opened.config, opened.movie, opened.grid
    try:
        engine = make_engine(opened.model, bind_device(world), config)
        reader = TileReader(movie, config.preprocess, engine.scaling == "frame", opened.transform)
        check_smallest_read(reader, grid, config.run.max_memory or node_free_bytes())
        encode_rate, decode_rate = measure_rates(engine, reader, grid, threads)
    except (RuntimeError, ImportError) as error:
        what = " ".join(str(error).split())
        raise Blocked(f"the device can't be used ({what}); see `hrtemvae doctor`.") from error
    resources = RankResources(
        rank=world.rank,
        host=world.host,
        pid=os.getpid(),
        device=device_name(engine.device),
        device_type=engine.device.type,
        threads=threads,
        used=process_bytes(),
        node_free=node_free_bytes(),
        stage_memory=room.memory,
        stage_scratch=room.scratch,
        stage_private=room.private,
        encode_rate=encode_rate,
        decode_rate=decode_rate,
        without=engine.without,
        bfloat16=engine.device.type != "cpu" or has_bfloat16(),
    )
    return Job(config, movie, opened.model, grid, engine, reader, resources, opened.given_drift, opened.against)


def make_engine(model: Model, device: torch.device, config: AnalysisConfig) -> Engine:
    """The engine that ``config`` asks for; raises InputError if it isn't possible with ``model`` or ``device``."""
    scaling = config.windows.scaling or model.scaling
    return Engine(model, device, config.encoding.precision, scaling, config.windows.step)


def plan_job(job: Job, ranks: list[RankResources], known: Tiling | None) -> Plan:
    """The plan of ``job`` on ``ranks``, by the ``known`` tiling if any; raises InputError as ``make_plan`` does."""
    return make_plan(job.engine, job.reader, job.grid, ranks, job.config.run.max_memory, known)


def check_same(world: World, job: Job) -> list[RankResources]:
    """The resources of all ranks; raises InputError if they would not compute the same numbers."""
    world.check_same(
        job.arithmetic,
        lambda rank, theirs: (
            f"{rank} computes with {describe_difference(theirs, job.arithmetic)} as rank 0: the last digits of their "
            "numbers would differ; give all ranks the same kind of processor, the same kind of GPU visible to PyTorch "
            "(or none, with CUDA_VISIBLE_DEVICES=), and the same software."
        ),
    )
    world.check_same(
        job.identity,
        lambda rank, _: (
            f"{rank} sees a different movie or model than rank 0 under the same name; make it see the same files."
        ),
    )
    return world.allgather(job.resources)
