"""Model files and checkpoints that claim too much or are not what they should be: refused within the budget."""

import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import Program
from conftest import TINY, assert_refused
from hostile import refusal

from hrtemvae_hpc.errors import InputError
from hrtemvae_hpc.model.architecture import Architecture, DecoderArchitecture
from hrtemvae_hpc.model.model_file import load_model
from hrtemvae_hpc.model.network import VAE
from hrtemvae_hpc.training.checkpoint import Position, load_checkpoint, save_checkpoint

DEEP = "[" * 100_000 + "]" * 100_000
MEASURED = {
    "epoch": 1, "reconstruction": 1.0, "divergence": 1.0, "validation_reconstruction": 1.0,
    "validation_divergence": 1.0, "active_latents": 1,
}  # fmt: skip


def parts(path: Path) -> tuple[dict[str, Any], bytes]:
    """Header and tensors of a safetensors file."""
    whole = path.read_bytes()
    size = struct.unpack("<Q", whole[:8])[0]
    return json.loads(whole[8 : 8 + size]), whole[8 + size :]


def put_together(path: Path, header: dict[str, Any] | str, tensors: bytes) -> None:
    text = (header if isinstance(header, str) else json.dumps(header)).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + tensors)


def put(place: str, value: Any) -> Callable[[dict[str, Any]], None]:
    """An alteration: ``value`` at the dotted ``place``."""

    def alter(described: dict[str, Any]) -> None:
        *groups, name = place.split(".")
        for group in groups:
            described = described[group]
        described[name] = value

    return alter


DESCRIPTIONS = {
    "no order": (put("latent_order", None), "`latent_order`"),
    "an order of words": (put("latent_order", ["a"] * 5), "`latent_order`"),
    "an order of too few": (put("latent_order", [0, 1, 2, 3]), "not a permutation of 5 latents"),
    "an order with repeats": (put("latent_order", [0, 1, 2, 3, 3]), "not a permutation of 5 latents"),
    "a long order": (put("latent_order", list(range(100_000))), "`latent_order`"),
    "provenance as list": (put("provenance", []), "`provenance`"),
    "variance of others": (put("provenance.variance_over_training", [1.0]), "not that of 5 latents"),
    "no variance": (put("provenance.variance_over_training", []), "not that of 5 latents"),
    "variance as text": (put("provenance.variance_over_training", "much"), "`provenance.variance_over_training`"),
    "segments of nothing": (put("provenance.segments", [{}]), "`provenance.segments.file`"),
    "history": (put("provenance.history", 5), "`provenance.history`"),
    "training key": (put("provenance.training_key", []), "`provenance.training_key`"),
    "NaN": (put("provenance.remark", float("nan")), "not JSON compliant"),
    "groups as list": (put("groups", [[1]]), "`groups`"),
    "a group of words": (put("groups", {"rotation": ["a"]}), "`groups.rotation`"),
    "a group of others": (put("groups", {"rotation": [5]}), "beyond the 5 of the model"),
    "a negative latent": (put("groups", {"rotation": [-1]}), "`groups.rotation`"),
    "a group of repeats": (put("groups", {"rotation": [1, 1]}), "names a latent twice"),
    "an empty group": (put("groups", {"rotation": []}), "`groups.rotation`"),
    "a group of control characters": (put("groups", {"\x1b[2J": [1]}), "control characters"),
    "many groups": (put("groups", {str(i): [1] for i in range(17)}), "`groups`"),
    "trained on a list": (put("trained_on", []), "`trained_on`"),
    "pixel size as text": (put("trained_on", {"pixel_size_nm": "0.02"}), "`trained_on.pixel_size_nm`"),
    "pixel size NaN": (put("trained_on", {"pixel_size_nm": float("nan")}), "`trained_on.pixel_size_nm`"),
    "negative pixel size": (put("trained_on", {"pixel_size_nm": -1.0}), "`trained_on.pixel_size_nm`"),
    "name with zero": (put("name", "a\0b"), "control characters are not allowed, not 'a\\x00b'"),
    "name with escape": (put("name", "\x1b[31mred"), "control characters are not allowed"),
    "long name": (put("name", "x" * 10_000), "`name`"),
    "no name": (put("name", ""), "`name`"),
    "number as name": (put("name", 5), "`name`"),
    "scaling": (put("scaling", "none"), "`scaling`"),
    "later format": (put("format", 2), "update this program"),
    "format": (put("format", None), "`format`"),
    "architecture as list": (put("architecture", []), "`architecture`"),
    "window": (put("architecture.window", 2**40), "`architecture.window`"),
    "fraction of a window": (put("architecture.window", 16.5), "`architecture.window`"),
    "kernel": (put("architecture.kernel", 2**31), "`architecture.kernel`"),
    "no stride": (put("architecture.stride", 0), "`architecture.stride`: input should be greater than or equal to 1"),
    "a list without one": (put("architecture.stride", [2, 0]), "`architecture.stride`: input should be greater than"),
    "a stride as text": (put("architecture.stride", "2"), "`architecture.stride`: input should be a valid integer"),
    "strides of other layers": (put("architecture.stride", [2, 2, 1]), "3 strides do not belong to 2 convolutions"),
    "nothing left": (lambda d: d["architecture"].update(padding="valid", kernel=9), "nothing is left of 16 pixels"),
    "wide channels": (put("architecture.channels", [2**40, 6]), "`architecture.channels`"),
    "many channels": (put("architecture.channels", [1] * 20_000), "`architecture.channels`"),
    "hidden": (put("architecture.hidden", 2**62), "`architecture.hidden`"),
    "latents": (put("architecture.latents", 2**40), "`architecture.latents`"),
    "weights": (put("architecture.channels", [4096] * 16), "weights is larger than"),
    "other weights": (put("architecture.hidden", 2**17), "has shape [24, 96], not [131072, 96]"),
    "infinite epsilon": (put("architecture.epsilon", float("inf")), "`architecture.epsilon`"),
    "unknown key": (put("architecture.layers", 5), "`architecture.layers`"),
    "decoder": (put("architecture.decoder", {"base": 2**30}), "`architecture.decoder.base`"),
    "a decoder without tensors": (put("architecture.decoder", {"base": 4, "channels": [4, 4]}), "decoder."),
}  # fmt: skip

