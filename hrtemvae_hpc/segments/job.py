"""Segments from many files of micrographs, alone or on many ranks, going on where a stopped run ended."""

import hashlib
import json
import math
import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from hrtemvae_hpc import __version__
from hrtemvae_hpc.distributed.guard import StopRequest, doing
from hrtemvae_hpc.distributed.progress import Progress, format_seconds, say
from hrtemvae_hpc.distributed.world import World
from hrtemvae_hpc.errors import InputError, RankFailed, Stopped
from hrtemvae_hpc.files import file_sha256, replacing
from hrtemvae_hpc.segments.cut import Cut, CutOptions, cut_file
from hrtemvae_hpc.segments.micrographs import find_micrographs
from hrtemvae_hpc.segments.preview import write_preview
from hrtemvae_hpc.segments.segment_file import SourceSegments, write_segments

_SCALARS = ("height", "looked_at")


@dataclass(frozen=True)
class Outcome:
    """What became of one file: its part, or the reason why it was left out."""

    path: Path
    part: Path
    reason: str = ""


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

    ``validation`` is the share of the files whose segments are kept for validation. Files that can't be used are
    listed and left out. Raises InputError where nothing is left, Stopped on a signal: the files done so far are kept
    and not done again, unless ``restart``.
    """
    began = time.monotonic()
    folder = output.with_name(output.name + ".parts")

    def prepare() -> list[Path]:
        _check_output(output)
        files = find_micrographs(paths)
        if restart:
            shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(exist_ok=True)
        # The largest first, so that the ranks end together.
        return sorted(files, key=lambda p: (-p.stat().st_size, p))

    files = world.on_root(prepare)
    own = files[world.rank :: world.size]
    progress = Progress(len(own), unit="file") if world.is_root else None
    outcomes = []
    for done, path in enumerate(own):
        if stop:
            raise Stopped(f"stopped by {stop.name}; run the same command again to go on.")
        doing(f"cutting {path}")
        outcomes.append(_do_file(path, options, folder))
        if progress:
            progress.update(done + 1)
    if progress:
        progress.close()
    gathered = [outcome for rank in world.allgather(outcomes, patience=math.inf) for outcome in rank]
    world.on_root(lambda: _assemble(gathered, options, validation, output, began))
    shutil.rmtree(folder, ignore_errors=True)


def _check_output(output: Path) -> None:
    if not output.absolute().parent.is_dir():
        raise InputError(f"{output.absolute().parent}: there is no such folder for the segments; make it.")
    if output.is_dir():
        raise InputError(f"{output}: is a folder; name the file of segments with -o.")
    if output.suffix == ".html":
        raise InputError(f"{output}: would be overwritten by its own page; end the name in .h5.")


def _do_file(path: Path, options: CutOptions, folder: Path) -> Outcome:
    status = path.stat()
    identity = [str(path.absolute()), status.st_size, status.st_mtime_ns, options.model_dump(), __version__]
    key = hashlib.sha256(json.dumps(identity).encode()).hexdigest()
    part = folder / f"{key[:24]}.safetensors"
    if part.is_file():
        return Outcome(path, part)
    try:
        cut = cut_file(path, options)
    except InputError as error:
        return Outcome(path, part, str(error))
    values = asdict(cut)
    scalars = {name: np.array(values.pop(name)) for name in _SCALARS}
    try:
        with replacing(part) as aside:
            aside.write_bytes(save(values | scalars))
    except OSError as error:
        raise RankFailed(f"{part}: can't be written ({error.strerror}); make room and run it again.") from error
    return Outcome(path, part)


def _load(part: Path) -> Cut:
    try:
        values = load_file(part)
    except (OSError, SafetensorError) as error:
        raise RankFailed(f"{part}: can't be read ({error}); remove it and run the same command again.") from error
    known: dict[str, Any] = {name: int(v) if name in _SCALARS else v for name, v in values.items()}
    return Cut(**known)


def _assemble(outcomes: list[Outcome], options: CutOptions, share: float, output: Path, began: float) -> None:
    outcomes = sorted(outcomes, key=lambda o: o.path)
    left_out = [o for o in outcomes if o.reason]
    for outcome in left_out:
        say(f"left out: {outcome.reason}")
    used = [o for o in outcomes if not o.reason]
    found = {o.path: len(_load(o.part).segments) for o in used}
    if not any(found.values()):
        looked_at = sum(_load(o.part).looked_at for o in used)
        raise InputError(
            f"no segment with lattice fringes in {len(used)} usable of {len(outcomes)} files "
            f"({looked_at:,} segments looked at); check the files, or lower --threshold (now {options.threshold:g})."
        )
    with_segments = [path for path, count in found.items() if count]
    held_out = _validation_files(with_segments, share, options.seed)
    alone = share > 0 and len(with_segments) == 1
    splits = {o.path: None if alone else o.path in held_out for o in used}
    count = sum(int(_split(_load(o.part), splits[o.path], share, options)[0].sum()) for o in used)
    about = {"cut": options.model_dump(mode="json"), "validation": share, "left_out": [o.reason for o in left_out]}
    sources = (_source(o, splits[o.path], share, options) for o in used)
    write_segments(output, options.window, sources, count, about)
    page = write_preview(output, ((o.path.name, _load(o.part)) for o in used), options, [o.reason for o in left_out])
    say(f"{count:,} segments of {len(with_segments)} files: {output}, shown in {page}")
    say(f"({format_seconds(time.monotonic() - began)})")


def _validation_files(files: list[Path], share: float, seed: int) -> set[Path]:
    """Files for validation, chosen by their names: those chosen stay so when others are added. None of one."""
    if share == 0 or len(files) < 2:
        return set()
    order = sorted(files, key=lambda p: hashlib.sha256(f"{seed} {p.name}".encode()).hexdigest())
    return set(order[: min(len(files) - 1, max(1, round(share * len(files))))])


def _split(cut: Cut, held_out: bool | None, share: float, options: CutOptions) -> tuple[np.ndarray, np.ndarray]:
    """Which segments [n] of a cut stay, and which of those are for validation; ``held_out`` is None for one file alone.

    Then its lower rows are for validation, and segments that reach over the border are left out.
    """
    if held_out is not None:
        return np.ones(len(cut.segments), bool), np.full(len(cut.segments), held_out)
    border = round((1 - share) * cut.height)
    upright = cut.turned == 0
    validation = upright & (cut.place[:, 0] >= border)
    keep = validation | (upright & (cut.place[:, 0] + options.window <= border))
    return keep, validation[keep]


def _source(outcome: Outcome, held_out: bool | None, share: float, options: CutOptions) -> SourceSegments:
    cut = _load(outcome.part)
    keep, validation = _split(cut, held_out, share, options)
    told: dict[str, Any] = {
        "path": str(outcome.path.absolute()),
        "sha256": file_sha256(outcome.path),
        "looked_at": cut.looked_at,
        "own_pixel_size_nm": _known(cut.pixel_size[0]),
        "pixel_size_nm": _known(cut.pixel_size[1]),
    }
    columns = {n: getattr(cut, n)[keep] for n in ("strength", "period", "frame", "place", "turned")}
    return SourceSegments(outcome.path.name, told, cut.segments[keep], columns | {"validation": validation})


def _known(size: float) -> float | None:
    return None if math.isnan(size) else float(size)
