"""Keras networks that claim too much, or point elsewhere: refused in one sentence, within the budget."""

import copy
import io
import json
import math
import os
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from commands import Program
from conftest import assert_refused
from hostile import refusal

from hrtemvae_hpc.model.architecture import Architecture
from hrtemvae_hpc.model.keras_import import import_decoder, import_keras

DEEP = "[" * 100_000 + "]" * 100_000


def dense(name: str, units: int, activation: str = "linear") -> dict[str, Any]:
    return {"class_name": "Dense", "config": {"name": name, "units": units, "activation": activation}}


CONVOLUTION = {
    "name": "conv", "filters": 2, "kernel_size": [3, 3], "strides": [2, 2], "dilation_rate": [1, 1],
    "padding": "same", "data_format": "channels_last", "use_bias": True, "activation": "relu",
}  # fmt: skip
NETWORK: dict[str, Any] = {
    "class_name": "Functional",
    "config": {
        "layers": [
            {"class_name": "InputLayer", "config": {"name": "input", "batch_shape": [None, 8, 8, 1]}},
            {"class_name": "Conv2D", "config": CONVOLUTION},
            {"class_name": "Flatten", "config": {"name": "flatten"}},
            dense("hidden", 6, "relu"),
            dense("z_mean", 2),
            dense("z_log_var", 2),
        ]
    },
}
SHAPES = {
    "conv2d": [(3, 3, 1, 2), (2,)], "dense": [(32, 6), (6,)], "dense_1": [(6, 2), (2,)], "dense_2": [(6, 2), (2,)],
}  # fmt: skip


def weights(alter: Callable[[h5py.File], None] = lambda _: None) -> bytes:
    file = io.BytesIO()
    with h5py.File(file, "w") as h5:
        for layer, shapes in SHAPES.items():
            for i, shape in enumerate(shapes):
                h5[f"layers/{layer}/vars/{i}"] = np.ones(shape, np.float32)
        alter(h5)
    return file.getvalue()


def write(path: Path, config: Any = NETWORK, arrays: bytes | None = None, **packing: Any) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", config if isinstance(config, str) else json.dumps(config), **packing)
        archive.writestr("model.weights.h5", weights() if arrays is None else arrays)
    return path


def refused(path: Path) -> str:
    sentence = refusal(lambda: import_keras(path))
    assert sentence.startswith(f"{path}: not a ")
    return sentence


def test_the_network_that_is_altered_below_can_be_read(tmp_path: Path) -> None:
    assert import_keras(write(tmp_path / "e.keras")).architecture.latents == 2


