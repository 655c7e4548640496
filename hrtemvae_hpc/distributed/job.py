"""One analysis from movie to result file, alone or as one of many ranks."""

import dataclasses
import os
import shlex
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from hrtemvae_hpc import __version__
from hrtemvae_hpc.config import AnalysisConfig
from hrtemvae_hpc.distributed.claim import Claim
from hrtemvae_hpc.distributed.coordinator import Coordinator, RankRecord, serve
from hrtemvae_hpc.distributed.guard import StopRequest, rank_age
from hrtemvae_hpc.distributed.parts import Parts, TileMaps
from hrtemvae_hpc.distributed.plan import Plan, make_plan
from hrtemvae_hpc.distributed.plan_text import describe_phases, describe_plan, describe_stages
from hrtemvae_hpc.distributed.progress import format_seconds, say
from hrtemvae_hpc.distributed.resources import (
    RankResources,
    bind_device,
    compute_threads,
    device_name,
    image_in_use,
    node_free_bytes,
    process_bytes,
)
from hrtemvae_hpc.distributed.scale import make_resampler
from hrtemvae_hpc.distributed.stage import MEMORY, free_bytes, open_stage, scratch, scratch_bytes
from hrtemvae_hpc.distributed.worker import Worker
from hrtemvae_hpc.distributed.world import World
from hrtemvae_hpc.errors import InputError, RankFailed
from hrtemvae_hpc.files import check_output
from hrtemvae_hpc.maps.result import ResultInfo, result_identity, write_result
from hrtemvae_hpc.model.checkpoint import DEFAULT_MODEL, Model, load_model
from hrtemvae_hpc.movie.movie import Movie
from hrtemvae_hpc.movie.preview import first_and_last
from hrtemvae_hpc.movie.resample import Resampler
from hrtemvae_hpc.movie.tiles import TileReader
from hrtemvae_hpc.statistics.over_time import MINIMUM_FRAMES
from hrtemvae_hpc.windows.engine import Engine
from hrtemvae_hpc.windows.grid import Rectangle, Tiling, WindowGrid
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
    def identity(self) -> dict[str, object]:
        """All that decides the numbers of the result."""
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
            "device": self.resources.device_type,
            "version": __version__,
        }


def _load_model(config: AnalysisConfig) -> Model:
    return load_model(Path(config.encoding.model) if config.encoding.model else DEFAULT_MODEL)


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


def _check_alone(path: Path, config: AnalysisConfig) -> None:
    """Refuse on rank 0 what every rank would refuse, so that it is said once."""
    model = _load_model(config)
    with Movie(path, config.movie) as movie:
        _make_grid(movie, model, config, make_resampler(movie, model, config))


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
    model = _load_model(config)
    with Movie(path, config.movie) as movie:
        engine = _start_engine(world, model, config)
        resampler = make_resampler(movie, model, config)
        grid = _make_grid(movie, model, config, resampler)
        reader = TileReader(movie, config.preprocess, config.windows.scaling == "frame", resampler)
        threads = compute_threads(world)
        worker = Worker(engine, reader, grid, threads, config.movie.on_bad_frame == "skip")
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


def plan_analysis(world: World, path: Path, config: AnalysisConfig) -> str:
    """The plan of an analysis, in words, on every rank."""
    world.on_root(lambda: _check_alone(path, config))
    with open_job(world, path, config) as job:
        ranks = _check_same(world, job)
        return world.on_root(
            lambda: describe_plan(job.worker.reader, job.model, config, _plan(job, ranks, None), ranks)
        )


def _plan(job: Job, ranks: list[RankResources], known: Tiling | None) -> Plan:
    worker = job.worker
    return make_plan(worker.engine, worker.reader, job.grid, ranks, job.config.run.max_memory, known)


def analyze(world: World, path: Path, config: AnalysisConfig, output: Path, restart: bool, stop: StopRequest) -> bool:
    """Analyse ``path`` and write the result file ``output``; returns, on rank 0, whether there was anything to do.

    Goes on with what an earlier, stopped run of the same analysis left behind, unless ``restart``.
    Raises InputError, Stopped or RankFailed; ranks other than 0 leave with the job's exit code.
    """
    began = time.monotonic() - rank_age()

    def check() -> None:
        _check_alone(path, config)
        check_output(output, "the result", [path], ".html")

    world.on_root(check)
    with open_job(world, path, config) as job:
        ranks = _check_same(world, job)
        parts = Parts(output, job.identity, allow_bad_frames=config.movie.on_bad_frame == "skip")
        claim = Claim(parts.folder)
        plan = world.on_root(lambda: _prepare(job, ranks, parts, claim, output, restart))
        if plan is None:
            if world.is_root:
                say(f"{output} already holds this analysis; --restart would compute it again.")
            return False
        with claim if world.is_root else nullcontext():
            if world.is_root:
                say(describe_plan(job.worker.reader, job.model, config, plan, ranks))
            if plan.source != "movie":
                folder = MEMORY if plan.source == "memory" else scratch()
                job.worker.stage = open_stage(world, job.worker.reader, folder)
            if not world.is_root:
                silent_after = config.run.silent_after
                code = serve(world, job.worker, plan.tiling, RankRecord(job.resources), stop, silent_after)
                world.leave(code)
            started = time.monotonic()
            coordinator = Coordinator(world, job.worker, plan.tiling, parts, ranks, config.run.silent_after, claim.tell)
            bad = _compute(job, plan, coordinator, parts, output, began, stop)
        if not config.run.keep_parts:
            parts.discard()
        seconds = time.monotonic() - began
        ends = {
            "start": started,
            "staging": coordinator.staged_at,
            "tiles": coordinator.done_at,
            "result": began + seconds,
        }
        say(describe_stages(coordinator.records, seconds))
        say(describe_phases(began, ends))
        if bad:
            say(f"left out because it can't be decoded: frame {', '.join(map(str, bad))}.")
        say(f"result: {output} ({format_seconds(seconds)})")
        return True


