"""Deciding the tiles, and where the movie is staged: what fits the memory of every rank and costs the least time."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from hrtemvae_hpc.analysis.worker import AT_ONCE
from hrtemvae_hpc.errors import InputError
from hrtemvae_hpc.movie.tiles import TileReader
from hrtemvae_hpc.patch import PINNED
from hrtemvae_hpc.ranks.node import FREE_SHARE
from hrtemvae_hpc.ranks.resources import RankResources
from hrtemvae_hpc.statistics import over_time
from hrtemvae_hpc.windows.cells import Cells, cells_for
from hrtemvae_hpc.windows.engine import Engine
from hrtemvae_hpc.windows.grid import Rectangle, Tiling, WindowGrid

# What a tile would cost on an ordinary machine. Only the ratios matter, and they must not be measured, or the same
# command would cut the same movie differently each time.
_ENCODE_S = {"cpu": 3e-4, "cuda": 3e-7}  # per window
_DECODE_S = {False: 5e-10, True: 3e-9}  # per byte, plain or compressed
_FILTER_S = 1.5e-8  # per byte of a whole frame
_STAGE_S = {"movie": 0.0, "memory": 4e-10, "scratch": 4e-9}  # per byte, written and read
_TILE_S = 0.02  # messages and the part file
_INTERRUPTED = 0.1  # the chance that a run is interrupted, and half a tile lost
_LONGEST_TILE_S = 300.0
_ONCE = 1.05  # up to this many times what staging decodes, reading tiles counts as no more
_MARGIN = 1.15  # allocators keep more than was requested


# What tiles are read from: the movie itself, or the movie staged in each node's memory or on its scratch.
Source = Literal["movie", "memory", "scratch"]


@dataclass(frozen=True)
class Plan:
    """How a movie is cut, and what that needs. Bytes are for one rank."""

    tiling: Tiling
    cells: Cells  # whose series are kept
    source: Source
    stage_bytes: int  # per node
    frames: int
    tile_bytes: int
    working_bytes: int
    decoded_bytes: int  # by all ranks together
    needed_bytes: int  # each byte of the region once
    memory: dict[int, int]  # limit by rank

    @property
    def read_amplification(self) -> float:
        """Bytes decoded over bytes of the region that windows cover."""
        return self.decoded_bytes / self.needed_bytes

    @property
    def encodings(self) -> int:
        """Windows x frames."""
        return self.tiling.grid.rows * self.tiling.grid.columns * self.frames


def memory_limits(ranks: Sequence[RankResources], max_memory: int | None) -> dict[int, int]:
    """Bytes each rank may use in all, by rank.

    Raises InputError when ``max_memory`` times the ranks of a node is more than the node has free.
    """
    on_host = Counter(r.host for r in ranks)
    used = Counter[str]()
    free: dict[str, int] = {}
    for r in ranks:
        used[r.host] += r.used
        free[r.host] = min(free.get(r.host, r.node_free), r.node_free)
    limits = {}
    for r in ranks:
        available = free[r.host] + used[r.host]
        if max_memory is not None and max_memory * on_host[r.host] > available:
            raise InputError(
                f"node {r.host}: {on_host[r.host]} ranks with --max-memory {format_bytes(max_memory)} each need "
                f"{format_bytes(max_memory * on_host[r.host])}, but the node has {format_bytes(available)} free; "
                "lower --max-memory or start fewer ranks per node."
            )
        limits[r.rank] = max_memory or r.used + int(FREE_SHARE * free[r.host] / on_host[r.host])
    return limits


def working_bytes(engine: Engine, reader: TileReader, grid: WindowGrid, threads: int) -> int:
    """Bytes a rank needs besides its tile: a block on each of its threads."""
    frames = reader.movie.shape[0]
    rows, columns = (min(engine.block, n) for n in (grid.rows, grid.columns))
    block = max(_batch_bytes(engine, reader, grid, height, columns) for height in (1, rows))
    shared = 0
    if engine.device.type == "cpu":
        block += engine.working_bytes(frames, reader.dtype)
        block += over_time.working_bytes(frames, rows * columns, engine.latents)
        shared = over_time.shared_bytes(frames)
    return int(_MARGIN * (engine.at_once(threads) * block + shared)) + reader.movie.source.cache_bytes


def _batch_bytes(engine: Engine, reader: TileReader, grid: WindowGrid, rows: int, columns: int) -> int:
    """Bytes that the pixels take of a batch of a block of so many windows, staged, transformed, or pinned for a GPU."""
    # In the middle of the frame, where the source of a block is largest.
    row, column = (grid.rows - rows) // 2, (grid.columns - columns) // 2
    area = grid.area(Rectangle(row, row + rows, column, column + columns))
    source, itemsize = reader.source(area), reader.dtype.itemsize
    at_once = min(reader.movie.shape[0], engine.frames_at_once(rows * columns))
    # Rows of staged pixels span whole frames: they are smaller than a page of memory.
    staged = at_once * source.height * reader.movie.shape[2] * itemsize
    if engine.device.type == "cuda":  # all else is the device's memory
        return staged + PINNED * at_once * source.pixels * itemsize
    return staged + reader.transform.working_bytes(at_once, area)


def tile_bytes(
    engine: Engine, reader: TileReader, grid: WindowGrid, tile: Rectangle, source: Source, threads: int
) -> int:
    """Bytes of a tile's maps, and of its pixels and of reading them on ``threads`` if they are not staged."""
    # The maps of a finished tile are held, sent and written at the same time, while others are computed.
    cells = _cells(engine, reader, grid)
    maps = (AT_ONCE + 3) * map_bytes(tile.shape, engine.latents, cells)
    if source != "movie":
        return int(_MARGIN * maps)
    area = grid.area(tile)
    pixels = reader.source(area).pixels * reader.movie.shape[0]
    return int(_MARGIN * (pixels * reader.dtype.itemsize + maps + reader.working_bytes(area, threads)))


