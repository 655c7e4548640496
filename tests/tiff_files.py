"""TIFF files written for tests, in the ways of several programs."""

from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from conftest import drifting_pixels

PIXELS = drifting_pixels(5, 40, 60)
GREY: dict[str, Any] = {"photometric": "minisblack"}
WAYS: dict[str, dict[str, Any]] = {
    "as tifffile does": {},
    "without metadata": {"metadata": None},
    "BigTIFF": {"bigtiff": True},
    "other byte order": {"byteorder": ">"},
    "BigTIFF, other byte order": {"bigtiff": True, "byteorder": ">"},
    "strips": {"rowsperstrip": 7},
    "one page for all": {"metadata": {"truncate": True}},
    "ImageJ": {"imagej": True, "metadata": {"axes": "TYX"}},
    "ImageJ, slices": {"imagej": True, "metadata": {"axes": "ZYX"}},
    "OME": {"ome": True, "metadata": {"axes": "TYX"}},
    "OME, levels": {"ome": True, "metadata": {"axes": "ZYX"}},
}
DECODED: dict[str, dict[str, Any]] = {
    "deflated": {"compression": "zlib"},
    "deflated strips": {"compression": "zlib", "rowsperstrip": 7},
    "predicted": {"compression": "zlib", "predictor": True},
    "tiles": {"tile": (16, 32)},
    "deflated tiles": {"tile": (32, 16), "compression": "zlib"},
    "deflated OME": {"ome": True, "compression": "zlib", "metadata": {"axes": "TYX"}},
    "deflated, other byte order": {"compression": "zlib", "byteorder": ">"},
}


def write(path: Path, pixels: np.ndarray = PIXELS, **options: Any) -> Path:
    """By tifffile."""
    tifffile.imwrite(path, pixels, **{**GREY, **options})
    return path
