"""One analysis from movie to result file, alone or as one of many ranks."""

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np

from hrtemvae_hpc.analysis.against import make_comparison
from hrtemvae_hpc.analysis.compute import Means
from hrtemvae_hpc.analysis.coordinator import Coordinator, RankRecord, serve
from hrtemvae_hpc.analysis.drift import Followed, estimate_seconds, follow, measure_drift, save_drift, saved_drift
from hrtemvae_hpc.analysis.opened import Job, check_same, open_inputs, plan_job, prepare
from hrtemvae_hpc.analysis.parts import Parts, TileMaps, describe_difference
from hrtemvae_hpc.analysis.plan import Plan
from hrtemvae_hpc.analysis.plan_facts import plan_as_json
from hrtemvae_hpc.analysis.plan_text import describe_phases, describe_plan, describe_stages
from hrtemvae_hpc.analysis.result_info import Account, result_info
from hrtemvae_hpc.analysis.stage import MEMORY, open_stage, scratch
from hrtemvae_hpc.analysis.worker import Worker
from hrtemvae_hpc.config import AnalysisConfig
from hrtemvae_hpc.errors import HrtemvaeError, InputError, RankFailed
from hrtemvae_hpc.files import exists, saving
from hrtemvae_hpc.maps.result import result_identity
from hrtemvae_hpc.maps.result_writing import try_result, write_result
from hrtemvae_hpc.movie.preview import frames_to_show
from hrtemvae_hpc.outputs import Output, beside, check_outputs, is_live_page, is_page, is_result
from hrtemvae_hpc.ranks.guard import StopRequest, rank_age
from hrtemvae_hpc.ranks.progress import format_seconds, say
from hrtemvae_hpc.ranks.resources import RankResources, image_file, image_in_use, on_nodes
from hrtemvae_hpc.ranks.world import RankEnds, World
from hrtemvae_hpc.statistics.over_time import MINIMUM_FRAMES
from hrtemvae_hpc.statistics.significance import PermutationTest
from hrtemvae_hpc.threads import in_background
from hrtemvae_hpc.windows.grid import Rectangle, Tiling


def plan_analysis(world: World, path: Path, config: AnalysisConfig, as_json: bool = False, nodes: int = 1) -> str:
    """The plan of an analysis as text, or as JSON, on every rank; for so many times as many ``nodes`` as there are."""
    with open_inputs(world, path, config) as opened:
        job = prepare(world, opened)
        ranks = on_nodes(check_same(world, job), nodes)

        def describe() -> str:
            plan = plan_job(job, ranks, None)
            drift_s = estimate_seconds(job.movie, config, sum(rank.threads for rank in ranks))
            if as_json:
                return plan_as_json(job, plan, ranks, drift_s)
            return describe_plan(job.reader, job.model, job.config, plan, ranks, None, drift_s, nodes)

        return world.on_root(describe)


def analyze(
    world: World,
    path: Path,
    config: AnalysisConfig,
    output: Path,
    restart: bool,
    stop: StopRequest,
    inputs: Sequence[Path] = (),
    began: float | None = None,
) -> None:
    """Analyse ``path`` and write the result file ``output`` with its page, unless they already exist.

    Resumes an earlier, stopped run of the same analysis, unless ``restart``. ``inputs`` are further files, besides
    movie and model, that must not be overwritten. Times count from ``began`` (of time.monotonic), by default from the
    start of the process.
    Raises InputError, Stopped or RankFailed; on ranks other than 0 RankEnds with the job's exit code.
    """
    began = time.monotonic() - rank_age() if began is None else began
    page = world.on_root(lambda: beside(output, ".html"))
    outputs = [Output(output, "the result", is_result), Output(page, "its page", is_page)]
    path_of_image = image_file()
    known = [*inputs, *([path_of_image] if path_of_image else [])]
    with open_inputs(world, path, config) as opened:
        world.on_root(lambda: check_outputs(outputs, [*opened.files, *known]))
        job = prepare(world, opened)
        ranks = check_same(world, job)
        skip_bad_frames = config.movie.on_bad_frame == "skip"
        parts = Parts(output, job.identity, job.arithmetic, allow_bad_frames=skip_bad_frames)
        if world.on_root(lambda: _is_done(job, parts, output, restart)):
            if world.is_root and (not exists(page) or is_live_page(page)):
                say(_draw_page(output, page, page.parent))
            return
        followed = _follow_drift(world, job, parts, restart, stop)
        curves = followed.curves(job.movie) if followed else None
        comparison = world.on_all(lambda: make_comparison(job.movie, config, job.against, curves))
        test = PermutationTest(comparison, job.engine.device)
        plan = world.on_root(lambda: _prepare(job, ranks, parts, followed, test, output, restart))
        with parts.claimed:
            if world.is_root:
                say(describe_plan(job.reader, job.model, job.config, plan, ranks, followed))
            stage = None
            if plan.source != "movie":
                stage = open_stage(world, job.reader, MEMORY if plan.source == "memory" else scratch())
            means = Means(job.engine, job.reader, job.grid, test, plan.cells, skip_bad_frames, stage)
            worker = Worker(means, job.resources.threads)
            if not world.is_root:
                raise RankEnds(
                    serve(world, worker, plan.tiling, RankRecord(job.resources), stop, config.run.silent_after)
                )
            started = time.monotonic()
            image = in_background(image_in_use)  # reads GB, while the ranks work
            coordinator = Coordinator(world, worker, plan.tiling, parts, ranks)
            bad = _compute(job, plan, followed, coordinator, parts, output, began, stop, image)
            try:
                drawn = _draw_page(output, page, parts.folder)
            finally:
                if not config.run.keep_parts:
                    parts.claimed.discard()
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
        say(drawn)


