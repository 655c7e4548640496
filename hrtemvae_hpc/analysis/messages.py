"""The messages between ranks while they work, as typed buffers.

A rank sends rank 0 a header, followed by the maps of a finished tile or the text of an error. Rank 0 answers
with orders: regions of the movie to stage, a tile, or the end.
"""

import time
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

import numpy as np

from hrtemvae_hpc.analysis.parts import TileMaps
from hrtemvae_hpc.analysis.worker import STAGES, Finished, Order, Task
from hrtemvae_hpc.statistics.over_time import ALL_MAPS
from hrtemvae_hpc.windows.cells import Cells
from hrtemvae_hpc.windows.grid import Tiling

if TYPE_CHECKING:
    from mpi4py.MPI import Comm, Request

_HEADER, _BODY, _ORDER = 1, 2, 3
_BEAT_S = 0.5


class Kind(IntEnum):
    """The kind of a report."""

    READY = 0
    PROGRESS = 1
    FINISHED = 2
    FAILED = 3
    SIGNALLED = 4
    STAGED = 5


@dataclass
class Report:
    """A message from a rank to rank 0."""

    rank: int
    kind: Kind
    windows: int = 0  # encoded so far
    activity: int = 0  # grows as long as the rank makes progress
    code: int = 0  # of a failure
    text: str = ""
    finished: Finished | None = None


class Outbox:
    """Sends messages to rank 0: reports as they come, and its progress from time to time.

    Nothing here waits, so a rank notices when rank 0 no longer listens.
    """

    def __init__(self, comm: "Comm") -> None:
        self._comm = comm
        self._pending: list[tuple[Request, np.ndarray]] = []
        self._sent = time.monotonic()

    def post(self, report: Report) -> None:
        """Start to send ``report``."""
        done = report.finished
        body = report.text.encode()
        header = np.zeros(9, np.float64)  # whole numbers up to 2^53 are exact
        header[:5] = report.kind, report.windows, report.code, len(body), report.activity
        buffers = [np.frombuffer(body, np.uint8)] if body else []
        if done is not None:
            header[5:8] = done.order.first, done.order.count, done.decoded_bytes
            buffers = [np.array([done.seconds[s] for s in STAGES])]
            if done.maps is not None:
                header[8] = len(done.maps.bad_frames)
                buffers += _arrays(done.maps)
        self._pending.append((self._comm.Issend(header, 0, _HEADER), header))
        self._pending += [(self._comm.Issend(buffer, 0, _BODY), buffer) for buffer in buffers]
        self._sent = time.monotonic()

    @property
    def pending(self) -> bool:
        """Whether rank 0 has not yet taken everything."""
        return len(self._pending) > 0

    def beat(self, windows: int, activity: int) -> float:
        """Post the count of encoded windows if it is time; returns for how many seconds rank 0 did not listen."""
        self._pending = [(request, buffer) for request, buffer in self._pending if not request.Test()]
        waited = time.monotonic() - self._sent
        if self._pending:
            return waited
        if waited > _BEAT_S:
            self.post(Report(0, Kind.PROGRESS, windows, activity))
        return 0.0


def receive_report(comm: "Comm", tiling: Tiling, latents: int, permutations: int, cells: Cells) -> Report | None:
    """The next report of any rank, None if there is none."""
    from mpi4py import MPI

    status = MPI.Status()
    if not comm.Iprobe(MPI.ANY_SOURCE, _HEADER, status):
        return None
    source = status.Get_source()
    header = np.empty(9, np.float64)
    comm.Recv(header, source, _HEADER)
    kind, windows, code, length, activity, first, count, decoded, bad = (int(v) for v in header)
    report = Report(source, Kind(kind), windows, activity, code)
    if report.kind in (Kind.STAGED, Kind.FINISHED):
        seconds, maps = np.empty(len(STAGES)), None
        comm.Recv(seconds, source, _BODY)
        if report.kind is Kind.FINISHED:
            rows, columns = tiling.tiles[first].shape
            across = cells.shape((rows, columns))
            maps = TileMaps(
                np.empty((len(ALL_MAPS), latents, rows, columns), np.float32),
                np.empty((rows, columns), np.int32),
                np.empty(bad, np.int64),
                np.empty((rows, columns), np.float32),
                np.empty(permutations, np.float32),
                np.empty((*across, latents, cells.bins), np.float16),
                np.empty((2, *across), np.int32),
            )
            for buffer in _arrays(maps):
                comm.Recv(buffer, source, _BODY)
        order = Order(Task.REGIONS if maps is None else Task.TILE, first, count)
        report.finished = Finished(order, dict(zip(STAGES, seconds.tolist(), strict=True)), decoded, maps)
    elif length:
        text = np.empty(length, np.uint8)
        comm.Recv(text, source, _BODY)
        report.text = text.tobytes().decode()
    return report


def _arrays(maps: TileMaps) -> list[np.ndarray]:
    return [
        maps.maps,
        maps.valid_frames,
        maps.bad_frames,
        maps.reconstruction,
        maps.largest_rho,
        maps.series.view(np.int16),  # MPI knows no half precision
        maps.series_windows,
    ]


def send_order(comm: "Comm", rank: int, order: Order) -> None:
    """Send ``order`` to ``rank``."""
    comm.Send(np.array([order.task, order.first, order.count], np.int64), rank, _ORDER)


def receive_order(comm: "Comm") -> Order | None:
    """Rank 0's next order, None if there is none yet."""
    if not comm.Iprobe(0, _ORDER):
        return None
    buffer = np.empty(3, np.int64)
    comm.Recv(buffer, 0, _ORDER)
    task, first, count = (int(v) for v in buffer)
    return Order(Task(task), first, count)
