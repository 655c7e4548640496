"""One run at a time on a result: a file in the folder of parts says which run is at work and how far it is.

The run rewrites it regularly as a sign of life. Clocks may be wrong or be changed: a process is identified by what the
kernel counts, and a claim that looks old is watched before it counts as lost.
"""

import os
import random
import re
import socket
import stat
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Annotated, TypeAlias

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from hrtemvae_hpc.errors import InputError, RankFailed, printable
from hrtemvae_hpc.files import FOLDER_ADVICE, OwnFolder, replacing, temporary_name, writing
from hrtemvae_hpc.ranks.process import boot_id, process_namespace, start_ticks

_NAME = "run.json"
_TURN = ".run.json.turn"
CLAIM_NAMES = (re.escape(_NAME), re.escape(_TURN))  # patterns of the files that a claim leaves
_TURN_LOST_AFTER_S = (3.0, 5.0)
_NO_TURN_AFTER_S = 30.0
_EVERY_S = 5.0
_LOST_AFTER_S = 120.0
_WATCHED_S = 2.5 * _EVERY_S
_LOOK_EVERY_S = 0.05
_LONGEST = 4096  # bytes of a claim

_Text = Annotated[str, Field(max_length=256)]
_Stamp: TypeAlias = tuple[int, int]  # a file's number and date: they change whenever it is written


@dataclass(frozen=True, config=ConfigDict(strict=True, extra="forbid"))
class Run:
    """A run that is at work on a result."""

    host: _Text
    boot: _Text  # the kernel's name for its time since the host was started
    processes: _Text  # the kernel's name for the process namespace that `pid` counts in
    pid: Annotated[int, Field(gt=0)]
    ticks: Annotated[int, Field(ge=0)]  # of the kernel, from the boot to the process's start
    job: _Text  # Slurm's number, "" outside
    share: Annotated[float, Field(ge=0, le=1)] = 0.0  # of the windows that are done

    def __str__(self) -> str:
        job = f", job {printable(self.job)}" if self.job else ""
        return f"process {self.pid} on {printable(self.host)}{job}, {100 * self.share:.0f}% done"

    def is_same(self, other: "Run") -> bool:
        """Whether both are one process."""
        return replace(self, share=0.0) == replace(other, share=0.0)


_RUN = TypeAdapter(Run)


def this_run() -> Run:
    """The run that this process is rank 0 of."""
    return Run(
        host=socket.gethostname(),
        boot=boot_id(),
        processes=process_namespace(),
        pid=os.getpid(),
        ticks=start_ticks(os.getpid()) or 0,
        job=os.environ.get("SLURM_JOB_ID", ""),
    )


def run_at_work(folder: Path) -> Run | None:
    """The run at work in a folder of parts, None if there is none or it is lost.

    A process of this host is looked up; one of another host counts as lost if its last sign of life is dated two
    minutes off, or at once if it belonged to the Slurm job that asks: Slurm starts a job again only after its end.
    """
    known = _read(folder / _NAME)
    if known is None:
        return None
    run, (_, date) = known
    alive = _is_alive(run)
    return run if alive or (alive is None and abs(_now(folder) - date / 1e9) < _LOST_AFTER_S) else None


def _is_alive(run: Run) -> bool | None:
    """Whether ``run`` is at work, None if that can't be known from here."""
    me = this_run()
    if (run.boot, run.processes) == (me.boot, me.processes):
        return start_ticks(run.pid) == run.ticks
    return False if run.job and run.job == me.job else None


def _read(path: Path) -> tuple[Run, _Stamp] | None:
    """A claim and its stamp; None if there is none, or something else under its name."""
    with suppress(OSError, ValidationError):
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            status = os.fstat(file)
            if stat.S_ISREG(status.st_mode) and status.st_size <= _LONGEST:
                return _RUN.validate_json(os.read(file, _LONGEST)), _stamp(status)
        finally:
            os.close(file)
    return None


def _stamp(status: os.stat_result) -> _Stamp:
    return status.st_ino, status.st_mtime_ns


def _now(folder: Path) -> float:
    """The time by the clock that stamps files in ``folder``, which may be a server's; ours if it is read-only."""
    clock = folder / temporary_name()
    try:
        clock.touch(exist_ok=False)
        return clock.stat().st_mtime
    except OSError:
        return time.time()
    finally:
        with suppress(OSError):
            clock.unlink(missing_ok=True)


