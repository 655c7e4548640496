"""A conversion from movie to file, alone or on many ranks, resuming where a stopped run ended."""

import math
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np
import psutil

from hrtemvae_hpc.conversion.assembly import Assembly
from hrtemvae_hpc.conversion.blocks import BLOCKS_AT_ONCE, Conversion, Converter
from hrtemvae_hpc.conversion.opened import correction_files, open_conversion
from hrtemvae_hpc.conversion.options import ConversionConfig
from hrtemvae_hpc.conversion.parts import Parts
from hrtemvae_hpc.errors import InputError, Stopped
from hrtemvae_hpc.files import exists
from hrtemvae_hpc.movie.converted import PackedBlock, check_frames, conversion_identity
from hrtemvae_hpc.outputs import Output, check_outputs, is_movie
from hrtemvae_hpc.ranks.guard import StopRequest, doing
from hrtemvae_hpc.ranks.node import FREE_SHARE, node_free_bytes, rank_threads
from hrtemvae_hpc.ranks.progress import Progress, format_seconds, say
from hrtemvae_hpc.ranks.world import RankEnds, World

T = TypeVar("T")
_LOOK_EVERY_S = 0.2


def convert(
    world: World,
    paths: Sequence[Path],
    config: ConversionConfig,
    command: str,
    output: Path,
    restart: bool,
    stop: StopRequest,
) -> None:
    """Convert the movie in ``paths`` to the file ``output``, unless it already exists. ``command`` is recorded there.

    Resumes an earlier, stopped run of the same conversion, unless ``restart``. Raises InputError, Stopped or
    RankFailed; on ranks other than 0 RankEnds with the job's exit code.
    """
    began = time.monotonic()
    with ExitStack() as stack:
        conversion, identity = world.on_all(lambda: stack.enter_context(open_conversion(paths, config, command)))
        world.check_same(identity, lambda rank, _: f"{conversion.movie.path}: {rank} reads another movie there.")
        threads = rank_threads(world)
        world.on_all(lambda: _check_memory(world, conversion, config, threads))
        parts = Parts(output, identity)
        if not world.on_root(lambda: _prepare(conversion, [*paths, *correction_files(config)], parts, output, restart)):
            return
        stack.enter_context(parts.claimed)
        pool = stack.enter_context(ThreadPoolExecutor(threads))
        run = _Run(world, conversion, parts, stop)
        missing = run.missing()
        assembly = stack.enter_context(Assembly(conversion, parts, output)) if world.is_root else None
        try:
            run.convert_blocks(missing, pool, threads, assembly)
            world.allgather(None, patience=math.inf)
            unfinished, digests = world.on_root(lambda: run.finish(assembly), patience=math.inf)
            bad = run.verify(unfinished, digests, pool)
            world.on_root(lambda: _publish(assembly, bad), patience=math.inf)
        except InputError:
            if world.size == 1:  # the parts are of no use for another movie; other ranks may still write some
                parts.claimed.discard()
            raise
        if world.is_root:
            parts.claimed.discard()
            stored, size = output.stat().st_size, math.prod(conversion.result.shape) * conversion.result.dtype.itemsize
            say(
                f"movie: {output} ({stored / 1e6:,.1f} MB, {stored / size:.0%} of its pixels, verified; "
                f"{format_seconds(time.monotonic() - began)})"
            )


def _check_memory(world: World, conversion: Conversion, config: ConversionConfig, threads: int) -> None:
    needed = conversion.memory(threads) + int(psutil.Process().memory_info().rss)
    allowed = config.run.max_memory or int(FREE_SHARE * node_free_bytes() / world.local_size)
    if needed > allowed:
        raise InputError(
            f"{conversion.movie.where}: converting its frames takes {needed / 1e6:,.0f} MB of memory per rank, but "
            f"only {allowed / 1e6:,.0f} MB may be used; raise --max-memory, or start fewer ranks or threads."
        )


def _prepare(conversion: Conversion, inputs: list[Path], parts: Parts, output: Path, restart: bool) -> bool:
    """Whether anything remains to be done; then the folder of parts belongs to this run."""
    check_outputs([Output(output, "the movie", is_movie)], [*inputs, *conversion.movie.files])
    parts.claimed.check()
    if not restart and exists(output) and not parts.replaces_output():
        if conversion_identity(output) != parts.identity:
            raise InputError(
                f"{output}: exists and holds something else; choose another output with -o, or replace it with "
                "--restart."
            )
        say(f"{output} already holds this movie; --restart would convert it again.")
        parts.claimed.discard()
        return False
    if not restart:
        parts.replaces_output()  # raises if they are of another conversion
    parts.claimed.take()
    parts.clear(everything=restart)
    parts.start(replaces=exists(output))
    _describe(conversion)
    return True


