"""Where a model's latents describe what windows show: windows decoded at a few times, and compared with themselves.

The decoder can't give back noise: the correlation c of a window with its reconstruction falls with the dose. The
correlation r of the window with itself in a neighbouring frame says how much of it isn't noise, and c / sqrt(r) is what
c would be without noise (Spearman, The proof and measurement of association between two things, Am. J. Psychol. 15,
72, 1904). Where the image changes from one frame to the next, r is too small, and this too large.
"""

import copy

import numpy as np
import torch
from torch import Tensor

from hrtemvae_hpc.model.model_file import Model
from hrtemvae_hpc.model.reconstruction import correlation, decode
from hrtemvae_hpc.patch import Patch

TIMES = 3  # frames at which a window is decoded: the first, the middle and the last one
_APART = 0.5  # of their size, between windows that are decoded
_LEAST = 0.05  # r below which a window shows nothing but noise: three standard deviations of noise are 0.03
_AT_ONCE = {"cpu": 32, "cuda": 1024}  # windows


class Reconstruction:
    """How well a model's decoder gives back the windows of a block."""

    def __init__(self, model: Model, device: torch.device, step: int) -> None:
        """``step``: pixels between windows. The model must have a decoder."""
        if model.decoder is None:
            raise ValueError(f"model {model.name} has no decoder")
        self._decoder = copy.deepcopy(model.decoder).to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._order = torch.tensor(model.latent_order, device=device)
        self._window, self._step = model.architecture.window, step
        self._every = max(1, int(_APART * self._window / step))

    def working_bytes(self) -> int:
        """Bytes that ``correlations`` takes on a CPU: the two largest layers side by side, and windows in float64."""
        d = self._decoder.decoder
        sizes = [(d.base * 2 ** (i + 1)) ** 2 * channels for i, channels in enumerate(d.channels)]
        largest: int = max([d.base**2 * d.base_channels, *sizes])
        return _AT_ONCE["cpu"] * (4 * 3 * largest + 8 * 6 * self._window**2)

    @torch.inference_mode()
    def correlations(self, pixels: Patch | np.ndarray, z: Tensor, valid: Tensor) -> np.ndarray:
        """The correlations [rows, columns] float32 of windows with their reconstructions, corrected for noise.

        Of the windows of a block: ``pixels`` [frames, rows, columns] as the engine was given them, and ``z`` [frames,
        windows, latents] and ``valid`` [frames, windows] as it returned them. At most 1; NaN for windows that are valid
        in fewer than 3 frames, or show nothing but noise. Of windows less than half their size apart one in the middle
        is decoded, and stands for all.
        """
        patch = pixels if isinstance(pixels, Patch) else Patch.of(pixels)
        frames, *size = patch.shape
        rows, columns = ((n - self._window) // self._step + 1 for n in size)
        chosen = [np.minimum(np.arange(0, n, self._every) + self._every // 2, n - 1) for n in (rows, columns)]
        there = valid.cpu().numpy().reshape(frames, rows, columns)[:, chosen[0][:, None], chosen[1]]
        count = there.sum(0)
        if frames < TIMES:
            return np.full((rows, columns), np.nan, np.float32)
        y, x = (index.ravel() for index in np.meshgrid(*chosen, indexing="ij"))
        valid_first = np.argsort(~there, 0, "stable").reshape(frames, -1)
        n = np.maximum(count.ravel(), TIMES)
        # Frames that are decoded, and a neighbour of each.
        times = np.take_along_axis(valid_first, np.stack([0 * n, n // 2, n - 1]), 0)
        others = np.take_along_axis(valid_first, np.stack([0 * n + 1, n // 2 - 1, n - 2]), 0)
        with_itself, with_decoded = np.empty((2, *times.shape), np.float32)
        at_once = _AT_ONCE[z.device.type]
        for k, t, other in zip(range(TIMES), times, others, strict=True):
            for begin in range(0, len(n), at_once):
                part = slice(begin, begin + at_once)
                shown, again = (self._windows(patch, i[part], y[part], x[part]) for i in (t, other))
                native = torch.empty(len(shown), z.shape[2], device=z.device)
                native[:, self._order] = z[t[part], y[part] * columns + x[part]]
                decoded = decode(self._decoder, native).double()
                with_decoded[k, part] = correlation(shown, decoded).cpu()
                with_itself[k, part] = correlation(shown, again).cpu()
        found = _without_noise(with_decoded.mean(0), with_itself.mean(0)).reshape(count.shape)
        found[count < TIMES] = np.nan
        spread: np.ndarray = found.repeat(self._every, 0).repeat(self._every, 1)
        return spread[:rows, :columns]

    def _windows(self, patch: Patch, frame: np.ndarray, row: np.ndarray, column: np.ndarray) -> Tensor:
        """The windows [n, 1, window, window] at these places of frames, float64: only their differences count."""
        device = self._order.device
        windows = torch.empty(len(frame), 1, self._window, self._window, dtype=torch.float64, device=device)
        for t in np.unique(frame):
            image = patch.frames(slice(t, t + 1), device)[0]
            cut = image.unfold(0, self._window, self._step).unfold(1, self._window, self._step)
            those = np.flatnonzero(frame == t)
            windows[those, 0] = cut[row[those], column[those]].double()
        return windows


def _without_noise(with_decoded: np.ndarray, with_itself: np.ndarray) -> np.ndarray:
    """What the correlation with the reconstruction would be without noise; NaN where there is nothing but noise."""
    something = with_itself >= _LEAST
    without = with_decoded / np.sqrt(np.where(something, with_itself, 1))
    return np.where(something, np.minimum(without, 1), np.nan).astype(np.float32)
