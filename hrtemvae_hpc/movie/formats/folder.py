"""Files with one frame each, of a folder or listed, as one movie.

The order is that of the names, with numbers in them as numbers. Where the files hold times that contradict it, the
names count, the times are not used, and a note says so. Few files are parsed: most are as large as a parsed one and
hold the same bytes where these describe the pixels (``Likeness``). Frames that repeat the one before are found by a
sample from their middle.
"""

import dataclasses
import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain, compress, islice, pairwise
from pathlib import Path
from typing import TypeVar

import numpy as np

from hrtemvae_hpc.errors import InputError, printable
from hrtemvae_hpc.files import is_file, is_written_as
from hrtemvae_hpc.movie.calibration import spacing
from hrtemvae_hpc.movie.decoded_frames import Decoder
from hrtemvae_hpc.movie.formats.listing import Listing, list_folder
from hrtemvae_hpc.movie.formats.names import listed, missing, patterns
from hrtemvae_hpc.movie.formats.stack import HEAD, Format, Stack
from hrtemvae_hpc.movie.raw_frames import Placement

_THREADS = 16  # that wait for the file system
_TOGETHER = 32  # files that a thread looks at in turn
_SAMPLE = 4096  # bytes of a frame
_MOST_EXAMPLES = 16  # parsed files that others are compared with
_HDF5 = "HDF5"
Found = TypeVar("Found")
_OURS = ("result", "segments", "movie")


@dataclass(frozen=True)
class Frame:
    """The only frame of a file."""

    offset: int
    scale_nm: tuple[float, float] | None
    clock_s: float | None
    sample: bytes  # identifies some of the pixels; empty if these are all equal, or must be decoded
    decoder: Decoder | None = None


def read_folder(folder: Path, formats: Sequence[Format]) -> Stack:
    """The frames in the files of ``folder`` that are of one of ``formats``; other files don't count.

    Raises InputError if there are none, or they are of different formats, shapes or types, or hold several frames each.
    """
    listing = list_folder(folder)
    with ThreadPoolExecutor(_THREADS) as threads:
        names = list(_each(threads, partial(_format_of, formats), listing.files))
        chosen, known = _choose(folder, listing.files, names, formats)
        return _read(listing, chosen, known, threads)


def read_files(files: Sequence[Path], formats: Sequence[Format]) -> Stack | None:
    """The frames of ``files``, in this order, if all are of the same of ``formats`` and hold one frame each; else None.

    Raises InputError if one can't be read, or they are of different shapes or types.
    """
    with ThreadPoolExecutor(_THREADS) as threads:
        if not all(_each(threads, is_file, files)):
            return None
        names = set(_each(threads, partial(_format_of, formats), files))
        known = next((known for known in formats if {known.name} == names), None)
        try:
            return _read(Listing(list(files)), range(len(files)), known, threads) if known else None
        except _SeveralFrames:
            return None


class _SeveralFrames(InputError):
    """A file holds several frames, where each must hold one."""


def _read(listing: Listing, chosen: Sequence[int], known: Format, threads: Executor) -> Stack:
    """The frames of the ``chosen`` files, all of the ``known`` format, as one movie."""
    files = [listing.files[i] for i in chosen]
    first = known.read(files[0])
    if len(files) == 1:
        return first
    frames = _survey(files, first, known, threads)
    return _joined(listing, chosen, [frames[file] for file in files], first, known)


def _each(threads: Executor, call: Callable[[Path], Found], files: Iterable[Path]) -> Iterator[Found]:
    """What ``call`` returns for each of the ``files``, by many threads."""
    every = iter(files)
    parts = iter(lambda: list(islice(every, _TOGETHER)), [])
    return chain.from_iterable(threads.map(lambda part: [call(file) for file in part], parts))


def _format_of(formats: Sequence[Format], path: Path) -> str:
    """The name of a file's format, "" if it is unknown."""
    with _opened(path) as file:
        head = os.pread(file, HEAD, 0)
    known = next((known.name for known in formats if known.recognised(head, path)), "")
    return _HDF5 if not known and head.startswith(b"\x89HDF\r\n\x1a\n") else known