class Claim:
    """This run's claim on a folder of parts; as a context, it ends with the block.

    From ``take`` to the end of the context, or of the process, a thread gives signs of life.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder / _NAME
        self._still: _Stamp | None = None  # a claim that was watched, and wasn't rewritten
        self._share = 0.0
        self._successor: Run | None = None
        self._ended = threading.Event()
        self._heart: threading.Thread | None = None

    def check(self) -> None:
        """Raise InputError if another run is at work.

        A claim of another host that looks lost by its date is watched for some seconds first.
        """
        run = run_at_work(self._folder) or self._watch()
        if run is not None:
            raise InputError(
                f"{self._folder}: another run is at work on this result ({run}); wait for it, or choose another "
                "output with -o."
            )

    def _watch(self) -> Run | None:
        """The run of another host whose claim is rewritten while it is watched."""
        known = _read(self._path)
        if known is None or known[1] == self._still or _is_alive(known[0]) is not None:
            return None
        until = time.monotonic() + _WATCHED_S
        while time.monotonic() < until:
            time.sleep(_LOOK_EVERY_S)
            seen = _read(self._path)
            if seen is None or seen[1] != known[1]:
                return seen and seen[0]
        self._still = known[1]
        return None

    def take(self) -> None:
        """Claim the folder, which exists. Raises InputError if another run was faster, or it can't be written."""
        self.check()
        with writing(self._folder, FOLDER_ADVICE), self._turn():
            self.check()
            self._write()
        self._heart = threading.Thread(target=self._beat, name="claim", daemon=True)
        self._heart.start()

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """One run at a time looks at a claim and replaces it; a file's creation is atomic on network drives too.

        A turn lasts milliseconds, unless its run is killed in it: then the file stays.
        """
        turn = self._folder / _TURN
        began = since = time.monotonic()
        known: _Stamp | None = None
        patience = random.uniform(*_TURN_LOST_AFTER_S)  # so that only one of those waiting removes it
        while True:
            try:
                file = os.open(turn, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
                break
            except FileExistsError:
                now, seen = time.monotonic(), _stamp_of(turn)
                if seen != known:
                    known, since = seen, now
                elif seen is not None and now - since > patience:
                    turn.unlink(missing_ok=True)
                if now - began > _NO_TURN_AFTER_S:
                    raise InputError(f"{turn}: other runs keep starting here; try again.") from None
                time.sleep(_LOOK_EVERY_S)
        stamp = _stamp(os.fstat(file))
        os.close(file)
        try:
            yield
        finally:
            if _stamp_of(turn) == stamp:
                turn.unlink(missing_ok=True)

    def _write(self) -> None:
        claim = _RUN.dump_json(replace(this_run(), share=self._share))
        with replacing(self._path) as aside:
            aside.write_bytes(claim)

    def _beat(self) -> None:
        while not self._ended.wait(_EVERY_S) and self._successor is None:
            with suppress(OSError):  # a full disk is reported where a tile is saved
                self._write_sign()

    def _write_sign(self) -> None:
        known = _read(self._path)
        if known is None:
            return
        run = known[0]
        if not run.is_same(this_run()):
            self._successor = run
        elif run.share != self._share:
            self._write()
        else:
            os.utime(self._path)

    def heartbeat(self, share: float) -> None:
        """Record the ``share`` of the windows that are done in the signs of life.

        Raises RankFailed if another run took the folder, because it saw none.
        """
        self._share = min(max(float(share), 0.0), 1.0)
        if self._successor is not None:
            raise RankFailed(
                f"{self._folder}: another run ({self._successor}) took over, because this one gave no sign of life for "
                "two minutes; what is done is saved."
            )

    def stop_signs(self) -> None:
        """Stop the signs of life, before the folder is removed."""
        self._ended.set()
        if self._heart is not None:
            self._heart.join()

    def __enter__(self) -> "Claim":
        return self

    def __exit__(self, *_: object) -> None:
        """Release the folder if this run took it, and no other has since."""
        if self._heart is None:
            return
        self.stop_signs()
        known = _read(self._path)
        if known is not None and known[0].is_same(this_run()):
            with suppress(OSError):
                self._path.unlink(missing_ok=True)


class ClaimedFolder:
    """A folder of this program that one run at a time works in; as a context, the claim on it ends with the block."""

    def __init__(self, path: Path, kind: str, names: Sequence[str]) -> None:
        """``kind`` and ``names`` as those of OwnFolder."""
        self.path = path
        self._folder = OwnFolder(path, kind, [*CLAIM_NAMES, *names])
        self._claim = Claim(path)

    def check(self) -> None:
        """Raise InputError if the folder holds what isn't ours, or another run is at work; nothing is changed."""
        self._folder.check()
        self._claim.check()

    def take(self) -> None:
        """Make the folder and claim it. Raises InputError as ``check`` does, or where it can't be written."""
        self._folder.take()
        self._claim.take()

    def heartbeat(self, share: float) -> None:
        """Record the ``share`` of the work that is done; raises RankFailed if another run took the folder."""
        self._claim.heartbeat(share)

    def clear(self, keep: Sequence[str] = ()) -> None:
        """Delete all that an earlier run left, but what has names of the patterns ``keep``."""
        self._folder.clear(keep=[*CLAIM_NAMES, *keep])

    def discard(self) -> None:
        """Delete all our files, including the claim, and the folder if nothing else is in it."""
        self._claim.stop_signs()
        self._folder.remove()

    def __enter__(self) -> "ClaimedFolder":
        return self

    def __exit__(self, *_: object) -> None:
        self._claim.__exit__()


def _stamp_of(path: Path) -> _Stamp | None:
    try:
        return _stamp(path.lstat())
    except FileNotFoundError:
        return None
