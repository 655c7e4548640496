"""Files that this program writes: created, named, replaced and deleted here, and no others.

A file is written under a random name and renamed when it is complete. A folder of this program holds a mark, and only
files that the program names are ever deleted in it.
"""

import errno
import hashlib
import os
import re
import secrets
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from hrtemvae_hpc.errors import Blocked, InputError, RankFailed, printable

CREATOR = "hrtemvae_hpc"
_PREFIX = ".hrtemvae-"
_TEMPORARY = re.compile(re.escape(_PREFIX) + "[0-9a-f]{16}")
_OF_NFS = re.compile(r"\.nfs[0-9a-f]+")  # what NFS leaves of a file that is deleted while it is open
FOLDER_ADVICE = "make room or change its permissions, or choose another output with -o."
_LASTING = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM}
_MARK_TEXT = "This folder belongs to hrtemvae, which replaces and removes the files in it.\n"


def temporary_name() -> str:
    """A name for a temporary file that no file has."""
    return _PREFIX + secrets.token_hex(8)


@contextmanager
def writing(path: Path, advice: str = "choose another place with -o.") -> Iterator[None]:
    """The block writes ``path``; an OSError in it is raised as InputError, with ``advice`` on what to do."""
    try:
        yield
    except OSError as error:
        raise InputError(_unwritten(path, error, advice)) from error


@contextmanager
def saving(path: Path, advice: str) -> Iterator[None]:
    """The block saves work to ``path``; an OSError in it is raised as RankFailed, or Blocked if it will stay."""
    try:
        yield
    except OSError as error:
        raise failure_of(error)(_unwritten(path, error, advice)) from error


def failure_of(error: OSError) -> type[RankFailed]:
    """Blocked if the same command would meet this ``error`` again until something is changed, else RankFailed."""
    return Blocked if error.errno in _LASTING else RankFailed


def _unwritten(path: Path, error: OSError, advice: str) -> str:
    return f"{path}: can't be written ({error.strerror or error}); {advice}"


@contextmanager
def replacing(path: Path, folder: Path | None = None) -> Iterator[Path]:
    """A new file to write to, in ``folder`` or beside ``path``; it is renamed to ``path`` if the block succeeds.

    Otherwise it is removed. ``folder`` must lie on the disk of ``path``. The path that is yielded leads to the open
    file itself, so that no one else can put a link in its place. Once this returns, the file and its
    name are on the disk.

    Raises OSError if the disk is full or fails.
    """
    with _renamed((folder or path.parent) / temporary_name(), path, stays=False) as opened:
        yield opened


@contextmanager
def becoming(path: Path, aside: Path) -> Iterator[Path]:
    """As ``replacing``, with a name for the new file, which stays under that name if the block fails."""
    with _renamed(aside, path, stays=True) as opened:
        yield opened


@contextmanager
def temporary_file(folder: Path) -> Iterator[Path]:
    """A new file in ``folder`` to write to, by a path as of ``replacing``; it is removed at the end."""
    with _new_file(folder / temporary_name(), stays=False) as file:
        yield _opened(file)


@contextmanager
def _renamed(aside: Path, path: Path, stays: bool) -> Iterator[Path]:
    with _new_file(aside, stays) as file:
        yield _opened(file)
        os.fsync(file)
        if not os.path.samestat(os.fstat(file), os.lstat(aside)):
            raise OSError(errno.ESTALE, "the file was replaced while it was being written")
        aside.replace(path)
        sync(path.parent)


