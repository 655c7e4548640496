"""Encoding: the pixels of a block of windows over all frames become their latents."""

import copy
import math
from collections.abc import Callable
from typing import Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from hrtemvae_hpc.errors import Blocked, InputError
from hrtemvae_hpc.model.model_file import Model
from hrtemvae_hpc.model.network import Encoder
from hrtemvae_hpc.patch import Patch
from hrtemvae_hpc.pixels import floating
from hrtemvae_hpc.schemas import Scaling
from hrtemvae_hpc.windows.layers import Layers, folded
from hrtemvae_hpc.windows.plain import PlainLayers
from hrtemvae_hpc.windows.reconstruction import Reconstruction
from hrtemvae_hpc.windows.shared_frame import SharedConvolutions, shares_all
from hrtemvae_hpc.windows.shared_runs import SharedLayers
from hrtemvae_hpc.windows.valid import ValidConvolutions

Precision = Literal["fp32", "tf32", "bf16"]

# Window positions on the side of a block, and windows of a batch: fixed for a kind of device, because they
# decide the order of rounding. Small blocks keep small movies divisible; a GPU needs more work at once, and so do
# convolutions that are shared.
_BLOCK = {("cpu", "window"): 8, ("cpu", "frame"): 16, ("cuda", "window"): 16, ("cuda", "frame"): 16}
_BATCH = {("cpu", "window"): 1024, ("cpu", "frame"): 2048, ("cuda", "window"): 4096, ("cuda", "frame"): 4096}
_APART = 4, 256  # the same on a CPU where windows lie too far apart to share more than their first convolution


class FirstLayers(Protocol):
    """A way to compute the first convolutions of many windows, as PlainLayers describes."""

    depth: int

    def windows(self, frames: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]: ...


