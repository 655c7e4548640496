"""Memory that a thread reuses: the system takes freed memory back and is slow to provide it again."""

import math
import threading

import torch
from torch import Tensor


class Workspace(threading.local):
    """Named tensors; each keeps the memory of the largest one of its name, separately in every thread."""

    def __init__(self) -> None:
        self._memory: dict[str, Tensor] = {}

    def empty(self, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """A tensor of any content, in the place of the last one of this ``name``."""
        size = math.prod(shape) * dtype.itemsize
        if name not in self._memory or len(self._memory[name]) < size:
            self._memory[name] = torch.empty(size, dtype=torch.uint8)
        return self._memory[name][:size].view(dtype).view(shape)