TEXTS = {
    "deep": (DEEP, "recursion limit"),
    "deep within": ('{"format": 1, "provenance": ' + DEEP + "}", "recursion limit"),
    "400 digits": ('{"format": ' + "9" * 400 + "}", "update this program"),
    "5000 digits": ('{"format": ' + "9" * 5000 + "}", "out of range"),
    "a list": ("[]", "should be an object"),
    "nothing": ("", "invalid JSON"),
    "null": ("null", "should be an object"),
    "half a character": ('{"name": "\\ud800"}', "invalid JSON"),
}


@pytest.fixture(scope="module")
def tiny(tiny_model_path: Path) -> tuple[dict[str, Any], bytes]:
    return parts(tiny_model_path)


def refused(path: Path) -> str:
    sentence = refusal(lambda: load_model(path))
    assert sentence.startswith(f"{path}: ")
    return sentence


@pytest.mark.parametrize("what", DESCRIPTIONS)
def test_descriptions(tmp_path: Path, tiny: tuple[dict[str, Any], bytes], what: str) -> None:
    alter, words = DESCRIPTIONS[what]
    described = json.loads(tiny[0]["__metadata__"]["hrtemvae"])
    alter(described)
    put_together(tmp_path / "m", tiny[0] | {"__metadata__": {"hrtemvae": json.dumps(described)}}, tiny[1])
    assert words in refused(tmp_path / "m")


@pytest.mark.parametrize("what", TEXTS)
def test_invalid_descriptions(tmp_path: Path, tiny: tuple[dict[str, Any], bytes], what: str) -> None:
    text, words = TEXTS[what]
    put_together(tmp_path / "m", tiny[0] | {"__metadata__": {"hrtemvae": text}}, tiny[1])
    assert words in refused(tmp_path / "m")


