"""Handing out regions to stage and tiles: rank 0's loop, which also works, and the loop of the other ranks."""

import time
import traceback
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from hrtemvae_hpc.analysis.messages import (
    Kind,
    Outbox,
    Report,
    receive_order,
    receive_report,
    send_order,
)
from hrtemvae_hpc.analysis.parts import Parts
from hrtemvae_hpc.analysis.worker import AT_ONCE, STAGES, Finished, Order, Task, Worker, describe
from hrtemvae_hpc.errors import HrtemvaeError, RankFailed, Stopped, error_of
from hrtemvae_hpc.ranks.guard import StopRequest
from hrtemvae_hpc.ranks.progress import Progress, say
from hrtemvae_hpc.ranks.resources import RankResources
from hrtemvae_hpc.ranks.saved import note_saved
from hrtemvae_hpc.ranks.world import World
from hrtemvae_hpc.windows.grid import Tiling

_BUSY_S, _IDLE_S = 0.01, 0.001  # between checks for messages, which take time from computing
_AHEAD = 6
_PATIENCE_S = 3.0


@dataclass
class RankRecord:
    """What rank 0 knows of a rank."""

    resources: RankResources
    ready: bool = False
    orders: deque[Order] = field(default_factory=deque)  # under way, oldest first
    windows: int = 0
    activity: int = 0
    tiles: int = 0
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))
    decoded_bytes: int = 0
    heard: float = field(default_factory=time.monotonic)
    named_silent: bool = False

    def __str__(self) -> str:
        return f"rank {self.resources.rank} on {self.resources.host}"


class Coordinator:
    """Rank 0 while the tiles are computed."""

    def __init__(
        self, world: World, worker: Worker, tiling: Tiling, parts: Parts, ranks: Sequence[RankResources]
    ) -> None:
        self.world = world
        self.worker = worker
        self.tiling = tiling
        self.parts = parts
        self.records = [RankRecord(r) for r in ranks]
        frames = worker.means.reader.movie.shape[0]
        tiles = tiling.tiles
        self.resumed = {i for i, tile in enumerate(tiles) if parts.load(tile) is not None}
        self._pending = deque(i for i in range(len(tiles)) if i not in self.resumed)
        self._unfinished = set(self._pending)
        regions = range(len(worker.regions) if worker.means.stage and self._pending else 0)
        self._stages = len(regions) > 0
        self._unstaged = {r.host: deque(regions) for r in ranks}  # every node stages the movie for itself
        self._staging = Counter[str]()
        self._regions, self._regions_done = len(regions) * len(self._unstaged), 0
        self.staged_at = self.done_at = time.monotonic()
        self._already = sum(tiles[i].windows for i in self.resumed) * frames
        self._progress = Progress(
            sum(t.windows for t in tiles) * frames, "window", len(tiles), "tile", self._already, len(self.resumed)
        )

    @property
    def staged(self) -> bool:
        """Whether this run has staged all of the movie on rank 0's node."""
        host = self.records[0].resources.host
        return self._stages and not self._unstaged[host] and not self._staging[host]

    @property
    def finished(self) -> int:
        """Tiles that are saved."""
        return self.tiling.count - len(self._unfinished)

    def run(self, stop: StopRequest, silent_after: float) -> None:
        """Compute and save every tile, and report ranks that are silent for more than ``silent_after`` seconds.

        Raises Stopped on a signal, and what a rank raised, after all ranks were ordered to end.
        """
        self.records[0].ready = True
        try:
            while self._unfinished:
                while self._receive():
                    pass
                self._work()
                if stop:
                    raise Stopped(f"stopped by {stop.name}")
                self._hand_out()
                self._watch(silent_after)
                windows = self._already + sum(r.windows for r in self.records)
                staging = self._regions_done < self._regions
                if staging and windows == self._already:
                    self._progress.begin()
                staged = f"{self._regions_done / self._regions:.0%} of the movie staged" if staging else ""
                self._progress.update(windows, self.finished, staged)
                self.parts.claimed.heartbeat(windows / self._progress.total)
            self.done_at = time.monotonic()
            self._end(0)
        except HrtemvaeError as error:
            self._end(error.exit_code)
            self.worker.abandon(_PATIENCE_S)
            if isinstance(error, Stopped):
                raise Stopped(
                    f"{str(error).partition(';')[0]}: {self.finished} of {self.tiling.count} tiles are saved; "
                    "run the same command again to resume."
                ) from error
            raise
        finally:
            self._progress.close()

    def _receive(self) -> bool:
        """Handle a message from another rank, if there is one."""
        if self.world.comm is None:
            return False
        means = self.worker.means
        report = receive_report(self.world.comm, self.tiling, means.engine.latents, means.test.count, means.cells)
        if report is None:
            return False
        record = self.records[report.rank]
        if report.activity != record.activity or report.kind is not Kind.PROGRESS:
            self._alive(record)
        record.windows, record.activity = report.windows, report.activity
        if report.kind is Kind.READY:
            record.ready = True
        elif report.kind is Kind.SIGNALLED:
            raise Stopped(f"{record} was stopped by {report.text}")
        elif report.kind is Kind.FAILED:
            raise error_of(report.code, report.text)
        elif report.finished is not None:
            self._finish(record, report.finished)
        return True

    def _work(self) -> None:
        """Let this rank's own orders continue for a moment."""
        record = self.records[0]
        try:
            finished = self.worker.poll(_BUSY_S if record.orders else _IDLE_S)
        except Exception as error:
            raise failure(error, record, self.tiling) from error
        if record.activity != self.worker.activity:
            self._alive(record)
        record.windows, record.activity = self.worker.windows, self.worker.activity
        if finished is not None:
            self._finish(record, finished)

    def _finish(self, record: RankRecord, finished: Finished) -> None:
        record.decoded_bytes += finished.decoded_bytes
        for stage, seconds in finished.seconds.items():
            record.seconds[stage] += seconds
        record.orders.popleft()
        if finished.maps is None:
            self._staging[record.resources.host] -= 1
            self._regions_done += finished.order.count
            self.staged_at = time.monotonic()
            return
        self._hand_out()  # the rank continues while its tile is saved
        index = finished.order.first
        self.parts.save(self.tiling.tiles[index], finished.maps)
        note_saved()
        self._unfinished.discard(index)
        record.tiles += 1

    def _hand_out(self) -> None:
        for record in self.records:
            while record.ready and (order := self._next_order(record)) is not None:
                record.orders.append(order)
                self._alive(record)
                if record.resources.rank == 0:
                    self.worker.start(order, self.tiling)
                elif self.world.comm is not None:
                    send_order(self.world.comm, record.resources.rank, order)

    def _next_order(self, record: RankRecord) -> Order | None:
        """What a rank does next, None if nothing or not yet: tiles come when its node has staged the movie.

        A rank gets its next order in advance, so that its threads needn't wait, while more than ``_AHEAD`` are left for
        each of the others: a rank three times slower finishes both before the others finish those.
        """
        rank = record.resources
        left = len(self._unstaged[rank.host]) / rank.threads or len(self._pending)
        if len(record.orders) >= (AT_ONCE if left > _AHEAD * (len(self.records) - 1) else 1):
            return None
        if unstaged := self._unstaged[rank.host]:
            regions = [unstaged.popleft() for _ in range(min(rank.threads, len(unstaged)))]
            self._staging[rank.host] += 1
            return Order(Task.REGIONS, regions[0], len(regions))
        if self._staging[rank.host] or not self._pending:
            return None
        return Order(Task.TILE, self._pending.popleft())

    def _alive(self, record: RankRecord) -> None:
        record.heard = time.monotonic()
        if record.named_silent:
            say(f"{record} is responding again.")
            record.named_silent = False

    def _watch(self, silent_after: float) -> None:
        for record in self.records:
            silence = time.monotonic() - record.heard
            if record.orders and silence > silent_after and not record.named_silent:
                record.named_silent = True
                say(
                    f"{record} (process {record.resources.pid}) has been silent for {silence:.0f} s while "
                    f"{describe(record.orders[0], self.tiling)}; its disk or device may hang. Stop the job and run "
                    "the same command again: only the missing tiles are computed."
                )

    def _end(self, code: int) -> None:
        if self.world.comm is not None:
            for rank in range(1, self.world.size):
                send_order(self.world.comm, rank, Order(Task.END, code))


