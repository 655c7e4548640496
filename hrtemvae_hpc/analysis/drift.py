"""The drift of a movie, measured by all ranks together, and what is done about it."""

import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from hrtemvae_hpc.analysis.parts import Parts
from hrtemvae_hpc.config import AnalysisConfig
from hrtemvae_hpc.drift.drift import Drift, DriftEstimate
from hrtemvae_hpc.drift.measure import BlockMeasures, blocks, measure_block
from hrtemvae_hpc.drift.solve import count_pairs, solve_drift
from hrtemvae_hpc.errors import InputError, Stopped
from hrtemvae_hpc.maps.drift_group import FrameCurves
from hrtemvae_hpc.movie.movie import Movie
from hrtemvae_hpc.ranks.guard import StopRequest
from hrtemvae_hpc.ranks.progress import Progress
from hrtemvae_hpc.ranks.world import World

_POLL_S = 0.2
_WORKING = 16  # bytes per pixel of a frame that measuring it takes, besides reading it
_LAYER_BYTES = 2**28  # of frames that are decoded together
_TRIED = 4  # frames of a trial
_PAIR = 0.4  # times as long as a frame's measures the comparison of two blocks takes
_LEAST_SIDE = 128  # pixels of a region in which drift is measured


@dataclass(frozen=True)
class _Share:
    """What one rank measured: blocks by their first frames, and frames that it could not decode."""

    blocks: dict[int, BlockMeasures]
    undecoded: set[int]


@dataclass(frozen=True)
class Followed:
    """What was measured of a movie's drift, and how it is followed."""

    estimate: DriftEstimate
    drift: Drift  # the estimate's, or what was given instead
    shifts: np.ndarray  # [frames, 2] int64, rows and columns by which areas move
    left_out: np.ndarray  # [frames] bool
    verdict: str
    warning: str = ""

    def curves(self, movie: Movie) -> FrameCurves:
        """What a result of ``movie`` keeps of it."""
        drift, estimate = self.drift, self.estimate
        return FrameCurves(
            frame=movie.frame_indices,
            dy=drift.dy,
            dx=drift.dx,
            quality=drift.quality,
            applied_dy=self.shifts[:, 0],
            applied_dx=self.shifts[:, 1],
            blank=estimate.blank,
            mean=estimate.mean,
            contrast=estimate.contrast,
            focus=estimate.focus,
            verdict=self.verdict,
            warning=self.warning,
            time=movie.times_s,
            counts_per_electron=movie.counts_per_electron,
        )


def measure_drift(world: World, movie: Movie, config: AnalysisConfig, threads: int, stop: StopRequest) -> DriftEstimate:
    """Measure the drift of ``movie`` in the region that ``config`` names. Every rank calls this.

    Blocks of frames are measured by themselves, wherever that is, and combined on rank 0: the same numbers at any
    number of ranks. Raises InputError if a frame can't be decoded, unless such frames are skipped, and Stopped.
    """
    part = _readable(movie.region(config.drift.roi) if config.drift.roi else movie)
    measured = world.on_all(lambda: _measure(world, part, config, threads, stop))
    gathered = world.gather(measured, patience=math.inf)
    world.on_all(movie.check_unchanged)

    def solve() -> DriftEstimate:
        found = dict(block for share in gathered for block in share.blocks.items())
        estimate = solve_drift([found[start] for start in sorted(found)], threads)
        blank = estimate.blank.copy()
        blank[sorted(set().union(*(share.undecoded for share in gathered)))] = False  # they may show something
        return replace(estimate, blank=blank)

    return world.on_root(solve, patience=math.inf)


def estimate_seconds(movie: Movie, config: AnalysisConfig, threads: int) -> float:
    """About the seconds that measuring drift takes on ``threads`` of all ranks together, from a trial on few frames.

    0 if it isn't measured, or these frames can't be decoded.
    """
    if config.drift.correct == "none":
        return 0.0
    part = _readable(movie.region(config.drift.roi) if config.drift.roi else movie)
    tried = min(_TRIED, movie.shape[0])
    try:
        frames = part.read(slice(0, tried), part.area)
        measure_block(range(1), lambda t: frames[t])  # sets up what all frames share
        began = time.monotonic()
        part.read(slice(0, tried), part.area)
        measure_block(range(1, tried), lambda t: frames[t])
    except OSError:
        return 0.0
    each = (time.monotonic() - began) / (tried - 1)
    made = blocks(movie.shape[0])
    return each * (movie.shape[0] + _PAIR * count_pairs(len(made))) / min(threads, len(made))


def _readable(movie: Movie) -> Movie:
    """``movie``, or its middle where chunks hold so many frames that all of these don't fit memory together."""
    _, height, width = movie.shape
    most = _LAYER_BYTES // (movie.chunk_grid.unit[0] * movie.dtype.itemsize)
    if height * width <= most:
        return movie
    scale = math.sqrt(most / (height * width))
    spans = []
    for first, size in ((movie.top, height), (movie.left, width)):
        side = min(size, max(_LEAST_SIDE, int(size * scale)))
        begin = first + (size - side) // 2
        spans.append((begin, begin + side))
    return movie.region((spans[0], spans[1]))


