"""Part files: the packed blocks of a conversion, so that a run can resume where it stopped.

A part file holds the chunks of its block, or says where in the unfinished file of the movie they lie.
"""

import errno
import json
import os
import re
import secrets
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from hrtemvae_hpc.errors import InputError
from hrtemvae_hpc.files import read_small, replacing, saving, writing
from hrtemvae_hpc.movie.converted import DIGEST_BYTES, PackedBlock
from hrtemvae_hpc.ranks.claim import ClaimedFolder
from hrtemvae_hpc.ranks.saved import note_saved
from hrtemvae_hpc.schemas import Described

_NOTE = "conversion.json"
_PART = r"[0-9]+\.part"
_NAMES = [re.escape(_NOTE), _PART, r"[0-9a-f]{16}\.unfinished"]
_LENGTH = 8  # bytes that hold the length of a part's head, after its digest
_AGAIN = "finished blocks are kept. Make room and run the same command again."


class _Note(Described):
    identity: str
    replaces: bool


class Parts:
    """The part files of one conversion, whose ``identity`` covers everything that determines its file."""

    def __init__(self, output: Path, identity: str) -> None:
        self.folder = output.with_name(output.name + ".parts")
        self.claimed = ClaimedFolder(self.folder, "conversion", _NAMES)
        self.identity = identity
        self._buffer = bytearray()

    def replaces_output(self) -> bool:
        """Whether the folder holds parts of a run that was meant to replace an earlier file.

        Raises InputError if they belong to another conversion.
        """
        path = self.folder / _NOTE
        try:
            note = _Note.model_validate_json(read_small(path))
        except FileNotFoundError:
            return False
        except (OSError, ValueError) as error:
            raise InputError(f"{path}: is damaged; start over with --restart.") from error
        if note.identity != self.identity:
            raise InputError(
                f"{self.folder}: holds parts of another conversion (another movie, options or version); choose another "
                "output with -o, or start over with --restart."
            )
        return note.replaces

    def start(self, replaces: bool) -> None:
        """Note in the folder, unless it is, whose parts it holds, and whether these replace an earlier file."""
        if (self.folder / _NOTE).exists():
            return
        note = _Note(identity=self.identity, replaces=replaces)
        with writing(self.folder), replacing(self.folder / _NOTE) as aside:
            aside.write_text(note.model_dump_json())

    def clear(self, everything: bool) -> None:
        """Delete what a killed run left half written and no part refers to, or ``everything``."""
        self.claimed.clear(() if everything else [re.escape(_NOTE), _PART, *map(re.escape, self._referred_to())])

    def new_file(self) -> Path:
        """A path for a file that ``note`` may refer to."""
        return self.folder / f"{secrets.token_hex(8)}.unfinished"

    def save(self, number: int, block: PackedBlock) -> None:
        """Write a finished block, which appears by rename. Raises Blocked on a full disk, RankFailed if it fails."""
        self._write(number, block, {}, block.chunks)

    def note(self, number: int, block: PackedBlock, file: Path, offsets: Sequence[int]) -> None:
        """The same for a block whose chunks lie at ``offsets`` of ``file``, one of ``new_file``."""
        self._write(number, block, {"file": file.name, "offsets": offsets}, [])

    def _write(
        self, number: int, block: PackedBlock, place: Mapping[str, object], chunks: Sequence[bytes | memoryview]
    ) -> None:
        about = {
            "identity": self.identity,
            "block": number,
            "sizes": [len(chunk) for chunk in block.chunks],
            "chunks": _digest(block.chunks).hex(),
            **place,
        }
        head = json.dumps(about).encode() + b"\n" + block.digests.tobytes()
        pieces = [_digest([head]), len(head).to_bytes(_LENGTH, "little"), head, *chunks]
        with saving(self.folder, _AGAIN), replacing(self._path(number)) as aside, aside.open("wb") as file:
            file.writelines(pieces)
        note_saved()

    def load(self, number: int) -> PackedBlock | None:
        """A finished block, valid until the next is loaded; None if it is missing or damaged."""
        try:
            with self._path(number).open("rb", buffering=0) as part:
                about, digests, end = self._head(part.fileno())
                sizes = about["sizes"]
                if (about["identity"], about["block"]) != (self.identity, number):
                    return None
                if "file" not in about:
                    chunks = self._read(part.fileno(), list(accumulate(sizes[:-1], initial=end)), sizes)
                else:
                    with (self.folder / about["file"]).open("rb", buffering=0) as file:
                        chunks = self._read(file.fileno(), about["offsets"], sizes)
        except (OSError, ValueError):
            return None
        return PackedBlock(digests, chunks) if _digest(chunks).hex() == about["chunks"] else None

    def _head(self, part: int) -> tuple[dict[str, Any], np.ndarray, int]:
        """What a part says of its block, the digests of its frames, and where in the file its chunks begin.

        Raises OSError or ValueError if it is damaged.
        """
        seal, size = os.pread(part, DIGEST_BYTES, 0), os.pread(part, _LENGTH, DIGEST_BYTES)
        begin = DIGEST_BYTES + _LENGTH
        end = begin + int.from_bytes(size, "little")
        if end > os.fstat(part).st_size or _digest([head := os.pread(part, end - begin, begin)]) != seal:
            raise ValueError
        line, _, digests = head.partition(b"\n")
        return json.loads(line), np.frombuffer(digests, np.uint8).reshape(-1, DIGEST_BYTES), end

    def _read(self, file: int, offsets: Sequence[int], sizes: Sequence[int]) -> list[memoryview]:
        """Pieces of a file, in a buffer that the next call replaces: new memory takes longer than reading."""
        if sum(sizes) > len(self._buffer):
            self._buffer = bytearray(sum(sizes))
        content = memoryview(self._buffer)
        pieces = [content[a:b] for a, b in pairwise(accumulate(sizes, initial=0))]
        for piece, offset in zip(pieces, offsets, strict=True):
            if os.preadv(file, [piece], offset) != len(piece):
                raise OSError(errno.EIO, "a part is cut off")
        return pieces

    def _referred_to(self) -> set[str]:
        """The names of files that hold chunks of parts."""
        names = set()
        for path in self.folder.glob("*.part"):
            with suppress(OSError, ValueError), path.open("rb", buffering=0) as part:
                names.add(str(self._head(part.fileno())[0].get("file", "")))
        return names

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:08d}.part"


def _digest(pieces: Iterable[bytes | memoryview]) -> bytes:
    digest = xxhash.xxh3_128()
    for piece in pieces:
        digest.update(piece)
    return digest.digest()