def put(layer: int, name: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def alter(network: dict[str, Any]) -> None:
        network["config"]["layers"][layer]["config"][name] = value

    return alter


def layers(value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda network: network["config"].update(layers=value)


CONFIGS = {
    "infinite shape": (put(0, "batch_shape", [None, float("inf"), 8, 1]), "`batch_shape`"),
    "no shape": (put(0, "batch_shape", None), "does not say how large a window is"),
    "open shape": (put(0, "batch_shape", [None, None, None, 1]), "does not say how large a window is"),
    "nested shape": (put(0, "batch_shape", [[None, 8, 8, 1]]), "`batch_shape`"),
    "shape as text": (put(0, "batch_shape", "8"), "`batch_shape`"),
    "window": (put(0, "batch_shape", [None, 2**40, 8, 1]), "`window`"),
    "long shape": (put(0, "batch_shape", [8] * 100_000), "`batch_shape`"),
    "filters": (put(1, "filters", 2**40), "`filters`"),
    "infinite kernel": (put(1, "kernel_size", [float("inf")] * 2), "`kernel_size`"),
    "oblong kernel": (put(1, "kernel_size", [3, 4]), "expected two equal numbers"),
    "no stride": (put(1, "strides", [0, 0]), "`strides`"),
    "strides": (put(1, "strides", None), "`strides`"),
    "padding": (put(1, "padding", ["same"]), "`padding`"),
    "activation": (put(1, "activation", {"class_name": "Mine"}), "`activation`"),
    "units": (put(3, "units", 10**30), "`hidden`"),
    "half a unit": (put(3, "units", 6.5), "`units`"),
    "other units": (put(3, "units", 7), "tensor dense.weight has shape [6, 32], not [7, 32]"),
    "name": (put(1, "name", "\x1b[31m\0"), "`name`"),
    "no layers": (layers([]), "there is no Conv2D layer"),
    "layers as object": (layers({}), "`config.layers`"),
    "null layers": (layers(None), "`config.layers`"),
    "layers of text": (layers(["Dense"]), "`config.layers`"),
    "layers without": (layers([{}]), "`config.layers.class_name`"),
    "many layers": (layers([{"class_name": "Dropout", "config": {"name": "x"}}] * 50_000), "`config.layers`"),
    "number as class": (layers([{"class_name": 5, "config": {}}]), "`config.layers.class_name`"),
    "list as layer": (layers([{"class_name": "Dense", "config": []}]), "`config.layers.config`"),
    "unknown class": (layers([{"class_name": "\x1b[31m", "config": {"name": "x"}}]), "`config.layers.class_name`"),
}
TEXTS = {
    "deep": (DEEP, "recursion limit"),
    "digits": ('{"config": {"layers": ' + "9" * 5000 + "}}", "out of range"),
    "a list": ("[]", "not a readable Keras 3 file"),
    "null": ("null", "not a readable Keras 3 file"),
    "nothing": ("", "not a readable Keras 3 file"),
}


@pytest.mark.parametrize("what", CONFIGS)
def test_configurations(tmp_path: Path, what: str) -> None:
    alter, words = CONFIGS[what]
    network = copy.deepcopy(NETWORK)
    alter(network)
    assert words in refused(write(tmp_path / "e.keras", network))


@pytest.mark.parametrize("what", TEXTS)
def test_invalid_configurations(tmp_path: Path, what: str) -> None:
    text, words = TEXTS[what]
    assert words in refused(write(tmp_path / "e.keras", text))


BIAS = "layers/dense/vars/1"


def replaced(**arguments: Any) -> Callable[[h5py.File], None]:
    def alter(file: h5py.File) -> None:
        del file[BIAS]
        file.create_dataset(BIAS, **arguments)

    return alter


def elsewhere(link: Any) -> Callable[[h5py.File], None]:
    def alter(file: h5py.File) -> None:
        del file[BIAS]
        file[BIAS] = link

    return alter


def virtual(file: h5py.File) -> None:
    del file[BIAS]
    layout = h5py.VirtualLayout((6,), np.float32)
    layout[:] = h5py.VirtualSource("/proc/self/mem", "x", (6,))
    file.create_virtual_dataset(BIAS, layout)


def inflating(megabytes: int, chunk: int) -> Callable[[h5py.File], None]:
    """A bias in one chunk of ``chunk`` values, stored as few bytes that are unpacked to many ``megabytes``."""

    def alter(file: h5py.File) -> None:
        replaced(shape=(6,), maxshape=(None,), dtype="f4", chunks=(chunk,), compression="gzip")(file)
        packing = zlib.compressobj(9)
        start = packing.compress(bytes(2**20)) + packing.flush(zlib.Z_FULL_FLUSH)
        more = packing.compress(bytes(2**20)) + packing.flush(zlib.Z_FULL_FLUSH)
        file[BIAS].id.write_direct_chunk((0,), start + more * megabytes + packing.flush())

    return alter


ARRAYS = {
    "raw bytes of another file": replaced(shape=(6,), dtype="f4", external=[("/etc/passwd", 0, 24)]),
    "virtual": virtual,
    "a link to another file": elsewhere(h5py.ExternalLink("/dev/zero", "x")),
    "a link to nowhere": elsewhere(h5py.SoftLink("/x")),
    "a link to itself": elsewhere(h5py.SoftLink(f"/{BIAS}")),
    "a chunk that inflates": inflating(3000, 6),
    "claims": replaced(shape=(2**40,), dtype="f4", chunks=(1024,)),
    "a large chunk that inflates": inflating(3000, 2**29),
    "text": replaced(data=np.full(6, b"text")),
    "whole numbers": replaced(data=np.arange(6)),
    "a matrix": replaced(data=np.ones((6, 6), np.float32)),
    "a number": replaced(data=np.float32(1)),
    "nothing": replaced(dtype="f4"),
    "not finite": replaced(data=np.full(6, np.nan, np.float32)),
    "too large for float32": replaced(data=np.full(6, 1e300)),
    "a group": lambda file: (file.__delitem__(BIAS), file.create_group(BIAS)),
    "none": lambda file: file.__delitem__(BIAS),
    "no layer": lambda file: file.__delitem__("layers/dense"),
    "a layer that is an array": lambda file: (file.__delitem__("layers"), file.create_dataset("layers", data=[1])),
}


@pytest.mark.parametrize("what", ARRAYS)
def test_arrays(tmp_path: Path, what: str) -> None:
    assert "root:" not in refused(write(tmp_path / "e.keras", arrays=weights(ARRAYS[what])))


def test_arrays_shared_between_layers(tmp_path: Path) -> None:
    """Many layers share an array of 100 MB: together they claim more than a network may."""

    def share(file: h5py.File) -> None:
        file["large"] = h5py.Empty("f4")
        del file["large"]
        file.create_dataset("large", (25_000_000,), "f4")
        for i in range(20):
            group = file.create_group(f"layers/dense_{i + 3}/vars")
            group["0"] = group["1"] = file["large"]

    network = copy.deepcopy(NETWORK)
    network["config"]["layers"] += [dense(f"more{i}", 5) for i in range(20)]
    assert "claims more than" in refused(write(tmp_path / "e.keras", network, weights(share)))


def test_archives(tmp_path: Path) -> None:
    path = write(tmp_path / "e.keras")
    whole = path.read_bytes()
    for damaged in (b"", b"PK", whole[:-10], whole[: len(whole) // 2], whole[100:]):
        path.write_bytes(damaged)
        assert "not a readable Keras 3 file" in refused(path)
    for packing in (zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2):
        assert "packed in a way" in refused(write(path, compress_type=packing))
    assert "config.json claims more than 4 MiB" in refused(write(path, " " * 200_000_000))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("config.json", json.dumps(NETWORK))
        with archive.open("model.weights.h5", "w", force_zip64=True) as member:
            for _ in range(300):
                member.write(bytes(2**20))
    assert "model.weights.h5 claims more than 256 MiB" in refused(path)
    # Its directory says that it is small.
    path.write_bytes(path.read_bytes().replace(struct.pack("<L", 300 * 2**20), struct.pack("<L", 1000)))
    assert "not a readable Keras 3 file" in refused(path)
    with zipfile.ZipFile(path, "w") as archive:
        for i in range(30_000):
            archive.writestr(str(i), b"")
    assert "directory of the archive would take" in refused(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", json.dumps(NETWORK))
    assert "model.weights.h5" in refused(path)
    assert "not a readable Keras 3 file" in refused(write(path, arrays=b"no HDF5"))
    locked = bytearray(write(path).read_bytes())
    locked[locked.index(b"PK\1\2") + 8] |= 1
    path.write_bytes(locked)
    assert "not a readable Keras 3 file" in refused(path)


def varint(value: int) -> bytes:
    out = b""
    while value > 127:
        out, value = out + bytes([value & 127 | 128]), value >> 7
    return out + bytes([value])


def field(number: int, value: bytes | int) -> bytes:
    """A field of a protocol buffer."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def block(entries: Iterable[tuple[bytes, bytes]]) -> bytes:
    body = b"".join(b"\0" + varint(len(key)) + varint(len(value)) + key + value for key, value in entries)
    return body + struct.pack("<LL", 0, 1)


def table(content: bytes, handles: int = 1) -> bytes:
    """A LevelDB table whose index names the one block ``handles`` times."""
    index = block([(b"z", varint(0) + varint(len(content)))] * handles)
    footer = varint(0) + varint(0) + varint(len(content) + 5) + varint(len(index))
    return content + bytes(5) + index + bytes(5) + footer.ljust(40, b"\0") + 0xDB4775248B80FB57.to_bytes(8, "little")


def variables(**claimed: tuple[int, ...]) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """Entries of the table of variables, and their bytes; some biases of layers are ``claimed`` of another shape."""
    data, entries = b"", []
    for layer, shapes in enumerate(SHAPES.values()):
        for name, shape in zip(("kernel", "bias"), shapes, strict=True):
            stated = claimed.get(f"{name}{layer}", shape)
            dimensions = b"".join(field(2, field(1, n)) for n in stated)
            entry = field(1, 1) + field(2, dimensions) + field(4, len(data)) + field(5, 4 * math.prod(stated))
            entries.append((f"layer_with_weights-{layer}/{name}/.ATTRIBUTES/VARIABLE_VALUE".encode(), entry))
            data += np.ones(shape, "<f4").tobytes()
    return entries, data


def saved_model(folder: Path, index: bytes | None = None, metadata: bytes | None = None) -> Path:
    entries, data = variables()
    (folder / "variables").mkdir(parents=True)
    (folder / "saved_model.pb").write_bytes(b"")
    if metadata is None:
        metadata = field(1, field(5, json.dumps(NETWORK).encode()))
    (folder / "keras_metadata.pb").write_bytes(metadata)
    (folder / "variables/variables.index").write_bytes(table(block(entries)) if index is None else index)
    (folder / "variables/variables.data-00000-of-00001").write_bytes(data)
    return folder


def test_the_saved_model_that_is_altered_below_can_be_read(tmp_path: Path) -> None:
    assert import_keras(saved_model(tmp_path / "m")).architecture.latents == 2


ENTRIES = variables()[0]
GROWING = b"".join(varint(i) + varint(1) + varint(0) + b"x" for i in range(400_000)) + struct.pack("<LL", 0, 1)
INDEXES = {
    "a handle 3,000 times": table(block(ENTRIES * 1000), 3000),
    "names that grow": table(GROWING),
    "a number without end": table(b"\xff" * 1000 + struct.pack("<LL", 0, 1)),
    "a large shape": table(block(variables(bias1=(2**40,))[0])),
    "a shape of many axes": table(block(variables(bias1=(1,) * 100)[0])),
    "an endless shape": table(block(variables(bias1=(2**62, 2**62))[0])),
    "another shape": table(block(variables(bias1=(2, 3))[0])),
    "variables of the same bytes": table(
        block([(k.replace(b"-0/", b"-%d/" % i), v) for i in range(1000) for k, v in ENTRIES[:1]])
    ),
    "another shard": table(block([(key, value + field(3, 2**40)) for key, value in ENTRIES])),
    "behind the end": table(block([(key, value + field(4, 2**63)) for key, value in ENTRIES])),
    "no numbers": table(block([(key, value + field(1, 9)) for key, value in ENTRIES])),
    "no variables": table(block([])),
    "another text": b"no table" * 100,
    "nothing": b"",
    "too large": bytes(5 * 2**20),
}


@pytest.mark.parametrize("what", INDEXES)
def test_variables_of_saved_models(tmp_path: Path, what: str) -> None:
    refused(saved_model(tmp_path / "m", INDEXES[what]))


METADATA = {
    "deep": field(1, field(5, DEEP.encode())),
    "a list": field(1, field(5, b"[]")),
    "no layers": field(1, field(5, b'{"class_name": "Model", "config": null}')),
    "tuples of nothing": field(1, field(5, b'{"class_name": "Model", "config": {"class_name": "__tuple__"}}')),
    "a number without end": b"\xff" * 1000,
    "cut off": varint(1 << 3 | 2) + varint(2**62),
    "many fields": field(1, b"") * 2_000_000,
    "too large": bytes(5 * 2**20),
    "nothing": b"",
}


@pytest.mark.parametrize("what", METADATA)
def test_descriptions_in_saved_models(tmp_path: Path, what: str) -> None:
    refused(saved_model(tmp_path / "m", metadata=METADATA[what]))


@pytest.mark.parametrize(
    "name", ["keras_metadata.pb", "variables/variables.index", "variables/variables.data-00000-of-00001"]
)
def test_only_regular_files_are_read(tmp_path: Path, name: str) -> None:
    path = saved_model(tmp_path / "m") / name
    path.unlink()
    os.mkfifo(path)
    refused(tmp_path / "m")


def test_decoders(tmp_path: Path) -> None:
    network = copy.deepcopy(NETWORK)
    reshape = {"name": "reshape", "target_shape": [2**40, 2**40, 1]}
    last = CONVOLUTION | {"filters": 1, "strides": [1, 1], "activation": "sigmoid"}
    network["config"]["layers"] = [
        dense("hidden", 4, "relu"),
        {"class_name": "Reshape", "config": reshape},
        {"class_name": "Conv2DTranspose", "config": last},
    ]
    arrays = weights(lambda file: file.move("layers/conv2d", "layers/conv2d_transpose"))
    path = write(tmp_path / "d.keras", network, arrays)
    assert "`base`" in refusal(lambda: import_decoder(path, Architecture(window=8, latents=2)))


def test_on_the_command_line(hrtemvae: Program, tmp_path: Path) -> None:
    write(tmp_path / "e.keras", arrays=weights(ARRAYS["raw bytes of another file"]))
    assert_refused(hrtemvae("model", "import-keras", "e.keras", "-o", "m"), "e.keras: not a readable Keras 3 file")
    saved_model(tmp_path / "saved", INDEXES["a handle 3,000 times"])
    assert_refused(hrtemvae("model", "import-keras", "saved", "-o", "m"), "saved: not a SavedModel folder")
    assert not (tmp_path / "m").exists()
