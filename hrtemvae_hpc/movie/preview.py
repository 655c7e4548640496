"""The first and last frame of a movie, small enough to look at."""

import numpy as np

from hrtemvae_hpc.movie.movie import Movie

_LARGEST_SIDE = 1024


def first_and_last(movie: Movie) -> tuple[np.ndarray, int, tuple[int, int]]:
    """The first and last frame that can be decoded [2, rows, columns] float32, pixels binned into one, and which."""
    frames, height, width = movie.shape
    binning = -(-max(height, width) // _LARGEST_SIDE)
    rows, columns = height // binning, width // binning
    found, which = [], []
    for order in (range(frames), range(frames - 1, -1, -1)):
        image = np.full((rows, columns), np.nan, np.float32)
        for t in order:
            try:
                frame = movie.read(slice(t, t + 1), slice(0, rows * binning), slice(0, columns * binning))[0]
            except OSError:
                continue
            image = frame.reshape(rows, binning, columns, binning).mean((1, 3), dtype=np.float64).astype(np.float32)
            break
        found.append(image)
        which.append(int(movie.frame_indices[t]))
    return np.stack(found), binning, (which[0], which[1])