def _measure(world: World, movie: Movie, config: AnalysisConfig, threads: int, stop: StopRequest) -> _Share:
    """This rank's share; each block is measured on one thread."""
    ours = blocks(movie.shape[0])[world.rank :: world.size]
    if config.run.max_memory:
        depth = movie.chunk_grid.unit[0]
        each = movie.area.pixels * (_WORKING + depth * movie.dtype.itemsize)
        threads = max(1, min(threads, config.run.max_memory // (2 * each)))
    progress = Progress(sum(map(len, ours)), unit="frame") if world.is_root else None

    undecoded: set[int] = set()

    def lose(frames: range, error: OSError) -> None:
        if config.movie.on_bad_frame == "stop":
            bad = ", ".join(str(movie.frame_indices[t]) for t in frames)
            raise InputError(
                f"{movie.where}: can't be decoded at frame {bad}; copy the movie again, or leave such frames out with "
                "--on-bad-frame skip."
            ) from error
        undecoded.update(frames)

    local = threading.local()  # a thread's reader keeps the chunks that its next block may lie in too

    def measure(block: range) -> BlockMeasures:
        if not hasattr(local, "read"):
            local.read = _reader(movie, lose, stop)
        return measure_block(block, local.read)

    with ThreadPoolExecutor(threads, "drift") as pool:
        jobs = {pool.submit(measure, block): block for block in ours}
        waiting, done = set(jobs), 0
        try:
            while waiting:
                finished, waiting = wait(waiting, _POLL_S, FIRST_COMPLETED)
                _check(stop)
                done += sum(len(job.result().frames) for job in finished)
                if progress:
                    progress.update(done, note="measuring drift")
        finally:
            for job in jobs:
                job.cancel()
            if progress:
                progress.close()
    return _Share({block.start: job.result() for job, block in jobs.items()}, undecoded)


def _check(stop: StopRequest) -> None:
    if stop:
        raise Stopped(f"stopped by {stop.name} while drift was measured; run the same command again.")


def _reader(movie: Movie, lose: Callable[[range, OSError], None], stop: StopRequest) -> Callable[[int], np.ndarray]:
    """What reads frame after frame, each chunk once; frames that can't be decoded are flat, unless ``lose`` raises."""
    layers = movie.frame_indices // movie.chunk_grid.unit[0]
    slab, pixels = slice(0, 0), np.empty((0, 1, 1))

    def read(t: int) -> np.ndarray:
        nonlocal slab, pixels
        _check(stop)
        if not slab.start <= t < slab.stop:
            first, after = (np.searchsorted(layers, layers[t], side) for side in ("left", "right"))
            slab = slice(int(first), int(after))
            try:
                pixels = movie.read(slab, movie.area)
            except OSError as error:
                lose(range(slab.start, slab.stop), error)
                pixels = np.zeros((slab.stop - slab.start, *movie.shape[1:]), movie.dtype)
        frame: np.ndarray = pixels[t - slab.start]
        return frame

    return read


def saved_drift(parts: Parts) -> DriftEstimate | None:
    """What an earlier run of this analysis measured; raises InputError if ``parts`` are of another."""
    saved = parts.saved_drift()
    if saved is None:
        return None
    values: dict[str, Any] = {name: value if value.ndim else value.item() for name, value in saved.items()}
    return DriftEstimate(Drift(*(values.pop(name) for name in ("dy", "dx", "quality"))), **values)


def save_drift(parts: Parts, estimate: DriftEstimate) -> None:
    """Keep ``estimate`` for a run that resumes this one. Raises InputError if it can't be written."""
    values = asdict(estimate)
    parts.save_drift({name: np.asarray(value) for name, value in (values.pop("drift") | values).items()})


def follow(movie: Movie, config: AnalysisConfig, estimate: DriftEstimate, given: Drift | None) -> Followed:
    """What is done about the drift of ``movie``: ``given`` is followed as it is, an ``estimate`` if it is certain."""
    skip = config.drift.on_blank_frame == "skip"
    left_out = estimate.blank if skip else np.zeros_like(estimate.blank)
    drift = given or estimate.drift
    verdict = f"up to {drift.largest:.1f} pixels"
    warning = ""
    corrected = given is not None or estimate.to_correct
    if given is not None:
        verdict += f", corrected by whole pixels as {config.drift.correct} says"
    elif not estimate.agree:
        verdict = "uncertain, not corrected"
        warning = _warning(estimate)
    else:
        verdict += ", corrected by whole pixels" if corrected else ", too little to correct"
    shifts = drift.whole() if corrected else np.zeros((movie.shape[0], 2), np.int64)
    return Followed(estimate, drift, shifts, left_out, verdict, warning)


def _warning(estimate: DriftEstimate) -> str:
    if estimate.rival > 0.5:
        why = "parts of the frame move in different ways"
    elif estimate.difference > 0.5:
        why = f"two estimates of it differ by up to {estimate.difference:.1f} pixels"
    else:
        why = "too few frames show something that can be followed"
    return (
        f"the drift is uncertain, as {why}: nothing is corrected, and what drifts is shown as a change. Look at the "
        "picture of `hrtemvae drift`; name a region that moves as a whole with --drift-roi or give a table with "
        "--drift FILE; --drift none accepts the movie as it is."
    )
