"""A block of a conversion: some layers of chunks, from the frames of the source to packed chunks, on threads.

Which frames are a block follows from the movie alone, so that a run that resumes, with any number of ranks and threads
and any memory, finds its blocks.
"""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import chain, groupby, product
from queue import LifoQueue
from threading import Lock

import numpy as np

from hrtemvae_hpc.area import Area
from hrtemvae_hpc.errors import InputError
from hrtemvae_hpc.movie.converted import DIGEST_BYTES, ConvertedMovie, PackedBlock, frame_digest
from hrtemvae_hpc.movie.corrections import Corrections
from hrtemvae_hpc.movie.movie import Movie
from hrtemvae_hpc.movie.packing import PACKINGS
from hrtemvae_hpc.threads import on_threads

Part = tuple[slice, slice]  # frames and rows that are read together
Packed = tuple[list[bytes], list[bytes]]  # digests of frames, and chunks
Each = Callable[[Callable[[Part], None], Iterable[Part]], Iterable[None]]
BLOCKS_AT_ONCE = 2  # so that threads have work while the last of a block end
_BLOCK_BYTES = 2**26  # of converted frames
_DEEP_BYTES = 2**28  # where chunks of the source hold more frames: each block decodes them again
_SLAB_BYTES = 2**26  # of frames of the source that are read together, to be corrected
_PACKED = 1.01  # times as large as its pixels a packed block may be


