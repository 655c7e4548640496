"""What rho is computed with: time, or a log of a temperature, say; perhaps given what changed in the frames."""

import csv
from pathlib import Path

import numpy as np

from hrtemvae_hpc.config import AnalysisConfig
from hrtemvae_hpc.errors import InputError, printable
from hrtemvae_hpc.files import read_small
from hrtemvae_hpc.maps.drift_group import FrameCurves
from hrtemvae_hpc.movie.movie import Movie
from hrtemvae_hpc.statistics.comparison import Comparison

COLUMNS = ("time_s", "value")
_MOST_BYTES = 2**28


def read_against(path: Path, movie: Movie) -> np.ndarray:
    """The log ``path`` [frames] float64, interpolated between its rows to the times of the frames of ``movie``.

    Its first line names columns, among them time_s (seconds since the movie's first frame) and value. Raises InputError
    if it isn't such a table, doesn't cover the frames or is constant over them, or if the frames' times are not known.
    """
    if movie.seconds is None:
        raise InputError(
            f"{movie.where}: --against needs the times of its frames, which are not known; give --frame-time SECONDS."
        )
    times, values = _read_log(path)
    first, last = movie.seconds.min(), movie.seconds.max()
    if not (times[0] <= first and last <= times[-1]):
        raise InputError(
            f"{path}: is a log of {times[0]:g} to {times[-1]:g} s, but the frames were taken from {first:g} to "
            f"{last:g} s after the movie's first one; give a log of all of them, or choose others with --frames."
        )
    found = np.asarray(np.interp(movie.seconds, times, values))
    if np.ptp(found) == 0:
        raise InputError(f"{path}: its value is the same, {found[0]:g}, in all frames: nothing can follow it.")
    return found


def _read_log(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """The columns time_s, which grow, and value."""
    try:
        lines = read_small(path, _MOST_BYTES).decode("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        what = error.strerror if isinstance(error, OSError) else "it is no text"
        raise InputError(
            f"{path}: can't be read as a log ({what}); give a CSV file with {','.join(COLUMNS)}."
        ) from error
    try:
        head, *body = [row for row in csv.reader(lines) if row] or [[]]
    except csv.Error as error:
        raise InputError(f"{path}: can't be read as CSV ({error}); give a table with {','.join(COLUMNS)}.") from error
    names = [name.strip() for name in head]
    if missing := [name for name in COLUMNS if name not in names]:
        raise InputError(f"{path}: its first line must name the columns {','.join(COLUMNS)}; {missing[0]} is missing.")
    if not body:
        raise InputError(f"{path}: has no rows below its first line.")
    places = [names.index(name) for name in COLUMNS]
    table = np.array([_numbers(path, number, row, places) for number, row in enumerate(body, 1)])
    if (behind := np.flatnonzero(np.diff(table[:, 0]) <= 0)).size:
        raise InputError(f"{path}: time_s must grow from row to row, but doesn't at row {behind[0] + 2}.")
    return table[:, 0], table[:, 1]


def _numbers(path: Path, number: int, row: list[str], places: list[int]) -> list[float]:
    try:
        values = [float(row[place]) for place in places]
    except (ValueError, IndexError) as error:
        text = printable(",".join(row))[:80]
        raise InputError(f"{path}: row {number} must hold numbers for {','.join(COLUMNS)}, not {text}.") from error
    if not np.isfinite(values).all():
        raise InputError(f"{path}: row {number} must hold finite numbers for {','.join(COLUMNS)}.")
    return values


def check_partial(config: AnalysisConfig) -> None:
    """Raise InputError if rho is to be given what ``config`` doesn't have measured."""
    if config.statistics.partial and config.drift.correct == "none":
        raise InputError(
            "--partial needs drift, brightness and contrast, which --drift none doesn't measure; leave one of them out."
        )


def make_comparison(
    movie: Movie, config: AnalysisConfig, against: np.ndarray | None, curves: FrameCurves | None
) -> Comparison:
    """What the series of ``movie`` are compared with: ``against`` [frames] or time, given ``curves`` if asked.

    Frames that are left out everywhere are not used. Raises InputError if nothing of the values is left then.
    """
    frames = movie.shape[0]
    values = np.arange(frames, dtype=np.float64) if against is None else against
    left_out = curves is not None and config.drift.on_blank_frame == "skip"
    used = ~curves.blank if curves and left_out else np.ones(frames, np.bool_)
    given = np.empty((0, frames))
    if config.statistics.partial:
        check_partial(config)
        assert curves is not None
        given = np.stack([curves.dy, curves.dx, curves.mean, curves.contrast])
    comparison = Comparison(values, given, used)
    if config.statistics.partial and not comparison.basis(used)[0].any():
        what = "the order of the frames" if against is None else f"the values of {config.statistics.against}"
        raise InputError(
            f"{movie.where}: drift, brightness and contrast explain {what} entirely, so rho given them is not defined; "
            "leave out --partial."
        )
    return comparison


def describe_comparison(config: AnalysisConfig) -> str:
    """What rho is of, for titles of maps: "time", say."""
    against = config.statistics.against
    what = "time" if against is None else f"the values of {Path(against).name}"
    return what + ", given drift, brightness and contrast" * config.statistics.partial
