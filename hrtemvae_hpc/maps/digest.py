"""Digests in a result file, which later prove that it is as it was written.

/entry/process/digests holds the SHA-256 of every dataset and group below /entry, with its attributes, and
/entry/process/file_digest that of all other bytes of the file, with the file's size. Damage anywhere changes the
latter; a file that was repacked has another size, and is verified by the former.
"""

import hashlib
import json
import math
import multiprocessing
import re
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, BinaryIO

import h5py
import numpy as np

from hrtemvae_hpc.errors import InputError, printable
from hrtemvae_hpc.files import hdf5_disk_errors, is_file, is_written_as
from hrtemvae_hpc.hdf5 import DAMAGED, check_array, check_inflated, open_hdf5

Progress = Callable[[int], object]  # gets the number of bytes that were just read

_TABLE, _FILE = "process/digests", "process/file_digest"  # below /entry
_FIELD = re.compile(rb"sha256 of other bytes ([0-9a-f]{64}), bytes in all ([0-9]{20})")
_TAIL = 2**16  # bytes at the end of a file that hold this field, which is written last
_BLOCK = 2**24  # bytes
_LARGEST_ROW = 2**28  # bytes
_PACKED = 1100  # the most that gzip can compress, and some more
_NAMED = 3  # in a message
_PATIENCE, _RATE = 10.0, 1e8  # seconds, and bytes per second, to name the damage of a file
_MOST = 100_000  # entries of a table
_AGAIN = "copy it again, or compute it again with --restart"


def _silent(_: int) -> None:
    pass


def seal(path: Path) -> None:
    """Add the digests to a result file that is complete and closed. Raises OSError if the disk is full or fails."""
    with hdf5_disk_errors(), h5py.File(path, "r+") as file:
        entry = file["entry"]
        table = {place: _digest(group, name, _silent) for place, group, name in _items(entry, lambda _: True)}
        entry[_TABLE] = json.dumps(table)
        entry[_FILE] = np.bytes_(_field("0" * 64, 0))
    with path.open("r+b") as raw:
        size = raw.seek(0, 2)
        field = _find_field(raw, size)
        if field is None:
            raise OSError(f"{path}: the digest of the file is not at its end")
        digest = _file_digest(raw, *field[0], _silent)
        raw.seek(field[0][0])
        raw.write(_field(digest, size))


def check_whole(path: Path, progress: Progress = _silent, name_damage: bool = False) -> str:
    """A sentence about a result file that is as it was written.

    Raises InputError if it isn't, or if that can't be known. With ``name_damage`` its sentence says what differs.
    """
    if not is_file(path):
        raise InputError(f"{path}: there is no such result file; make one with `hrtemvae analyze`.")
    try:
        with path.open("rb") as raw:
            size = raw.seek(0, 2)
            field = _find_field(raw, size)
            same_bytes = field is not None and _file_digest(raw, *field[0], progress) == field[1]
    except OSError as error:
        raise InputError(f"{path}: can't be read ({error.strerror or error}); {_AGAIN}.") from error
    same_size = field is not None and field[2] == size
    if same_bytes and same_size:
        return "intact, all its bytes are as they were written"
    repacked = not same_bytes and not same_size
    damage = _differences_in_child(path, size) if repacked or name_damage else ""
    if not damage and repacked:
        return "intact, all its datasets are as they were written, in a repacked file"
    raise InputError(f"{path}: is not intact: {damage or 'its bytes are not as they were written'}; {_AGAIN}.")


def _check_kind(path: Path) -> None:
    """Raise InputError if ``path`` can't be opened, or is another kind of file."""
    with open_hdf5(path, "a result of `hrtemvae analyze`"):
        pass
    if not is_written_as(path, "result"):
        raise InputError(f"{path}: is not a result of `hrtemvae analyze`; name one.")


def _field(digest: str, size: int) -> bytes:
    return b"sha256 of other bytes %b, bytes in all %020d" % (digest.encode(), size)


def _find_field(raw: BinaryIO, size: int) -> tuple[tuple[int, int], str, int] | None:
    """Where the digest of the open file begins and ends, that digest, and the size of the file that it is for."""
    begin = raw.seek(max(0, size - _TAIL))
    fields = list(_FIELD.finditer(raw.read(_TAIL)))
    if not fields:
        return None
    last = fields[-1]
    return (begin + last.start(), begin + last.end()), last[1].decode(), int(last[2])


def _file_digest(raw: BinaryIO, start: int, stop: int, progress: Progress) -> str:
    """SHA-256 of an open file but for its bytes start:stop."""
    sha = hashlib.sha256()
    for begin, end in ((0, start), (stop, None)):
        raw.seek(begin)
        while block := raw.read(_BLOCK if end is None else min(_BLOCK, end - raw.tell())):
            sha.update(block)
            progress(len(block))
    return sha.hexdigest()


