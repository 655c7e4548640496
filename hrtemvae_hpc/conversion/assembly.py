"""The file of a conversion, written by rank 0 while the blocks are converted: in its own thread, in a fixed order.

What a killed run has written stays in its unfinished file, which parts refer to.
"""

import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from types import TracebackType

import numpy as np

from hrtemvae_hpc.conversion.blocks import Conversion
from hrtemvae_hpc.conversion.parts import Parts
from hrtemvae_hpc.errors import InputError, RankFailed
from hrtemvae_hpc.files import becoming, saving, sync
from hrtemvae_hpc.movie.converted import PackedBlock, frames_named, write_converted

_LOOK_EVERY_S = 0.05


class _Ended(Exception):
    """The conversion ended before its file was complete."""


class Assembly:
    """Takes each block as soon as it is packed, and gives the file its name once it is verified.

    As a context, it ends with the block; what was written then stays for the next run, unless the file got its name.
    """

    def __init__(self, conversion: Conversion, parts: Parts, output: Path) -> None:
        self._conversion, self._parts, self._output = conversion, parts, output
        self._unfinished = parts.new_file()
        self._changed = threading.Condition()
        self._fresh: dict[int, PackedBlock] = {}
        self._saved = self._ended = False
        self._thread = ThreadPoolExecutor(1)
        self._file = ExitStack()

    def __enter__(self) -> "Assembly":
        with self._disk_errors():
            aside = self._file.enter_context(becoming(self._output, self._unfinished))
        self._writing = self._thread.submit(self._write, aside)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._changed:
            self._ended = True
            self._changed.notify_all()
        self._thread.shutdown()
        self._file.__exit__(kind, error, traceback)

    def offer(self, number: int, block: PackedBlock) -> None:
        """A block that was just saved, to be taken from memory if its turn is near. Raises as ``finish`` does."""
        with self._changed:
            if not self._fresh:
                self._fresh[number] = block
            self._changed.notify_all()
        self._check_writing()

    def hand_over(self, number: int, block: PackedBlock) -> None:
        """A block that was not saved; all are handed over in order. Returns once it is taken; raises as ``finish``."""
        with self._changed:
            self._fresh[number] = block
            self._changed.notify_all()
            while number in self._fresh and not self._writing.done():
                self._changed.wait(_LOOK_EVERY_S)
        self._check_writing()

    def _check_writing(self) -> None:
        if self._writing.done():
            self._writing.result()

    def finish(self) -> "Future[tuple[Path, np.ndarray]]":
        """The work that remains once all ranks have saved their blocks: the unfinished file and its frames' digests.

        It raises Blocked if the disk is full, RankFailed if a block is missing.
        """
        with self._changed:
            self._saved = True
            self._changed.notify_all()
        return self._writing

    def publish(self, bad: list[int]) -> None:
        """Give the file its name, where no frames are ``bad``.

        Raises RankFailed if some are, or the disk fails, InputError if the movie was changed meanwhile.
        """
        movie = self._conversion.movie
        if bad:
            self._parts.claimed.clear()
            raise RankFailed(
                f"{self._output}: {frames_named(bad)} not read as written, so it was not kept; memory or disk may be "
                "faulty. Run the same command again, on another node."
            )
        if movie.has_changed(thorough=True):
            self._parts.claimed.clear()
            raise InputError(
                f"{movie.where}: changed while it was read; run the same command again when it is complete."
            )
        with self._disk_errors():
            self._file.close()

    def _disk_errors(self) -> AbstractContextManager[None]:
        folder = self._parts.folder.name
        kept = f"finished blocks are kept in {folder}; make room and run the same command again."
        return saving(self._output, kept)

    def _write(self, aside: Path) -> tuple[Path, np.ndarray]:
        digests: list[np.ndarray] = []

        def note(block: PackedBlock, offsets: list[int]) -> None:
            sync(aside)
            self._parts.note(len(digests) - 1, block, self._unfinished, offsets)

        with self._disk_errors():
            write_converted(aside, self._conversion.result, self._blocks(digests), note)
            sync(aside)
        return self._unfinished, np.concatenate(digests)

    def _blocks(self, digests: list[np.ndarray]) -> Iterator[PackedBlock]:
        """All blocks in order, each as soon as it is there; their digests are added to ``digests``."""
        for number in range(len(self._conversion.blocks)):
            block = self._wait_for(number)
            digests.append(block.digests)
            yield block

    def _wait_for(self, number: int) -> PackedBlock:
        while True:
            with self._changed:
                saved = self._saved
                fresh = self._fresh.pop(number, None)
                self._fresh = {n: block for n, block in self._fresh.items() if n > number}
                self._changed.notify_all()
            if self._ended:
                raise _Ended
            if block := fresh or self._parts.load(number):
                return block
            if saved:
                raise RankFailed(
                    f"{self._parts.folder}: block {number} is missing or damaged; run the same command again."
                )
            with self._changed:
                self._changed.wait_for(lambda: self._ended or self._saved or number in self._fresh, _LOOK_EVERY_S)
