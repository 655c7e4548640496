"""The files that a movie's pixels lie in, and whether all pixels are there: where some are missing, HDF5 reads zeros.

A dataset may be virtual, at any depth, and its bytes may lie in raw files beside it. Every file is known by its size,
its times and a sample of its content, so that a movie that was changed or replaced is noticed.
"""

import hashlib
import math
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import h5py
from h5py._hl.vds import VDSmap

from hrtemvae_hpc.errors import InputError, printable
from hrtemvae_hpc.files import is_file
from hrtemvae_hpc.hdf5 import filters_of, open_hdf5

_DEEPEST = 8  # virtual datasets of virtual datasets
_SAMPLES, _SAMPLE = 64, 4096  # pieces of all files together, and bytes of each, that are read to tell movies apart
_SELDOM = 100  # times what looking at all files takes, that passes before they are looked at again

Bounds = Sequence[tuple[int, int]]  # first and last + 1 along each axis of a dataset


@dataclass
class Sources:
    """The files behind the pixels of a movie."""

    hdf5: list[tuple[Path, str]] = field(default_factory=list)  # files and datasets of a virtual one, innermost last
    raw: list[Path] = field(default_factory=list)  # files of HDF5's external raw storage


def find_sources(dataset: h5py.Dataset, bounds: Bounds, where: str) -> Sources:
    """What lies behind the part ``bounds`` of ``dataset``; ``where`` is for messages.

    Raises InputError where a file or pixels are missing, or a raw file lies elsewhere than beside the file it belongs
    to: by HDF5, a movie could name any file that its reader may read.
    """
    found = Sources()
    _look_behind(dataset, bounds, where, found, 0)
    return found


def _look_behind(dataset: h5py.Dataset, bounds: Bounds, where: str, found: Sources, depth: int) -> None:
    if depth > _DEEPEST:
        raise InputError(f"{where}: virtual datasets lie {depth} deep in each other; copy the movie into one file.")
    missing = [code for code in filters_of(dataset) if not h5py.h5z.filter_avail(code)]
    if missing:
        names = ", ".join(FILTER_NAMES.get(code, f"HDF5 filter {code}") for code in missing)
        raise InputError(f"{where}: is compressed with {names}, which is not installed here; install it.")
    if dataset.is_virtual:
        _look_behind_virtual(dataset, bounds, where, found, depth)
    elif dataset.external:
        found.raw += _raw_files(dataset, where)
    elif dataset.chunks:
        _check_chunks(dataset, bounds, where)
    else:
        _check_contiguous(dataset, where)


def _look_behind_virtual(dataset: h5py.Dataset, bounds: Bounds, where: str, found: Sources, depth: int) -> None:
    own = Path(dataset.file.filename)
    covered, total = 0, math.prod(stop - start for start, stop in bounds)
    for mapping in dataset.virtual_sources():
        names, unlimited = _expanded(own, mapping.file_name)
        if unlimited:
            covered = total  # as many blocks as there are files: none is missing
        else:
            touched = mapping.vspace.copy()
            starts, sizes = tuple(a for a, _ in bounds), tuple(b - a for a, b in bounds)
            touched.select_hyperslab(starts, (1,) * len(sizes), None, sizes, op=h5py.h5s.SELECT_AND)
            if not touched.get_select_npoints():
                continue
            covered += touched.get_select_npoints()
        for path in names:
            if not is_file(path):
                raise InputError(f"{where}: a virtual dataset whose source {path} is missing; put it back.")
            found.hdf5.append((path, mapping.dset_name))
            with open_hdf5(path, "the movie") as file:
                source = file.get(mapping.dset_name)
                there = f"{path}, dataset {printable(mapping.dset_name)}"
                if not isinstance(source, h5py.Dataset):
                    raise InputError(f"{where}: a virtual dataset whose source {there} is missing; put it back.")
                whole = [(0, n) for n in source.shape]
                taken = whole if unlimited else _taken(source, mapping, touched.get_select_bounds())
                _look_behind(source, taken, there, found, depth + 1)
    if covered < total:
        raise InputError(
            f"{where}: a virtual dataset whose sources hold {covered / total:.1%} of its pixels; the others would be "
            "read as zeros. Write it anew from all sources, or leave them out with --frames or --roi."
        )


