"""Part files: the finished tiles of a run, each in its own file, so that a run can resume where it stopped.

The folder of a run also holds its tiling: a run that resumes, with any number of ranks, cuts the movie in the same way.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from hrtemvae_hpc.errors import InputError, printable
from hrtemvae_hpc.files import failure_of, replacing, writing
from hrtemvae_hpc.identity import digest_of
from hrtemvae_hpc.ranks.claim import ClaimedFolder
from hrtemvae_hpc.schemas import Described
from hrtemvae_hpc.sealed import pack, unpack
from hrtemvae_hpc.windows.grid import Rectangle, Tiling, WindowGrid

_PLAN, _DRIFT = "plan.sealed", "drift.sealed"
_Count = Annotated[int, Field(ge=1, le=2**31)]
_NAMES = [re.escape(_PLAN), re.escape(_DRIFT), r"[0-9a-f]{32}\.safetensors"]


@dataclass
class TileMaps:
    """What is known about a finished tile."""

    maps: np.ndarray  # [maps, latents, rows, columns] float32, in the order of statistics.over_time.ALL_MAPS
    valid_frames: np.ndarray  # [rows, columns] int32
    bad_frames: np.ndarray  # [n] int64, indices in the file
    reconstruction: np.ndarray  # [rows, columns] float32, of windows.reconstruction; NaN without a decoder
    largest_rho: np.ndarray  # [permutations] float32, of all windows and latents of the tile
    series: np.ndarray  # [cell rows, cell columns, latents, bins] float16, of windows.cells
    series_windows: (
        np.ndarray
    )  # [2, cell rows, cell columns] int32: row and column in the grid of the windows they are of


class _Note(Described):
    """What the plan holds: how the movie was cut, for which analysis, and what it was computed with."""

    key: str
    arithmetic: dict[str, str]
    replaces: bool
    block: _Count
    rows: _Count  # of blocks in a tile
    columns: _Count


class Parts:
    """The part files of one analysis, identified by a ``key`` over everything that determines what its numbers mean.

    The last bits of the numbers also depend on the ``arithmetic``: processor or GPU, and versions of libraries. Parts
    of different arithmetic are not mixed. A tile that left out frames that can't be decoded counts as finished only
    if that is allowed.
    """

    def __init__(
        self, output: Path, identity: Mapping[str, Any], arithmetic: Mapping[str, str], allow_bad_frames: bool
    ) -> None:
        self.allow_bad_frames = allow_bad_frames
        self.folder = output.with_name(output.name + ".parts")
        self.claimed = ClaimedFolder(self.folder, "parts", _NAMES)
        self.key = digest_of(identity)
        self._arithmetic = dict(arithmetic)

    def known_tiling(self, grid: WindowGrid) -> Tiling | None:
        """The tiling of ``grid`` of the run that left parts here, None if there are none.

        Raises InputError when they belong to another analysis, or were computed with another arithmetic.
        """
        noted = self._noted()
        if noted is None:
            return None
        if noted.arithmetic != self._arithmetic:
            raise InputError(
                f"{self.folder}: holds parts that were computed with "
                f"{describe_difference(noted.arithmetic, self._arithmetic)}; their last digits would differ. "
                "Resume where they were computed, or start over with --restart."
            )
        return Tiling(grid, noted.block, noted.rows, noted.columns)

    def replaces_result(self) -> bool:
        """Whether the folder holds parts of a run that was meant to replace an earlier result.

        Raises InputError when they belong to another analysis.
        """
        noted = self._noted()
        return noted is not None and noted.replaces

    def _noted(self) -> "_Note | None":
        path = self.folder / _PLAN
        try:
            note = _Note.model_validate_json(unpack(path)[1].get("plan", ""))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise InputError(f"{path}: is damaged; start over with --restart.") from error
        if note.key != self.key:
            raise InputError(
                f"{self.folder}: holds parts of another analysis (another movie, model or configuration); "
                "choose another output, or start over with --restart."
            )
        return note

    def start(self, tiling: Tiling, replaces: bool) -> None:
        """Record in the folder, which may exist, the tiling and whether the result ``replaces`` an earlier one.

        Raises InputError if that can't be written.
        """
        if (self.folder / _PLAN).exists():
            return
        note = _Note(
            key=self.key,
            arithmetic=self._arithmetic,
            replaces=replaces,
            block=tiling.block,
            rows=tiling.block_rows,
            columns=tiling.block_columns,
        )
        with writing(self.folder):
            self._write(_PLAN, pack({}, {"plan": note.model_dump_json()}))

    def save_drift(self, measured: Mapping[str, np.ndarray]) -> None:
        """Keep what was measured of the movie's drift. Raises InputError if that can't be written."""
        with writing(self.folder):
            self._write(_DRIFT, pack(measured, {"key": self.key}))

    def saved_drift(self) -> dict[str, np.ndarray] | None:
        """What an earlier run of this analysis measured of the movie's drift, None if there is none.

        Raises InputError when the folder holds parts of another analysis.
        """
        if self._noted() is None:
            return None
        try:
            measured, about = unpack(self.folder / _DRIFT)
        except (OSError, ValueError):
            return None
        return measured if about == {"key": self.key} else None

    def save(self, tile: Rectangle, done: TileMaps) -> None:
        """Write a finished tile, which appears by rename. Raises Blocked on a full disk, RankFailed if it fails."""
        data = pack(
            vars(done),
            {"tile": str(tile), "key": self.key},
        )
        try:
            self._write(self._name(tile), data)
        except OSError as error:
            raise failure_of(error)(
                f"{self.folder}: {tile} can't be saved ({error.strerror}); finished tiles are kept. "
                "Make room and run the same command again."
            ) from error

    def load(self, tile: Rectangle) -> TileMaps | None:
        """A finished tile, or None if it is missing or damaged."""
        try:
            tensors, about = unpack(self.folder / self._name(tile))
            done = TileMaps(**tensors)
        except (OSError, ValueError, TypeError):
            return None
        usable = about == {"tile": str(tile), "key": self.key}
        usable = usable and done.valid_frames.shape == done.reconstruction.shape == done.maps.shape[2:] == tile.shape
        usable = usable and done.series.shape[:2] == done.series_windows.shape[1:]
        return done if usable and (self.allow_bad_frames or not len(done.bad_frames)) else None

    def _name(self, tile: Rectangle) -> str:
        return hashlib.sha256(f"{self.key} {tile}".encode()).hexdigest()[:32] + ".safetensors"

    def _write(self, name: str, data: bytes) -> None:
        with replacing(self.folder / name) as aside:
            aside.write_bytes(data)


def describe_difference(theirs: Mapping[str, str], ours: Mapping[str, str]) -> str:
    """How the arithmetic of earlier numbers differs from this program's, as text."""
    differ = [name for name in sorted({*theirs, *ours}) if theirs.get(name) != ours.get(name)]
    return ", ".join(printable(f"{n} {theirs.get(n, 'unknown')}, not {ours.get(n, 'unknown')}")[:200] for n in differ)
