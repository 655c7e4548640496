"""The lattices of a movie, or of the movie of a result: measured and written as tables, HDF5 and a page."""

import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hrtemvae_hpc.analysis.drift import follow, measure_drift
from hrtemvae_hpc.area import Area
from hrtemvae_hpc.config import AnalysisConfig, RunSection, parse_roi
from hrtemvae_hpc.drift.table import read_drift
from hrtemvae_hpc.errors import InputError
from hrtemvae_hpc.files import is_file
from hrtemvae_hpc.interpretation.box_frames import BoxFrames
from hrtemvae_hpc.interpretation.lattice_file import write_csv, write_lattices
from hrtemvae_hpc.interpretation.lattice_latents import latents_of_box
from hrtemvae_hpc.interpretation.lattice_page import write_lattice_page
from hrtemvae_hpc.interpretation.measure_box import BoxLattices, box_bytes, measure_box
from hrtemvae_hpc.interpretation.reopen import Reopened, reopen
from hrtemvae_hpc.maps.result import open_result
from hrtemvae_hpc.movie.movie import Movie
from hrtemvae_hpc.outputs import Output, beside, check_outputs, is_lattice_table, is_lattices, is_page, is_result
from hrtemvae_hpc.ranks.guard import StopRequest
from hrtemvae_hpc.ranks.node import FREE_SHARE, node_free_bytes
from hrtemvae_hpc.ranks.progress import say
from hrtemvae_hpc.ranks.resources import compute_threads
from hrtemvae_hpc.ranks.world import World
from hrtemvae_hpc.statistics.over_time import MINIMUM_FRAMES


@dataclass(frozen=True)
class Opened:
    """A movie, followed where it drifts."""

    movie: Movie
    left_out: np.ndarray  # [frames] bool
    drift: str  # what was done about it
    files: list[Path]  # that are read
    again: Reopened | None = None  # the result that they are of


