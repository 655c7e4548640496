"""The world of ranks: MPI's where a launcher started this process, else a world of one without MPI."""

import math
import os
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, TypeVar

from hrtemvae_hpc.errors import HrtemvaeError, InputError, RankFailed, Stopped, report
from hrtemvae_hpc.ranks.guard import STARTING_MPI, doing, end_process, prepare_to_end, run_exit_functions

if TYPE_CHECKING:
    from mpi4py.MPI import Comm

T = TypeVar("T")

# How many copies each launcher says it started: Open MPI, MPICH and relatives, Slurm's srun.
_SIZES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS")
_PATIENCE_S = (
    4.0  # for the other ranks at the end; together with the time they take to stop, less than the guardian's grace
)
NAME_AFTER_S = 60.0
_TAG = 10


class RankEnds(BaseException):
    """This rank is to end with ``code``, without a message of its own: rank 0 reports for all."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class World:
    """Rank and size, and the few collective operations the job needs before and after the tiles.

    Nothing here blocks inside MPI, so that a signal stops a rank while it waits and rank 0 can name who is missing.
    """

    def __init__(self, comm: "Comm | None" = None, stop: Callable[[], object] = lambda: None) -> None:
        """``stop`` says whether this rank was asked to stop."""
        self.comm = comm
        self._stop = stop
        self.rank = comm.Get_rank() if comm else 0
        self.size = comm.Get_size() if comm else 1
        self.host = socket.gethostname()
        self._hosts = ["?"] * self.size
        self._hosts = self.allgather(self.host)
        self.local_rank = self._hosts[: self.rank].count(self.host)
        self.local_size = self._hosts.count(self.host)

    @property
    def is_root(self) -> bool:
        return self.rank == 0

    def library(self) -> tuple[str, str]:
        """The MPI library's name and the file it was loaded from; empty in a world without MPI."""
        if self.comm is None:
            return "", ""
        from mpi4py import MPI

        lines = Path("/proc/self/maps").read_text().splitlines()
        files = (line.split(maxsplit=5)[-1] for line in lines if "/libmpi" in line)
        return MPI.Get_library_version().splitlines()[0].split(",")[0].strip(), next(files, "")

    def allgather(self, value: T, patience: float | None = None) -> list[T]:
        """Each rank's ``value``, by rank; a rank that is missing after ``patience`` seconds (a minute) is reported.

        Raises Stopped when a signal comes while waiting.
        """
        gathered = self.gather(value, patience)
        if self.comm is None:
            return gathered
        if not self.is_root:
            self._wait(lambda: self._has_message(0), {0}, patience)
            return self.comm.recv(source=0, tag=_TAG)  # type: ignore[no-any-return]
        for rank in range(1, self.size):
            self.comm.send(gathered, rank, _TAG)
        return gathered

    def gather(self, value: T, patience: float | None = None) -> list[T]:
        """Like ``allgather``, but on rank 0 alone; the others get an empty list."""
        if self.comm is None:
            return [value]
        if not self.is_root:
            sent = self.comm.isend(value, 0, _TAG)
            self._wait(lambda: bool(sent.Test()), {0}, patience)
            return []
        values = {0: value}
        missing = set(range(1, self.size))
        while missing:
            self._wait(lambda: any(self._has_message(rank) for rank in missing), missing, patience)
            for rank in [r for r in missing if self._has_message(r)]:
                values[rank] = self.comm.recv(source=rank, tag=_TAG)
                missing.discard(rank)
        return [values[rank] for rank in range(self.size)]

    def _has_message(self, rank: int) -> bool:
        return self.comm is not None and self.comm.iprobe(rank, _TAG)

    def _wait(self, done: Callable[[], bool], ranks: set[int], patience: float | None) -> None:
        began, named = time.monotonic(), False
        patience = NAME_AFTER_S if patience is None else patience
        while not done():
            if self._stop():
                raise Stopped("stopped while ranks waited for each other; run the same command again.")
            if time.monotonic() - began > patience and not named:
                who = ", ".join(f"{rank} on {self._hosts[rank]}" for rank in sorted(ranks))
                print(f"rank {self.rank} is waiting for rank {who}, which may hang.", file=sys.stderr, flush=True)
                named = True
            time.sleep(0.002)

    def on_root(self, function: Callable[[], T], patience: float | None = None) -> T:
        """What ``function`` returns on rank 0, on every rank; the others report rank 0 after ``patience`` seconds.

        If it raises, rank 0 raises that and the others RankEnds.
        """
        value, error = None, None
        if self.is_root:
            try:
                value = function()
            except HrtemvaeError as raised:
                error = raised
        value, code = self.allgather((value, error.exit_code if error else None), patience)[0]
        if error is not None:
            raise error
        if code is not None:
            raise RankEnds(code)
        return value  # type: ignore[return-value]

    def on_all(self, function: Callable[[], T]) -> T:
        """What ``function`` returns here, once it has returned on every rank.

        If it raises on any, rank 0 raises the first of these errors, and the others RankEnds. The error names its
        rank, unless it is an error of the input that rank 0 meets itself.
        """
        value, error = None, None
        try:
            value = function()
        except HrtemvaeError as raised:
            error = raised
        if error is not None and (isinstance(error, RankFailed) or not self.is_root):
            error = type(error)(f"rank {self.rank} on {self.host}: {error}")
        # As text: an error may hold what can't be sent, such as its cause.
        failed = [each for each in self.allgather(error and (type(error), str(error))) if each]
        if failed:
            kind, what = failed[0]
            self.raise_once(error or kind(what))
        return value  # type: ignore[return-value]

    def check_same(self, value: T, describe: Callable[[str, T], str]) -> None:
        """Raise InputError on rank 0 and RankEnds on the others if any ``value`` differs from that of rank 0.

        ``describe`` makes the message from the first such rank with its host, and its value.
        """
        values = self.allgather(value)

        def check() -> None:
            for rank, other in enumerate(values):
                if other != value:
                    raise InputError(describe(f"rank {rank} on {self._hosts[rank]}", other))

        self.on_root(check)

    def raise_once(self, error: HrtemvaeError) -> NoReturn:
        """Raise ``error``, which all ranks meet at the same time, on rank 0, and RankEnds on the others."""
        raise error if self.is_root else RankEnds(error.exit_code)

    def leave(self, code: int) -> NoReturn:
        """End this rank with ``code`` once all ranks have come to their end.

        After an error, a rank that doesn't come, because it hangs or knows of no error, is ended after a few seconds;
        without one, a minute after rank 0.
        """
        prepare_to_end()
        if self.comm is not None:
            from mpi4py import MPI

            # MPI_Finalize need not wait, and srun --wait ends the others soon after the first rank. Rank 0, which may
            # have a result to write for as long as it takes, comes last.
            patience = _PATIENCE_S if code else NAME_AFTER_S if self.is_root else math.inf
            if not self._all_arrive(patience):
                if code == 0:
                    report(RankFailed(f"not all ranks have ended {patience:.0f} s after rank 0; ending them."))
                self.abort(code or RankFailed.exit_code)
            run_exit_functions()
            MPI.Finalize()
        end_process(code)

    def _all_arrive(self, patience: float) -> bool:
        if self.comm is None:
            return True
        request = self.comm.Ibarrier()
        until = time.monotonic() + patience
        while not request.Test():
            if time.monotonic() > until:
                return False
            time.sleep(0.01)
        return True

    def abort(self, code: int) -> NoReturn:
        """End all ranks at once, whatever they are doing."""
        prepare_to_end()
        if self.comm is not None and self.size > 1:
            self.comm.Abort(code)
        os._exit(code)


