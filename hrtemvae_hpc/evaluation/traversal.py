"""One latent changed at a time, and what the decoder makes of it."""

import numpy as np
import torch
from matplotlib.figure import Figure

from hrtemvae_hpc.errors import InputError
from hrtemvae_hpc.model.model_file import Model
from hrtemvae_hpc.pages import DPI, png
from hrtemvae_hpc.training.pictures import mosaic

_LABELS, _TITLES = 0.4, 0.3  # inches beside and above the images
RANGE = np.linspace(-3, 3, 9)  # of the standard normal distribution that latents are drawn towards


@torch.inference_mode()
def traverse(model: Model, window: np.ndarray, latents: list[int]) -> np.ndarray:
    """``window`` [size, size] encoded, and decoded again with one latent at a time at each value of ``RANGE``.

    Returns [latents, values, size, size] in 0..1. Latents count in the model's order. Raises InputError if the
    model has no decoder.
    """
    if model.decoder is None:
        raise InputError(f"model {model.name}: has no decoder, so no latent can be traversed.")
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
    columns = len(RANGE) + 1
    original = np.broadcast_to(window, (len(latents), 1, *window.shape))
    image = mosaic(np.concatenate([original, decoded], 1))
    cells = image.shape[1] / columns
    figure = Figure((image.shape[1] / DPI + _LABELS, image.shape[0] / DPI + _TITLES), DPI)
    width, height = figure.get_size_inches()
    axes = figure.add_axes((_LABELS / width, 0, 1 - _LABELS / width, 1 - _TITLES / height), frameon=False)
    axes.imshow(image, cmap="gray", vmin=0, vmax=1, aspect="auto")
    axes.tick_params(length=0, labelsize=8, top=True, labeltop=True, labelbottom=False)
    titles = ["segment", *(f"{value:+g}" if value else "0" for value in RANGE)]
    axes.set_xticks((np.arange(columns) + 0.5) * cells, titles)
    axes.set_yticks((np.arange(len(latents)) + 0.5) * cells, [f"z{latent}" for latent in latents])
    return png(figure)
