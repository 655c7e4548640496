"""Single windows as the network sees them, and what it makes of them."""

import numpy as np
import torch

from hrtemvae_hpc.analysis.compute import readable_windows
from hrtemvae_hpc.model.model_file import Model
from hrtemvae_hpc.model.reconstruction import correlation, decode
from hrtemvae_hpc.movie.tiles import TilePixels, TileReader
from hrtemvae_hpc.windows.grid import Rectangle, WindowGrid


def scaled_window(reader: TileReader, grid: WindowGrid, frame: TilePixels, row: int, column: int) -> np.ndarray:
    """A window [window, window] float32 of one ``frame``, scaled to 0..1 as the analysis does; NaN if not valid."""
    window = Rectangle(row, row + 1, column, column + 1)
    pixels = frame.patch(grid.area(window)).array()[0].astype(np.float64)
    if reader.transform.local:
        low, high = 0.0, 1.0
    elif frame.frame_range is None:
        low, high = pixels.min(), pixels.max()
    else:
        low, high = frame.frame_range[0]
    usable = (
        readable_windows(reader, grid, frame, window)[0, 0]
        and np.isfinite(pixels).all()
        and np.isfinite([low, high]).all()
    )
    scaled = (pixels - low) / (high - low) if usable and high > low else np.full(pixels.shape, np.nan)
    return scaled.astype(np.float32)


@torch.inference_mode()
def reconstruct(model: Model, windows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Reconstructions of ``windows`` [n, window, window], and the correlations [n] float32 with them.

    NaN where a window is. The model must have a decoder.
    """
    assert model.decoder is not None
    reconstructions, alike = np.full_like(windows, np.nan), np.full(len(windows), np.nan, np.float32)
    known = torch.from_numpy(np.isfinite(windows[:, 0, 0]))
    if known.any():
        shown = torch.from_numpy(windows)[known][:, None]
        decoded = decode(model.decoder, model.encoder(shown)[0])
        reconstructions[known], alike[known] = decoded[:, 0], correlation(shown, decoded)
    return reconstructions, alike
