"""The plain engine: cuts a block of frames into windows, scales them and runs the encoder on batches.

An engine is given the pixels of one block (all windows of a small rectangle) over all frames, so that another
engine may share between windows what they have in common.
"""

import copy
from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from hrtemvae_hpc.errors import InputError, RankFailed
from hrtemvae_hpc.model.checkpoint import Model, Scaling

Precision = Literal["fp32", "tf32", "bf16"]

# Window positions on the side of a block, and windows of a batch: fixed for a kind of device, because they
# decide the order of rounding. Small blocks keep small movies divisible; a GPU wants more work at once.
_BLOCK = {"cpu": 4, "cuda": 16}
_BATCH = {"cpu": 256, "cuda": 4096}


class Engine:
    """Encodes blocks of windows with one model on one device."""

    def __init__(self, model: Model, device: torch.device, precision: Precision, scaling: Scaling, step: int) -> None:
        """Raises InputError where the device doesn't know the precision."""
        if device.type == "cpu" and precision == "tf32":
            raise InputError("--precision tf32: is arithmetic of GPUs, this rank has none; choose fp32 or bf16.")
        self.device = device
        self.window = model.architecture.window
        self.latents = model.architecture.latents
        self.step = step
        self.scaling = scaling
        self.block = _BLOCK[device.type]
        self.batch = _BATCH[device.type]
        self.dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        self._widest = max(
            size**2 * channels
            for size, channels in zip(model.architecture.sizes, (1, *model.architecture.channels), strict=True)
        )
        self._encoder = copy.deepcopy(model.encoder).to(device, self.dtype).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._order = torch.tensor(model.latent_order, device=device)
        if device.type == "cuda":
            torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision == "tf32"
            torch.backends.cudnn.benchmark = False
            torch.backends.cudnn.deterministic = True

    def working_bytes(self, frames: int) -> int:
        """Bytes that encoding one block of ``frames`` frames takes, its latents included."""
        latents = 4 * frames * self.block**2 * self.latents
        activations = 4 * self.batch * (3 * self.window**2 + 3 * self._widest)
        return latents + activations

    @torch.inference_mode()
    def encode(
        self,
        pixels: np.ndarray,
        readable: np.ndarray,
        frame_range: np.ndarray | None = None,
        check: Callable[[int], None] = lambda windows: None,
    ) -> tuple[Tensor, Tensor]:
        """Latents of one block.

        ``pixels`` [frames, rows, columns] of any real dtype, ``readable`` [frames, windows or 1] bool, ``frame_range``
        [frames, 2] for scaling by frame. ``check`` is called with the number of windows after each batch.

        Returns z [frames, windows, latents] float32 in the model's order, and valid [frames, windows] bool, both
        on the device; z is 0 where it isn't valid. Raises RankFailed when the network returns non-finite latents.
        """
        frames = len(pixels)
        rows, columns = ((n - self.window) // self.step + 1 for n in pixels.shape[1:])
        z = torch.zeros(frames, rows * columns, self.latents, device=self.device)
        valid = torch.zeros(frames, rows * columns, dtype=torch.bool, device=self.device)
        # Batches are cut by window position and frame, never by what is left over.
        chunk = max(1, self.batch // (rows * columns))
        for start in range(0, frames, chunk):
            part = slice(start, start + chunk)
            scaled, ok = self._scale(pixels[part], None if frame_range is None else frame_range[part])
            ok &= torch.from_numpy(readable[part]).to(self.device)
            encoded = self._encode_batch(scaled)
            encoded = encoded.view(*ok.shape, self.latents)[..., self._order]
            if not torch.isfinite(encoded[ok]).all():
                raise RankFailed("the network returned latents that are not finite; the model is not usable.")
            z[part] = encoded * ok[..., None]
            valid[part] = ok
            check(ok.numel())
        return z, valid

    def _encode_batch(self, windows: Tensor) -> Tensor:
        x = windows.to(self.dtype)[:, None].contiguous(memory_format=torch.channels_last)
        encoder = self._encoder
        mean: Tensor = encoder.mean(encoder.hidden(x)).float()
        return mean

    def _scale(self, pixels: np.ndarray, frame_range: np.ndarray | None) -> tuple[Tensor, Tensor]:
        """Windows [n, window, window] scaled to 0..1, frame by frame, and which have a scaled form [frames, n].

        (x - min) / (max - min): subtracting the mean and dividing by the deviation first, as published, cancels.
        """
        # float32 holds 16-bit pixels exactly; wider types are scaled in float64 before they are rounded.
        wide = pixels.dtype.itemsize > (4 if pixels.dtype.kind == "f" else 2)
        frames = torch.from_numpy(pixels.astype(np.float64 if wide else np.float32)).to(self.device)
        windows = frames.unfold(1, self.window, self.step).unfold(2, self.window, self.step)
        windows = windows.reshape(len(frames), -1, self.window, self.window)
        low, high = windows.amin((2, 3)), windows.amax((2, 3))
        valid = torch.isfinite(low) & torch.isfinite(high)  # NaN and infinity reach the minimum or maximum
        if self.scaling == "frame":
            if frame_range is None:
                raise ValueError("scaling by frame needs the range of each frame")
            bounds = torch.from_numpy(frame_range).to(frames)
            low, high = (b[:, None].expand_as(low) for b in bounds.unbind(1))
        valid &= high > low
        low = torch.where(valid, low, 0)[..., None, None]
        span = torch.where(valid, high - low[..., 0, 0], 1)[..., None, None]
        scaled = torch.where(valid[..., None, None], (windows - low) / span, 0)
        return scaled.flatten(0, 1).float(), valid