def _choose(
    folder: Path, files: Sequence[Path], names: Sequence[str], formats: Sequence[Format]
) -> tuple[list[int], Format]:
    """Which of ``files`` are frames, and of what format.

    Raises InputError if there are none, or a file that is none must not be overlooked.
    """
    known = next((known for name in names for known in formats if known.name == name), None)
    if known is None:
        hint = " It holds HDF5 files: name one." if _HDF5 in names else ""
        raise InputError(
            f"{folder}: is a folder without frames of a known format; name a file, or another folder.{hint}"
        )
    chosen = [i for i, name in enumerate(names) if name == known.name]
    endings = {files[i].suffix.lower() for i in chosen} - {""}
    for path, name in zip(files, names, strict=True):
        if name not in ("", _HDF5, known.name):
            raise _wrong(path, f"is of another format ({name}) than {files[chosen[0]].name} ({known.name}); keep one "
                         "movie in a folder, or name the file")  # fmt: skip
        if name == _HDF5 and not any(is_written_as(path, kind) for kind in _OURS):
            raise _wrong(path, f"is an HDF5 file among frames ({known.name}); keep one movie in a folder, or name the "
                         "file")  # fmt: skip
        if name == "" and path.suffix.lower() in endings:
            raise _wrong(path, "is named like a frame, but is damaged or empty; copy it again or move it away")
    return chosen, known


def _survey(files: Sequence[Path], first: Stack, known: Format, threads: Executor) -> dict[Path, Frame]:
    """The frame of each file; raises InputError if one isn't of the shape and type of the ``first``."""
    frames: dict[Path, Frame] = {}
    left = deque(files)
    for parsed in range(len(files)):
        if not left:
            break
        path = left.popleft()
        stack = known.read(path) if parsed else first
        _check_alike(path, stack, files[0], first)
        with _opened(path) as file:
            frames[path] = _frame(file, stack, stack.clock_s)
        if stack.likeness and parsed < _MOST_EXAMPLES:
            found = list(_each(threads, partial(like, stack), left))
            frames |= {path: frame for path, frame in zip(left, found, strict=True) if frame}
            left = deque(path for path, frame in zip(left, found, strict=True) if not frame)
    return frames


def _check_alike(path: Path, stack: Stack, first_path: Path, first: Stack) -> None:
    about, place = stack.description, stack.placement
    if about.shape[0] != 1 or list(place.files) != [path]:
        raise _wrong(path, f"holds {about.shape[0]} frames, but in a folder of several files each must hold one; name "
                     "one file", _SeveralFrames)  # fmt: skip
    rows, columns = about.shape[1:]
    if (stack.decoder is None) != (first.decoder is None):
        raise _wrong(path, f"is compressed in another way than {first_path.name}; leave it out, or keep one movie "
                     "in a folder")  # fmt: skip
    if stack.decoder and not stack.decoder.complete(range(1)).all():
        raise _wrong(path, "is cut off; copy it again or move it away")
    if not stack.decoder and place.offsets[0] + rows * columns * place.dtype.itemsize > place.sizes[0]:
        raise _wrong(path, "is cut off; copy it again or move it away")
    if (about.shape, place.dtype, place.bottom_up) != (
        first.description.shape,
        first.placement.dtype,
        first.placement.bottom_up,
    ):
        _, first_rows, first_columns = first.description.shape
        raise _wrong(path, f"holds {rows} x {columns} pixels of {place.dtype}, but {first_path.name} {first_rows} x "
                     f"{first_columns} of {first.placement.dtype}; leave it out, or keep one movie in a "
                     "folder")  # fmt: skip


def like(example: Stack, path: Path) -> Frame | None:
    """The frame of ``path`` if that file is like the ``example``."""
    like = example.likeness
    with _opened(path) as file:
        if like is None or os.fstat(file).st_size != example.placement.sizes[0]:
            return None
        if any(os.pread(file, len(piece), place) != piece for place, piece in like.decisive):
            return None
        clocks = (like.clock(os.pread(file, place.stop - place.start, place.start)) for place in like.clock_at)
        return _frame(file, example, next((clock_s for clock_s in clocks if clock_s is not None), None))


