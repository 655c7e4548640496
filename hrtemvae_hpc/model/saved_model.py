"""Reads the layers of networks in TensorFlow's SavedModel folders without TensorFlow.

Keras describes the layers as JSON in the metadata of its objects: in keras_metadata.pb, before TensorFlow 2.5 in
saved_model.pb. Their arrays lie in a checkpoint: variables.index is a sorted table that holds for each name the type,
shape and place of its bytes in variables.data. The formats are those of TensorFlow's protocol buffers
(saved_object_graph.proto, saved_metadata.proto, tensor_bundle.proto) and of LevelDB's tables
(https://github.com/google/leveldb/blob/main/doc/table_format.md).
"""

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from hrtemvae_hpc.errors import InputError
from hrtemvae_hpc.files import is_file
from hrtemvae_hpc.model.keras_layers import ARRAYS, LARGEST, Layer, LayerConfig, describe, parse
from hrtemvae_hpc.schemas import mistake, short

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # wire types of protocol buffers
_LONGEST_NUMBER = 10  # bytes
_LARGEST_DESCRIPTION = 2**22  # bytes of a file that describes layers or variables
_LONGEST_KEY = 2**12  # bytes
_FOOTER = 48  # bytes at the end of a table
_MAGIC = 0xDB4775248B80FB57.to_bytes(8, "little")
_FLOAT32 = 1  # of TensorFlow's data types
_WEIGHTS = ("kernel", "gamma", "beta", "bias", "moving_mean", "moving_variance")  # in Keras' order of creation


def read_saved_model(folder: Path) -> list[Layer[LayerConfig]]:
    """The layers of the network in ``folder``. Raises InputError if it isn't one that Keras saved."""
    try:
        described = describe(_network(folder))
        arrays = _read_variables(folder / "variables")
        layers, weighted = [], 0
        for kind, config in described:
            variables = arrays.get(weighted, {})
            weights = [variables[name] for name in _WEIGHTS if name in variables] if kind in ARRAYS else []
            if len(weights) != ARRAYS.get(kind, 0):
                raise ValueError(f"layer {short(config.name)} has {len(weights)} arrays, not {ARRAYS[kind]}")
            weighted += kind in ARRAYS
            layers.append(Layer(kind, config, weights))
    except (OSError, ValueError, IndexError) as error:
        raise InputError(f"{folder}: not a SavedModel folder of a Keras network ({mistake(error)}).") from error
    return layers


def _network(folder: Path) -> Any:
    metadata = folder / "keras_metadata.pb"
    if is_file(metadata):
        texts = (_field(node, 5) for node in _fields(_read(metadata), 1))
    else:
        graphs = (_field(graph, 7) for graph in _fields(_read(folder / "saved_model.pb"), 2))
        objects = (_field(node, 4) for graph in graphs for node in _fields(graph, 1))
        texts = (_field(user_object, 3) for user_object in objects)
    for text in filter(None, texts):
        described = parse(text)
        if isinstance(described, dict) and described.get("class_name") in ("Functional", "Model", "Sequential"):
            return described
    raise ValueError("it describes no Keras network")


def _read(path: Path) -> bytes:
    if not is_file(path):
        raise ValueError(f"there is no file {path.name}")
    with path.open("rb") as file:
        data = file.read(_LARGEST_DESCRIPTION + 1)
    if len(data) > _LARGEST_DESCRIPTION:
        raise ValueError(f"{path.name} is larger than {_LARGEST_DESCRIPTION // 2**20} MiB")
    return data


