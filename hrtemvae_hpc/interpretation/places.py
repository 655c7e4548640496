"""Places of a movie: which windows are meant by a point, a box or a mask.

Points and boxes count in pixels of the movie's frame, or nm from its first pixel, as the axes of the maps do. Where a
drift was followed, that is the first frame: a place moves with the specimen.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hrtemvae_hpc.area import Area
from hrtemvae_hpc.config import parse_roi
from hrtemvae_hpc.errors import InputError
from hrtemvae_hpc.maps.result import Result
from hrtemvae_hpc.movie.images import open_images
from hrtemvae_hpc.statistics.over_time import MINIMUM_FRAMES

_NUMBER = r"\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*(nm|px)?\s*"
_POINT = re.compile(f"{_NUMBER},{_NUMBER}")


@dataclass(frozen=True)
class Place:
    """Windows that are followed together: a single one, or several whose mean is taken."""

    name: str
    windows: np.ndarray  # [n, 2] int64, row and column of each in the grid

    @property
    def middle(self) -> tuple[int, int]:
        """The window, one of these, that lies nearest to the centre of all."""
        nearest = ((self.windows - self.windows.mean(0)) ** 2).sum(1).argmin()
        row, column = map(int, self.windows[nearest])
        return row, column


def centres(result: Result) -> tuple[np.ndarray, np.ndarray]:
    """Rows [rows] and columns [columns] of the windows' centres, in pixels of the movie's frame."""
    size = result.process.pixel_size
    scale = size if result.units == "nm" and size else (1.0, 1.0)
    return result.y / scale[0], result.x / scale[1]


def place_at(result: Result, point: str) -> Place:
    """The window whose centre is nearest to ``point``, y,x in pixels or, with the unit, in nm.

    Raises InputError if ``point`` is something else, lies outside of the frame, or no window is centred around there.
    """
    numbers = _in_pixels(result, point)
    window = []
    for number, size, line, what in zip(
        numbers, result.process.movie_shape[1:], centres(result), ("row", "column"), strict=True
    ):
        if not -0.5 <= number <= size - 0.5:
            raise InputError(f"--at {point}: lies outside of the movie's frame, whose {what}s are 0 to {size - 1}.")
        nearest = int(np.abs(line - number).argmin())
        spacing = line[1] - line[0] if len(line) > 1 else result.process.step
        if abs(line[nearest] - number) > max(spacing / 2, 0.5) + 1e-6:
            raise InputError(
                f"--at {point}: no window is centred there; centres lie at {what}s {line[0]:g} to {line[-1]:g} of the "
                "frame, as windows fit into what was analysed."
            )
        window.append(nearest)
    return Place(f"at {point.replace(' ', '')}", np.array([window]))


def _in_pixels(result: Result, point: str) -> list[float]:
    """Row and column of ``point`` in pixels of the movie's frame."""
    match = _POINT.fullmatch(point)
    if match is None:
        raise InputError(f"--at {point}: give a place as y,x in pixels, or as 1.2nm,3.4nm.")
    numbers = []
    for value, unit, size in zip(
        match.group(1, 3), match.group(2, 4), result.process.pixel_size or (0, 0), strict=True
    ):
        if unit == "nm" and not size:
            raise InputError(f"--at {point}: the movie has no pixel size, so places can only be given in pixels.")
        numbers.append(float(value) / size if unit == "nm" else float(value))
    return numbers


def place_in_box(result: Result, box: str) -> Place:
    """The windows whose centres lie in ``box``, y0:y1,x0:x1 in pixels.

    Raises InputError if ``box`` is something else, does not lie in the frame, or holds no window with maps.
    """
    try:
        bounds = parse_roi(box)
    except ValueError as error:
        raise InputError(f"--box {box}: {error}.") from error
    inside = []
    for (start, stop), size, line, what in zip(
        bounds, result.process.movie_shape[1:], centres(result), ("rows", "columns"), strict=True
    ):
        first, after = start or 0, size if stop is None else stop
        if not 0 <= first < after <= size:
            raise InputError(f"--box {box}: its {what} {first}:{after} do not lie in the frame's 0:{size}.")
        inside.append((first - 0.5 <= line) & (line < after - 0.5))
    return _together(result, f"box {box.replace(' ', '')}", inside[0][:, None] & inside[1][None], f"--box {box}")


def place_in_mask(result: Result, path: Path) -> Place:
    """The windows at the places of the image ``path`` that are not zero, by their centres.

    It has a pixel for each of the movie's frame, or for each window of the maps. Raises InputError if it has another
    shape, can't be read, or marks no window with maps.
    """
    mask = _read_mask(path)
    frame, grid = result.process.movie_shape[1:], result.valid_frames.shape
    if mask.shape not in (frame, grid):
        raise InputError(
            f"--mask {path}: has {mask.shape[0]} x {mask.shape[1]} pixels, but the movie's frame has "
            f"{frame[0]} x {frame[1]} and the maps have {grid[0]} x {grid[1]}; give a mask of one of these."
        )
    if mask.shape != grid:
        rows, columns = (np.floor(line + 0.5).astype(int) for line in centres(result))
        mask = mask[np.ix_(rows.clip(0, frame[0] - 1), columns.clip(0, frame[1] - 1))]
    return _together(result, f"mask {path.name}", mask, f"--mask {path}")


def _read_mask(path: Path) -> np.ndarray:
    """Which pixels [rows, columns] of the image ``path`` are not zero."""
    source = open_images(path)
    try:
        frames, rows, columns = source.description.shape
        if frames != 1:
            raise InputError(f"--mask {path}: holds {frames} images; give one.")
        source.prepare(slice(0, 1), Area.whole(rows, columns))
        pixels = np.empty((1, rows, columns), source.description.dtype)
        source.read_into(pixels, slice(0, 1), Area.whole(rows, columns))
    except OSError as error:
        raise InputError(f"--mask {path}: can't be decoded ({error}); write it again.") from error
    finally:
        source.close()
    return np.asarray(np.nan_to_num(pixels[0]) != 0)


def _together(result: Result, name: str, inside: np.ndarray, option: str) -> Place:
    """The windows ``inside`` [rows, columns] bool whose series have the most frames.

    Others are left out: a mean over windows of which some come and go would jump whenever they do.
    """
    if not inside.any():
        raise InputError(f"{option}: no window is centred in it; windows lie {result.process.step} pixels apart.")
    most = result.valid_frames[inside].max()
    if most < MINIMUM_FRAMES:
        raise InputError(f"{option}: its windows are flat, or were not read, in all but {most} frames.")
    return Place(name, np.argwhere(inside & (result.valid_frames == most)))


def by_block(places: Iterable[Place], block: int) -> dict[tuple[int, int], list[tuple[int, np.ndarray]]]:
    """The blocks, of ``block`` x ``block`` windows, that hold windows of ``places``, row by row.

    For each its row and column among the blocks; the number of each place with windows there, and these [n, 2].
    """
    found: dict[tuple[int, int], list[tuple[int, np.ndarray]]] = {}
    for number, place in enumerate(places):
        blocks, which = np.unique(place.windows // block, axis=0, return_inverse=True)
        for i, (row, column) in enumerate(blocks):
            found.setdefault((int(row), int(column)), []).append((number, place.windows[which.ravel() == i]))
    return dict(sorted(found.items()))


def position(result: Result, place: Place) -> tuple[float, float]:
    """Row and column, in pixels of the movie's frame, of the mean of the windows' centres."""
    y, x = centres(result)
    return float(y[place.windows[:, 0]].mean()), float(x[place.windows[:, 1]].mean())
