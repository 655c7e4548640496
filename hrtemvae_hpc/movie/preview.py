"""The first and last frame of a movie, small enough to look at."""

import numpy as np

from hrtemvae_hpc.movie.movie import Movie
from hrtemvae_hpc.movie.tiles import TilePixels

# The first and last frame [2, rows, columns] float32, how many pixels are binned into one, and their indices.
Preview = tuple[np.ndarray, int, tuple[int, int]]

_LARGEST_SIDE = 1024


def first_and_last(movie: Movie, staged: TilePixels | None) -> Preview:
    """The first and last frame that can be decoded and is not left out; NaN where an image leaves its frame.

    They are taken from the ``staged`` movie where there is one.
    """
    frames, height, width = movie.shape
    binning = min(-(-max(height, width) // _LARGEST_SIDE), height, width)
    rows, columns = height // binning, width // binning
    ends = {} if staged else _first_and_last_together(movie)
    images, which = [], []
    # Of a layer all frames can be decoded, or none: one of those that are not left out is tried.
    layers = [range(layer.start, layer.stop) for layer in movie.chunk_grid.layers(slice(0, frames))]
    kept = [[t for t in layer if movie.shown is None or movie.shown[t].any()] for layer in layers]
    for order in ([layer[0] for layer in kept if layer], [layer[-1] for layer in reversed(kept) if layer]):
        image, shown = np.full((rows, columns), np.nan, np.float32), 0
        for t in order:
            frame = ends[t] if t in ends else _frame(movie, staged, t)
            if frame is not None:
                pixels = frame[: rows * binning, : columns * binning].reshape(rows, binning, columns, binning)
                image, shown = pixels.mean((1, 3), dtype=np.float64).astype(np.float32), t
                _cut_off(image, movie, t, binning)
                break
        images.append(image)
        which.append(int(movie.frame_indices[shown]))
    return np.stack(images), binning, (which[0], which[1])


def _cut_off(image: np.ndarray, movie: Movie, t: int, binning: int) -> None:
    """Set the pixels of a binned ``image`` of frame ``t`` to NaN that don't lie wholly within the frame."""
    if movie.shown is not None:
        (top, bottom), (left, right) = movie.shown[t]
        inside = np.zeros(image.shape, bool)
        inside[-(-top // binning) : bottom // binning, -(-left // binning) : right // binning] = True
        image[~inside] = np.nan


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
    frame: np.ndarray
    if staged:
        frame = staged.pixels[t]
        return None if staged.damaged[t] else frame
    try:
        (frame,) = movie.read(slice(t, t + 1), movie.area)
    except OSError:
        return None
    return frame