def _differences_in_child(path: Path, size: int) -> str:
    """What ``_differences`` finds, in a process of its own: HDF5 may hang or crash in a damaged file."""
    context = multiprocessing.get_context("fork")
    answer, writer = context.Pipe(duplex=False)
    child = context.Process(target=_send_differences, args=(path, writer), daemon=True)
    child.start()
    writer.close()
    try:
        if answer.poll(_PATIENCE + size / _RATE):
            refused, verdict = answer.recv()
            if refused:
                raise InputError(verdict)
            return str(verdict)
    except EOFError:
        pass
    finally:
        child.kill()
        child.join()
    return "it is so damaged that its datasets can't be read"


def _send_differences(path: Path, writer: Connection) -> None:
    try:
        _check_kind(path)
        writer.send((False, _differences(path, _silent)))
    except InputError as error:
        writer.send((True, str(error)))


def _differences(path: Path, progress: Progress) -> str:
    """Which datasets in a result file differ from its table of digests, "" if none."""
    with open_hdf5(path, "the result") as file:
        try:
            entry = file["entry"]
            if _TABLE not in entry:
                return "it holds no digests: it is older than they are, or damaged"
            table = json.loads(check_array(entry, _TABLE, "O", 0).asstr()[()])
            if not isinstance(table, dict) or len(table) > _MOST:
                return "its digests are damaged"
            if _FIELD.fullmatch(check_array(entry, _FILE, "S", 0)[()]) is None:
                return f"{_FILE} differs"
            present, different = set(), []
            for place, group, name in _items(entry, table.__contains__):
                present.add(place)
                if place in table and not _is_same(group, name, table[place], progress):
                    different.append(place)
        except DAMAGED as error:
            return f"it is damaged ({printable(str(error))[:200]})"
    words = {
        "differ": different,
        "are missing": sorted(table.keys() - present),
        "were added": sorted(present - table.keys()),
    }
    return ", ".join(f"{_listed(places)} {verb}" for verb, places in words.items() if places)


def _listed(places: Sequence[str]) -> str:
    more = [f"{len(places) - _NAMED} more"] if len(places) > _NAMED else []
    return " and ".join([", ".join(f"/entry/{printable(p)[:80]}" for p in places[:_NAMED]), *more])


def _items(group: h5py.Group, enter: Callable[[str], bool], above: str = "") -> Iterator[tuple[str, h5py.Group, str]]:
    """Each thing below ``group`` but the digests: its path, its group and its name there.

    Groups are entered if ``enter`` is true for their path, links never.
    """
    if not above:
        yield ".", group, "."
    for name in group:
        place = above + name
        if place in (_TABLE, _FILE):
            continue
        yield place, group, name
        hard = group.get(name, getclass=True, getlink=True) is h5py.HardLink
        if hard and enter(place) and group.get(name, getclass=True) is h5py.Group:
            yield from _items(group[name], enter, f"{place}/")


def _is_same(group: h5py.Group, name: str, digest: object, progress: Progress) -> bool:
    try:
        return _digest(group, name, progress) == digest
    except DAMAGED:
        return False


def _digest(group: h5py.Group, name: str, progress: Progress) -> str:
    """SHA-256 of a group's attributes, or of a dataset's type, shape, attributes and values.

    Raises ValueError or OSError if it can't be read, or is of a kind that no result holds.
    """
    sha = hashlib.sha256()
    item = group[name]
    for key in sorted(item.attrs):
        _add(sha, key, np.asarray(item.attrs[key]))
    if isinstance(item, h5py.Group):
        return sha.hexdigest()
    dataset = check_array(group, name, "iufSO")
    check_inflated(dataset)
    size = math.prod(dataset.shape) * dataset.dtype.itemsize
    if size > max(_BLOCK, _PACKED * dataset.id.get_storage_size()):
        raise ValueError(f"{name} claims more than is stored")
    sha.update(f"{dataset.dtype} {dataset.shape}".encode())
    rows = dataset.shape[0] if dataset.ndim else 0
    row = size // max(1, rows)
    if row > _LARGEST_ROW:
        raise ValueError(f"{name} has shape {dataset.shape}")
    step = max(1, _BLOCK // max(1, row))
    for part in [slice(i, i + step) for i in range(0, rows, step)] if dataset.ndim else [()]:
        values = np.asarray(dataset[part])
        _add(sha, "", values)
        progress(values.nbytes)
    return sha.hexdigest()


def _add(sha: Any, key: str, values: np.ndarray) -> None:
    """Add an array to ``sha``: strings with their lengths, anything else with its type, shape and bytes."""
    sha.update(f"{len(key)} {key}".encode("utf-8", "surrogateescape"))
    if values.dtype.kind in "OU":
        for text in values.flat:
            raw = text if isinstance(text, bytes) else str(text).encode("utf-8", "surrogateescape")
            sha.update(b"%d " % len(raw) + raw)
    else:
        sha.update(f"{values.dtype} {values.shape}".encode())
        sha.update(np.ascontiguousarray(values).data)