@contextmanager
def _new_file(aside: Path, stays: bool) -> Iterator[int]:
    file = os.open(aside, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    try:
        yield file
    finally:
        os.close(file)
        if not stays:
            aside.unlink(missing_ok=True)


def _opened(file: int) -> Path:
    return Path(f"/proc/self/fd/{file}")


def sync(path: Path) -> None:
    """Wait until the file or folder ``path`` is on the disk. Raises OSError if that fails."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class OwnFolder:
    """A folder that this program makes, fills and removes. Nothing else may be in it."""

    def __init__(self, path: Path, kind: str, names: Sequence[str] | None = None) -> None:
        """``kind`` is in the name of its mark; ``names`` are patterns of all paths in it; None stands for any.

        A folder without ``names`` is never cleared.
        """
        self.path = path
        self._mark = f"{_PREFIX}{kind}"
        self._names = None if names is None else re.compile("|".join(names))

    def check(self) -> None:
        """Raise InputError if the folder is not ours, or holds something that is not; nothing is changed."""
        if self.path.is_symlink():
            raise InputError(f"{self.path}: is a link, but this program needs a folder there; remove the link, "
                             "or choose another output with -o.")  # fmt: skip
        if not os.path.lexists(self.path):
            return
        if not self.path.is_dir():
            raise InputError(f"{self.path}: is not a folder; move it away, or choose another output with -o.")
        files = [str(name) for name, _ in self._files()]
        unknown = [name for name in files if not self._is_ours(name)]
        if unknown or (files and self._mark not in files and not all(map(_TEMPORARY.fullmatch, files))):
            example = printable((unknown or files)[0])
            raise InputError(
                f"{self.path}: holds {example}, which this program did not put there; move it away, or choose another "
                "output with -o."
            )

    def take(self) -> None:
        """Make the folder and mark it as ours. Raises InputError if something else is there, or it can't be made."""
        self.check()
        with writing(self.path, FOLDER_ADVICE):
            self.path.mkdir(parents=True, exist_ok=True)
            with suppress(FileExistsError), (self.path / self._mark).open("x") as mark:
                mark.write(_MARK_TEXT)

    def clear(self, keep: Sequence[str] = ()) -> None:
        """Delete all our files except the mark and those that match ``keep``; nothing in a folder that isn't ours."""
        kept = re.compile("|".join([re.escape(self._mark), *keep]))
        if not is_file(self.path / self._mark):
            return
        for name, folder in self._files():
            if not kept.fullmatch(str(name)) and self._is_ours(str(name)):
                with suppress(OSError):
                    os.unlink(name.name, dir_fd=folder)

    def remove(self) -> None:
        """Delete all our files, and the folder if nothing else is in it."""
        self.clear()
        left = {str(name) for name, _ in self._files()}
        if left - {self._mark} or self.path.is_symlink():
            return
        with suppress(OSError):
            if left:
                for place, folders, _ in os.walk(self.path, topdown=False):
                    for folder in folders:
                        Path(place, folder).rmdir()
                (self.path / self._mark).unlink()
            self.path.rmdir()

    def _is_ours(self, name: str) -> bool:
        if name == self._mark or _TEMPORARY.fullmatch(name) or _OF_NFS.fullmatch(name):
            return True
        return self._names is None or self._names.fullmatch(name) is not None

    def _files(self) -> Iterator[tuple[Path, int]]:
        """Each file's path in the folder, with an open handle of the folder that holds it; links are not followed."""
        if not self.path.is_dir() or self.path.is_symlink():
            return
        for place, folders, files, handle in os.fwalk(self.path):
            links = [name for name in folders if os.path.islink(os.path.join(place, name))]
            for name in [*files, *links]:
                yield Path(place, name).relative_to(self.path), handle


def append_to_log(path: Path) -> IO[str]:
    """Open the log ``path`` for appending, readable by its owner alone. Raises OSError if it can't be opened."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    return open(os.open(path, flags, 0o600), "a")


def is_file(path: Path) -> bool:
    """Whether ``path`` is a visible file; also False if the name or its folders forbid access."""
    return _looks(path.is_file)


def is_folder(path: Path) -> bool:
    """The same for a folder."""
    return _looks(path.is_dir)


def exists(path: Path) -> bool:
    """The same for anything."""
    return _looks(path.exists)


def _looks(look: Callable[[], bool]) -> bool:
    try:
        return look()
    except (OSError, ValueError):
        return False


def has_mark(path: Path, mark: bytes) -> bool:
    """Whether ``mark`` stands in the first 64 KiB of the file ``path``."""
    try:
        return mark in read_head(path, 2**16)
    except OSError:
        return False


def is_written_as(path: Path, kind: str) -> bool:
    """Whether this program wrote the HDF5 file ``path`` as one of ``kind`` (result, segments, movie)."""
    return has_mark(path, content_of(kind).encode())


def content_of(kind: str) -> str:
    """How our HDF5 files describe their content."""
    return f"{CREATOR} {kind} file"


def read_small(path: Path, most: int = 2**20) -> bytes:
    """The content of a small file; raises OSError if it can't be read, isn't a regular file or has more bytes."""
    content = read_head(path, most + 1)
    if len(content) > most:
        raise OSError(errno.EFBIG, f"more than {most} bytes")
    return content


def read_head(path: Path, most: int) -> bytes:
    """The first ``most`` bytes of a file; raises OSError if it can't be read or isn't a regular file."""
    with _open_regular(path) as file:
        return file.read(most)


def read_end(path: Path, most: int) -> bytes:
    """The last ``most`` bytes of a file; raises as ``read_head`` does."""
    with _open_regular(path) as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - most))
        return file.read(most)


@contextmanager
def _open_regular(path: Path) -> Iterator[IO[bytes]]:
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "not a regular file")
        yield file


def file_sha256(path: Path) -> str:
    """SHA-256 of a file of any size, in hexadecimal. Raises OSError if it can't be read."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**24):
            digest.update(block)
    return digest.hexdigest()


def reserve(path: Path, size: int) -> None:
    """Check that ``path`` can have ``size`` bytes, before HDF5 meets a full disk in the middle of a file.

    HDF5 truncates the file and gives them back. Raises OSError if there is no room.
    """
    with path.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, size)


def extend(path: Path, begin: int, size: int) -> None:
    """The same from ``begin`` on for a file that HDF5 is writing, which keeps what it holds."""
    with path.open("r+b") as file:
        os.posix_fallocate(file.fileno(), begin, size - begin)


@contextmanager
def hdf5_disk_errors() -> Iterator[None]:
    """Make HDF5 raise OSError also when closing a file fails, on a full disk: by itself it raises RuntimeError."""
    try:
        yield
    except RuntimeError as error:
        raise OSError(errno.EIO, f"HDF5 could not finish the file; is the disk full? ({error})") from error