@dataclass(frozen=True)
class Conversion:
    """A movie, what is done to its frames, and the file that they become."""

    movie: Movie
    corrections: Corrections
    together: int  # frames of the movie that are summed
    result: ConvertedMovie

    @cached_property
    def blocks(self) -> list[slice]:
        """The converted frames, in blocks of whole layers."""
        frames, depth = self.result.shape[0], self.result.chunk[0]
        source_depth = -(-self.movie.chunk_grid.unit[0] // self.together)
        layers = max(1, _BLOCK_BYTES // (depth * self._frame_bytes))
        if source_depth > layers * depth:
            layers = max(1, min(_DEEP_BYTES // (depth * self._frame_bytes), -(-source_depth // depth)))
        return [slice(a, min(a + layers * depth, frames)) for a in range(0, frames, layers * depth)]

    @property
    def block_bytes(self) -> int:
        """Of the largest block."""
        return int(self.blocks[0].stop) * self._frame_bytes

    def memory(self, threads: int) -> int:
        """Bytes that converting takes: while two blocks are read and packed, one is saved and one written."""
        needed = int((BLOCKS_AT_ONCE + (BLOCKS_AT_ONCE + 2) * _PACKED) * self.block_bytes)
        if self.sums:
            pixels = self.movie.shape[1] * self.movie.shape[2]
            work = self.corrections.corrected(self.movie.dtype).itemsize + self.result.dtype.itemsize
            needed += pixels * (self._slab_frames * self.movie.dtype.itemsize + threads * work)
        return needed

    @property
    def sums(self) -> bool:
        """Whether converted frames are others than those of the movie."""
        return self.together > 1 or self.corrections.change_pixels

    @property
    def _frame_bytes(self) -> int:
        return self.result.shape[1] * self.result.shape[2] * self.result.dtype.itemsize

    @property
    def _slab_frames(self) -> int:
        _, height, width = self.movie.shape
        frames = max(1, _SLAB_BYTES // (height * width * self.movie.dtype.itemsize))
        return min(frames, self.together * int(self.blocks[0].stop))


class Converter:
    """Reads, corrects and packs blocks, on the threads of a pool."""

    def __init__(self, conversion: Conversion, pool: ThreadPoolExecutor, threads: int) -> None:
        self._conversion, self._pool = conversion, pool
        result, movie = conversion.result, conversion.movie
        self._rows = [list(row) for _, row in groupby(result.places(), lambda area: area.rows.start)]
        apart = movie.decodes_in_parallel and movie.chunk_grid.unit[0] == 1 and not conversion.sums
        longest, depth = conversion.blocks[0].stop, result.chunk[0]
        # A thread that takes whole layers finds their pixels in its cache, but there must be enough of them.
        self._by_layer = apart and longest >= threads * depth
        self._buffers: LifoQueue[np.ndarray] = LifoQueue()
        for frames in [depth] * threads if self._by_layer else [longest] * BLOCKS_AT_ONCE:
            self._buffers.put(np.empty((frames, *result.shape[1:]), result.dtype))
        self._slab = np.empty((conversion._slab_frames if conversion.sums else 0, *movie.shape[1:]), movie.dtype)
        self._reading = Lock()

    def convert(self, block: slice) -> PackedBlock:
        """What is stored of the converted frames ``block``. At most ``BLOCKS_AT_ONCE`` threads may call this at once.

        Raises InputError that names frames which can't be decoded.
        """
        depth = self._conversion.result.chunk[0]
        layers = [slice(a, min(a + depth, block.stop)) for a in range(block.start, block.stop, depth)]
        packed = on_threads(self._pool, self._pack_layer, layers) if self._by_layer else self._pack_rows(block, layers)
        digests, chunks = (list(chain(*each)) for each in zip(*packed, strict=True))
        return PackedBlock(np.frombuffer(b"".join(digests), np.uint8).reshape(-1, DIGEST_BYTES), chunks)

    def _pack_layer(self, layer: slice) -> Packed:
        with self._buffer(layer) as pixels:
            self._fill(pixels, layer, map)
            return list(map(frame_digest, pixels)), list(chain(*map(self._packer(pixels), self._rows)))

    def _pack_rows(self, block: slice, layers: list[slice]) -> list[Packed]:
        with self._buffer(block) as pixels:
            with self._reading:
                self._read(pixels, block)
            digests = on_threads(self._pool, frame_digest, pixels)
            packers = [self._packer(pixels[layer.start - block.start : layer.stop - block.start]) for layer in layers]
            chunks = on_threads(self._pool, lambda part: part[0](part[1]), product(packers, self._rows))
            return [(digests, list(chain(*chunks)))]

    @contextmanager
    def _buffer(self, frames: slice) -> Iterator[np.ndarray]:
        """The one that was used last, whose memory is in the cache, for as many frames as ``frames``."""
        buffer = self._buffers.get()
        try:
            yield buffer[: frames.stop - frames.start]
        finally:
            self._buffers.put(buffer)

    def _packer(self, layer: np.ndarray) -> Callable[[list[Area]], list[bytes]]:
        """A function that packs the chunks at some places of a ``layer``."""
        result = self._conversion.result
        pack = PACKINGS[result.compression].pack

        def packed(places: list[Area]) -> list[bytes]:
            chunk = np.zeros(result.chunk, result.dtype)  # for all: new memory takes longer than copying
            return [pack(_padded(layer[:, area.rows, area.columns], chunk)) for area in places]

        return packed

    def _read(self, pixels: np.ndarray, block: slice) -> None:
        """Fill ``pixels`` with the converted frames ``block``."""
        each = partial(on_threads, self._pool) if self._conversion.movie.decodes_in_parallel else map
        if not self._conversion.sums:
            self._fill(pixels, block, each)
            return
        together = self._conversion.together
        pixels[...] = 0
        frames = range(block.start * together, block.stop * together)
        for first in frames[:: len(self._slab)]:
            slab = slice(first, min(first + len(self._slab), frames.stop))
            self._fill(self._slab, slab, each)
            self._add(pixels, block.start, slab)

    def _fill(self, target: np.ndarray, frames: slice, each: Each) -> None:
        """Read ``frames`` of the movie into the beginning of ``target``, each chunk, or frame, by itself."""
        movie = self._conversion.movie
        whole = movie.area
        bands = movie.chunk_grid.pieces(whole)[0] if movie.storage.chunk else [whole.rows]

        def read(part: Part) -> None:
            layer, rows = part
            there = slice(layer.start - frames.start, layer.stop - frames.start)
            try:
                movie.read_into(target, layer, Area(rows, whole.columns), (there, rows, whole.columns))
            except OSError as error:
                bad = ", ".join(map(str, movie.frame_indices[layer][:10]))
                raise InputError(
                    f"{movie.where}: can't be decoded at frame {bad} ({error}); copy the movie again, or leave such "
                    "frames out with --frames."
                ) from error

        for _ in each(read, product(movie.chunk_grid.layers(frames), bands)):
            pass

    def _add(self, pixels: np.ndarray, first: int, slab: slice) -> None:
        """Correct the frames ``slab`` of the movie and add them to converted ``pixels``, from frame ``first`` on."""
        together = self._conversion.together

        def add(t: int) -> None:
            begin, end = max(t * together, slab.start), min((t + 1) * together, slab.stop)
            for frame in self._slab[begin - slab.start : end - slab.start]:
                self._conversion.corrections.add(frame, pixels[t - first])

        on_threads(self._pool, add, range(slab.start // together, -(-slab.stop // together)))


def _padded(pixels: np.ndarray, chunk: np.ndarray) -> np.ndarray:
    """A ``chunk`` that holds ``pixels``, and zeros where it is larger."""
    if pixels.shape != chunk.shape:
        chunk[...] = 0
    chunk[tuple(slice(n) for n in pixels.shape)] = pixels
    return chunk