def measure_lattices_of(
    world: World,
    path: Path,
    moved: tuple[Path | None, Path | None],
    config: AnalysisConfig,
    boxes: Sequence[str],
    average: int,
    output: Path,
    stop: StopRequest,
) -> None:
    """Measure the lattices in ``boxes`` of the movie or result ``path``; write ``output``, and CSV and page beside it.

    ``moved`` is where movie and model of a result are now, if elsewhere; ``config`` is for movies alone. A box is
    y0:y1,x0:x1 in pixels of the movie's frame; without one, all that is analysed is measured. Every rank calls this.
    Raises InputError or Stopped.
    """
    table, page = world.on_root(lambda: (beside(output, ".csv"), beside(output, ".html")))
    outputs = [
        Output(output, "the lattices", is_lattices),
        Output(table, "their table", is_lattice_table),
        Output(page, "their page", is_page),
    ]
    with _open(world, path, moved, config, stop, outputs) as opened:
        threads = compute_threads(world)
        cut = world.on_all(lambda: [BoxFrames(opened.movie, area, opened.left_out, average)
                                    for area in _areas(opened.movie, boxes)])  # fmt: skip
        world.on_all(lambda: _check_size(opened, cut, config))
        measured: list[BoxLattices] = []
        for box in cut:
            room = config.run.max_memory or FREE_SHARE * node_free_bytes() / world.local_size
            at_once = max(1, min(threads, int(room // box_bytes(box.area.pixels))))
            found = measure_box(world, box, at_once, stop, _name(box, boxes))
            measured += [found] if found else []
        world.on_all(lambda: opened.movie.check_unchanged(thorough=True))

        def write() -> None:
            facts = {
                "program": "hrtemvae",
                "command_line": shlex.join(sys.argv),
                "movie": str(opened.movie.path.absolute()),
                "result": str(path.absolute()) if path not in opened.movie.files else "",
                "drift": opened.drift,
                "average": average,
            }
            latents = [latents_of_box(opened.again, box) if opened.again else None for box in measured]
            write_lattices(output, measured, latents, facts)
            write_csv(table, measured)
            write_lattice_page(page, measured, latents, facts)
            say(f"{output}, {table} and {page}")

        world.on_root(write)


def _name(box: BoxFrames, boxes: Sequence[str]) -> str:
    rows, columns = box.place
    return f"the box {rows.start}:{rows.stop},{columns.start}:{columns.stop}" if boxes else "the whole frame"


@contextmanager
def _open(
    world: World,
    path: Path,
    moved: tuple[Path | None, Path | None],
    config: AnalysisConfig,
    stop: StopRequest,
    outputs: Sequence[Output],
) -> Iterator[Opened]:
    if world.on_root(lambda: is_file(path) and is_result(path)):
        if config.model_copy(update={"run": RunSection()}) != AnalysisConfig():
            world.raise_once(
                InputError(
                    f"{path}: a result has its own movie, region, frames and drift; leave out the options for these."
                )
            )
        with world.on_all(lambda: open_result(path)) as result, world.on_all(lambda: reopen(result, *moved)) as again:
            world.on_root(lambda: check_outputs(outputs, again.files))
            curves = result.curves
            left_out = np.isin(again.movie.frame_indices, result.process.bad_frames)
            if again.movie.shown is not None:
                left_out |= ~again.movie.shown.any((1, 2))
            verdict = curves.verdict if curves else "not measured"
            yield Opened(again.movie, left_out, f"as in {path.name}: {verdict}", again.files, again)
        return
    if any(moved):
        world.raise_once(InputError(f"{path}: is no result of `hrtemvae analyze`; --movie and --model are for these."))
    with world.on_all(lambda: Movie(path, config.movie, config.drift.roi)) as movie:
        world.on_root(lambda: check_outputs(outputs, movie.files))
        left_out = np.zeros(movie.shape[0], bool)
        verdict = "not measured"
        if config.drift.correct != "none" and movie.shape[0] >= MINIMUM_FRAMES:
            given = None
            if config.drift.correct != "auto":
                given = world.on_all(
                    lambda: read_drift(Path(config.drift.correct), movie.frame_indices, *movie.full_shape[1:])
                )
            estimate = measure_drift(world, movie, config, compute_threads(world), stop)
            followed = follow(movie, config, estimate, given)
            movie.follow(followed.shifts, followed.left_out)
            left_out, verdict = followed.left_out, followed.verdict
            if followed.warning and world.is_root:
                say(f"warning: {followed.warning}")
        yield Opened(movie, left_out, verdict, movie.files)


def _areas(movie: Movie, boxes: Sequence[str]) -> list[Area]:
    """The areas of ``movie`` that ``boxes`` name. Raises InputError if one is no box, or lies elsewhere."""
    if not boxes:
        return [movie.area]
    whole = movie.area.moved(movie.top, movie.left)
    areas = []
    for box in boxes:
        try:
            bounds = parse_roi(box)
        except ValueError as error:
            raise InputError(f"--box {box}: {error}.") from error
        area = Area(
            *(
                slice(span.start if first is None else first, span.stop if stop is None else stop)
                for span, (first, stop) in zip(whole, bounds, strict=True)
            )
        )
        if any(not (outer.start <= s.start < s.stop <= outer.stop) for s, outer in zip(area, whole, strict=True)):
            raise InputError(
                f"--box {box}: does not lie in rows {whole.rows.start}:{whole.rows.stop}, columns "
                f"{whole.columns.start}:{whole.columns.stop} of {movie.where}, which are analysed."
            )
        areas.append(area.moved(-movie.top, -movie.left))
    return areas


def _check_size(opened: Opened, boxes: Sequence[BoxFrames], config: AnalysisConfig) -> None:
    count = int((~opened.left_out).sum())
    if count < MINIMUM_FRAMES:
        raise InputError(
            f"{opened.movie.where}: {count} frame{'s' * (count != 1)} with an image can't show how lattices change (at "
            f"least {MINIMUM_FRAMES} are needed); check --frames."
        )
    largest = max(box.area.pixels for box in boxes)
    if config.run.max_memory and box_bytes(largest) > config.run.max_memory:
        raise InputError(
            f"--max-memory {config.run.max_memory / 1e9:.3g} GB: the lattices of {largest:,} pixels take "
            f"{box_bytes(largest) / 1e9:.3g} GB; choose smaller boxes with --box."
        )