def _frame(file: int, stack: Stack, clock_s: float | None) -> Frame:
    """The frame of an open file that lies as that of ``stack``."""
    if stack.decoder:
        return Frame(0, stack.description.pixel_size_nm, clock_s, b"", stack.decoder)
    dtype = stack.placement.dtype
    offset, count = int(stack.placement.offsets[0]), stack.description.shape[1] * stack.description.shape[2]
    middle = count // 2
    sampled = min(_SAMPLE // dtype.itemsize, count - middle)
    sample = os.pread(file, sampled * dtype.itemsize, offset + middle * dtype.itemsize)
    pixel = sample[: dtype.itemsize]
    digest = b"" if sample == pixel * sampled else hashlib.blake2b(sample, digest_size=16).digest()
    return Frame(offset, stack.description.pixel_size_nm, clock_s, digest)


def _joined(listing: Listing, chosen: Sequence[int], frames: list[Frame], first: Stack, known: Format) -> Stack:
    """All frames as one movie."""
    files = [listing.files[i] for i in chosen]
    names = [file.name for file in files]
    times, notes = _times(names, [frame.clock_s for frame in frames], listing.times_s(chosen))
    if lost := listing.missing(chosen) or (missing(names) if listing.place is None else None):
        notes.append(f"frames are missing, by the names of the files: {lost}")
    if len(kinds := patterns(names)) > 1:
        notes.append(f"the names are of {len(kinds)} kinds, in this order: {listed(kinds, len(kinds))}")
    same = [bool(frame.sample) and frame.sample == before.sample for before, frame in pairwise(frames)]
    if repeated := list(compress(names[1:], same)):
        notes.append(f"look like repetitions of the frame before: {listed(repeated, len(repeated))}")
    scale = first.description.pixel_size_nm
    if scaled := [name for name, frame in zip(names, frames, strict=True) if frame.scale_nm != scale]:
        notes.append(f"have pixels of another size than the first frame: {listed(scaled, len(scaled))}")
    needed = first.description.shape[1] * first.description.shape[2] * first.placement.dtype.itemsize
    sizes = [frame.offset + needed for frame in frames]
    begins = np.cumsum([0, *sizes[:-1]], dtype=np.int64)
    offsets = begins + np.array([frame.offset for frame in frames], np.int64)
    description = dataclasses.replace(
        first.description,
        format=f"files of {known.name}",
        shape=(len(files), *first.description.shape[1:]),
        frame_time_s=None if times is None else spacing(times),
        times_s=times,
        notes=tuple(map(printable, notes)),
    )
    placement = Placement(files, sizes, offsets, first.placement.dtype, first.placement.bottom_up)
    return Stack(description, placement, decoder=_joined_decoders(files, frames))


def _joined_decoders(files: list[Path], frames: list[Frame]) -> Decoder | None:
    decoders = [frame.decoder for frame in frames if frame.decoder]
    try:
        return decoders[0].followed_by(decoders[1:]) if decoders else None
    except ValueError as error:
        raise _wrong(files[0].parent, "holds frames that are compressed in different ways") from error


def _times(
    names: list[str], clocks: list[float | None], of_names: np.ndarray | None
) -> tuple[np.ndarray | None, list[str]]:
    """The times of frames from the first, and notes: by ``clocks`` if these always increase, else ``of_names``."""
    known = np.array([clock for clock in clocks if clock is not None])
    if len(known) < len(clocks):
        return of_names, []
    steps = np.diff(known)
    if (steps > 0).all():
        return known - known[0], []
    backwards = [names[i + 1] for i in np.flatnonzero(steps < 0)]
    if not backwards:
        return of_names, []
    return of_names, [
        "the times in the files contradict the order of their names, which counts; the first that is earlier than the "
        f"file before: {listed(backwards, len(backwards))}"
    ]


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    """The file ``path``; raises InputError if it can't be read."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            yield file
        finally:
            os.close(file)
    except OSError as error:
        raise _wrong(path, f"can't be read ({error.strerror}); check the file and its permissions") from error


def _wrong(path: Path, what: str, kind: type[InputError] = InputError) -> InputError:
    return kind(f"{printable(str(path))}: {printable(what)}.")