def _prepare(
    job: Job, ranks: list[RankResources], parts: Parts, claim: Claim, output: Path, restart: bool
) -> Plan | None:
    """What is to be done, None where it is done already; from then on the folder of parts is this run's."""
    claim.check()
    if restart:
        parts.discard()
    elif output.exists() and not parts.replaces_result():
        _check_existing(output, parts)
        if not job.config.run.keep_parts:
            parts.discard()
        return None
    plan = _plan(job, ranks, parts.known_tiling())
    parts.start(plan.tiling, replaces=output.exists())
    claim.take()
    return plan


def _compute(
    job: Job, plan: Plan, coordinator: Coordinator, parts: Parts, output: Path, began: float, stop: StopRequest
) -> list[int]:
    """Have the missing tiles computed and the result written; returns the frames that were left out."""
    if coordinator.resumed:
        say(f"going on: {len(coordinator.resumed)} of {plan.tiling.count} tiles are there already.")
    try:
        coordinator.run(stop)
    except InputError:
        if not coordinator.finished:
            parts.discard()
        raise
    info = _result_info(job, plan, coordinator, parts, time.monotonic() - began)
    try:
        return write_result(output, parts.folder, info, _finished_tiles(parts, plan.tiling))
    except OSError as error:
        raise RankFailed(
            f"{output}: can't be written ({error.strerror or error}); the tiles are kept in {parts.folder}, make "
            "room and run the same command again."
        ) from error


def _check_same(world: World, job: Job) -> list[RankResources]:
    """What all ranks have to work with; raises InputError where they would not compute the same numbers."""
    ranks, identities = world.allgather(job.resources), world.allgather(job.identity)

    def check() -> None:
        for rank, identity in zip(ranks, identities, strict=True):
            if rank.device_type != ranks[0].device_type:
                raise InputError(
                    f"rank {rank.rank} on {rank.host} computes on {rank.device}, rank 0 on {ranks[0].device}: their "
                    "numbers would differ; give each rank a GPU that PyTorch sees, or none (CUDA_VISIBLE_DEVICES=)."
                )
            if identity != identities[0]:
                raise InputError(
                    f"the movie or model is another one on {rank.host} than on {ranks[0].host}, under the same name; "
                    f"make rank {rank.rank} see the same files."
                )

    world.on_root(check)
    return ranks


def _check_existing(output: Path, parts: Parts) -> None:
    """Raise InputError unless ``output`` holds just this analysis."""
    identity, bad_frames = result_identity(output)
    if identity != parts.key:
        raise InputError(
            f"{output}: exists and holds something else; choose another output with -o, or replace it with --restart."
        )
    if bad_frames and not parts.allow_bad_frames:
        raise InputError(
            f"{output}: exists, but leaves out frames that can't be decoded; accept it with --on-bad-frame skip, "
            "or replace it with --restart."
        )


def _finished_tiles(parts: Parts, tiling: Tiling) -> Iterator[tuple[Rectangle, TileMaps]]:
    for tile in tiling.tiles:
        done = parts.load(tile)
        if done is None:
            raise RankFailed(f"{parts.folder}: the part of {tile} is gone; run the same command again.")
        yield tile, done


def _result_info(job: Job, plan: Plan, coordinator: Coordinator, parts: Parts, seconds: float) -> ResultInfo:
    movie, config, records, worker = job.movie, job.config, coordinator.records, job.worker
    staged = worker.stage.pixels if worker.stage and coordinator.staged and worker.stages_frames else None
    decoded = sum(r.decoded_bytes for r in records)
    resumed = sum(plan.tiling.tiles[i].windows for i in coordinator.resumed) / (job.grid.rows * job.grid.columns)
    needed = plan.needed_bytes * (1 - resumed)
    stages = {stage: sum(r.seconds[stage] for r in records) for stage in records[0].seconds}
    return ResultInfo(
        identity=parts.key,
        grid=job.grid,
        latent_source_index=job.model.latent_order,
        origin=(movie.top, movie.left),
        pixel_size_nm=movie.pixel_size_nm,
        frame_time_s=movie.frame_time_s,
        resampling=(worker.reader.shape[0] / movie.shape[1], worker.reader.shape[1] / movie.shape[2]),
        preview=first_and_last(movie, staged),
        process={
            "program": "hrtemvae",
            "version": __version__,
            "command_line": shlex.join(sys.argv),
            "configuration": config.model_dump(mode="json"),
            "model": job.model.name,
            "model_sha256": job.model.sha256,
            "model_provenance": dict(job.model.provenance),
            "movie": str(movie.path.absolute()),
            "movie_dataset": movie.located.dataset,
            "movie_layout": movie.located.layout,
            "movie_shape": list(movie.full_shape),
            "movie_storage": str(movie.storage),
            "movie_fingerprint": movie.fingerprint,
            "frames": movie.frame_indices.tolist(),
            "region": [movie.top, movie.top + movie.shape[1], movie.left, movie.left + movie.shape[2]],
            **image_in_use(),
            "ranks": [dataclasses.asdict(r.resources) for r in records],
            "tiles": plan.tiling.count,
            "tiles_resumed": len(coordinator.resumed),
            "encodings": plan.encodings,
            "encodings_resumed": round(plan.encodings * resumed),
            "seconds": seconds,
            "seconds_by_stage": stages,
            "bytes_read": decoded,
            "read_amplification": decoded / needed if needed else 0.0,
        },
    )
