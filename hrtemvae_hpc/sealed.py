"""Safetensors files with a checksum over all that they hold, which reveals damage."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from hrtemvae_hpc.identity import digest_of

_SEAL = "sha256"


def pack(tensors: Mapping[str, np.ndarray], about: Mapping[str, str]) -> bytes:
    """``tensors``, with the texts ``about`` them, as the bytes of a file."""
    return save(dict(tensors), {**about, _SEAL: _digest(tensors, about)})


def unpack(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The tensors in ``path`` and the texts about them.

    Raises OSError if it can't be read, ValueError if it is not what was packed.
    """
    if not path.is_file() and path.exists():
        raise ValueError("not a regular file")
    try:
        with safe_open(path, "np") as file:
            about = dict(file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, TypeError, MemoryError) as error:
        raise ValueError(f"not a readable safetensors file ({error})") from error
    check_seal(tensors, about)
    about.pop(_SEAL)
    return tensors, about


def check_seal(tensors: Mapping[str, np.ndarray], about: Mapping[str, str]) -> None:
    """Raise ValueError if ``tensors`` and the texts ``about`` them, as read from a file, are not what was packed."""
    others = {name: text for name, text in about.items() if name != _SEAL}
    if about.get(_SEAL) != _digest(tensors, others):
        raise ValueError("its content does not match its checksum")


def _digest(tensors: Mapping[str, np.ndarray], about: Mapping[str, str]) -> str:
    def content() -> Iterator[bytes | memoryview]:
        for name, tensor in sorted(tensors.items()):
            yield json.dumps([name, tensor.dtype.str, tensor.shape]).encode()
            yield np.ascontiguousarray(tensor).data

    return digest_of(dict(about), content())
