"""What the mappings of a virtual dataset cover, and which part of each source lies behind them."""

import functools
import math
import os
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np
from h5py._hl.vds import VDSmap

from hrtemvae_hpc.errors import InputError
from hrtemvae_hpc.files import is_file

_MOST_PIECES = 2**20  # along an axis
_MOST_CELLS = 2**26

Bounds = Sequence[tuple[int, int]]  # first and last + 1 along each axis of a dataset
Selection = list[list[tuple[int, int]]]  # along each axis, the pieces that are selected: all of their products


def selections(space: h5py.h5s.SpaceID, shape: Sequence[int], where: str) -> list[Selection]:
    """What ``space`` selects within a dataset of ``shape``.

    Raises InputError if it is made of more pieces than a movie can be.
    """
    if space.get_select_type() == h5py.h5s.SEL_ALL:
        return [[[(0, n)] for n in shape]]
    if not space.is_regular_hyperslab():
        if space.get_select_hyper_nblocks() > _MOST_PIECES:
            raise InputError(f"{where}: a virtual dataset of too many pieces; copy the movie into one file.")
        blocks = space.get_select_hyper_blocklist()
        return [[[(int(a), int(b) + 1)] for a, b in zip(first, last, strict=True)] for first, last in blocks]
    axes = zip(*space.get_regular_hyperslab(), shape, strict=True)
    return [[_pieces(start, stride, count, block, size, where) for start, stride, count, block, size in axes]]