def _describe(conversion: Conversion) -> None:
    movie, result = conversion.movie, conversion.result
    say(
        f"{movie.where}: {_shape(movie.shape)}, {movie.dtype}, becomes {_shape(result.shape)}, {result.dtype}, in "
        f"chunks of {' x '.join(map(str, result.chunk))}, {result.compression}"
    )
    for note in movie.source.description.notes:
        say(f"note: {note}")
    if left := movie.shape[0] - result.shape[0] * conversion.together:
        say(f"left out: the last {left} frame{'s' * (left > 1)}, fewer than the {conversion.together} that are summed")


def _publish(assembly: Assembly | None, bad: list[int]) -> None:
    assert assembly is not None
    assembly.publish(bad)


def _shape(shape: tuple[int, int, int]) -> str:
    return f"{shape[0]} frames of {shape[1]} x {shape[2]} pixels"


class _Run:
    """One rank's part of a conversion."""

    def __init__(self, world: World, conversion: Conversion, parts: Parts, stop: StopRequest) -> None:
        self._world, self._conversion, self._parts, self._stop = world, conversion, parts, stop
        self._blocks = conversion.blocks
        self._share = 0.0

    def missing(self) -> list[int]:
        """The numbers of the blocks that no rank finds among the parts."""
        missing = []
        for number in range(self._world.rank, len(self._blocks), self._world.size):
            self._check()
            if self._parts.load(number) is None:
                missing.append(number)
        all_missing = sorted(n for of_rank in self._world.allgather(missing, patience=math.inf) for n in of_rank)
        if self._world.is_root and (there := len(self._blocks) - len(all_missing)):
            say(f"resuming: {there} of {len(self._blocks)} blocks are done.")
        return all_missing

    def convert_blocks(
        self, missing: list[int], pool: ThreadPoolExecutor, threads: int, assembly: Assembly | None
    ) -> None:
        """Convert and save this rank's share of the ``missing`` blocks."""
        share = missing[self._world.rank :: self._world.size]
        total = sum(map(self._frames, share))
        progress = Progress(total, unit="frame") if self._world.is_root else None
        converter = Converter(self._conversion, pool, threads)

        def save(number: int, block: PackedBlock) -> None:
            if assembly and self._world.size == 1:
                assembly.hand_over(number, block)
                return
            self._parts.save(number, block)
            if assembly:
                assembly.offer(number, block)

        done = 0
        with ThreadPoolExecutor(BLOCKS_AT_ONCE) as converting, ThreadPoolExecutor(1) as saver:
            packed: deque[Future[PackedBlock]] = deque()
            saving: list[Future[None]] = []
            ahead = iter(share)
            for number in share:
                for following in islice(ahead, BLOCKS_AT_ONCE - len(packed)):
                    packed.append(converting.submit(converter.convert, self._blocks[following]))
                doing(f"converting frames {self._blocks[number].start}:{self._blocks[number].stop}")
                block = self._await(packed.popleft())
                if saving:
                    self._await(saving.pop())
                saving.append(saver.submit(save, number, block))
                done += self._frames(number)
                self._share = done / total
                if progress:
                    progress.update(done)
            if saving:
                self._await(saving.pop())
        if progress:
            progress.close()

    def finish(self, assembly: Assembly | None) -> tuple[Path, np.ndarray]:
        """Wait until the file is written: where it is, and the digests of its frames."""
        assert assembly is not None
        doing("writing the file")
        return self._await(assembly.finish())

    def verify(self, unfinished: Path, digests: np.ndarray, pool: ThreadPoolExecutor) -> list[int]:
        """The frames of the file that don't read back as they were; each rank looks at some layers."""
        doing("verifying")
        progress = Progress(len(digests), unit="frame") if self._world.is_root else None
        looked_at = 0

        def count(frames: int) -> None:
            nonlocal looked_at
            self._check()
            looked_at += frames
            if progress:
                progress.update(min(looked_at * self._world.size, len(digests)), note="verifying")

        bad = check_frames(unfinished, digests, pool, count, slice(self._world.rank, None, self._world.size))
        if progress:
            progress.close()
        return sorted(t for of_rank in self._world.allgather(bad, patience=math.inf) for t in of_rank)

    def _frames(self, number: int) -> int:
        return int(self._blocks[number].stop - self._blocks[number].start)

    def _await(self, future: "Future[T]") -> T:
        """The result of work on another thread; signals and claims are looked at meanwhile."""
        while True:
            self._check()
            if wait([future], _LOOK_EVERY_S).done:
                return future.result()

    def _check(self) -> None:
        if self._world.is_root:
            self._parts.claimed.heartbeat(self._share)
        if self._stop and not self._world.is_root:
            raise RankEnds(Stopped.exit_code)
        if self._stop:
            raise Stopped(f"stopped by {self._stop.name}; run the same command again to resume.")