def _read_variables(folder: Path) -> dict[int, dict[str, np.ndarray]]:
    """Arrays by the number of their layer and their name in it."""
    shards = sorted(shard for shard in folder.glob("variables.data-*-of-*") if is_file(shard))
    arrays: dict[int, dict[str, np.ndarray]] = {}
    left = min(LARGEST, sum(shard.stat().st_size for shard in shards))
    for key, entry in _table(_read(folder / "variables.index")):
        match = re.fullmatch(rb"layer_with_weights-(\d{1,9})/(\w+)/\.ATTRIBUTES/VARIABLE_VALUE", key)
        if match is None:
            continue
        name = key.decode()
        numbers = {number: value for number, kind, value in _messages(entry) if kind == _VARINT}
        shape = tuple(
            next((int(v) for n, k, v in _messages(dim) if n == 1 and k == _VARINT), 0)
            for dim in _fields(_field(entry, 2), 2)
        )
        if numbers.get(1) != _FLOAT32:
            raise ValueError(f"{name} is not of type float32")
        start, size = int(numbers.get(4, 0)), int(numbers.get(5, 0))
        if len(shape) > 4 or size != 4 * math.prod(shape):
            raise ValueError(f"{name} takes {size} bytes, which is not its shape")
        left -= size
        if left < 0:
            raise ValueError(f"{name} and those before it claim more bytes than there are")
        with shards[int(numbers.get(3, 0))].open("rb") as file:
            file.seek(min(start, 2**62))
            stored = file.read(size)
        if len(stored) != size:
            raise ValueError(f"{name} is cut off")
        arrays.setdefault(int(match[1]), {})[match[2].decode()] = np.frombuffer(stored, "<f4").reshape(shape).copy()
    return arrays


def _table(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values of a LevelDB table."""
    footer = data[-_FOOTER:]
    if len(footer) < _FOOTER or not footer.endswith(_MAGIC):
        raise ValueError("variables.index is not a table, or is cut off")
    position = 0
    for _ in range(2):  # the place of the index of metadata, which is passed over
        _, position = _varint(footer, position)
    place, position = _varint(footer, position)
    size, _ = _varint(footer, position)
    end = 0
    for _, handle in _block(data, place, size):
        start, after = _varint(handle, 0)
        if start < end:
            raise ValueError("variables.index names a block twice")
        size, _ = _varint(handle, after)
        end = start + size
        yield from _block(data, start, size)


def _block(data: bytes, start: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    if data[start + size] != 0:
        raise ValueError("variables.index is compressed")
    block = data[start : start + size]
    restarts = int.from_bytes(block[-4:], "little")
    end = len(block) - 4 * (restarts + 1)
    position, key = 0, b""
    while position < end:
        shared, position = _varint(block, position)
        unshared, position = _varint(block, position)
        length, position = _varint(block, position)
        key = key[:shared] + block[position : position + unshared]
        position += unshared
        if len(key) > _LONGEST_KEY:
            raise ValueError("variables.index holds a name without an end")
        yield key, block[position : position + length]
        position += length


def _varint(data: bytes, position: int) -> tuple[int, int]:
    """A number, seven bits per byte, and where it ends."""
    value = 0
    for i, byte in enumerate(data[position : position + _LONGEST_NUMBER]):
        value |= (byte & 0x7F) << 7 * i
        if byte < 0x80:
            return value, position + i + 1
    raise ValueError("a number has no end")


def _messages(data: bytes) -> Iterator[tuple[int, int, int | bytes]]:
    """Number, wire type and value of each field of a protocol buffer."""
    position = 0
    while position < len(data):
        tag, position = _varint(data, position)
        number, kind = tag >> 3, tag & 7
        if kind == _VARINT:
            value: int | bytes
            value, position = _varint(data, position)
        else:
            if kind == _BYTES:
                length, position = _varint(data, position)
            elif kind in (_FIXED32, _FIXED64):
                length = 4 if kind == _FIXED32 else 8
            else:
                raise ValueError("it is not a protocol buffer")
            value = data[position : position + length]
            position += length
            if len(value) < length:
                raise ValueError("it is cut off")
        yield number, kind, value


def _fields(data: bytes, number: int) -> Iterator[bytes]:
    return (value for n, _, value in _messages(data) if n == number and isinstance(value, bytes))


def _field(data: bytes, number: int) -> bytes:
    return next(_fields(data, number), b"")