def map_bytes(windows: tuple[int, int], latents: int, cells: Cells) -> int:
    """Bytes of the maps of so many rows and columns of ``windows``, and of the series that are kept of them."""
    maps = 4 * (len(over_time.ALL_MAPS) * latents + 2) * windows[0] * windows[1]
    return maps + cells.bytes(windows, latents)


def _cells(engine: Engine, reader: TileReader, grid: WindowGrid) -> Cells:
    return cells_for(grid, engine.block, reader.movie.shape[0], engine.latents)


def stage_bytes(reader: TileReader) -> int:
    """Bytes of the staged movie."""
    frames, rows, columns = reader.movie.shape
    return frames * rows * columns * reader.dtype.itemsize


def decoded_bytes(reader: TileReader, tiling: Tiling) -> int:
    """Bytes that reading every tile from the movie decodes: a product, because tiles and chunks both form grids."""
    grid = tiling.grid
    # Along the other axis any window will do.
    rows = [reader.read_area(grid.area(Rectangle(*span, 0, 1))).rows for span in tiling.row_spans]
    columns = [reader.read_area(grid.area(Rectangle(0, 1, *span))).columns for span in tiling.column_spans]
    return reader.movie.chunk_grid.decoded_bytes_of_grid(rows, columns)


def check_smallest_read(reader: TileReader, grid: WindowGrid, memory: int) -> None:
    """Raise InputError if even one chunk, and the frames of one block in it, take more than ``memory`` bytes."""
    movie = reader.movie
    depth, rows, columns = movie.storage.chunk or movie.chunk_grid.unit
    pixels = reader.read_area(grid.area(Rectangle(0, 1, 0, 1))).pixels
    need = (3 * depth * rows * columns + depth * pixels) * movie.dtype.itemsize
    if need > memory:
        raise InputError(
            f"{movie.where}: reading one chunk of {depth} x {rows} x {columns} pixels takes {format_bytes(need)}, "
            f"but a rank may use only {format_bytes(memory)}; raise --max-memory, or store the movie in smaller chunks."
        )