@pytest.mark.parametrize("key", ["format", "name", "architecture", "scaling", "latent_order", "provenance"])
def test_what_is_missing_is_named(tmp_path: Path, tiny: tuple[dict[str, Any], bytes], key: str) -> None:
    described = json.loads(tiny[0]["__metadata__"]["hrtemvae"])
    del described[key]
    put_together(tmp_path / "m", tiny[0] | {"__metadata__": {"hrtemvae": json.dumps(described)}}, tiny[1])
    assert f"`{key}`: field required" in refused(tmp_path / "m")


def test_headers(tmp_path: Path, tiny: tuple[dict[str, Any], bytes]) -> None:
    path, (header, tensors) = tmp_path / "m", tiny
    for size in (2**63, 2**40, 2**23):
        path.write_bytes(struct.pack("<Q", size) + bytes(100))
        assert "header would take more than 4 MiB" in refused(path)
    for start in (b"", b"\1", bytes(8), struct.pack("<Q", 1000)):
        path.write_bytes(start)
        assert "not a readable model file" in refused(path)
    put_together(path, DEEP, tensors)
    assert "not a readable model file" in refused(path)
    put_together(path, header, tensors[:-1])
    assert "not a readable model file" in refused(path)
    bias = header["encoder.mean.bias"]
    wide = {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}
    put_together(path, header | {"encoder.mean.bias": wide}, tensors)
    assert "not a readable model file" in refused(path)
    put_together(path, header | {"encoder.mean.bias": bias | {"dtype": "I32"}}, tensors)
    assert "encoder.mean.bias is of type I32" in refused(path)
    put_together(path, {n: t for n, t in header.items() if n != "encoder.mean.bias"} | {"\x1b[31m": bias}, tensors)
    assert "tensor encoder.mean.bias is missing" in refused(path)
    more = {f"\x1b{i}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for i in range(30_000)}
    put_together(path, header | more, tensors)
    assert r"tensor \x1b0 is unexpected" in refused(path)


def test_only_regular_files_are_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert "no such model file" in refused(tmp_path / "pipe")


def test_an_old_description_still_loads(tmp_path: Path, tiny: tuple[dict[str, Any], bytes]) -> None:
    described = json.loads(tiny[0]["__metadata__"]["hrtemvae"])
    described["trained_on"] = {"pixel_size_nm": 0.02, "periods": [10.0, 16.0]}
    put_together(tmp_path / "m", tiny[0] | {"__metadata__": {"hrtemvae": json.dumps(described)}}, tiny[1])
    assert load_model(tmp_path / "m").trained_on.pixel_size_nm == 0.02


def trained(steps: int) -> tuple[VAE, torch.optim.Adam]:
    torch.manual_seed(0)
    decoder = DecoderArchitecture(base=4, base_channels=2, channels=(2, 2))
    vae = VAE(Architecture.model_validate(TINY.model_dump() | {"decoder": decoder}))
    optimizer = torch.optim.Adam(vae.parameters())
    for _ in range(steps):
        logits, _, _ = vae(torch.rand(2, 1, 16, 16), torch.zeros(2, 5))
        logits.sum().backward()
        optimizer.step()
    return vae, optimizer


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("training") / "checkpoint.safetensors"
    save_checkpoint(path, "key", *trained(2), Position(1, 2, [1.0, 2.0], 3.0, [MEASURED]))
    return path


POSITIONS = {
    "none": (put("position", None), "`position`"),
    "key": (put("key", 5), "`key`"),
    "negative": (put("position.step", -1), "`position.step`"),
    "sums": (put("position.sums", ["a", "b"]), "`position.sums`"),
    "one sum": (put("position.sums", [1.0]), "`position.sums`"),
    "seconds": (put("position.seconds", float("nan")), "`position.seconds`"),
    "more epochs than known": (put("position.epoch", 2**40), "not that of its epochs"),
    "no losses": (put("position.history", [{"epoch": 1}]), "lacks losses"),
    "losses as text": (put("position.history", [MEASURED | {"divergence": "much"}]), "`position.history.divergence."),
    "infinite losses": (put("position.history", [MEASURED | {"divergence": float("inf")}]), "`position.history"),
    "history": (put("position.history", {}), "`position.history`"),
}


@pytest.mark.parametrize("what", POSITIONS)
def test_positions_of_checkpoints(checkpoint: Path, tmp_path: Path, what: str) -> None:
    alter, words = POSITIONS[what]
    header, tensors = parts(checkpoint)
    described = json.loads(header["__metadata__"]["hrtemvae_training"])
    alter(described)
    put_together(tmp_path / "c", header | {"__metadata__": {"hrtemvae_training": json.dumps(described)}}, tensors)
    sentence = refusal(lambda: load_checkpoint(tmp_path / "c", "key", *trained(0)))
    assert words in sentence
    assert "start over with --restart" in sentence


def test_tensors_of_checkpoints(checkpoint: Path, tmp_path: Path) -> None:
    path, (header, tensors) = tmp_path / "c", parts(checkpoint)

    def refused(header: dict[str, Any] | str) -> str:
        put_together(path, header, tensors)
        return refusal(lambda: load_checkpoint(path, "key", *trained(0)))

    step, bias = "adam.encoder.mean.bias.step", "network.encoder.mean.bias"
    assert f"tensor {bias} is missing" in refused({n: t for n, t in header.items() if n != bias} | {"x": header[bias]})
    assert f"tensor {step} is missing" in refused({n: t for n, t in header.items() if n != step} | {"x": header[step]})
    assert "has shape [1], not []" in refused(header | {step: header[step] | {"shape": [1]}})
    assert "is of type I32" in refused(header | {bias: header[bias] | {"dtype": "I32"}})
    assert "not a readable checkpoint" in refused(header | {"__metadata__": {}})
    assert "not a readable checkpoint" in refused(DEEP)
    path.write_bytes(struct.pack("<Q", 2**40) + bytes(100))
    assert "4 MiB" in refusal(lambda: load_checkpoint(path, "key", *trained(0)))


@pytest.mark.parametrize("steps", [0, 2])
def test_a_checkpoint_restores_everything(tmp_path: Path, steps: int) -> None:
    path, position = tmp_path / "c", Position(1, 2, [1.0, 2.0], 3.0, [MEASURED])
    vae, optimizer = trained(steps)
    save_checkpoint(path, "key", vae, optimizer, position)
    other, its = trained(1)
    assert load_checkpoint(path, "key", other, its) == position
    for name, tensor in vae.state_dict().items():
        torch.testing.assert_close(other.state_dict()[name], tensor, rtol=0, atol=0)
    for one, two in zip(vae.parameters(), other.parameters(), strict=True):
        assert its.state[two].keys() == optimizer.state[one].keys()
        for key, value in optimizer.state[one].items():
            torch.testing.assert_close(its.state[two][key], value, rtol=0, atol=0)


def test_a_flipped_bit_in_a_checkpoint_is_found(checkpoint: Path, tmp_path: Path) -> None:
    content = checkpoint.read_bytes()
    for bit in np.random.default_rng(0).integers(0, 8 * len(content), 100):
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        (tmp_path / "c").write_bytes(flipped)
        with pytest.raises(InputError):
            load_checkpoint(tmp_path / "c", "key", *trained(0))


def test_on_the_command_line(
    hrtemvae: Program, tmp_path: Path, movie_path: Path, tiny: tuple[dict[str, Any], bytes]
) -> None:
    put_together(tmp_path / "m", tiny[0] | {"__metadata__": {"hrtemvae": DEEP}}, tiny[1])
    assert_refused(hrtemvae("plan", movie_path, "--model", "m"), "m: the model's tensors and its description")
