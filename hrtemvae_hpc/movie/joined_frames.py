"""Movies one after another, as one."""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import accumulate, chain
from math import gcd
from pathlib import Path

import numpy as np

from hrtemvae_hpc.area import Area
from hrtemvae_hpc.movie.frames import Description, FrameSource


class JoinedFrames(FrameSource):
    """The frames of parts of the same rows, columns and type."""

    def __init__(
        self,
        path: Path,
        where: str,
        parts: Sequence[FrameSource],
        description: Description,
        dataset: str = "",
        most_open: int | None = None,
    ) -> None:
        """``description`` and ``dataset`` are of all ``parts``, of which ``most_open``, by default all, stay open."""
        self.path, self.where, self.dataset = path, where, dataset
        self.description = description
        self._parts, self._most_open = parts, most_open
        self.is_open_in_writer = any(part.is_open_in_writer for part in parts)
        self._ends = list(accumulate(part.description.shape[0] for part in parts))

    @property
    def identity(self) -> tuple[object, ...]:
        return self.dataset, *(part.identity for part in self._parts)

    def complete(self, known: int) -> int:
        total = 0
        for part in self._parts:
            count = part.description.shape[0]
            complete = part.complete(min(max(known - total, 0), count))
            total += complete
            if complete < count:
                break
        return total

    def prepare(self, frames: slice, area: Area) -> None:
        used = []
        for part, inside, _ in self._split(frames):
            part.prepare(inside, area)
            used.append(part)
        self.files = list(dict.fromkeys(chain.from_iterable(part.files for part in used)))
        self.raw_files = list(chain.from_iterable(part.raw_files for part in used))
        self.storage = used[0].storage
        # Where parts begin amid the chunks that a grid over all of them would have, fewer frames are read together.
        depth = gcd(*(part.unit[0] for part in used), *self._ends[:-1])
        self.unit = (depth, *used[0].unit[1:])
        if self.storage.chunk:
            self.storage = replace(self.storage, chunk=self.unit)
        self.cache_bytes = sum(sorted((part.cache_bytes for part in used), reverse=True)[: self._most_open])
        self.decodes_in_parallel = all(part.decodes_in_parallel for part in used)
        self.reads_in_place = all(part.reads_in_place for part in used)

    def read_into(
        self, pixels: np.ndarray, frames: slice, area: Area, place: tuple[slice, slice, slice] | None = None
    ) -> None:
        into, *rest = place or (slice(None),) * 3
        places = range(len(pixels))[into]
        for part, inside, among in self._split(frames):
            target = places[among]
            part.read_into(pixels, inside, area, (slice(target.start, target.stop, target.step), rest[0], rest[1]))

    def close(self) -> None:
        for part in self._parts:
            part.close()

    def _split(self, frames: slice) -> Iterator[tuple[FrameSource, slice, slice]]:
        """The parts that hold some of ``frames``, with these in the part, and their place among all of ``frames``."""
        wanted = range(frames.start, frames.stop, frames.step or 1)
        done = 0
        while done < len(wanted):
            i = bisect_right(self._ends, wanted[done])
            begin = self._ends[i - 1] if i else 0
            inside = range(wanted[done] - begin, min(self._ends[i], frames.stop) - begin, wanted.step)
            yield self._parts[i], slice(inside.start, inside[-1] + 1, inside.step), slice(done, done + len(inside))
            done += len(inside)
