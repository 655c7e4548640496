"""The pixels that a block of windows is cut from: converted, resampled and scaled on the device, a batch at a time.

A GPU fetches them by itself from pinned memory, in the type that the movie has, while the thread goes on.
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hrtemvae_hpc.pixels import floating

CPU = torch.device("cpu")
PINNED = 4  # buffers of a thread, which it fills in turn
AT_ONCE = 8  # frames that a CPU transforms together


@dataclass(frozen=True)
class Patch:
    """All frames of a rectangle of pixels."""

    pixels: np.ndarray  # [frames, rows, columns] that it is made of, any real type
    shape: tuple[int, int, int]  # frames, rows and columns of the patch
    transform: Callable[[Tensor], Tensor] | None = None  # makes frames of the patch from floating ones of the pixels
    unknown: Callable[[slice], np.ndarray | None] | None = None  # which pixels of some frames are to be NaN, if any

    @classmethod
    def of(cls, pixels: np.ndarray) -> "Patch":
        """The ``pixels`` [frames, rows, columns] as they are."""
        frames, rows, columns = pixels.shape
        return cls(pixels, (frames, rows, columns))

    @classmethod
    def joined(cls, patches: Sequence["Patch"]) -> "Patch":
        """The frames of ``patches`` of one rectangle, one after the other."""
        first, pixels = patches[0], np.concatenate([patch.pixels for patch in patches])
        shape = len(pixels), *first.shape[1:]
        if first.unknown is None:
            return cls(pixels, shape, first.transform)
        unknown = np.concatenate([patch._all_unknown() for patch in patches])
        return cls(pixels, shape, first.transform, unknown.__getitem__)

    def cut(self, part: slice) -> "Patch":
        """Some of the frames, in memory of their own."""
        pixels = self.pixels[part].copy()
        unknown = None if self.unknown is None else self._all_unknown()[part].copy().__getitem__
        return Patch(pixels, (len(pixels), *self.shape[1:]), self.transform, unknown)

    def _all_unknown(self) -> np.ndarray:
        unknown = self.unknown(slice(None)) if self.unknown else None
        return np.zeros(self.pixels.shape, bool) if unknown is None else unknown

    def frames(self, part: slice, device: torch.device = CPU) -> Tensor:
        """Frames [n, rows, columns] on ``device``: float32, or float64 for pixels that are wider; may be written to."""
        if not self.transform:
            return _on_device(self.pixels[part], device)
        numbers = range(len(self.pixels))[part]
        at_once = AT_ONCE if device.type == "cpu" else max(1, len(numbers))
        starts = range(numbers.start, numbers.stop, at_once)
        pieces = [slice(start, min(start + at_once, numbers.stop)) for start in starts]
        return torch.cat([self._transformed(piece, device, self.transform) for piece in pieces])

    def _transformed(self, part: slice, device: torch.device, transform: Callable[[Tensor], Tensor]) -> Tensor:
        pixels = _on_device(self.pixels[part], device)
        unknown = self.unknown(part) if self.unknown else None
        if unknown is not None:
            pixels[torch.from_numpy(unknown).to(device)] = torch.nan
        return transform(pixels)

    def array(self) -> np.ndarray:
        """All frames; in the type of the pixels if nothing happens to them."""
        return self.frames(slice(None)).numpy() if self.transform else self.pixels


def _on_device(pixels: np.ndarray, device: torch.device) -> Tensor:
    wanted = floating(pixels.dtype)
    type_ = torch.float64 if wanted == np.float64 else torch.float32
    if device.type == "cpu":
        converted = torch.empty(pixels.shape, dtype=type_)
        converted.numpy()[...] = pixels
        return converted
    if not pixels.dtype.isnative or pixels.dtype.kind not in "uif" or pixels.dtype.itemsize > 8:
        pixels = pixels.astype(wanted)
    return _pinned.send(pixels, device).to(type_)


class _PinnedBuffers(threading.local):
    """Memory that a GPU copies from; each thread has some buffers, and waits only for one that is still being read."""

    def __init__(self) -> None:
        self._buffers = [torch.empty(0, dtype=torch.uint8)] * PINNED
        self._read: list[torch.cuda.Event | None] = [None] * PINNED
        self._next = 0

    def send(self, pixels: np.ndarray, device: torch.device) -> Tensor:
        """``pixels`` on a GPU, copied by its current stream."""
        number, self._next = self._next, (self._next + 1) % PINNED
        event = self._read[number]
        if event is not None:
            event.synchronize()
        if len(self._buffers[number]) < pixels.nbytes:
            self._buffers[number] = torch.empty(pixels.nbytes, dtype=torch.uint8, pin_memory=True)
        buffer = self._buffers[number][: pixels.nbytes].numpy().view(pixels.dtype).reshape(pixels.shape)
        buffer[...] = pixels
        sent = torch.from_numpy(buffer).to(device, non_blocking=True)
        event = self._read[number] = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record()
        return sent


_pinned = _PinnedBuffers()
