"""Segments from many files of micrographs, alone or on many ranks, resuming where a stopped run ended."""

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hrtemvae_hpc import __version__
from hrtemvae_hpc.errors import InputError, RankFailed, Stopped
from hrtemvae_hpc.files import file_sha256, replacing, saving
from hrtemvae_hpc.outputs import Output, beside, check_outputs, is_page, is_segments
from hrtemvae_hpc.ranks.claim import ClaimedFolder
from hrtemvae_hpc.ranks.guard import StopRequest, doing
from hrtemvae_hpc.ranks.progress import Progress, format_seconds, say
from hrtemvae_hpc.ranks.saved import note_saved
from hrtemvae_hpc.ranks.world import RankEnds, World
from hrtemvae_hpc.sealed import pack, unpack
from hrtemvae_hpc.segments.cut import Cut, cut_file
from hrtemvae_hpc.segments.cut_options import CutOptions
from hrtemvae_hpc.segments.micrographs import find_micrographs
from hrtemvae_hpc.segments.preview import Preview
from hrtemvae_hpc.segments.segment_file import SourceSegments, write_segments

_SCALARS = ("height", "looked_at")
_FACTS = "hrtemvae"


@dataclass(frozen=True)
class Outcome:
    """What became of one file: its part and number of segments, or the reason why it was left out."""

    path: Path
    part: Path
    kept: int = 0
    looked_at: int = 0
    sha256: str = ""
    reason: str = ""


@dataclass(frozen=True)
class Split:
    """Which segments are for validation: those of some files, or the lower rows of the only file there is."""

    files: frozenset[Path]
    rows_below: float | None  # share of the only file's height

    def of(self, outcome: Outcome, cut: Cut, window: int) -> tuple[np.ndarray, np.ndarray]:
        """Which segments [n] of a cut stay, and which of those are for validation; none may cross the border."""
        if self.rows_below is None:
            return np.ones(len(cut.segments), bool), np.full(len(cut.segments), outcome.path in self.files)
        border = round(self.rows_below * cut.height)
        upright = cut.turned == 0
        validation = upright & (cut.place[:, 0] >= border)
        keep = validation | (upright & (cut.place[:, 0] + window <= border))
        return keep, validation[keep]


def build_segments(
    world: World,
    paths: list[Path],
    options: CutOptions,
    validation: float,
    output: Path,
    restart: bool,
    stop: StopRequest,
) -> None:
    """Cut the micrographs in ``paths`` and write their segments to ``output``, and a page that shows them beside it.

    ``validation`` is the share of the files whose segments are kept for validation, at least one file of several.
    Files that can't be used are listed and left out. Raises InputError if nothing is left, Stopped on a signal:
    the files done so far are kept and not repeated, unless ``restart``.
    """
    began = time.monotonic()
    torch.set_num_threads(1)  # so that sums are always added in one order
    page = world.on_root(lambda: beside(output, ".html"))
    parts = ClaimedFolder(output.with_name(output.name + ".parts"), "segments", [r"[0-9a-f]{24}\.safetensors"])

    def prepare() -> list[Path]:
        outputs = [
            Output(output, "the segments", is_segments),
            Output(page, "the page", is_page),
        ]
        check_outputs(outputs)
        files = find_micrographs(paths)
        check_outputs(outputs, files)
        parts.take()
        if restart:
            parts.clear()
        # The largest first, so that the ranks end together.
        return sorted(files, key=lambda p: (-p.stat().st_size, p))

    files = world.on_root(prepare)
    with parts:
        outcomes = _cut_files(world, files[world.rank :: world.size], options, parts, stop)
        gathered = [outcome for rank in world.allgather(outcomes, patience=math.inf) for outcome in rank]

        def assemble() -> None:
            try:
                _assemble(gathered, options, validation, output, began)
            except InputError:
                parts.discard()  # useless with other options
                raise
            parts.discard()

        world.on_root(assemble, patience=math.inf)


def _cut_files(
    world: World, files: list[Path], options: CutOptions, parts: ClaimedFolder, stop: StopRequest
) -> list[Outcome]:
    """This rank's share of the files."""
    outcomes: list[Outcome] = []

    def check() -> None:
        if world.is_root:
            parts.heartbeat(len(outcomes) / len(files))
        if stop and not world.is_root:
            raise RankEnds(Stopped.exit_code)
        if stop:
            raise Stopped(f"stopped by {stop.name}; run the same command again to resume.")

    progress = Progress(len(files), unit="file") if world.is_root else None
    for path in files:
        doing(f"cutting {path}")
        check()
        outcomes.append(_cut_and_save(path, options, parts.path, check))
        if progress:
            progress.update(len(outcomes))
    if progress:
        progress.close()
    return outcomes


