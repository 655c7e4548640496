"""Running means of series with gaps."""

import numpy as np

RUNNING = 10  # frames, as in the article


def running_mean(z: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Means [frames, series, latents] float32 of ``z`` over frames t - 5 to t + 4, as far as they are ``valid``.

    ``valid`` [frames, series] bool. NaN where none of these frames is valid, or some lie beyond the first or last.
    """
    means = np.full(z.shape, np.nan, np.float32)
    sums = np.cumsum(np.where(valid[..., None], z, 0), 0, np.float64)
    counts = np.cumsum(valid, 0)[..., None]
    before = np.zeros((1, *z.shape[1:])), np.zeros((1, *valid.shape[1:], 1), int)
    sums, counts = (np.concatenate(pair) for pair in zip(before, (sums, counts), strict=True))
    total, count = sums[RUNNING:] - sums[:-RUNNING], counts[RUNNING:] - counts[:-RUNNING]
    first = RUNNING // 2
    means[first : first + len(total)] = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    return means
