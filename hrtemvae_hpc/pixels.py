"""The type that pixels are computed with."""

import numpy as np


def floating(dtype: np.dtype) -> np.dtype:
    """The floating type that pixels of ``dtype`` become: float32, float64 where that doesn't hold them exactly."""
    wide = dtype.itemsize > (4 if dtype.kind == "f" else 2)
    return np.dtype(np.float64 if wide else np.float32)
