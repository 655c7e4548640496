"""A movie and a model, opened together on each rank, with what computes tiles."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from hrtemvae_hpc import __version__
from hrtemvae_hpc.analysis.parts import describe_difference
from hrtemvae_hpc.analysis.plan import Plan, check_smallest_read, make_plan
from hrtemvae_hpc.analysis.scale import make_resampler
from hrtemvae_hpc.analysis.stage import MEMORY, free_bytes, scratch_bytes
from hrtemvae_hpc.analysis.worker import Worker
from hrtemvae_hpc.config import AnalysisConfig
from hrtemvae_hpc.errors import InputError, RankFailed
from hrtemvae_hpc.model.checkpoint import DEFAULT_MODEL, Model, load_model
from hrtemvae_hpc.movie.movie import Movie
from hrtemvae_hpc.movie.resample import Resampler
from hrtemvae_hpc.movie.tiles import TileReader
from hrtemvae_hpc.ranks.resources import (
    RankResources,
    arithmetic,
    bind_device,
    compute_threads,
    device_name,
    node_free_bytes,
    process_bytes,
)
from hrtemvae_hpc.ranks.world import World
from hrtemvae_hpc.statistics.over_time import MINIMUM_FRAMES
from hrtemvae_hpc.windows.engine import Engine
from hrtemvae_hpc.windows.grid import Tiling, WindowGrid
from hrtemvae_hpc.windows.layers import has_bfloat16


@dataclass(frozen=True)
class Job:
    """What every rank holds: the opened movie, the model, and what computes tiles."""

    config: AnalysisConfig
    movie: Movie
    model: Model
    grid: WindowGrid
    worker: Worker
    resources: RankResources

    @property
    def arithmetic(self) -> dict[str, str]:
        """What decides the last bits of the result."""
        return arithmetic(self.worker.engine.device)

    @property
    def identity(self) -> dict[str, object]:
        """All that decides what the numbers of the result mean."""
        c = self.config
        return {
            "movie": self.movie.fingerprint,
            "region": [self.movie.top, self.movie.left, *self.movie.shape],
            "frames": self.movie.frame_indices.tolist(),
            "model": self.model.sha256,
            "preprocess": c.preprocess.model_dump(),
            "frame": self.worker.reader.shape,
            "windows": c.windows.model_dump(),
            "precision": c.encoding.precision,
            "version": __version__,
        }


def _model_path(config: AnalysisConfig) -> Path:
    return Path(config.encoding.model) if config.encoding.model else DEFAULT_MODEL


def _make_grid(movie: Movie, model: Model, config: AnalysisConfig, resampler: Resampler | None) -> WindowGrid:
    """The windows of a movie; raises InputError where it has too few frames or too small ones."""
    frames, height, width = movie.shape
    if resampler:
        height, width = resampler.shape
    window = model.architecture.window
    if frames < MINIMUM_FRAMES:
        raise InputError(
            f"{movie.where}: {frames} frame{'s' * (frames != 1)} can't vary over time, at least {MINIMUM_FRAMES} "
            "are needed; check --frames and --axes."
        )
    if min(height, width) < window:
        raise InputError(
            f"{movie.where}: {height} x {width} pixels are smaller than the model's window of {window}; "
            "check --roi, --axes and --resample, or choose a model with a smaller window."
        )
    return WindowGrid(height, width, window, config.windows.step)


def check_alone(path: Path, config: AnalysisConfig) -> list[Path]:
    """Refuse on rank 0 what every rank would refuse, so that it is said once; returns the files to be read."""
    model_path = _model_path(config)
    model = load_model(model_path)
    with Movie(path, config.movie) as movie:
        _make_grid(movie, model, config, make_resampler(movie, model, config))
        return [*movie.files, model_path]


def _start_engine(world: World, model: Model, config: AnalysisConfig) -> Engine:
    try:
        device = bind_device(world)
        return Engine(model, device, config.encoding.precision, config.windows.scaling, config.windows.step)
    except (RuntimeError, ImportError) as error:
        raise _device_failed(world, error) from error


def _device_failed(world: World, error: Exception) -> RankFailed:
    what = " ".join(str(error).split())
    return RankFailed(f"rank {world.rank} on {world.host}: its device can't be used ({what}).")


@contextmanager
def open_job(world: World, path: Path, config: AnalysisConfig) -> Iterator[Job]:
    """Open movie and model on this rank.

    Raises InputError when they can't be analysed together, RankFailed when this rank's device can't be used.
    """
    model = load_model(_model_path(config))
    with Movie(path, config.movie) as movie:
        engine = _start_engine(world, model, config)
        resampler = make_resampler(movie, model, config)
        grid = _make_grid(movie, model, config, resampler)
        reader = TileReader(movie, config.preprocess, config.windows.scaling == "frame", resampler)
        threads = compute_threads(world)
        worker = Worker(engine, reader, grid, threads, config.movie.on_bad_frame == "skip")
        check_smallest_read(reader, grid, config.run.max_memory or node_free_bytes())
        try:
            encode_rate, decode_rate = worker.trial()
        except RuntimeError as error:
            raise _device_failed(world, error) from error
        resources = RankResources(
            world.rank,
            world.host,
            os.getpid(),
            device_name(engine.device),
            engine.device.type,
            threads,
            process_bytes(),
            node_free_bytes(),
            free_bytes(MEMORY),
            scratch_bytes(),
            encode_rate,
            decode_rate,
            engine.device.type != "cpu" or has_bfloat16(),
        )
        yield Job(config, movie, model, grid, worker, resources)


def plan_job(job: Job, ranks: list[RankResources], known: Tiling | None) -> Plan:
    """The plan of ``job`` on ``ranks``, by the ``known`` tiling if there is one; raises InputError as make_plan."""
    worker = job.worker
    return make_plan(worker.engine, worker.reader, job.grid, ranks, job.config.run.max_memory, known)


def check_same(world: World, job: Job) -> list[RankResources]:
    """What all ranks have to work with; raises InputError where they would not compute the same numbers."""
    ranks = world.allgather(job.resources)
    known = world.allgather((job.identity, job.arithmetic))

    def check() -> None:
        for rank, (identity, own) in zip(ranks, known, strict=True):
            if own != job.arithmetic:
                raise InputError(
                    f"rank {rank.rank} on {rank.host} computes with {describe_difference(own, job.arithmetic)} as rank "
                    "0: the last digits of their numbers would differ; give all ranks the same kind of processor, or "
                    "of GPU that PyTorch sees (or none, with CUDA_VISIBLE_DEVICES=), and the same software."
                )
            if identity != job.identity:
                raise InputError(
                    f"the movie or model is another one on {rank.host} than on {ranks[0].host}, under the same name; "
                    f"make rank {rank.rank} see the same files."
                )

    world.on_root(check)
    return ranks