def join_world(stop: Callable[[], object] = lambda: None) -> World:
    """The world this process was launched into; ``stop`` says whether this rank was asked to stop.

    Raises InputError when a launcher started several copies that don't know of each other.
    """
    launched = {name: int(os.environ[name]) for name in _SIZES if os.environ.get(name, "").isdigit()}
    if not launched:
        return World()
    expected = max(launched.values())
    # Its one-sided transfers through libfabric aren't used here; if they find no network, Open MPI sleeps for a second.
    os.environ.setdefault("OMPI_MCA_btl_base_exclude", "ofi")
    doing(STARTING_MPI)  # which ends this process where it can't
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:
        if expected == 1:
            return World()
        raise InputError(
            f"the launcher started {expected} copies, but MPI can't be loaded ({error}); "
            "install it with `pip install hrtemvae-hpc[mpi]`, or start one copy without a launcher."
        ) from error
    finally:
        doing("starting")
    world = World(MPI.COMM_WORLD, stop)
    if world.size == 1 and expected > 1:
        raise InputError(
            f"the launcher started {expected} copies, but each is alone (rank 0 of 1): its process management "
            "interface and this MPI can't communicate. With Slurm use `srun --mpi=pmix` (see `srun --mpi=list`); "
            "otherwise use the mpirun of the MPI that mpi4py uses."
        )
    return world
