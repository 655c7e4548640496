"""A session: all movies of a folder, analysed one by one into another folder, whatever happens to each.

The session's folder holds its manifest (which movies, with which options), a record for each movie, logs and results.
A movie is done when its result is there. Only one run can work on a result (ranks/claim.py), so sessions that
run side by side leave each other's movies alone.
"""

import dataclasses
import hashlib
import json
import os
import time
from collections.abc import Iterator, Sequence
from enum import Enum
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, field_validator
from pydantic.dataclasses import dataclass as validated

from hrtemvae_hpc.errors import InputError, RankFailed
from hrtemvae_hpc.facility.movies import RESULT, Found, find_movies
from hrtemvae_hpc.files import OwnFolder, exists, is_folder, read_end, read_small, replacing, saving, writing
from hrtemvae_hpc.outputs import Output, check_outputs, is_page
from hrtemvae_hpc.ranks.claim import Run, run_at_work
from hrtemvae_hpc.ranks.progress import say

_LARGEST = 2**26  # bytes of a manifest
_LOOKED_AT = 2**16  # bytes at the end of a log


_STRICT = ConfigDict(strict=True, extra="forbid")


_Seconds = Annotated[float, Field(ge=0, le=1e11)]  # since 1970


class State(Enum):
    """The state of a movie."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


@validated(frozen=True, config=_STRICT)
class Attempt:
    """One start of a movie's analysis. Times in seconds since 1970."""

    began: _Seconds
    ranks: int
    ended: _Seconds | None = None
    code: int | None = None
    reason: str = ""  # a sentence, if it failed
    again: bool = False  # whether it was put back into the queue


@validated(frozen=True, config=_STRICT)
class Record:
    """What happened to a movie: the attempts on its file while it had this size and date."""

    bytes: int
    modified: float
    attempts: tuple[Attempt, ...] = ()


@dataclasses.dataclass(frozen=True)
class SessionMovie:
    """A movie of a session, and its state."""

    index: int
    path: Path
    result: Path
    log: Path
    state: State
    run: Run | None
    attempts: tuple[Attempt, ...]
    reason: str = ""

    @property
    def refused(self) -> bool:
        """Whether the program said that its input was wrong, and the file is still the same."""
        return self.state is State.FAILED and self.attempts[-1].code == InputError.exit_code

    @property
    def device_hours(self) -> float:
        """Ranks x hours of all attempts whose end is known."""
        return sum(a.ranks * (a.ended - a.began) for a in self.attempts if a.ended is not None) / 3600


