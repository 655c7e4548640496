"""A drift as a table that people and other programs can read: CSV."""

import csv
import math
from pathlib import Path

import numpy as np

from hrtemvae_hpc.drift.drift import Drift
from hrtemvae_hpc.errors import InputError, printable
from hrtemvae_hpc.files import read_small, replacing, writing

COLUMNS = ("frame", "time_s", "dy_px", "dx_px", "quality")
_MOST_BYTES = 2**28


def write_drift(path: Path, drift: Drift, frames: np.ndarray, times_s: np.ndarray | None) -> None:
    """Write ``drift`` of ``frames`` (their indices) with their times, empty if those are not known.

    The file appears by rename. Raises InputError if it can't be written.
    """
    times = ["" if times_s is None else f"{t:.9g}" for t in (frames if times_s is None else times_s)]
    with writing(path), replacing(path) as aside, aside.open("w", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(COLUMNS)
        for frame, time, dy, dx, quality in zip(frames, times, drift.dy, drift.dx, drift.quality, strict=True):
            rows.writerow([int(frame), time, f"{dy:.4f}", f"{dx:.4f}", f"{quality:.4f}"])


def read_drift(path: Path, frames: np.ndarray, rows: int, columns: int) -> Drift:
    """The drift of ``frames`` (their indices) of ``rows`` x ``columns`` that the table ``path`` gives.

    Raises InputError if the table is for other frames, holds anything but numbers, or a shift larger than the frame.
    """
    try:
        lines = read_small(path, _MOST_BYTES).decode("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        what = error.strerror if isinstance(error, OSError) else "it is no text"
        raise InputError(
            f"{path}: can't be read as a table of drift ({what}); make one with `hrtemvae drift`."
        ) from error
    head, *body = [row for row in csv.reader(lines) if row] or [[]]
    if tuple(name.strip() for name in head) != COLUMNS:
        raise InputError(f"{path}: its first line must be {','.join(COLUMNS)}.")
    if len(body) != len(frames):
        raise InputError(
            f"{path}: has {len(body):,} frames, but {len(frames):,} of the movie are analysed; "
            "make it again for this movie and these --frames."
        )
    values = np.array([_numbers(path, row, int(frame)) for row, frame in zip(body, frames, strict=True)]).reshape(-1, 3)
    drift = Drift(*np.ascontiguousarray(values.T))
    try:
        drift.check_fits(rows, columns)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    return drift


def _numbers(path: Path, row: list[str], frame: int) -> tuple[float, float, float]:
    """Down, right and quality from the ``row`` that must be that of ``frame``."""
    try:
        number, _, *texts = row
        same, (dy, dx, quality) = int(number) == frame, map(float, texts)
    except ValueError as error:
        text = printable(",".join(row))[:80]
        raise InputError(f"{path}: the row of frame {frame} must be {','.join(COLUMNS)}, not {text}.") from error
    if not same:
        raise InputError(f"{path}: where frame {frame} should be, there is frame {int(number)}; rows must be in order.")
    if not (math.isfinite(dy) and math.isfinite(dx) and abs(dy) < 2**31 and abs(dx) < 2**31 and 0 <= quality <= 1):
        raise InputError(
            f"{path}: the shift of frame {frame} must be two finite numbers of pixels, and its quality 0 to 1."
        )
    return dy, dx, quality