def _expanded(own: Path, name: str) -> tuple[list[Path], bool]:
    """The files that a source's ``name`` stands for, and whether it has a running number (%b).

    HDF5 takes those from 0 on and ends at the first that is missing.
    """
    if name == ".":
        return [own], False
    if "%b" not in name:
        return [_located(own, name.replace("%%", "%"))], False

    def numbered(number: int) -> Path:
        return _located(own, name.replace("%b", str(number)).replace("%%", "%"))

    names: list[Path] = []
    while is_file(numbered(len(names))):
        names.append(numbered(len(names)))
    before, after = (part.replace("%%", "%") for part in Path(name).name.split("%b", 1))
    folder = numbered(0).parent
    later = [n for entry in (os.listdir(folder) if folder.is_dir() else ())
             if entry.startswith(before) and entry.endswith(after)
             and (n := entry[len(before) : len(entry) - len(after)]).isdecimal() and int(n) > len(names)]  # fmt: skip
    return names + [numbered(len(names))] * bool(later or not names), True


def _located(own: Path, name: str) -> Path:
    path = own.parent / name
    # HDF5 also looks beside the file for a source whose absolute path is gone.
    beside = own.parent / Path(name).name
    return beside if is_file(beside) and not is_file(path) else path


def _taken(source: h5py.Dataset, mapping: VDSmap, box: tuple[Sequence[int], Sequence[int]]) -> Bounds:
    """The part of ``source`` behind the first to the last pixel ``box`` of a virtual dataset; more where in doubt."""
    if mapping.src_space.get_select_type() == h5py.h5s.SEL_ALL:
        own = [(0, n) for n in source.shape]
    else:
        own = [(a, b + 1) for a, b in zip(*mapping.src_space.get_select_bounds(), strict=True)]
    mapped = list(zip(*mapping.vspace.get_select_bounds(), *box, strict=True))
    if source.ndim < len(mapped):  # of one frame
        mapped = [axis for axis in mapped if axis[0] < axis[1]]
    if [b - a for a, b in own] != [last + 1 - first for first, last, _, _ in mapped]:  # not pixel by pixel
        return own
    return [(a + low - first, a + high + 1 - first) for (a, _), (first, _, low, high) in zip(own, mapped, strict=True)]


def _raw_files(dataset: h5py.Dataset, where: str) -> list[Path]:
    folder = Path(dataset.file.filename).parent.resolve()
    needed = math.prod(dataset.shape) * dataset.id.get_type().get_size()
    files = []
    for name, offset, size in dataset.external:
        path = Path(os.path.normpath(folder / os.fsdecode(name)))
        if path.resolve().parent != folder:
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
        raise InputError(f"{where}: the raw files beside it hold fewer pixels than it has; copy the movie again.")
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
    except (OSError, RuntimeError):  # the index of chunks is damaged: HDF5 will say so of each that can't be found
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


class Watch:
    """Notices when the files of a movie change while it is read."""

    def __init__(self, files: Sequence[Path]) -> None:
        """Raises OSError where a file can't be looked at."""
        self._files = sorted(set(files))
        self._stamps = self._look()
        self._looked, self._took = time.monotonic(), 0.0

    def fingerprint(self) -> list[object]:
        """Sizes, times and a sample of the content of all files, by which they are known in any folder.

        Raises OSError where a file can't be read.
        """
        digest = hashlib.sha256()
        for piece in self._pieces():
            digest.update(piece)
        return [[(size, modified) for _, size, modified in self._stamps], digest.hexdigest()]

    def has_changed(self, *, thorough: bool = False) -> bool:
        """Whether a file is not what it was, by inode, size and time.

        Unless ``thorough``, many files are not looked at all the time.
        """
        began = time.monotonic()
        if not thorough and began - self._looked < _SELDOM * self._took:
            return False
        try:
            changed = self._look() != self._stamps
        except OSError:
            return True
        self._looked = time.monotonic()
        self._took = self._looked - began
        return changed

    def _look(self) -> list[tuple[int, int, int]]:
        every = (path.stat() for path in self._files)
        return [(s.st_ino, s.st_size, s.st_mtime_ns) for s in every]

    def _pieces(self) -> Iterator[bytes]:
        """Evenly spread over the files and over each file: its first, middle and last bytes if there are many."""
        count = min(len(self._files), _SAMPLES)
        each = max(1, _SAMPLES // count)
        for i in range(count):
            path = self._files[i * len(self._files) // count]
            with path.open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                for j in range(each):
                    file.seek(max(0, size - _SAMPLE) * (j + 1) // each)
                    yield file.read(_SAMPLE)


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