@dataclasses.dataclass(frozen=True)
class Session:
    """The manifest of a session, read from its folder."""

    folder: Path
    movies_folder: Path
    options: tuple[str, ...]  # of `hrtemvae analyze`
    # Of the movies, relative to movies_folder; only ever added to.
    names: tuple[str, ...] = dataclasses.field(repr=False)

    @property
    def id(self) -> str:
        """A short name by which the queue knows this session."""
        return hashlib.sha256(os.fsencode(self.folder)).hexdigest()[:10]

    def movie(self, index: int) -> SessionMovie:
        """Movie number ``index`` and its state. Raises InputError if there is none."""
        if not 0 <= index < len(self.names):
            raise InputError(f"{self.folder}: this session has {len(self.names)} movies, none with number {index}.")
        name = self.names[index]
        path = self.movies_folder / name
        result = self.folder / (name + RESULT)
        log = self.folder / "logs" / f"{name}.log"
        record = self._record(index)
        attempts = record.attempts
        if exists(result):
            is_later = attempts and exists(path) and (record.bytes, record.modified) != _stamp(path)
            remark = "changed since it was analysed; remove its result to have it analysed again" if is_later else ""
            return SessionMovie(index, path, result, log, State.DONE, None, attempts, remark)
        run = run_at_work(result.with_name(result.name + ".parts"))
        if run is not None:
            return SessionMovie(index, path, result, log, State.RUNNING, run, attempts)
        last = attempts[-1] if attempts else None
        if last and last.code and not last.again and (record.bytes, record.modified) == _stamp(path):
            return SessionMovie(index, path, result, log, State.FAILED, None, attempts, last.reason)
        return SessionMovie(index, path, result, log, State.WAITING, None, attempts, last.reason if last else "")

    def stamp(self, index: int) -> tuple[int, float]:
        """Size and date of a movie's file or folder."""
        return _stamp(self.movies_folder / self.names[index])

    @property
    def movies(self) -> Iterator[SessionMovie]:
        """All movies and their states."""
        return (self.movie(index) for index in range(len(self.names)))

    @property
    def worst_code(self) -> int:
        """The worst exit code of any movie; 0 if all are done."""
        return max((m.attempts[-1].code or 0 for m in self.movies if m.state is State.FAILED), default=0)

    def missing(self, queued: frozenset[int] = frozenset(), refused: bool = False) -> list[int]:
        """The movies that are neither done, running nor queued; refused and unchanged ones only if ``refused``."""
        missing = (m for m in self.movies if m.index not in queued and m.state in (State.WAITING, State.FAILED))
        return [m.index for m in missing if refused or not m.refused]

    def arguments(self, movie: SessionMovie) -> list[str]:
        """The words of the command that analyses ``movie``."""
        return ["analyze", str(movie.path), "-o", str(movie.result), *self.options]

    def begin(self, index: int, ranks: int) -> SessionMovie | None:
        """Record that the analysis of ``index`` starts; None if there is nothing to do."""
        movie = self.movie(index)
        if movie.state in (State.DONE, State.RUNNING):
            return None
        try:
            for path in (movie.result, movie.log):
                path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RankFailed(
                f"{path.parent}: can't be created ({error.strerror}); make room and submit again."
            ) from error
        record = self._record(index)
        same = (record.bytes, record.modified) == _stamp(movie.path)
        before = record.attempts if same else ()
        self._write_record(index, Record(*_stamp(movie.path), (*before, Attempt(time.time(), ranks))))
        return movie

    def end(self, index: int, code: int, again: bool) -> SessionMovie:
        """Record how the analysis of ``index`` ended, and why if it failed; ``again``: it is back in the queue."""
        movie, record = self.movie(index), self._record(index)
        if movie.state is not State.RUNNING and record.attempts:
            reason = "" if code == 0 else _reason(movie.log, code)
            last = dataclasses.replace(record.attempts[-1], ended=time.time(), code=code, reason=reason, again=again)
            self._write_record(index, dataclasses.replace(record, attempts=(*record.attempts[:-1], last)))
        return self.movie(index)

    def _record(self, index: int) -> Record:
        try:
            return _RECORD.validate_json(read_small(self.folder / "records" / f"{index}.json"))
        except (OSError, ValidationError):
            return Record(*_stamp(self.movies_folder / self.names[index]))

    def _write_record(self, index: int, record: Record) -> None:
        path = self.folder / "records" / f"{index}.json"
        with saving(path, "make room and submit again."), replacing(path) as aside:
            aside.write_text(json.dumps(dataclasses.asdict(record), indent=1))


class _Manifest(BaseModel):
    """What session.json holds."""

    model_config = _STRICT

    movies_folder: str
    options: list[str]
    movies: list[str]

    @field_validator("movies")
    @classmethod
    def _lie_below_the_folder(cls, names: list[str]) -> list[str]:
        if outside := [name for name in names if os.path.isabs(name) or ".." in Path(name).parts or "\0" in name]:
            raise ValueError(f"{outside[0]!r} does not lie in the folder of movies")
        return names


_RECORD = TypeAdapter(Record)


def _stamp(path: Path) -> tuple[int, float]:
    try:
        known = path.lstat()  # a link's target may not be visible
    except OSError:
        return 0, 0.0
    return known.st_size, known.st_mtime


