"""Files that are compressed as a whole: pixels in the middle of one can't be reached."""

from pathlib import Path
from typing import NoReturn

from hrtemvae_hpc.errors import InputError
from hrtemvae_hpc.movie.formats.stack import Format

_TOOLS = {b"\x1f\x8b\x08": "gunzip -k", b"BZh": "bunzip2 -k", b"\xfd7zXZ\0": "unxz -k", b"\x28\xb5\x2f\xfd": "unzstd"}


def _recognised(head: bytes, path: Path) -> bool:
    return head.startswith(tuple(_TOOLS)) and path.suffix.lower() in (".gz", ".bz2", ".xz", ".zst")


def _read(path: Path) -> NoReturn:
    with path.open("rb") as file:
        head = file.read(8)
    tool = next(tool for magic, tool in _TOOLS.items() if head.startswith(magic))
    raise InputError(f"{path}: is compressed as a whole; decompress it first ({tool} {path.name}).")


PACKED = Format("a compressed file", _recognised, _read)
