"""The world of ranks: MPI's where a launcher started this process, else a world of one without MPI."""

import os
import socket
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, NoReturn, TypeVar

from hrtemvae_hpc.errors import HrtemvaeError, InputError

if TYPE_CHECKING:
    from mpi4py.MPI import Comm

T = TypeVar("T")

# How many copies each launcher says it started: Open MPI, MPICH and relatives, Slurm's srun.
_SIZES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS")
_PATIENCE_S = 5.0


class World:
    """Rank and size, and the few collective operations the job needs before and after the tiles."""

    def __init__(self, comm: "Comm | None" = None) -> None:
        self.comm = comm
        self.rank = comm.Get_rank() if comm else 0
        self.size = comm.Get_size() if comm else 1
        self.host = socket.gethostname()
        hosts = self.allgather(self.host)
        self.local_rank = hosts[: self.rank].count(self.host)

    @property
    def is_root(self) -> bool:
        return self.rank == 0

    def allgather(self, value: T) -> list[T]:
        """Each rank's ``value``, by rank."""
        return self.comm.allgather(value) if self.comm else [value]

    def on_root(self, function: Callable[[], T]) -> T:
        """What ``function`` returns on rank 0, on every rank.

        Where it raises, rank 0 raises and the others leave without a word.
        """
        if self.comm is None:
            return function()
        value, error = None, None
        if self.is_root:
            try:
                value = function()
            except HrtemvaeError as raised:
                error = raised
        value, code = self.comm.bcast((value, error.exit_code if error else None))
        if error is not None:
            raise error
        if code is not None:
            self.leave(code)
        return value  # type: ignore[no-any-return]

    def leave(self, code: int) -> NoReturn:
        """End this rank with ``code``: 0 when all ranks are done, else as soon as all have come to their end.

        A rank that doesn't come, because it hangs or knows of no error, is ended after a few seconds.
        """
        sys.stdout.flush()
        sys.stderr.flush()
        if self.comm is not None:
            from mpi4py import MPI

            if code != 0 and not self._all_come():
                self.comm.Abort(code)
            MPI.Finalize()
        os._exit(code)

    def _all_come(self) -> bool:
        if self.comm is None:
            return True
        request = self.comm.Ibarrier()
        until = time.monotonic() + _PATIENCE_S
        while not request.Test():
            if time.monotonic() > until:
                return False
            time.sleep(0.01)
        return True

    def abort(self, code: int) -> NoReturn:
        """End all ranks at once, whatever they are doing."""
        sys.stdout.flush()
        sys.stderr.flush()
        if self.comm is not None and self.size > 1:
            self.comm.Abort(code)
        os._exit(code)


def join_world() -> World:
    """The world this process was launched into.

    Raises InputError when a launcher started several copies that don't know of each other.
    """
    launched = {name: int(os.environ[name]) for name in _SIZES if os.environ.get(name, "").isdigit()}
    if not launched:
        return World()
    expected = max(launched.values())
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:
        if expected == 1:
            return World()
        raise InputError(
            f"the launcher started {expected} copies, but MPI can't be loaded ({error}); "
            "install it with `pip install hrtemvae-hpc[mpi]`, or start one copy without a launcher."
        ) from error
    world = World(MPI.COMM_WORLD)
    if world.size == 1 and expected > 1:
        raise InputError(
            f"the launcher started {expected} copies, but each is alone (rank 0 of 1): its process management "
            "interface and this MPI don't speak. With Slurm use `srun --mpi=pmix` (see `srun --mpi=list`); "
            "otherwise use the mpirun of the MPI that mpi4py was given."
        )
    return world
