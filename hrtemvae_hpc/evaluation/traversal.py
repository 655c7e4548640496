"""One latent changed at a time, and what the decoder makes of it."""

import numpy as np
import torch
from matplotlib.figure import Figure

from hrtemvae_hpc.errors import InputError
from hrtemvae_hpc.model.checkpoint import Model
from hrtemvae_hpc.pages import DPI, png

RANGE = np.linspace(-3, 3, 9)  # of the standard normal distribution that latents are drawn towards


@torch.inference_mode()
def traverse(model: Model, window: np.ndarray, latents: list[int]) -> np.ndarray:
    """``window`` [size, size] encoded, and decoded again with one latent at a time at each value of ``RANGE``.

    Returns [latents, values, size, size] in 0..1. Latents count in the model's order. Raises InputError where the
    model has no decoder.
    """
    if model.decoder is None:
        raise InputError(f"model {model.name}: has no decoder, so that no latent can be traversed.")
    z = model.encoder(torch.from_numpy(window)[None, None])[0]
    changed = z.repeat(len(latents) * len(RANGE), 1)
    for i, latent in enumerate(latents):
        rows = slice(i * len(RANGE), (i + 1) * len(RANGE))
        changed[rows, model.latent_order[latent]] = torch.from_numpy(RANGE).float()
    decoded = torch.sigmoid(model.decoder(changed))
    return decoded.view(len(latents), len(RANGE), *window.shape).numpy()


def draw_traversal(model: Model, window: np.ndarray, latents: list[int]) -> bytes:
    """PNG: a row for each of ``latents``; the first column is ``window`` itself."""
    decoded = traverse(model, window, latents)
    figure = Figure(((len(RANGE) + 1) * 0.8, len(latents) * 0.82 + 0.25), DPI, layout="constrained")
    grid = figure.subplots(len(latents), len(RANGE) + 1, squeeze=False)
    for row, (latent, images) in enumerate(zip(latents, decoded, strict=True)):
        for column, image in enumerate([window, *images]):
            axes = grid[row, column]
            axes.imshow(image, cmap="gray", vmin=0, vmax=1)
            axes.set(xticks=[], yticks=[])
            if row == 0:
                axes.set_title("segment" if column == 0 else f"{RANGE[column - 1]:+g}", fontsize=7)
        grid[row, 0].set_ylabel(f"z{latent}", fontsize=8, rotation=0, labelpad=12, va="center")
    return png(figure)