def _draw_page(output: Path, page: Path, folder: Path) -> str:
    """Draw the page of a result, in ``folder`` first; returns what to say. If it fails, the result is complete."""
    from hrtemvae_hpc.maps.report import write_result_page  # draws, which takes a second to load

    try:
        return f"report: {write_result_page(output, page, folder)}"
    except InputError as error:
        return f"the result {output} is complete, but its page was not drawn: {error}"


def _is_done(job: Job, parts: Parts, output: Path, restart: bool) -> bool:
    """Whether ``output`` already holds this analysis; raises InputError if it must not be replaced."""
    parts.claimed.check()
    if restart or not exists(output) or parts.replaces_result():
        return False
    _accept_existing(output, job, parts)
    if not job.config.run.keep_parts:
        parts.claimed.discard()
    return True


def _follow_drift(world: World, job: Job, parts: Parts, restart: bool, stop: StopRequest) -> Followed | None:
    """Have this rank's movie followed where it drifts, as an earlier run measured it or as all ranks do now."""
    if job.config.drift.correct == "none":
        return None
    estimate = world.on_root(lambda: None if restart else saved_drift(parts))
    if estimate is None:
        estimate = measure_drift(world, job.movie, job.config, job.resources.threads, stop)
    followed = follow(job.movie, job.config, estimate, job.given_drift)
    job.movie.follow(followed.shifts, followed.left_out)
    return followed


def _prepare(
    job: Job,
    ranks: list[RankResources],
    parts: Parts,
    followed: Followed | None,
    test: PermutationTest,
    output: Path,
    restart: bool,
) -> Plan:
    """What remains to be done; from then on the folder of parts belongs to this run.

    A result without maps is written first, so that nothing about it can fail after the last tile.
    """
    known = None if restart else parts.known_tiling(job.grid)
    plan = plan_job(job, ranks, known)
    parts.claimed.take()
    no_preview = np.zeros((2, 1, 1), np.float32), 1, (0, 0)
    image = image_file()
    described = {"image": str(image), "image_sha256": None} if image else {}
    account = Account([RankRecord(r) for r in ranks], described)
    info = result_info(job, plan, followed, test, parts, account, no_preview)
    try:
        if restart:
            parts.claimed.clear()
        elif parts.known_tiling(job.grid) != known:
            raise InputError(f"{output}: another run started at the same time; run the same command again.")
        parts.start(plan.tiling, replaces=exists(output))
        if followed:
            save_drift(parts, followed.estimate)
        with _result_disk(output):
            try_result(parts.folder, info)
    except HrtemvaeError:
        with parts.claimed:
            if known is None:
                parts.claimed.discard()
        raise
    return plan


def _compute(
    job: Job,
    plan: Plan,
    followed: Followed | None,
    coordinator: Coordinator,
    parts: Parts,
    output: Path,
    began: float,
    stop: StopRequest,
    image: Future[dict[str, str | None]],
) -> list[int]:
    """Compute the missing tiles and write the result; returns the frames that were left out."""
    if coordinator.resumed:
        say(f"resuming: {len(coordinator.resumed)} of {plan.tiling.count} tiles are done.")
    try:
        coordinator.run(stop, job.config.run.silent_after)
        job.movie.check_unchanged(thorough=True)
        seconds = time.monotonic() - began
        account = Account(coordinator.records, image.result(), frozenset(coordinator.resumed), seconds)
        worker = coordinator.worker
        stage = worker.means.stage if coordinator.staged and worker.stages_frames else None
        preview = frames_to_show(job.movie, stage.pixels if stage else None)
        info = result_info(job, plan, followed, worker.means.test, parts, account, preview, stage)
        with _result_disk(output):
            return write_result(output, parts.folder, info, _finished_tiles(job, parts, plan.tiling))
    except InputError:
        # Tiles that may be useful with other options are kept.
        if coordinator.finished in (0, plan.tiling.count) or job.movie.has_changed(thorough=True):
            parts.claimed.discard()
        raise


def _result_disk(output: Path) -> AbstractContextManager[None]:
    kept = f"finished tiles are kept in {output.name}.parts; make room and run the same command again."
    return saving(output, kept)


def _accept_existing(output: Path, job: Job, parts: Parts) -> None:
    """Say that ``output`` already holds this analysis; raises InputError if it doesn't."""
    known = result_identity(output)
    if known.analysis != parts.key:
        raise InputError(
            f"{output}: exists and holds something else; choose another output with -o, or replace it with --restart."
        )
    if known.bad_frames and not parts.allow_bad_frames:
        raise InputError(
            f"{output}: exists, but leaves out frames that can't be decoded; accept it with --on-bad-frame skip, "
            "or replace it with --restart."
        )
    other = describe_difference(known.arithmetic, job.arithmetic)
    differs = f", computed with {other}: their last digits differ" if other else ""
    say(f"{output} already holds this analysis{differs}; --restart would compute it again.")


def _finished_tiles(job: Job, parts: Parts, tiling: Tiling) -> Iterator[tuple[Rectangle, TileMaps]]:
    """All tiles of a result; raises InputError after the last one where no window has maps."""
    most = 0
    for tile in tiling.tiles:
        done = parts.load(tile)
        if done is None:
            raise RankFailed(f"{parts.folder}: the part of {tile} is missing or damaged; run the same command again.")
        most = max(most, int(done.valid_frames.max()))
        yield tile, done
    if most < MINIMUM_FRAMES:
        raise InputError(
            f"{job.movie.where}: no window has maps: each is flat, or holds pixels that are not finite, in all "
            f"but {most} frames, and at least {MINIMUM_FRAMES} are needed; check the frames, or choose others with "
            "--frames or --roi."
        )
