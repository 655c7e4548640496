"""Latents of some places of a result over time, encoded again as the analysis did.

The engine rounds by block of windows and batch of frames, so whole blocks are encoded in the batches of the analysis;
what isn't asked for is dropped at once. The movie is read frame by frame, once for all blocks whose pixels lie together
in its file.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from hrtemvae_hpc.analysis.compute import readable_windows
from hrtemvae_hpc.area import Area, around
from hrtemvae_hpc.interpretation.places import Place, by_block
from hrtemvae_hpc.interpretation.reopen import Reopened
from hrtemvae_hpc.movie.tiles import TilePixels
from hrtemvae_hpc.patch import Patch
from hrtemvae_hpc.threads import on_threads
from hrtemvae_hpc.windows.grid import Rectangle, WindowGrid

_SLAB_BYTES = 2**26  # of frames that are read together
_WAITING_BYTES = 2**30  # of pixels that wait until a batch of their block is complete, and of one read

_BLOCKS_AT_ONCE = 64  # whose latents are held together


def encode_places(
    again: Reopened, places: Sequence[Place], progress: Callable[[int], object] = lambda encoded: None
) -> tuple[np.ndarray, np.ndarray]:
    """z [frames, places, latents] float32 in the model's order, 0 where not valid, and valid [frames, places] bool.

    A place of one window has the bits that its maps were computed from, on a machine of the same arithmetic; of
    several, the mean is taken. A frame is valid if it is for all windows of the place. ``progress`` gets the number
    of encoded windows each time some are.

    Raises InputError if a frame can't be decoded that the analysis read, or the movie changes meanwhile.
    """
    engine, grid = again.engine, again.grid
    frames = again.movie.shape[0]
    z = np.zeros((frames, len(places), engine.latents))
    valid = np.ones((frames, len(places)), bool)
    members = {_block(grid, engine.block, *at): there for at, there in by_block(places, engine.block).items()}
    with ThreadPoolExecutor(engine.at_once(again.threads), "encode", initializer=engine.begin_thread) as pool:
        for blocks in _read_together(again, list(members)):
            for block, part, encoded, ok in _encode(again, blocks, pool):
                for number, windows in members[block]:
                    which = (windows - (block.row0, block.column0)) @ (block.shape[1], 1)
                    z[part, number] += encoded[:, which].double().sum(1).cpu().numpy()
                    valid[part, number] &= ok[:, which].all(1).cpu().numpy()
                progress(ok.numel())
    again.movie.check_unchanged(thorough=True)
    z /= np.array([len(place.windows) for place in places])[:, None]
    z[~valid] = 0
    return z.astype(np.float32), valid


def encodings(again: Reopened, places: Sequence[Place]) -> int:
    """How many windows ``encode_places`` encodes."""
    block = again.engine.block
    blocks = [_block(again.grid, block, *at) for at in by_block(places, block)]
    return again.movie.shape[0] * sum(each.windows for each in blocks)


def _block(grid: WindowGrid, block: int, row: int, column: int) -> Rectangle:
    row, column = row * block, column * block
    return Rectangle(row, min(row + block, grid.rows), column, min(column + block, grid.columns))


def _read_together(again: Reopened, blocks: Sequence[Rectangle]) -> Iterator[list[Rectangle]]:
    """``blocks`` in groups whose area is read as one, if that decodes no more than reading them one by one.

    What waits of a group fits the memory.
    """
    reader, movie, grid = again.reader, again.movie, again.grid
    depth = movie.chunk_grid.unit[0]

    def decoded(area: Area) -> int:
        return movie.chunk_grid.decoded_bytes(reader.read_area(area), slice(0, min(depth, movie.shape[0])))

    group, covered, waiting = [blocks[0]], grid.area(blocks[0]), _waiting_bytes(again, blocks[0])
    for block in blocks[1:]:
        area, more = grid.area(block), _waiting_bytes(again, block)
        together = around([covered, area])
        held = depth * reader.source(together).pixels * reader.dtype.itemsize
        too_much = max(held, waiting + more) > _WAITING_BYTES
        if too_much or decoded(together) > decoded(covered) + decoded(area):
            yield group
            group, covered, waiting = [block], area, more
        else:
            group.append(block)
            covered, waiting = together, waiting + more
    yield group


def _waiting_bytes(again: Reopened, block: Rectangle) -> int:
    """Bytes of pixels of a block that wait until a batch is complete."""
    reader, engine = again.reader, again.engine
    pixels = reader.source(again.grid.area(block)).pixels
    each = int(reader.dtype.itemsize) + (reader.transform.local is not None)  # with whether it is known
    return engine.frames_at_once(block.windows) * pixels * each


@dataclass
class _Waiting:
    """What was read of a block, but not encoded yet, from frame ``start`` on."""

    start: int = 0
    patches: list[Patch] = field(default_factory=list)
    readable: list[np.ndarray] = field(default_factory=list)
    frame_range: list[np.ndarray] = field(default_factory=list)

    @property
    def frames(self) -> int:
        return sum(patch.shape[0] for patch in self.patches)


def _encode(
    again: Reopened, blocks: Sequence[Rectangle], pool: ThreadPoolExecutor
) -> Iterator[tuple[Rectangle, slice, Tensor, Tensor]]:
    """Blocks, frames, and z and valid of these as the engine returns them, in batches as they come."""
    movie, reader = again.movie, again.reader
    area = around([again.grid.area(block) for block in blocks])
    waiting = {block: _Waiting() for block in blocks}
    frame_bytes = reader.read_area(area).pixels * reader.dtype.itemsize
    for slab in movie.chunk_grid.slabs(frame_bytes, _SLAB_BYTES * again.threads):
        part = reader.of_frames(slab)
        each = (lambda fill, slabs: on_threads(pool, fill, slabs)) if movie.decodes_in_parallel else map
        tile = part.read(area, again.skip_bad_frames, each)
        movie.check_unchanged()
        last = slab.stop == movie.shape[0]

        def encode(block: Rectangle, tile: TilePixels = tile, last: bool = last) -> tuple[slice, Tensor, Tensor] | None:
            return _encode_complete(again, block, waiting[block], tile, last)

        for first in range(0, len(blocks), _BLOCKS_AT_ONCE):
            now = blocks[first : first + _BLOCKS_AT_ONCE]
            for block, done in zip(now, on_threads(pool, encode, now), strict=True):
                if done:
                    yield block, *done


def _encode_complete(
    again: Reopened, block: Rectangle, waiting: _Waiting, tile: TilePixels, last: bool
) -> tuple[slice, Tensor, Tensor] | None:
    """Add what ``tile`` holds of ``block``, and encode the batches of frames that are complete; all if ``last``."""
    waiting.patches.append(tile.patch(again.grid.area(block)))
    waiting.readable.append(readable_windows(again.reader, again.grid, tile, block))
    waiting.frame_range += [] if tile.frame_range is None else [tile.frame_range]
    at_once = again.engine.frames_at_once(block.windows)
    count = waiting.frames if last else waiting.frames // at_once * at_once
    patch, readable = Patch.joined(waiting.patches), np.concatenate(waiting.readable)
    limits = np.concatenate(waiting.frame_range) if waiting.frame_range else None
    waiting.patches, waiting.readable = [patch.cut(slice(count, None))], [readable[count:]]
    waiting.frame_range = [] if limits is None else [limits[count:]]
    if not count:
        return None
    part = slice(waiting.start, waiting.start + count)
    waiting.start += count
    complete = patch.cut(slice(0, count))
    z, valid = again.engine.encode(complete, readable[:count], None if limits is None else limits[:count])
    return part, z, valid
