"""What ranks say to each other while they work, as typed buffers.

A rank sends rank 0 a header, followed by the maps of a finished tile or the text of an error. Rank 0 answers
with orders: a tile, or the end.
"""

import time
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

import numpy as np

from hrtemvae_hpc.distributed.parts import TileMaps
from hrtemvae_hpc.distributed.worker import STAGES, Finished
from hrtemvae_hpc.statistics.over_time import MAPS
from hrtemvae_hpc.windows.grid import Tiling

if TYPE_CHECKING:
    from mpi4py.MPI import Comm, Request

_HEADER, _BODY, _ORDER = 1, 2, 3
NO_TILE = -1
_BEAT_S = 0.5


class Kind(IntEnum):
    """What a rank has to say."""

    READY = 0
    PROGRESS = 1
    FINISHED = 2
    FAILED = 3
    SIGNALLED = 4


@dataclass
class Report:
    """A message of a rank to rank 0."""

    rank: int
    kind: Kind
    windows: int = 0  # encoded so far
    activity: int = 0  # grows as long as the rank gets on
    code: int = 0  # of a failure
    text: str = ""
    finished: Finished | None = None


class Outbox:
    """What a rank sends to rank 0: reports as they come, and now and then how far it is.

    Nothing here waits, so that a rank can tell when rank 0 no longer listens.
    """

    def __init__(self, comm: "Comm") -> None:
        self._comm = comm
        self._pending: list[tuple[Request, np.ndarray]] = []
        self._sent = time.monotonic()

    def post(self, report: Report) -> None:
        """Begin to send ``report``."""
        done = report.finished
        body = report.text.encode()
        header = np.zeros(8, np.float64)  # whole numbers up to 2^53 are exact
        header[:5] = report.kind, report.windows, report.code, len(body), NO_TILE
        header[7] = report.activity
        buffers = []
        if done is not None:
            header[4:7] = done.index, done.decoded_bytes, len(done.maps.bad_frames)
            seconds = np.array([done.seconds[s] for s in STAGES])
            buffers = [seconds, done.maps.maps, done.maps.valid_frames, done.maps.bad_frames]
        elif body:
            buffers = [np.frombuffer(body, np.uint8)]
        self._pending.append((self._comm.Issend(header, 0, _HEADER), header))
        self._pending += [(self._comm.Issend(buffer, 0, _BODY), buffer) for buffer in buffers]
        self._sent = time.monotonic()

    def beat(self, windows: int, activity: int) -> float:
        """Post the count of encoded windows if it is time; returns for how many seconds rank 0 did not listen."""
        self._pending = [(request, buffer) for request, buffer in self._pending if not request.Test()]
        waited = time.monotonic() - self._sent
        if self._pending:
            return waited
        if waited > _BEAT_S:
            self.post(Report(0, Kind.PROGRESS, windows, activity))
        return 0.0


def receive_report(comm: "Comm", tiling: Tiling, latents: int) -> Report | None:
    """The next report of any rank, None where there is none."""
    from mpi4py import MPI

    status = MPI.Status()
    if not comm.Iprobe(MPI.ANY_SOURCE, _HEADER, status):
        return None
    source = status.Get_source()
    header = np.empty(8, np.float64)
    comm.Recv(header, source, _HEADER)
    kind, windows, code, length, index, decoded, bad, activity = (int(v) for v in header)
    report = Report(source, Kind(kind), windows, activity, code)
    if index != NO_TILE:
        rows, columns = tiling.tiles[index].shape
        seconds = np.empty(len(STAGES))
        maps = TileMaps(
            np.empty((len(MAPS), latents, rows, columns), np.float32),
            np.empty((rows, columns), np.int32),
            np.empty(bad, np.int64),
        )
        for buffer in (seconds, maps.maps, maps.valid_frames, maps.bad_frames):
            comm.Recv(buffer, source, _BODY)
        report.finished = Finished(index, maps, dict(zip(STAGES, seconds.tolist(), strict=True)), decoded)
    elif length:
        text = np.empty(length, np.uint8)
        comm.Recv(text, source, _BODY)
        report.text = text.tobytes().decode()
    return report


@dataclass(frozen=True)
class Order:
    """A tile to compute, or (with NO_TILE) the end with an exit code."""

    tile: int
    code: int = 0


def send_order(comm: "Comm", rank: int, order: Order) -> None:
    """Send ``order`` to ``rank``."""
    comm.Send(np.array([order.tile, order.code], np.int64), rank, _ORDER)


def receive_order(comm: "Comm") -> Order | None:
    """Rank 0's next order, None where there is none yet."""
    if not comm.Iprobe(0, _ORDER):
        return None
    buffer = np.empty(2, np.int64)
    comm.Recv(buffer, 0, _ORDER)
    return Order(*(int(v) for v in buffer))
