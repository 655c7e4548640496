"""Frames of files that are opened when they are read, so that a movie may be in more files than can be open."""

import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from hrtemvae_hpc.area import Area
from hrtemvae_hpc.errors import InputError
from hrtemvae_hpc.movie.frames import FrameSource


class OpenSources:
    """Those of many sources that were read last: they stay open, up to ``most`` besides those that are being read."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._lock = threading.Lock()
        self._open: OrderedDict[LazyFrames, FrameSource] = OrderedDict()
        self._readers: Counter[LazyFrames] = Counter()

    @contextmanager
    def opened(self, lazy: "LazyFrames") -> Iterator[FrameSource]:
        """The source of ``lazy``, for as long as the context lasts; raises InputError if it can't be opened."""
        with self._lock:
            source = self._open.get(lazy) or lazy.open()
            self._open[lazy] = source
            self._open.move_to_end(lazy)
            self._readers[lazy] += 1
            idle = [each for each in self._open if not self._readers[each]]
            for each in idle[: max(0, len(self._open) - self.most)]:
                self._open.pop(each).close()
        try:
            yield source
        finally:
            with self._lock:
                self._readers[lazy] -= 1

    def close(self, lazy: "LazyFrames") -> None:
        """Close the source of ``lazy``, which nobody reads."""
        with self._lock:
            if source := self._open.pop(lazy, None):
                source.close()


class LazyFrames(FrameSource):
    """The frames of a source that is opened when it is read."""

    def __init__(self, path: Path, open_source: Callable[[], FrameSource], pool: OpenSources) -> None:
        """``open_source`` opens the source, whose ``pool`` closes it; what it raises is raised here too."""
        self._open_source, self._pool = open_source, pool
        source = open_source()
        self.path, self.where, self.dataset = path, source.where, source.dataset
        self.description, self._identity = source.description, source.identity
        source.close()

    @property
    def identity(self) -> tuple[object, ...]:
        return self._identity

    def prepare(self, frames: slice, area: Area) -> None:
        self._pool.close(self)
        self._prepared = frames, area
        with self._pool.opened(self) as source:
            self.files, self.raw_files = source.files, source.raw_files
            self.storage, self.unit, self.cache_bytes = source.storage, source.unit, source.cache_bytes
            self.decodes_in_parallel, self.reads_in_place = source.decodes_in_parallel, source.reads_in_place

    def open(self) -> FrameSource:
        """The source, ready to read what was prepared; raises InputError as opening and preparing it do."""
        source = self._open_source()
        try:
            source.prepare(*self._prepared)
        except InputError:
            source.close()
            raise
        return source

    def read_into(
        self, pixels: np.ndarray, frames: slice, area: Area, place: tuple[slice, slice, slice] | None = None
    ) -> None:
        with self._pool.opened(self) as source:
            source.read_into(pixels, frames, area, place)

    def close(self) -> None:
        self._pool.close(self)