def make_plan(
    engine: Engine,
    reader: TileReader,
    grid: WindowGrid,
    ranks: Sequence[RankResources],
    max_memory: int | None,
    known: Tiling | None = None,
) -> Plan:
    """The cheapest tiling that fits, or ``known`` if it fits.

    A compressed movie is decoded tile by tile only if that is no more than decoding it once on each node, or if it
    can't be staged.

    Raises InputError when not even one block of windows fits the memory of every rank.
    """
    limits = memory_limits(ranks, max_memory)
    working = {r.rank: working_bytes(engine, reader, grid, r.threads) for r in ranks}
    hosts, staged = Counter(r.host for r in ranks), stage_bytes(reader)
    once_on_each_node = len(hosts) * decoded_bytes(reader, Tiling(grid, engine.block, grid.rows, grid.columns))
    threads = max(r.threads for r in ranks)
    filling = int(_MARGIN * threads * reader.filling_bytes())

    def room(source: Source) -> int:
        """Bytes that every rank has available for a tile."""
        if source == "movie":
            return min(limits[r.rank] - r.used - working[r.rank] for r in ranks)
        if staged > min(r.stage_memory if source == "memory" else r.stage_scratch for r in ranks):
            return -1
        share = {host: staged // count if source == "memory" else 0 for host, count in hosts.items()}
        return min(limits[r.rank] - r.used - max(filling, working[r.rank]) - share[r.host] for r in ranks)

    candidates = [known] if known else _candidates(grid, engine.block)
    ways: dict[Source, list[Tiling]] = {
        source: [t for t in candidates if tile_bytes(engine, reader, grid, t.largest, source, threads) <= room(source)]
        for source in get_args(Source)
    }
    if not any(ways.values()):
        tightest = min(ranks, key=lambda r: limits[r.rank] - r.used - working[r.rank])
        smallest = min(tile_bytes(engine, reader, grid, t.largest, "movie", threads) for t in candidates)
        need = 1.01 * (smallest + working[tightest.rank] + tightest.used)
        there = sum(r.host == tightest.host for r in ranks)
        other = "; --restart plans new tiles" if known else ", or shorten the movie with --frames"
        raise InputError(
            f"{reader.movie.where}: rank {tightest.rank} on {tightest.host} ({there} ranks on this node) needs at "
            f"least {format_bytes(need)} but may use only {format_bytes(limits[tightest.rank])}; raise --max-memory "
            f"to {format_bytes(need)} or more, start fewer ranks per node{other}."
        )
    if ways["memory"]:
        ways["scratch"] = []
    # Reading uncompressed pixels twice may be faster than copying them to scratch.
    plain = reader.movie.storage.compression == "not compressed" and not reader.filters
    if ways["memory"] or (ways["scratch"] and not plain):
        ways["movie"] = [t for t in ways["movie"] if decoded_bytes(reader, t) <= _ONCE * once_on_each_node]

    def decoded(source: Source, tiling: Tiling) -> int:
        return decoded_bytes(reader, tiling) if source == "movie" else once_on_each_node

    source, best = min(
        ((source, t) for source in ways for t in ways[source]),
        key=lambda way: _cost(engine, reader, way[0], way[1], ranks, decoded(*way)),
    )
    movie = reader.movie
    needed = reader.source(grid.covered)
    return Plan(
        tiling=best,
        cells=_cells(engine, reader, grid),
        source=source,
        stage_bytes=0 if source == "movie" else staged,
        frames=movie.shape[0],
        tile_bytes=tile_bytes(engine, reader, grid, best.largest, source, threads),
        working_bytes=max(working.values()) if source == "movie" else max(filling, *working.values()),
        decoded_bytes=decoded(source, best),
        needed_bytes=movie.shape[0] * needed.pixels * movie.dtype.itemsize,
        memory=limits,
    )


def _candidates(grid: WindowGrid, block: int) -> list[Tiling]:
    def sizes(windows: int) -> list[int]:
        blocks = -(-windows // block)
        return sorted({-(-blocks // parts) for parts in range(1, blocks + 1)})

    return [Tiling(grid, block, r, c) for r in sizes(grid.rows) for c in sizes(grid.columns)]


def _cost(
    engine: Engine, reader: TileReader, source: Source, tiling: Tiling, ranks: Sequence[RankResources], decoded: int
) -> tuple[float, int]:
    """Seconds of all ranks together on an ordinary machine, apart from the encoding itself."""
    movie, kind = reader.movie, engine.device.type
    largest = tiling.largest.windows * movie.shape[0] * _ENCODE_S[kind]
    count = tiling.count
    byte = _DECODE_S[movie.storage.compression != "not compressed"] + _FILTER_S * reader.filters
    read = decoded * byte + len({r.host for r in ranks}) * stage_bytes(reader) * _STAGE_S[source]
    waiting = largest * 0.5 * ((len(ranks) - 1) + _INTERRUPTED)
    # Ranks without a tile wait as long as one takes.
    idle = max(0, len(ranks) - count) * largest
    too_long = max(0.0, largest - _LONGEST_TILE_S) * 1e3
    return read + waiting + idle + count * _TILE_S + too_long, count


def format_bytes(count: float) -> str:
    """Bytes as people write them, and as --max-memory reads them."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 999.5:  # more is rounded to 1000 of this unit
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.4g} TB"