def _cut_and_save(path: Path, options: CutOptions, folder: Path, check: Callable[[], None]) -> Outcome:
    try:
        status = path.stat()
        identity = [str(path.absolute()), status.st_size, status.st_mtime_ns, options.model_dump(), __version__]
        part = folder / f"{hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:24]}.safetensors"
        with suppress(OSError, ValueError):  # a part that is damaged is cut again
            return Outcome(path, part, **json.loads(unpack(part)[1][_FACTS]))
        cut = cut_file(path, options, check)
        facts: dict[str, Any] = {"kept": len(cut.segments), "looked_at": cut.looked_at, "sha256": file_sha256(path)}
    except (InputError, OSError) as error:
        return Outcome(path, folder, reason=str(error))
    except (ValueError, TypeError, KeyError, RuntimeError, MemoryError) as error:  # of a file that was misread
        return Outcome(path, folder, reason=f"{path}: {type(error).__name__} ({' '.join(str(error).split())[:100]})")
    values = asdict(cut)
    scalars = {name: np.array(values.pop(name)) for name in _SCALARS}
    with saving(part, "make room and run it again."), replacing(part) as aside:
        aside.write_bytes(pack(values | scalars, {_FACTS: json.dumps(facts)}))
    note_saved()
    return Outcome(path, part, **facts)


def _load(part: Path) -> Cut:
    try:
        values, _ = unpack(part)
    except (OSError, ValueError) as error:
        raise RankFailed(f"{part}: can't be read ({error}); remove it and run the same command again.") from error
    known: dict[str, Any] = {name: int(v) if name in _SCALARS else v for name, v in values.items()}
    return Cut(**known)


def _assemble(outcomes: list[Outcome], options: CutOptions, share: float, output: Path, began: float) -> None:
    outcomes = sorted(outcomes, key=lambda o: o.path)
    left_out = [o.reason for o in outcomes if o.reason]
    for reason in left_out:
        say(f"left out: {reason}")
    used = [o for o in outcomes if not o.reason]
    with_segments = [o for o in used if o.kept]
    if not with_segments:
        raise InputError(
            f"no segment with lattice fringes in {len(used)} usable files of {len(outcomes)} "
            f"({sum(o.looked_at for o in used):,} segments examined); check the files, or lower --threshold "
            f"(now {options.threshold:g})."
        )
    split = choose_validation([o.path for o in with_segments], share, options.seed)
    count = sum(o.kept for o in used)
    if split.rows_below is not None:
        count = sum(int(split.of(o, _load(o.part), options.window)[0].sum()) for o in with_segments)
    if count == 0:
        raise InputError(
            f"{with_segments[0].path}: none of its segments lies wholly above or below the validation border; "
            "name more micrographs, or set --validation 0."
        )
    preview = Preview(options, left_out)

    def sources() -> Iterator[SourceSegments]:
        for outcome in used:
            cut = _load(outcome.part)
            keep, validation = split.of(outcome, cut, options.window)
            preview.add(outcome.path.name, cut, int(keep.sum()))
            facts = {
                "path": str(outcome.path.absolute()),
                "sha256": outcome.sha256,
                "looked_at": cut.looked_at,
                "own_pixel_size_nm": _known(cut.pixel_size[0]),
                "pixel_size_nm": _known(cut.pixel_size[1]),
            }
            columns = {n: getattr(cut, n)[keep] for n in ("strength", "period", "frame", "place", "turned")}
            yield SourceSegments(outcome.path.name, facts, cut.segments[keep], columns | {"validation": validation})

    about = {"cut": options.model_dump(mode="json"), "validation": share, "left_out": left_out}
    write_segments(output, options.window, sources(), count, about)
    page = preview.write(output)
    say(f"{count:,} segments from {len(with_segments)} files: {output}, shown in {page}")
    say(f"({format_seconds(time.monotonic() - began)})")


def choose_validation(files: list[Path], share: float, seed: int) -> Split:
    """About a ``share`` of ``files``, at least one of several, each by its own name; of one file its lower rows."""
    if share == 0:
        return Split(frozenset(), None)
    if len(files) == 1:
        return Split(frozenset(), 1 - share)
    place = {p: int.from_bytes(hashlib.sha256(f"{seed} {p.name}".encode()).digest(), "big") / 2**256 for p in files}
    order = sorted(files, key=lambda p: place[p])
    count = sum(place[p] < share for p in files)
    return Split(frozenset(order[: min(max(1, count), len(files) - 1)]), None)


def _known(size: float) -> float | None:
    return None if math.isnan(size) else float(size)