def _reason(log: Path, code: int) -> str:
    """The last sentence in which the program itself said what was wrong."""
    try:
        lines = read_end(log, _LOOKED_AT).decode(errors="replace").splitlines()
    except OSError:
        lines = []
    said = [line.removeprefix("hrtemvae: ") for line in lines if line.startswith("hrtemvae: ")]
    return said[-1] if said else f"ended with exit code {code} and no message; see {log.name}."


def default_folder(movies: Path) -> Path:
    """Where a session's results go by default: into the current folder, as with `hrtemvae analyze`."""
    return Path(f"{movies.absolute().name}.maps")


def open_session(folder: Path) -> Session:
    """The session in ``folder``; raises InputError if there is none."""
    folder = folder.absolute()
    path = folder / "session.json"
    try:
        # json keeps the bytes of names that are not UTF-8, which pydantic's own parser refuses
        stored = _Manifest.model_validate(json.loads(read_small(path, _LARGEST)))
        return Session(folder, Path(stored.movies_folder), tuple(stored.options), tuple(stored.movies))
    except OSError as error:
        raise InputError(f"{folder}: there is no session; start one, or name its folder with -o.") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: is damaged; remove it and start the session again (results are kept).") from error


def begin_session(movies: Path, folder: Path, options: Sequence[str], found: Found | None = None) -> Session:
    """Freeze the manifest of the movies in ``movies``, or those ``found`` there; an existing session gets the new ones.

    Raises InputError if there are no movies and none were looked for before, or the session was started with other
    options.
    """
    movies, folder = movies.absolute(), folder.absolute()
    if not os.access(movies, os.R_OK | os.X_OK) or not is_folder(movies):
        raise InputError(f"{movies}: there is no such folder of movies, or it can't be read.")
    session_folder = OwnFolder(folder, "session")
    session_folder.check()
    check_outputs([Output(folder / "session.html", "the page", is_page)] if is_folder(folder) else [])
    listed = find_movies(movies, folder) if found is None else found
    for reason in listed.left_out:
        say(f"left out: {reason}")
    known: tuple[str, ...] = ()
    if exists(folder / "session.json"):
        before = open_session(folder)
        if before.movies_folder != movies or before.options != tuple(options):
            options_before = f"the options `{' '.join(before.options)}`" if before.options else "no options"
            raise InputError(
                f"{folder}: holds a session of {before.movies_folder} with {options_before}; use those, or choose "
                "another folder with -o."
            )
        known = before.names
    session = Session(folder, movies, tuple(options), (*known, *sorted(set(listed.names) - set(known))))
    for place in (movies, folder):
        if "\n" in str(place):
            raise InputError(f"{str(place)!r}: Slurm can't handle a line break in a folder's name; rename it.")
    if not session.names and found is None:
        raise InputError(f"{movies}: holds no movies; name another folder.")
    session_folder.take()
    with writing(folder):
        for name in ("records", "logs"):
            (folder / name).mkdir(exist_ok=True)
        if session.names != known or not exists(folder / "session.json"):
            with replacing(folder / "session.json") as aside:
                stored = {"movies_folder": str(movies), "options": session.options, "movies": session.names}
                aside.write_text(json.dumps(stored, indent=1))
    return session


def queued_of(session: Session, queue: str) -> frozenset[int]:
    """The movies of ``session`` in the queue, given as ``ID+OFFSET NUMBER;`` for each of its jobs."""
    jobs = (entry.split() for entry in queue.split(";") if entry.startswith(f"{session.id}+"))
    return frozenset(int(name.rpartition("+")[2]) + int(number) for name, number in jobs if number.isdigit())


def array_chunks(indices: Sequence[int], size: int) -> list[tuple[int, str]]:
    """``indices`` as Slurm's job arrays whose numbers stay below ``size``: an offset and a list such as ``0-3,7``."""
    chunks: dict[int, list[int]] = {}
    for index in sorted(indices):
        chunks.setdefault(index // size * size, []).append(index % size)
    return [(offset, _ranges(numbers)) for offset, numbers in chunks.items()]


def _ranges(numbers: Sequence[int]) -> str:
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ",".join(f"{a}-{b}" if b > a else str(a) for a, b in runs)
