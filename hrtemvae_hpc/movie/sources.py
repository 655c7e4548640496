"""The files that a movie's pixels lie in, and whether all pixels are there: where some are missing, HDF5 reads zeros.

A dataset may be virtual, at any depth, and its bytes may lie in raw files beside it.
"""

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import h5py

from hrtemvae_hpc.errors import InputError, printable
from hrtemvae_hpc.files import is_file
from hrtemvae_hpc.hdf5 import filters_of, open_hdf5
from hrtemvae_hpc.movie.virtual import (
    Bounds,
    Selection,
    clipped,
    covered_share,
    is_numbered,
    part_behind,
    selections,
    source_names,
)

_DEEPEST = 8  # virtual datasets of virtual datasets


@dataclass
class Sources:
    """The files behind the pixels of a movie."""

    hdf5: dict[tuple[Path, str], Bounds] = field(default_factory=dict)  # datasets of a virtual one, and their parts
    raw: list[Path] = field(default_factory=list)  # files of HDF5's external raw storage


def find_sources(dataset: h5py.Dataset, bounds: Bounds, where: str) -> Sources:
    """What lies behind the part ``bounds`` of ``dataset``; ``where`` is for messages.

    Raises InputError if a file or pixels are missing, or a raw file does not lie beside the file it belongs
    to: through HDF5, a movie could name any file that its reader may read.
    """
    sources = Sources()
    _find_behind(dataset, bounds, where, sources, 0)
    return sources


def _find_behind(dataset: h5py.Dataset, bounds: Bounds, where: str, sources: Sources, depth: int) -> None:
    if depth > _DEEPEST:
        raise InputError(f"{where}: virtual datasets are nested {depth} deep; copy the movie into one file.")
    missing = [code for code in filters_of(dataset) if not h5py.h5z.filter_avail(code)]
    if missing:
        names = ", ".join(FILTER_NAMES.get(code, f"HDF5 filter {code}") for code in missing)
        raise InputError(f"{where}: is compressed with {names}, which is not installed here; install it.")
    if dataset.is_virtual:
        _find_behind_virtual(dataset, bounds, where, sources, depth)
    elif dataset.external:
        sources.raw += _raw_files(dataset, where)
    elif dataset.chunks:
        _check_chunks(dataset, bounds, where)
    else:
        _check_contiguous(dataset, where)


def _find_behind_virtual(dataset: h5py.Dataset, bounds: Bounds, where: str, sources: Sources, depth: int) -> None:
    covering: list[Selection] = []
    shapes: dict[tuple[Path, str], tuple[int, ...]] = {}
    needed: dict[tuple[Path, str], Bounds] = {}
    for mapping in dataset.virtual_sources():
        mapped = selections(mapping.vspace, dataset.shape, where)
        touched = [inside for selection in mapped if (inside := clipped(selection, bounds))]
        if not touched:
            continue
        covering += touched
        for key in source_names(dataset, mapping, where):
            if key not in shapes:
                with _opened(key, where) as source:
                    shapes[key] = source.shape
            whole = [(0, n) for n in shapes[key]]
            part = whole if is_numbered(mapping) else part_behind(shapes[key], mapping, mapped, touched, _named(key))
            needed[key] = _joined(needed.get(key, part), part)
    covered = covered_share(covering, bounds, where)
    if covered < 1:
        raise InputError(
            f"{where}: a virtual dataset whose sources hold {covered:.1%} of its pixels; the others would be read as "
            "zeros. Write it again from all sources, or leave them out with --frames or --roi."
        )
    for key, part in needed.items():
        before = sources.hdf5.get(key)
        together = part if before is None else _joined(before, part)
        if together != before:
            sources.hdf5[key] = together
            with _opened(key, where) as source:
                _find_behind(source, part, _named(key), sources, depth + 1)


def _joined(one: Bounds, other: Bounds) -> Bounds:
    return [(min(a, c), max(b, d)) for (a, b), (c, d) in zip(one, other, strict=True)]


