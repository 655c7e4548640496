"""Latents of frames that are in memory."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
import xarray as xr

from hrtemvae_hpc.errors import InputError
from hrtemvae_hpc.model import model_file
from hrtemvae_hpc.model.model_file import DEFAULT_MODEL, Model
from hrtemvae_hpc.ranks.resources import bind_device, compute_threads
from hrtemvae_hpc.ranks.world import World
from hrtemvae_hpc.schemas import Scaling
from hrtemvae_hpc.threads import on_threads
from hrtemvae_hpc.windows.engine import Engine, Precision
from hrtemvae_hpc.windows.grid import Rectangle, Tiling, WindowGrid
from hrtemvae_hpc.windows.in_memory import for_engine


def load_model(model: str | Path = DEFAULT_MODEL) -> Model:
    """A model file, or a bundled model by its name. Raises InputError if it is neither."""
    return model_file.load_model(model)


def encode(
    frames: np.ndarray,
    model: Model,
    step: int = 8,
    scaling: Scaling | None = None,
    precision: Precision = "fp32",
) -> xr.DataArray:
    """Latents [frame, y, x, latent] float32 of all windows of ``frames`` [frames, rows, columns] or [rows, columns].

    Frames of any real type, all in memory; ``step`` pixels between windows; ``scaling`` as the
    model was trained, unless another is given. The coordinates y and x are the windows'
    centres in pixels, latent runs in the model's order. NaN where a window is flat or holds a pixel that is not finite.
    Raises InputError if a window doesn't fit the frames, or the device doesn't know the precision.
    """
    pixels = frames[None] if frames.ndim == 2 else frames
    window = model.architecture.window
    if pixels.ndim != 3 or min(pixels.shape[1:]) < window or pixels.dtype.kind not in "iuf" or step < 1:
        raise InputError(
            f"frames of shape {frames.shape} and type {frames.dtype} can't be encoded every {step} pixels; give real "
            f"numbers [frames, rows, columns] with at least {window} rows and columns, and a step of at least 1."
        )
    world = World()
    engine = Engine(model, bind_device(world), precision, scaling or model.scaling, step)
    grid = WindowGrid(pixels.shape[1], pixels.shape[2], window, step)
    tiling = Tiling(grid, engine.block, grid.rows, grid.columns)
    pixels, frame_range = for_engine(pixels, engine.scaling, engine.window)
    z = np.empty((len(pixels), grid.rows, grid.columns, engine.latents), np.float32)

    def fill(block: Rectangle) -> None:
        y, x = grid.area(block)
        encoded, valid = engine.encode(pixels[:, y, x], np.ones((len(pixels), 1), bool), frame_range)
        series = torch.where(valid[..., None], encoded, torch.nan).view(len(pixels), *block.shape, -1)
        z[:, block.row0 : block.row1, block.column0 : block.column1] = series.cpu().numpy()

    with ThreadPoolExecutor(engine.at_once(compute_threads(world)), initializer=engine.begin_thread) as pool:
        on_threads(pool, fill, tiling.blocks(tiling.tiles[0]))
    centres = {"y": grid.centres(grid.rows), "x": grid.centres(grid.columns)}
    found = xr.DataArray(
        z,
        {"frame": np.arange(len(z)), **centres, "latent": np.arange(engine.latents)},
        ("frame", "y", "x", "latent"),
        "z",
    )
    for axis in centres:
        found[axis].attrs["units"] = "pixel"
    return found
