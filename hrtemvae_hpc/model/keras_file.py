"""Reads the layers of networks saved by Keras 3 (.keras files) without Keras or TensorFlow.

A .keras file is a zip archive: config.json describes the layers, model.weights.h5 holds their arrays under
layers/<name>/vars, numbered by class in the order of creation (https://keras.io/guides/serialization_and_saving).
"""

import io
import re
import zipfile
import zlib
from collections import Counter
from pathlib import Path

import h5py
import numpy as np

from hrtemvae_hpc.errors import InputError
from hrtemvae_hpc.hdf5 import DAMAGED, read_array
from hrtemvae_hpc.model.keras_layers import ARRAYS, LARGEST, Layer, LayerConfig, describe, parse
from hrtemvae_hpc.schemas import mistake

_LARGEST_CONFIG = 2**22  # bytes of config.json
_PIECE = 2**20  # bytes that are read or unpacked at once
_PACKINGS = zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED


def read_keras_file(path: Path) -> list[Layer[LayerConfig]]:
    """The layers in ``path``. Raises InputError if it isn't a .keras file."""
    try:
        with _InPieces(path) as file, zipfile.ZipFile(file) as archive:
            described = describe(parse(_member(archive, "config.json", _LARGEST_CONFIG).read()))
            with h5py.File(_member(archive, "model.weights.h5", LARGEST), "r") as weights:
                return _layers(described, weights)
    except (zipfile.BadZipFile, zlib.error, EOFError, *DAMAGED) as error:
        raise InputError(f"{path}: not a readable Keras 3 file ({mistake(error)}).") from error


class _InPieces(io.FileIO):
    """A file of which only pieces are read, so that the directory of an archive can't take all memory."""

    def read(self, size: int | None = -1) -> bytes:
        if size is None or size < 0:
            size = _PIECE
        if size > _PIECE:
            raise zipfile.BadZipFile(f"the directory of the archive would take {size} bytes")
        return super().read(size) or b""


def _member(archive: zipfile.ZipFile, name: str, most: int) -> io.BytesIO:
    """A file of ``archive``. Raises ValueError if it claims more than ``most`` bytes; it is never given more."""
    info = archive.getinfo(name)
    if info.compress_type not in _PACKINGS:
        raise ValueError(f"{name} is packed in a way that Keras doesn't use")
    if info.file_size > most:
        raise ValueError(f"{name} claims more than {most // 2**20} MiB")
    unpacked = io.BytesIO()
    with archive.open(info) as member:
        while piece := member.read(_PIECE):
            unpacked.write(piece)
    unpacked.seek(0)
    return unpacked


def _layers(described: list[tuple[str, LayerConfig]], weights: h5py.File) -> list[Layer[LayerConfig]]:
    seen: Counter[str] = Counter()
    layers, left = [], LARGEST
    for kind, config in described:
        # Keras stores layers by snake-cased class name and a running number, not by their own names.
        snake = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=.)(?=[A-Z][a-z])", "_", kind).lower()
        stored = snake if seen[kind] == 0 else f"{snake}_{seen[kind]}"
        seen[kind] += 1
        arrays = []
        if kind in ARRAYS:
            group = weights
            for name in ("layers", stored, "vars"):
                group = _of_this_file(group, name)[name]
            for i in range(ARRAYS[kind]):
                array = read_array(_of_this_file(group, str(i)), str(i), "f", most=left)
                left -= array.nbytes
                arrays.append(array.astype(np.float32))
        layers.append(Layer(kind, config, arrays))
    return layers


def _of_this_file(group: h5py.Group, name: str) -> h5py.Group:
    """``group``, if what is called ``name`` there lies in the same file."""
    if not isinstance(group.get(name, getlink=True), h5py.HardLink):
        raise ValueError(f"{name} lies in another file")
    return group
