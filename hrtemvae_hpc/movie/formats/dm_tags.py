"""The tags of Gatan's DM3 and DM4 files, as ncempy parses them, of any file in bounded time and memory.

ncempy trusts what a file says about its tags: a damaged one could have it build a text of gigabytes, or take a
hundred gigabytes of zeros for tags. https://www.er-c.org/cbb/info/dmformat describes the files.
"""

from pathlib import Path
from typing import IO, Any

import numpy as np
from ncempy.io import dm

from hrtemvae_hpc.errors import InputError, printable
from hrtemvae_hpc.files import read_head

_MOST_TAGS = 2**17
_MOST_BYTES = 2**26  # of all tags, pixels not among them
_LONGEST_NAME = 2**12  # of a tag with all groups that it is in
_OMITTED = 300  # characters, from which on a text is an array that nobody reads


class _Parser(dm.fileDM):  # type: ignore[misc]
    """ncempy's parser on a plain file: a mapped one would kill the process if it were cut off meanwhile."""

    def __init__(self, file: IO[bytes]) -> None:
        self._tags = 0
        self._bytes = 0
        super().__init__(file, on_memory=False)

    def fromfile(self, file: IO[bytes], dtype: Any, count: int) -> np.ndarray:
        """The next values of the file; raises ValueError if it ends before, or more was read than tags need."""
        dtype, count = np.dtype(dtype), int(count)
        self._bytes += count * dtype.itemsize
        if self._bytes > _MOST_BYTES:
            raise ValueError("too many bytes of tags")
        return np.frombuffer(file.read(count * dtype.itemsize), dtype, count)

    def _readTagEntry(self) -> None:  # noqa: N802
        self._tags += 1
        if self._tags > _MOST_TAGS or len(self._curGroupNameAtLevelX) > _LONGEST_NAME:
            raise ValueError("too many tags")
        super()._readTagEntry()


def version(head: bytes) -> int | None:
    """3 or 4, None if a file that begins with ``head`` is neither DM3 nor DM4."""
    for number, flags in ((3, 8), (4, 12)):
        byte_order, grouped = head[flags : flags + 4], head[flags + 4 : flags + 6]
        if head[:4] == bytes((0, 0, 0, number)) and byte_order[:3] == bytes(3) and byte_order[3:] in (b"\0", b"\1"):
            return number if len(grouped) == 2 and max(grouped) <= 1 else None
    return None


def read_tags(path: Path) -> dict[str, Any]:
    """All tags by their full names, such as ``.ImageList.2.ImageData.DataType``; raises InputError."""
    try:
        head = read_head(path, 16)
        if head[8 if head[3] == 3 else 12 :][:4] == bytes(4):
            raise InputError(
                f"{path}: is in the byte order of old Macs, which ncempy doesn't read; open it in DigitalMicrograph "
                "and save it again."
            )
        with path.open("rb") as file, np.errstate(all="ignore"), _Parser(file) as parsed:
            return dict(parsed.allTags)
    except OSError as error:
        raise InputError(f"{path}: can't be read ({printable(error.strerror or str(error))[:100]}).") from error
    except InputError:
        raise
    except Exception as error:  # the library raises anything on a broken file
        raise InputError(f"{path}: its tags are damaged or cut off; copy it again.") from error


def as_json(tags: dict[str, Any]) -> dict[str, Any]:
    """What ``tags`` say, as JSON can hold it, but for arrays that ncempy shows as long texts."""
    plain = {name.lstrip("."): _plain(value) for name, value in tags.items()}
    return {name: value for name, value in plain.items() if value is not None}


def _plain(value: object) -> object:
    if isinstance(value, np.ndarray):
        return [_plain(each) for each in value] if value.size <= _OMITTED else None
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not np.isfinite(value):
        return str(value)
    if isinstance(value, str) and len(value) > _OMITTED and not value.isprintable():
        return None
    return value
