"""Safetensors files: what they claim is bounded, and compared with what is expected, before memory is allocated."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from hrtemvae_hpc.model.network import check_shapes

_LARGEST_HEADER = 2**22  # bytes of names, shapes and description
_TYPES = {torch.float32: {"F32", "F16", "BF16"}, torch.int64: {"I64"}}  # in which tensors may be stored


def open_tensors(path: Path) -> safe_open:
    """Open ``path``, a context manager. Raises OSError or SafetensorError if it isn't one."""
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
    if size > _LARGEST_HEADER:
        raise OSError(f"its header would take more than {_LARGEST_HEADER // 2**20} MiB")
    return safe_open(path, "pt")


def read_tensors(file: Any, expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """All tensors of an open ``file``, in the types of those ``expected``. Raises ValueError if they differ."""
    stored = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
    check_shapes(expected, {name: part.get_shape() for name, part in stored.items()})
    for name, tensor in expected.items():
        if (kind := stored[name].get_dtype()) not in _TYPES[tensor.dtype]:
            raise ValueError(f"tensor {name} is of type {kind}")
    return {name: file.get_tensor(name).to(tensor.dtype) for name, tensor in expected.items()}
