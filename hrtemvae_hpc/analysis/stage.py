"""The staged movie of a node: its pixels in one file, in the node's memory or on scratch, that all ranks there map.

The file is unlinked before it is filled, so that nothing remains of it however the ranks end. If a kill leaves an empty
file in that moment, the next run removes it.
"""

import math
import mmap
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeVar

import numpy as np
import psutil

from hrtemvae_hpc.files import failure_of
from hrtemvae_hpc.movie.tiles import TilePixels, TileReader
from hrtemvae_hpc.ranks.process import boot_id, process_namespace, start_ticks
from hrtemvae_hpc.ranks.world import World

T = TypeVar("T")

MEMORY = Path("/dev/shm")  # on Linux, a file system in memory


def scratch() -> Path:
    """The folder for what is too large for memory and needed during a run only."""
    return Path(os.environ.get("HRTEMVAE_SCRATCH") or tempfile.gettempdir())


def free_bytes(folder: Path) -> int:
    """Bytes that can still be written in ``folder``, 0 if there is no such folder."""
    try:
        return shutil.disk_usage(folder).free if os.access(folder, os.W_OK) else 0
    except OSError:
        return 0


def scratch_bytes() -> int:
    """Bytes that a movie may take on scratch: none if that lies in memory, as /tmp does on many nodes."""
    kinds = {Path(mount.mountpoint): mount.fstype for mount in psutil.disk_partitions(all=True)}
    folder = scratch().resolve()
    kind = next((kinds[place] for place in (folder, *folder.parents) if place in kinds), "")
    return 0 if kind in ("tmpfs", "ramfs") else free_bytes(folder)


@dataclass(frozen=True)
class StageRoom:
    """Bytes that can be staged in the node's memory and on scratch, and the folders that its ranks don't share."""

    memory: int
    scratch: int
    private: tuple[str, ...]


def stage_room(world: World) -> StageRoom:
    """The room for staging on this node; none in a folder of which ranks in containers of their own have one each.

    Every rank calls this.
    """
    folders = MEMORY, scratch()
    seen = world.allgather((world.host, [_identity(folder) for folder in folders]))
    here = [identities for host, identities in seen if host == world.host]
    shared = [len(set(identities)) == 1 for identities in zip(*here, strict=True)]
    private = tuple(str(folder) for folder, is_shared in zip(folders, shared, strict=True) if not is_shared)
    return StageRoom(shared[0] * free_bytes(MEMORY), shared[1] * scratch_bytes(), private)


def _identity(folder: Path) -> tuple[int, int] | None:
    """The same for two processes of a node if they see the same folder; None if there is none."""
    try:
        status = folder.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


class Stage:
    """The pixels of the whole movie, zero until they are filled in, shared by the ranks of this node."""

    def __init__(self, file: BinaryIO, reader: TileReader) -> None:
        frames, area = reader.movie.shape[0], reader.movie.area
        pieces = reader.movie.chunk_grid.pieces(area)
        shapes: list[tuple[tuple[int, ...], np.dtype]] = [
            (reader.movie.shape, reader.dtype),
            ((frames, 2), np.dtype(float)),
            ((frames, len(pieces[0]), len(pieces[1])), np.dtype(bool)),
        ]
        pages = [-(-math.prod(shape) * dtype.itemsize // mmap.PAGESIZE) for shape, dtype in shapes]
        starts = np.cumsum([0, *pages]) * mmap.PAGESIZE
        file.truncate(int(starts[-1]))  # what isn't written takes no room
        self._map = mmap.mmap(file.fileno(), int(starts[-1]))
        pixels, frame_range, lost = (
            np.ndarray(shape, dtype, self._map, int(start))
            for (shape, dtype), start in zip(shapes, starts, strict=False)
        )
        seen = frame_range if reader.frame_scaling else None
        self.pixels = TilePixels(pixels, area, reader.transform, seen, pieces, lost, reader.movie.shown)

    def release_pages(self) -> None:
        """No longer count the pages that were touched as this rank's memory; their content stays."""
        self._map.madvise(mmap.MADV_DONTNEED)


def open_stage(world: World, reader: TileReader, folder: Path) -> Stage:
    """The stage of this node, with room for all pixels.

    Every rank calls this. Raises RankFailed on rank 0 if a node has no room in ``folder``.
    """

    def create() -> Path:
        if world.local_rank:
            return Path()
        _remove_lost(folder)
        path = folder / f"{_our_names()}{os.getpid()}-{start_ticks(os.getpid())}-{secrets.token_hex(8)}"
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
        return path

    created = _on_all(world, folder, create)
    names = [name for host, name in world.allgather((world.host, created)) if host == world.host]
    try:
        file = _on_all(world, folder, lambda: names[0].open("r+b"))
    finally:
        if world.local_rank == 0:
            created.unlink()

    def allocate() -> None:
        if world.local_rank == 0 and hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, math.prod(reader.movie.shape) * reader.dtype.itemsize)

    with file:
        _on_all(world, folder, allocate)
        return Stage(file, reader)


def _our_names() -> str:
    """The prefix of names of staged movies that processes of this host and namespace create."""
    namespace = "".join(filter(str.isdigit, process_namespace()))
    return f"hrtemvae-{boot_id()[:8]}-{namespace}-"


def _remove_lost(folder: Path) -> None:
    """Remove the empty files of runs that were killed before they unlinked theirs."""
    begin = _our_names()
    for path in folder.glob(f"{begin}*"):
        process = re.fullmatch(r"(\d+)-(\d+)-[0-9a-f]{16}", path.name.removeprefix(begin))
        if process and start_ticks(int(process[1])) != int(process[2]):
            with suppress(OSError):
                path.unlink()


def _on_all(world: World, folder: Path, function: Callable[[], T]) -> T:
    """What ``function`` returns here, once it has returned on all ranks; RankFailed if it fails on any."""

    def attempt() -> T:
        try:
            return function()
        except OSError as error:
            raise failure_of(error)(
                f"the movie can't be staged in {folder} ({error.strerror or error}); make room there, or name a larger "
                "folder in HRTEMVAE_SCRATCH."
            ) from error

    return world.on_all(attempt)
