"""Whole frames that are in memory, as the engine takes them."""

import numpy as np
import torch

from hrtemvae_hpc.area import Area
from hrtemvae_hpc.scaling import LocalScaling
from hrtemvae_hpc.schemas import Scaling


def for_engine(frames: np.ndarray, scaling: Scaling, window: int) -> tuple[np.ndarray, np.ndarray | None]:
    """``frames`` [n, rows, columns] and, for scaling by frame, the lowest and highest finite pixel [n, 2] of each.

    Frames are float32 and scaled if scaling is local, else as they are. The range is float64, NaN where no pixel is
    finite.
    """
    if scaling == "local":
        whole, local = Area.whole(*frames.shape[1:]), LocalScaling(frames.shape[1:], window)
        scaled = [local.apply(torch.from_numpy(frame.astype(np.float64)), whole).numpy() for frame in frames]
        return np.stack(scaled), None
    if scaling == "window":
        return frames, None
    finite = [frame[np.isfinite(frame)] for frame in frames]
    return frames, np.array([(f.min(), f.max()) if f.size else (np.nan, np.nan) for f in finite], np.float64)