def _pieces(start: int, stride: int, count: int, block: int, size: int, where: str) -> list[tuple[int, int]]:
    unlimited = h5py.h5s.UNLIMITED
    if block == unlimited or (block == stride and count == unlimited):
        return [(start, size)]
    if count == unlimited:
        count = max(0, -(-(size - start) // stride))
    if block == stride:
        return [(start, start + count * stride)]
    if count > _MOST_PIECES:
        raise InputError(f"{where}: a virtual dataset of {count:,} pieces; copy the movie into one file.")
    return [(start + i * stride, start + i * stride + block) for i in range(count)]


def clipped(selection: Selection, bounds: Bounds) -> Selection | None:
    """The part of a selection within ``bounds``, None if there is none."""
    inside = [
        [(max(a, first), min(b, stop)) for a, b in pieces if max(a, first) < min(b, stop)]
        for pieces, (first, stop) in zip(selection, bounds, strict=True)
    ]
    return inside if all(inside) else None


def covered_share(covering: Sequence[Selection], bounds: Bounds, where: str) -> float:
    """The share of ``bounds`` that selections within them cover together.

    Raises InputError if they are made of more pieces than a movie can be.
    """
    edges = [
        np.unique([*span, *(edge for selection in covering for piece in selection[axis] for edge in piece)])
        for axis, span in enumerate(bounds)
    ]
    if math.prod(len(e) for e in edges) > _MOST_CELLS:
        raise InputError(f"{where}: a virtual dataset of too many pieces; copy the movie into one file.")
    cells = np.zeros([len(e) - 1 for e in edges], bool)
    for selection in covering:
        inside = [np.zeros(n, bool) for n in cells.shape]
        for mask, edge, pieces in zip(inside, edges, selection, strict=True):
            for first, stop in np.searchsorted(edge, pieces):
                mask[first:stop] = True
        cells[np.ix_(*inside)] = True
    if cells.all():
        return 1.0
    sizes = functools.reduce(np.multiply.outer, [np.diff(e).astype(float) for e in edges])
    return float(sizes[cells].sum() / sizes.sum())


def is_numbered(mapping: VDSmap) -> bool:
    """Whether a mapping stands for one source for each block, with a running number in its name."""
    return "%b" in mapping.file_name or "%b" in mapping.dset_name


def source_names(dataset: h5py.Dataset, mapping: VDSmap, where: str) -> list[tuple[Path, str]]:
    """The files and datasets that a mapping of ``dataset`` stands for.

    Of those with a running number HDF5 takes the ones from 0 on, and ends at the first that is missing: if a later
    one exists, the missing one is named too.
    """
    virtual_file = Path(dataset.file.filename)

    def named(number: int) -> tuple[Path, str]:
        file, name = (
            text.replace("%b", str(number)).replace("%%", "%") for text in (mapping.file_name, mapping.dset_name)
        )
        return (virtual_file if file == "." else _located(virtual_file, file)), name

    if not is_numbered(mapping):
        return [named(0)]
    start, stride, count, _ = mapping.vspace.get_regular_hyperslab()
    axis = count.index(h5py.h5s.UNLIMITED)
    blocks = -(-(dataset.shape[axis] - start[axis]) // stride[axis])
    if blocks > _MOST_PIECES:
        raise InputError(f"{where}: a virtual dataset of {blocks:,} sources; copy the movie into fewer.")
    return [named(i) for i in range(blocks + _has_later(named(0)[0].parent, Path(mapping.file_name).name, blocks))]


def _has_later(folder: Path, pattern: str, number: int) -> bool:
    """Whether ``folder`` holds files of a ``pattern`` with numbers after ``number``."""
    if "%b" not in pattern or not folder.is_dir():
        return False
    before, after = (part.replace("%%", "%") for part in pattern.split("%b", 1))
    alike = (entry for entry in os.listdir(folder) if entry.startswith(before) and entry.endswith(after))
    numbers = (entry[len(before) : len(entry) - len(after)] for entry in alike)
    return any(text.isdecimal() and int(text[:20]) > number for text in numbers)


def _located(virtual_file: Path, name: str) -> Path:
    """Where HDF5 looks for a source: beside the file, beside what a link to it leads to, and there without folders."""
    places = virtual_file.parent / name, virtual_file.resolve().parent / name, virtual_file.parent / Path(name).name
    return next((place for place in places if is_file(place)), places[0])


def part_behind(
    shape: Sequence[int], mapping: VDSmap, mapped: Sequence[Selection], touched: Sequence[Selection], where: str
) -> Bounds:
    """The part of a source of ``shape`` behind the ``touched`` part of what is ``mapped``, or more.

    Raises InputError if a mapping takes more of the source than there is.
    """
    axes = list(zip(_outer(mapped), _outer(touched), strict=True))
    if len(shape) < len(axes):  # a source of one frame
        axes = [axis for axis in axes if axis[0][1] - axis[0][0] > 1]
    sizes = [stop - first for (first, stop), _ in axes]
    taken = selections(mapping.src_space, shape, where)
    bounds = _outer(taken)
    if mapping.src_space.get_select_type() == h5py.h5s.SEL_ALL and math.prod(sizes) == _size(mapped):
        bounds = [(0, size) for size in sizes]  # as large as the source was then
    if pixel_by_pixel := [b - a for a, b in bounds] == sizes:
        bounds = [
            (a + low - first, a + high - first) for (a, _), ((first, _), (low, high)) in zip(bounds, axes, strict=True)
        ]
    beyond = len(bounds) != len(shape) or any(b > n for (_, b), n in zip(bounds, shape, strict=True))
    if beyond or (not pixel_by_pixel and _size(mapped) > _size(taken)):
        raise InputError(
            f"{where}: has shape {tuple(shape)}, less than a virtual dataset takes from it; the rest would be read "
            "as zeros. Copy it again, or leave that part out with --frames or --roi."
        )
    return bounds


def _outer(parts: Sequence[Selection]) -> list[tuple[int, int]]:
    """The bounds of selections."""
    return [(min(axis[0][0] for axis in axes), max(axis[-1][1] for axis in axes)) for axes in zip(*parts, strict=True)]


def _size(parts: Sequence[Selection]) -> int:
    return sum(math.prod(sum(b - a for a, b in axis) for axis in part) for part in parts)
