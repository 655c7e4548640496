"""Reads the layers of networks in TensorFlow's SavedModel folders without TensorFlow.

Keras describes the layers as JSON in the metadata of its objects: in keras_metadata.pb, before TensorFlow 2.5 in
saved_model.pb. Their arrays lie in a checkpoint: variables.index is a sorted table that tells for each name the type,
shape and place of its bytes in variables.data. The formats are those of TensorFlow's protocol buffers
(saved_object_graph.proto, saved_metadata.proto, tensor_bundle.proto) and of LevelDB's tables
(https://github.com/google/leveldb/blob/main/doc/table_format.md).
"""

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from hrtemvae_hpc.errors import InputError
from hrtemvae_hpc.model.keras_layers import Layer

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # wire types of protocol buffers
_FOOTER = 48  # bytes at the end of a table
_MAGIC = 0xDB4775248B80FB57.to_bytes(8, "little")
_FLOAT32 = 1  # of TensorFlow's data types
_WEIGHTS = ("kernel", "gamma", "beta", "bias", "moving_mean", "moving_variance")  # in Keras' order of creation


def read_saved_model(folder: Path) -> list[Layer]:
    """The layers of the network in ``folder``. Raises InputError where it isn't one that Keras saved."""
    try:
        arrays = _read_variables(folder / "variables")
        layers, weighted = [], 0
        for described in _describe_layers(folder):
            found = arrays.get(weighted, {})
            own = [found[name] for name in _WEIGHTS if name in found] if _has_weights(described) else []
            weighted += _has_weights(described)
            layers.append(Layer(described["class_name"], described["config"]["name"], described["config"], own))
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        what = " ".join(str(error).split())[:200]
        raise InputError(f"{folder}: not a SavedModel folder of a Keras network ({what}).") from error
    return layers


def _has_weights(described: dict[str, Any]) -> bool:
    return described["class_name"] in ("Conv2D", "Conv2DTranspose", "Dense", "BatchNormalization")


def _describe_layers(folder: Path) -> list[dict[str, Any]]:
    metadata = folder / "keras_metadata.pb"
    if metadata.is_file():
        texts = [_field(node, 5) for node in _fields(metadata.read_bytes(), 1)]
    else:
        graphs = [_field(graph, 7) for graph in _fields((folder / "saved_model.pb").read_bytes(), 2)]
        objects = [_field(node, 4) for graph in graphs for node in _fields(graph, 1)]
        texts = [_field(user_object, 3) for user_object in objects]
    for text in texts:
        described = json.loads(text) if text else {}
        if described.get("class_name") in ("Functional", "Model", "Sequential"):
            return [_without_tuples(layer) for layer in described["config"]["layers"]]
    raise ValueError("it describes no Keras network")


def _without_tuples(value: Any) -> Any:
    if isinstance(value, dict):
        if value.get("class_name") == "__tuple__":
            return [_without_tuples(v) for v in value["items"]]
        return {k: _without_tuples(v) for k, v in value.items()}
    return [_without_tuples(v) for v in value] if isinstance(value, list) else value


def _read_variables(folder: Path) -> dict[int, dict[str, np.ndarray]]:
    """Arrays by the number of their layer and their name in it."""
    shards = sorted(folder.glob("variables.data-*-of-*"))
    pieces = [shard.read_bytes() for shard in shards]
    arrays: dict[int, dict[str, np.ndarray]] = {}
    for key, entry in _table((folder / "variables.index").read_bytes()):
        match = re.fullmatch(rb"layer_with_weights-(\d+)/(\w+)/\.ATTRIBUTES/VARIABLE_VALUE", key)
        if match is None:
            continue
        numbers = {number: value for number, kind, value in _messages(entry) if kind == _VARINT}
        shape = tuple(
            next((int(v) for n, k, v in _messages(dim) if n == 1 and k == _VARINT), 0)
            for dim in _fields(_field(entry, 2), 2)
        )
        if numbers.get(1) != _FLOAT32:
            raise ValueError(f"{key.decode()} is not of type float32")
        start, size = int(numbers.get(4, 0)), int(numbers.get(5, 0))
        stored = pieces[int(numbers.get(3, 0))][start : start + size]
        if len(stored) != 4 * math.prod(shape):
            raise ValueError(f"{key.decode()} is cut off")
        arrays.setdefault(int(match[1]), {})[match[2].decode()] = np.frombuffer(stored, "<f4").reshape(shape).copy()
    return arrays


def _table(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values of a LevelDB table."""
    footer = data[-_FOOTER:]
    if len(footer) < _FOOTER or not footer.endswith(_MAGIC):
        raise ValueError("variables.index is no table, or is cut off")
    position = 0
    for _ in range(2):  # the place of the index of metadata, which is passed over
        _, position = _varint(footer, position)
    place, position = _varint(footer, position)
    size, _ = _varint(footer, position)
    for _, handle in _block(data, place, size):
        start, after = _varint(handle, 0)
        yield from _block(data, start, _varint(handle, after)[0])


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
        yield key, block[position : position + length]
        position += length


def _varint(data: bytes, position: int) -> tuple[int, int]:
    """A number, seven bits a byte, and where it ends."""
    value = shift = 0
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7


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
                raise ValueError("it is no protocol buffer")
            value = data[position : position + length]
            position += length
            if len(value) < length:
                raise ValueError("it is cut off")
        yield number, kind, value


def _fields(data: bytes, number: int) -> list[bytes]:
    return [value for n, kind, value in _messages(data) if n == number and isinstance(value, bytes)]


def _field(data: bytes, number: int) -> bytes:
    return next(iter(_fields(data, number)), b"")