def _named(source: tuple[Path, str]) -> str:
    return f"{source[0]}, dataset {printable(source[1])}"


@contextmanager
def _opened(key: tuple[Path, str], where: str) -> Iterator[h5py.Dataset]:
    path, name = key
    if not is_file(path):
        raise InputError(f"{where}: a virtual dataset whose source {path} is missing; put it back.")
    with open_hdf5(path, "the movie") as file:
        source = file.get(name)
        if not isinstance(source, h5py.Dataset) or source.shape is None:
            raise InputError(f"{where}: a virtual dataset whose source {_named(key)} is missing; put it back.")
        yield source


def _raw_files(dataset: h5py.Dataset, where: str) -> list[Path]:
    folder = Path(os.path.realpath(dataset.file.filename)).parent
    needed = math.prod(dataset.shape) * dataset.id.get_type().get_size()
    files = []
    for name, offset, size in dataset.external:
        path = Path(os.path.realpath(folder / os.fsdecode(name)))
        if path.parent != folder:
            raise InputError(
                f"{where}: its pixels lie in {printable(str(path))}, which is not in the movie's folder; move it "
                "there if it belongs to the movie."
            )
        if not is_file(path):
            raise InputError(f"{where}: its pixels lie in {path}, which is missing; put it back.")
        part = min(needed, size)
        if path.stat().st_size < offset + part:
            raise InputError(f"{where}: its pixels lie in {path}, which is cut off; copy it again.")
        needed -= part
        files.append(path)
    if needed > 0:
        raise InputError(f"{where}: the raw files beside it hold fewer pixels than it needs; copy the movie again.")
    return files


def _check_chunks(dataset: h5py.Dataset, bounds: Bounds, where: str) -> None:
    first = [a // c for (a, _), c in zip(bounds, dataset.chunks, strict=True)]
    last = [(b - 1) // c for (_, b), c in zip(bounds, dataset.chunks, strict=True)]
    expected = math.prod(b - a + 1 for a, b in zip(first, last, strict=True))
    every = math.prod(-(-n // c) for n, c in zip(dataset.shape, dataset.chunks, strict=True))
    try:
        written = dataset.id.get_num_chunks()
        if written == every:
            return
        inside = 0

        def count(chunk: h5py.h5d.StoreInfo) -> None:
            nonlocal inside
            place = [o // c for o, c in zip(chunk.chunk_offset, dataset.chunks, strict=True)]
            inside += all(a <= p <= b for a, p, b in zip(first, place, last, strict=True))

        dataset.id.chunk_iter(count)
    except (OSError, RuntimeError):  # the index of chunks is damaged: HDF5 will report each that can't be found
        return
    if inside < expected:
        raise InputError(
            f"{where}: {expected - inside} of its {expected} chunks were never written and would be read as zeros; "
            "the recording may have ended early: leave them out with --frames or --roi, or copy the movie again."
        )


def _check_contiguous(dataset: h5py.Dataset, where: str) -> None:
    needed = math.prod(dataset.shape) * dataset.id.get_type().get_size()
    offset, stored = dataset.id.get_offset(), dataset.id.get_storage_size()
    size = Path(dataset.file.filename).stat().st_size
    if stored < needed or (offset is not None and offset + needed > size):
        raise InputError(
            f"{where}: {stored:,} of its {needed:,} bytes were written, the others would be read as zeros; copy the "
            "movie again."
        )


# https://github.com/HDFGroup/hdf5_plugins/blob/master/docs/RegisteredFilterPlugins.md
FILTER_NAMES = {
    1: "gzip",
    2: "shuffle",
    3: "fletcher32",
    4: "szip",
    5: "nbit",
    6: "scaleoffset",
    32000: "lzf",
    32001: "blosc",
    32004: "lz4",
    32008: "bitshuffle",
    32015: "zstd",
    32026: "blosc2",
}
