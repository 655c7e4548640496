"""Results that tests write themselves, without an analysis."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from hrtemvae_hpc.analysis.parts import TileMaps
from hrtemvae_hpc.maps.result_writing import ResultInfo, write_result
from hrtemvae_hpc.maps.windows_group import ShownWindows
from hrtemvae_hpc.statistics.over_time import ALL_MAPS
from hrtemvae_hpc.windows.cells import Cells
from hrtemvae_hpc.windows.grid import Rectangle, WindowGrid

LATENTS = 3


def made_up_info(
    height: int = 40,
    width: int = 56,
    window: int = 16,
    step: int = 8,
    pixel_size_nm: tuple[float, float] | None = (0.02, 0.02),
    preview: tuple[np.ndarray, int, tuple[int, int]] | None = None,
    **process: Any,
) -> ResultInfo:
    """Of a movie of 6 frames, of which the analysis took a region from pixel 3, 5 on."""
    y, x = np.mgrid[:height, :width]
    image = (np.sin(y / 3) + np.cos(x / 5)).astype(np.float32)
    return ResultInfo(
        identity="1234",
        grid=WindowGrid(height, width, window, step),
        latent_source_index=tuple(range(LATENTS))[::-1],
        origin=(3, 5),
        pixel_size_nm=pixel_size_nm,
        frame_time_s=0.5,
        resampling=(1.0, 1.0),
        curves=None,
        reconstructed=True,
        cells=Cells(1, 6),
        show_windows=lambda rows, _: ShownWindows(
            (0, 2, 5), windows_of(len(rows), window), np.full((len(rows), 3), 0.9, np.float32)
        ),
        times_s=np.arange(6) / 2,
        ratios=np.linspace(1, 2, 50),
        preview=preview or (np.stack([image, image.T.reshape(image.shape)]), 1, (0, 5)),
        process={
            "program": "hrtemvae",
            "version": "1",
            "command_line": "hrtemvae analyze movie.h5",
            "configuration": {"movie": {"roi": None}, "windows": {"step": step}},
            "model": "tiny",
            "model_sha256": "ab12",
            "model_provenance": {"limits": "made up"},
            "movie": "/nowhere/movie.h5",
            "movie_dataset": "/entry/data/data",
            "movie_layout": "NeXus",
            "movie_shape": [6, 3 + height, 5 + width],
            "movie_storage": "contiguous",
            "movie_fingerprint": "cd34",
            "frames": list(range(6)),
            "region": [3, 3 + height, 5, 5 + width],
            "arithmetic": {"device": "CPU"},
            "ranks": [{"rank": 0, "host": "here", "device": "CPU", "threads": 2, "encode_rate": 7.5}],
            "encodings": 100,
            "encodings_resumed": 0,
            "seconds": 1.5,
            "seconds_by_stage": {"read": 0.5},
            "bytes_read": 1000,
            "read_amplification": 1.0,
            **process,
        },
    )


def tiles_of(grid: WindowGrid) -> Iterator[tuple[Rectangle, TileMaps]]:
    """One tile with all windows: a bright spot in each map, and one window without a map."""
    shape = grid.rows, grid.columns
    y, x = np.mgrid[: grid.rows, : grid.columns]
    spot = np.exp(-((y - grid.rows / 3) ** 2) / grid.rows - (x - grid.columns / 2) ** 2 / grid.columns)
    maps = np.stack([np.stack([(kind + latent + 1) * spot for latent in range(LATENTS)]) for kind in range(11)])
    maps[2] /= maps[2].max()
    maps[ALL_MAPS.index("change")] = 3
    maps[ALL_MAPS.index("chance")] = maps[ALL_MAPS.index("autocorrelation")] = 0.98 - 0.98 * maps[2]
    valid = np.full(shape, 6, np.int32)
    maps[..., -1, -1], valid[-1, -1] = np.nan, 0
    yield (
        Rectangle(0, grid.rows, 0, grid.columns),
        TileMaps(
            maps.astype(np.float32),
            valid,
            np.array([], int),
            np.full(shape, 0.9, np.float32),
            np.linspace(0.2, 0.9, 99, dtype=np.float32),
            series_of(y, x).astype(np.float16),
            np.stack([y, x]),
        ),
    )


def windows_of(count: int, size: int) -> np.ndarray:
    """Made-up windows and reconstructions [count, times, 2, size, size]."""
    return np.broadcast_to(np.arange(count * 6, dtype=np.uint8).reshape(count, 3, 2, 1, 1), (count, 3, 2, size, size))


def series_of(row: np.ndarray, column: np.ndarray) -> np.ndarray:
    """Made-up latents [..., latents, frames] of windows."""
    latent, frame = np.mgrid[:LATENTS, :6]
    return np.asarray((row[..., None, None] - 2 * column[..., None, None] + 3 * latent) * (frame - 2.5))


def make_up_result(path: Path, **what: Any) -> Path:
    """Write a result as an analysis would have; ``what`` is for ``made_up_info``."""
    info = made_up_info(**what)
    write_result(path, path.parent, info, tiles_of(info.grid))
    return path
