"""The windows that the page of a result shows beside their reconstructions, as one picture."""

from typing import Any

import numpy as np
from PIL import Image

from hrtemvae_hpc.maps.result import Result
from hrtemvae_hpc.pages import inline, save_png

WINDOWS_BUDGET = 3_000_000  # bytes of a page: windows of 64 pixels take less, of larger ones not all


def windows_data(result: Result) -> dict[str, Any] | None:
    """What the page's scripts need of the windows of ``result``; None if it has none, or they are too large."""
    kept = result.windows
    if kept is None:
        return None
    count = kept.cells[0] * kept.cells[1]
    times, pair, size = kept.images.shape[1:4]
    # A row per window: each time's window and, right of it, its reconstruction.
    sheet = kept.images[:count].transpose(0, 3, 1, 2, 4).reshape(count * size, times * pair * size)
    picture = inline(save_png(Image.fromarray(sheet)))
    if len(picture) > WINDOWS_BUDGET:
        return None
    return {
        "side": kept.side,
        "cells": list(kept.cells),
        "places": kept.places[:, :count].T.tolist(),
        "size": size,
        "frames": kept.frames.tolist(),
        "correlation": [[float(c) if np.isfinite(c) else None for c in each] for each in kept.correlation[:count]],
        "picture": picture,
    }