def serve(
    world: World, worker: Worker, tiling: Tiling, record: RankRecord, stop: StopRequest, silent_after: float
) -> int:
    """The loop of a rank other than 0: compute what is ordered until the end; returns the exit code for all."""
    comm = world.comm
    if comm is None:
        raise ValueError("a world of one has no other ranks")
    outbox, signalled, named_silent = Outbox(comm), False, False
    outbox.post(Report(world.rank, Kind.READY))
    while True:
        order = receive_order(comm)
        if order is not None:
            if order.task is Task.END:
                worker.abandon(_PATIENCE_S)
                return order.first
            record.orders.append(order)
            worker.start(order, tiling)
        try:
            finished = worker.poll(_BUSY_S if record.orders and not outbox.pending else _IDLE_S)
        except Exception as error:  # noqa: BLE001  reported to rank 0, which ends the job
            raised = failure(error, record, tiling)
            outbox.post(Report(world.rank, Kind.FAILED, worker.windows, code=raised.exit_code, text=str(raised)))
            finished = None
        if finished is not None:
            record.orders.popleft()
            kind = Kind.STAGED if finished.maps is None else Kind.FINISHED
            outbox.post(Report(world.rank, kind, worker.windows, finished=finished))
        if stop and not signalled:
            outbox.post(Report(world.rank, Kind.SIGNALLED, worker.windows, text=stop.name))
            signalled = True
        silence = outbox.beat(worker.windows, worker.activity)
        if silence > silent_after and not named_silent:
            say(f"rank 0 has not answered {record} for {silence:.0f} s; it may hang. Stop the job and run it again.")
        named_silent = silence > silent_after


def failure(error: Exception, record: RankRecord, tiling: Tiling) -> HrtemvaeError:
    """The error that ends the job after a rank's exception: a user's mistake as it is, else one with rank and tile."""
    if isinstance(error, HrtemvaeError) and not isinstance(error, RankFailed):
        return error
    if not isinstance(error, RankFailed):
        traceback.print_exception(error)
    what = str(error) if isinstance(error, RankFailed) else f"{type(error).__name__}: {error}"
    where = describe(record.orders[0], tiling) if record.orders else "waiting for an order"
    kind = type(error) if isinstance(error, RankFailed) else RankFailed
    return kind(
        f"{record} failed while {where}: {what} Finished tiles are saved: run the same command again to resume."
    )
