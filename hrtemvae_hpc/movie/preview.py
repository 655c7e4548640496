"""Some frames of a movie, small enough to look at."""

from collections.abc import Iterator
from itertools import chain

import numpy as np

from hrtemvae_hpc.movie.movie import Movie
from hrtemvae_hpc.movie.tiles import TilePixels

# Frames [n, rows, columns] float32, how many pixels are binned into one, and their indices: the first, some between and
# the last.
Preview = tuple[np.ndarray, int, tuple[int, ...]]

MOST_FRAMES = 9
_LARGEST_SIDE = 1024


def frames_to_show(movie: Movie, staged: TilePixels | None) -> Preview:
    """The first and the last frame that can be decoded and is not left out, and up to 7 between them.

    NaN where an image leaves its frame, and in both ends of a movie that can't be decoded. Frames are taken from the
    ``staged`` movie where there is one.
    """
    height, width = movie.shape[1:]
    binning = min(-(-max(height, width) // _LARGEST_SIDE), height, width)
    images = np.full((MOST_FRAMES, height // binning, width // binning), np.nan, np.float32)
    first, last = _first_and_last(movie, staged)
    which: list[int] = []
    for t, frame in chain([first], _between(movie, staged, first[0], last[0]), [last]):  # few at a time in memory
        if frame is not None:
            _bin(images[len(which)], movie, t, frame, binning)
        which.append(int(movie.frame_indices[t]))
    return images[: len(which)], binning, tuple(which)


def _bin(image: np.ndarray, movie: Movie, t: int, frame: np.ndarray, binning: int) -> None:
    """Fill ``image`` with frame ``t``, as far as pixels lie wholly within it."""
    rows, columns = image.shape
    top, bottom, left, right = 0, rows, 0, columns
    if movie.shown is not None:
        (top, bottom), (left, right) = movie.shown[t]
        top, bottom, left, right = -(-top // binning), bottom // binning, -(-left // binning), right // binning
    pixels = frame[: rows * binning, : columns * binning].reshape(rows, binning, columns, binning)
    image[top:bottom, left:right] = pixels.mean((1, 3), dtype=np.float64)[top:bottom, left:right]


def _first_and_last(movie: Movie, staged: TilePixels | None) -> list[tuple[int, np.ndarray | None]]:
    ends = {} if staged else _first_and_last_together(movie)
    found: list[tuple[int, np.ndarray | None]] = []
    # Of a layer all frames can be decoded, or none: one of those that are not left out is tried.
    layers = [range(layer.start, layer.stop) for layer in movie.chunk_grid.layers(slice(0, movie.shape[0]))]
    kept = [[t for t in layer if _is_shown(movie, t)] for layer in layers]
    for order in ([layer[0] for layer in kept if layer], [layer[-1] for layer in reversed(kept) if layer]):
        tried = ((t, ends[t] if t in ends else _frame(movie, staged, t)) for t in order)
        found.append(next((each for each in tried if each[1] is not None), (0, None)))
    return found


def _between(movie: Movie, staged: TilePixels | None, first: int, last: int) -> Iterator[tuple[int, np.ndarray]]:
    """Frames at even distances between two, but those that are left out or can't be decoded."""
    wanted = sorted({round(t) for t in np.linspace(first, last, MOST_FRAMES)} - {first, last})
    for layer in movie.chunk_grid.layers(slice(0, movie.shape[0])):
        inside = [t for t in wanted if layer.start <= t < layer.stop]
        if not inside:
            continue
        apart = max(1, (inside[-1] - inside[0]) // max(1, len(inside) - 1))
        chosen = slice(inside[0], inside[0] + apart * (len(inside) - 1) + 1, apart)
        for t, frame in zip(range(chosen.start, chosen.stop, apart), _frames(movie, staged, chosen), strict=False):
            if _is_shown(movie, t):
                yield t, frame


def _is_shown(movie: Movie, t: int) -> bool:
    return movie.shown is None or bool(movie.shown[t].any())


def _first_and_last_together(movie: Movie) -> dict[int, np.ndarray]:
    """The first and the last frame: a chunk that holds both is decoded once. None if they can't be decoded."""
    frames = movie.shape[0]
    try:
        first, last = movie.read(slice(0, frames, frames - 1), movie.area)
    except OSError:
        return {}
    return {0: first, frames - 1: last}


def _frame(movie: Movie, staged: TilePixels | None, t: int) -> np.ndarray | None:
    """Frame ``t`` as it is stored, None if it can't be decoded."""
    return next(iter(_frames(movie, staged, slice(t, t + 1, 1))), None)


def _frames(movie: Movie, staged: TilePixels | None, chosen: slice) -> np.ndarray:
    """The ``chosen`` frames of a layer as they are stored, none if it can't be decoded."""
    if staged:
        return staged.pixels[chosen][: 0 if staged.damaged[chosen].any() else None]
    try:
        return movie.read(chosen, movie.area)
    except OSError:
        return np.empty((0, *movie.shape[1:]), movie.dtype)