class Engine:
    """Encodes blocks of windows with one model on one device."""

    def __init__(self, model: Model, device: torch.device, precision: Precision, scaling: Scaling, step: int) -> None:
        """Raises InputError if the device doesn't know the precision."""
        if precision == "tf32" and not _has_tf32(device):
            raise InputError(
                "--precision tf32: needs an NVIDIA GPU, A100 or newer, and there is none here; choose fp32 or bf16."
            )
        self.device = device
        self.window = model.architecture.window
        self.latents = model.architecture.latents
        self._spacing = step
        self._step = min(step, self.window)  # after pixels between windows are left out
        self.scaling = scaling
        self._architecture = model.architecture
        one_scale, without_border = scaling != "window", model.architecture.padding == "valid"
        if without_border and not one_scale:
            raise InputError(
                f"model {model.name}: convolutions without padding need one scale for all windows of a frame; choose "
                "--scaling local or frame."
            )
        self._shares_all = one_scale and (without_border or shares_all(model.architecture, self._step))
        way = device.type, "frame" if self._shares_all else "window"
        self.block, self.batch = _BLOCK[way], _BATCH[way]
        dtype = self._dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        exact = folded(model.encoder)  # in float32, so that narrower types round the product alone
        self._encoder = copy.deepcopy(exact).to(device, dtype).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._layers = Layers(self._encoder, exact, model.latent_order)
        self.without = ""  # why something that would be faster can't be used
        self.arithmetic: dict[str, str] = {}  # what decides the last bits besides the device and its libraries
        self._first: FirstLayers
        self._shared: ValidConvolutions | SharedConvolutions | SharedLayers
        self._convolutions: ValidConvolutions | SharedConvolutions
        if without_border:
            self._shared = self._convolutions = ValidConvolutions(self._encoder, self._step)
        elif self._shares_all:
            self._shared = self._convolutions = SharedConvolutions(self._encoder, self._step)
        elif device.type == "cuda":
            self._first = self._first_on_gpu(exact)
        else:
            self._shared = self._first = layers = SharedLayers(exact, self._encoder, self._step)
            if not layers.shares:
                self.block, self.batch = _APART
        self.reconstruction = Reconstruction(model, device, step) if model.decoder else None
        if device.type == "cuda":
            torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision == "tf32"
            torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False
            torch.backends.cudnn.benchmark = False
            torch.backends.cudnn.deterministic = True
            torch.cuda.synchronize(device)  # whichever streams will use the weights

    def _first_on_gpu(self, exact: Encoder) -> FirstLayers:
        """The first layer by Triton's kernel; by PyTorch alone, which ``without`` says, if that can't be compiled."""
        try:
            from hrtemvae_hpc.windows.fused import FusedFirstLayer  # Triton comes with PyTorch for GPUs only

            layer = FusedFirstLayer(exact, self._step, self._dtype, self.device)
            pixels = torch.zeros(1, self.window, self.window, device=self.device)
            # Compiled here: several threads that do so at the same time get in each other's way.
            for type_ in (torch.float32, torch.float64):
                low, high = (torch.full((1, 1), number, device=self.device, dtype=type_) for number in (0, 1))
                layer.windows(pixels.to(type_), low, high)
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, ImportError) as error:
            self.without, self.arithmetic = " ".join(str(error).split()), {"first layer": "PyTorch"}
            return PlainLayers(self._encoder, self._step, 1)
        self.arithmetic = {"first layer": "Triton"}
        return layer

    def at_once(self, threads: int) -> int:
        """Blocks to encode at the same time on ``threads`` processors."""
        return min(2, threads) if self.device.type == "cuda" else threads

    def begin_thread(self) -> None:
        """Prepare this thread, one of several that encode.

        On a GPU it gets a stream of its own: while one computes, the other's pixels and maps are copied.
        """
        torch.set_num_threads(1)
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)
            torch.cuda.set_stream(torch.cuda.Stream(self.device))  # type: ignore[no-untyped-call]

    def frames_at_once(self, windows: int) -> int:
        """Frames per batch for a block of so many windows; not more than for a block of one row."""
        return max(1, self.batch // max(windows, self.block))

    def side(self, windows: int) -> int:
        """Pixels along ``windows`` in a line, without those between them."""
        return self.window + (windows - 1) * self._step

    def working_bytes(self, frames: int, dtype: np.dtype) -> int:
        """Bytes that one block of ``frames`` frames of ``dtype`` takes on a CPU, its latents included."""
        a, windows = self._architecture, self.block**2
        pixel, columns = 3 * floating(dtype).itemsize, self.block
        # Of a low block at the grid's edge more frames are encoded at once, and their windows overlap less.
        patches = []
        for rows in (1, self.block):
            at_once = min(frames, self.frames_at_once(rows * columns))
            pixels = pixel * at_once * self.side(rows) * self.side(columns)
            patches.append(pixels + self._shared.working_bytes(at_once, rows, columns))
        later = [a.hidden]
        if a.padding == "same":
            later += [size**2 * channels for size, channels in zip(a.sizes[2:], a.channels[1:], strict=True)]
        encoding = max(patches) + 4 * 2 * self.batch * max(later)
        decoding = self.reconstruction.working_bytes() if self.reconstruction else 0
        return max(encoding, decoding) + 4 * frames * windows * self.latents

    @torch.inference_mode()
    def encode(
        self,
        pixels: Patch | np.ndarray,
        readable: np.ndarray,
        frame_range: np.ndarray | None = None,
        check: Callable[[int], None] = lambda windows: None,
    ) -> tuple[Tensor, Tensor]:
        """Latents of one block.

        ``pixels`` [frames, rows, columns], an array of any real dtype; if scaling is local, scaled already, NaN where
        that isn't possible. ``readable`` [frames, windows or 1] bool, ``frame_range`` [frames, 2] for scaling by frame.
        ``check`` is called with the number of windows after each batch.

        Returns z [frames, windows, latents] float32 in the model's order, and valid [frames, windows] bool, both
        on the device; z is 0 if it isn't valid. Raises Blocked when the network returns non-finite latents.
        """
        whole = pixels if isinstance(pixels, Patch) else Patch.of(pixels)
        frames, can_be_read = whole.shape[0], torch.from_numpy(readable).to(self.device)
        limits = None if frame_range is None else torch.from_numpy(frame_range).to(self.device)
        rows, columns = ((n - self.window) // self._spacing + 1 for n in whole.shape[1:])
        z = torch.zeros(frames, rows * columns, self.latents, device=self.device)
        valid = torch.zeros(frames, rows * columns, dtype=torch.bool, device=self.device)
        # Batches are cut by window position and frame, never by what is left over.
        chunk = self.frames_at_once(rows * columns)
        for start in range(0, frames, chunk):
            part = slice(start, start + chunk)
            compact = _close_up(whole.frames(part, self.device), self.window, self._spacing)
            patch, low, high, ok = self._bounds(compact, None if limits is None else limits[part])
            encode = self._encode_by_frame if self._shares_all else self._encode_by_window
            encoded = encode(patch, low, high, ok).view(*ok.shape, self.latents)
            ok &= can_be_read[part]
            z[part] = torch.where(ok[..., None], encoded, 0)
            valid[part] = ok
            check(ok.numel())
        lowest, highest = torch.aminmax(z)  # asked once, because a GPU has to finish first
        if not math.isfinite(highest - lowest):
            raise Blocked(
                f"the network's latents overflow (from {lowest:g} to {highest:g}); check the pixels, or "
                "choose another model."
            )
        return z, valid

    def _encode_by_window(self, patch: Tensor, low: Tensor, high: Tensor, _: Tensor) -> Tensor:
        """Latents [frames * windows, latents] of all windows of ``patch`` [frames, rows, columns]."""
        numbers, activations = self._first.windows(patch, low, high)
        mean = self._layers.mean(activations, self._first.depth)
        latents = torch.empty_like(mean)
        latents[numbers] = mean
        return latents

    def _encode_by_frame(self, patch: Tensor, low: Tensor, high: Tensor, valid: Tensor) -> Tensor:
        """The same, if the ``valid`` windows of a frame have one scale."""
        first = valid.int().argmax(1, keepdim=True)
        low, high = (b.gather(1, first)[..., None] for b in (low, high))
        scaled = ((patch - low) / (high - low)).to(self._dtype)
        return self._layers.mean(self._convolutions.windows(scaled), len(self._architecture.channels))

    def _bounds(self, patch: Tensor, limits: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The ``patch`` [frames, rows, columns], what becomes 0 and 1 of each window, and which windows have these.

        Non-finite pixels are replaced. low and high [frames, windows] are of the patch's type, high > low also for
        windows that are flat or hold a non-finite pixel.
        """
        if self.scaling == "local":  # has been done; 0.5 is where all pixels around are alike
            farthest = _largest((patch - 0.5).abs(), self.window, self._step)
            valid = torch.isfinite(farthest) & (farthest > 0)
            low, high = torch.zeros_like(farthest), torch.ones_like(farthest)
        elif self.scaling == "frame":
            if limits is None:
                raise ValueError("scaling by frame needs the range of each frame")
            valid = _largest((~torch.isfinite(patch)).float(), self.window, self._step) == 0
            low, high = (b[:, None].expand_as(valid) for b in limits.to(patch).unbind(1))
        else:
            low, high = -_largest(-patch, self.window, self._step), _largest(patch, self.window, self._step)
            valid = torch.isfinite(low) & torch.isfinite(high)  # NaN and infinity reach the minimum or maximum
        valid &= (high > low) & torch.isfinite(high - low)
        if self.device.type == "cpu" and valid.all():  # a GPU isn't asked: it would have to finish first
            return patch, low, high, valid
        patch = patch.nan_to_num(torch.inf, torch.inf, torch.inf)
        level = patch.amin((1, 2))
        level = torch.where(torch.isfinite(level), level, 0)[:, None]
        patch = torch.where(torch.isinf(patch), level[..., None], patch)
        return patch, torch.where(valid, low, level), torch.where(valid, high, level + 1 + level.abs()), valid


def _close_up(patch: Tensor, window: int, step: int) -> Tensor:
    """``patch`` [frames, rows, columns] without the pixels between windows, if windows lie apart."""
    if step <= window:
        return patch
    windows = patch.unfold(1, window, step).unfold(2, window, step)
    frames, rows, columns = windows.shape[:3]
    return windows.transpose(2, 3).reshape(frames, rows * window, columns * window)


def _has_tf32(device: torch.device) -> bool:
    return device.type == "cuda" and not torch.version.hip and torch.cuda.get_device_capability(device) >= (8, 0)


def _largest(patch: Tensor, window: int, step: int) -> Tensor:
    """The largest pixel of each window [frames, windows] of ``patch`` [frames, rows, columns]; NaN where one is."""
    along_x = patch.unfold(2, window, step).amax(3)
    return along_x.unfold(1, window, step).amax(3).flatten(1)
