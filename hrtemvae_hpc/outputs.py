"""Whether outputs may be written: none is an input, and none replaces a file that this program did not write."""

import os
import stat
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from hrtemvae_hpc.errors import InputError, printable
from hrtemvae_hpc.files import exists, has_mark, is_file, is_folder, is_written_as, writing


@dataclass(frozen=True)
class Output:
    """A file that is to be written."""

    path: Path
    what: str  # for messages: the result, the page
    ours: Callable[[Path], bool]  # whether an existing file was written by this program, as the same kind of file


def check_outputs(outputs: Sequence[Output], inputs: Iterable[Path] = ()) -> None:
    """Raise InputError if an output can't be written, is one of the ``inputs``, or replaces a file that isn't ours.

    Files are compared as files, not by name: through links of any kind. A folder among ``inputs`` stands for all files
    in it.
    """
    read = _identities(inputs)
    for number, output in enumerate(outputs):
        path, what = output.path, output.what
        status = _look_at(path)
        if status and stat.S_ISLNK(status.st_mode) and not exists(path):
            raise InputError(f"{path}: is a link to nothing; remove it, or choose another output with -o.")
        if is_folder(path):
            raise InputError(f"{path}: is a folder; name the file of {what} with -o.")
        if status and not is_file(path):
            raise InputError(f"{path}: is not a regular file; choose another output with -o.")
        if any(path == other.path for other in outputs[:number]):
            first = outputs[0]
            raise InputError(f"{first.path}: would be overwritten by {what}; choose another ending for {first.what}.")
        if status and _identity(path) in read:
            raise InputError(f"{path}: is itself one of the inputs; choose another output with -o.")
        if status and not output.ours(path):
            raise InputError(
                f"{path}: exists, and {what} may only replace a file of its own kind that this program wrote; move it "
                "away, or choose another output with -o."
            )
        folder = path.absolute().parent
        if not is_folder(folder):
            raise InputError(f"{folder}: there is no such folder for {what}; make it, or choose another with -o.")
        if not os.access(folder, os.W_OK):
            raise InputError(f"{folder}: can't be written; choose another place with -o.")


def beside(output: Path, suffix: str) -> Path:
    """The file of another ``suffix`` that is written beside ``output``; InputError if that has no name."""
    if not output.name:
        raise InputError(f"{output}: is a folder; name a file with -o.")
    return output.with_suffix(suffix)


def _look_at(path: Path) -> os.stat_result | None:
    """What is at ``path``, None if nothing; InputError if no file can have that name."""
    name = str(path.absolute())
    if "\0" in name or name.encode(errors="ignore").decode() != name:
        raise InputError(
            f"{printable(str(path))}: names that are not UTF-8, or hold a zero byte, can't be written; choose another."
        )
    with writing(path), suppress(FileNotFoundError):
        return path.lstat()
    return None


PAGE_MARK = '<meta name="generator" content="hrtemvae">'
PICTURE_SOFTWARE = "hrtemvae"
MODEL_KEY = "hrtemvae"
NUMBERS = {"program": "hrtemvae"}  # the first entry of our JSON files

is_page = partial(has_mark, mark=PAGE_MARK.encode())
is_live_page = partial(has_mark, mark=b'<meta name="recording"')  # of a movie that is still recorded
is_numbers = partial(has_mark, mark=b'"program": "hrtemvae"')
is_model = partial(has_mark, mark=f'{{"__metadata__":{{"{MODEL_KEY}":'.encode())
is_picture = partial(has_mark, mark=f"Software\0{PICTURE_SOFTWARE}".encode())
is_drift = partial(has_mark, mark=b"frame,time_s,dy_px,dx_px,quality")
is_lattice_table = partial(has_mark, mark=b"frame,time_s,box,lattice,angle_degrees")
is_result = partial(is_written_as, kind="result")
is_segments = partial(is_written_as, kind="segments")
is_movie = partial(is_written_as, kind="movie")
is_lattices = partial(is_written_as, kind="lattices")


def _identities(paths: Iterable[Path]) -> set[tuple[int, int]]:
    identities = set()
    for path in paths:
        inside = path.rglob("*") if is_folder(path) else ()
        identities |= {known for p in (path, *inside) if (known := _identity(p))}
    return identities


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino
