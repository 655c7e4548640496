"""The model file: one safetensors file whose metadata tell what the network is and where it came from.

Tensors may be stored in half precision to keep a file small; they are computed with in float32.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from hrtemvae_hpc.errors import InputError
from hrtemvae_hpc.files import file_sha256, is_file, replacing
from hrtemvae_hpc.model.architecture import Architecture
from hrtemvae_hpc.model.network import Decoder, Encoder

Scaling = Literal["window", "frame"]
DEFAULT_MODEL = Path(__file__).parent / "data" / "default.safetensors"
_KEY = "hrtemvae"
_FORMAT = 1


@dataclass(frozen=True)
class TrainedOn:
    """The scale of the segments that a model learned from."""

    pixel_size_nm: float | None  # None where they had none, or different ones
    periods: tuple[float, float] | None  # of their lattice fringes, pixels, from the shortest to the longest


@dataclass(frozen=True)
class Model:
    """A network in evaluation mode, and what belongs to it."""

    name: str
    encoder: Encoder
    decoder: Decoder | None
    latent_order: tuple[int, ...]  # the network's own indices, ascending variance over the training set
    scaling: Scaling = "window"
    trained_on: TrainedOn = TrainedOn(None, None)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    sha256: str = ""

    @property
    def architecture(self) -> Architecture:
        return self.encoder.architecture


def save_model(model: Model, path: Path, dtype: torch.dtype = torch.float32) -> None:
    """Write ``model`` to ``path``, atomically; its tensors as ``dtype``."""
    tensors = {f"encoder.{k}": v for k, v in model.encoder.state_dict().items()}
    if model.decoder is not None:
        tensors |= {f"decoder.{k}": v for k, v in model.decoder.state_dict().items()}
    tensors = {k: v.to(dtype).contiguous() for k, v in tensors.items() if v.is_floating_point()}
    described = {
        "format": _FORMAT,
        "name": model.name,
        "architecture": model.architecture.model_dump(mode="json"),
        "scaling": model.scaling,
        "latent_order": list(model.latent_order),
        "trained_on": asdict(model.trained_on),
        "provenance": dict(model.provenance),
    }
    try:
        with replacing(path) as aside:
            aside.write_bytes(save(tensors, {_KEY: json.dumps(described)}))
    except OSError as error:
        raise InputError(f"{path}: the model can't be written ({error}); choose another place.") from error


def load_model(path: Path) -> Model:
    """Read a model file.

    Raises InputError when the file is missing, is no model file, or its tensors do not fit its architecture.
    """
    if not is_file(path):
        raise InputError(f"{path}: there is no such model file; name one with --model.")
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: not a readable model file ({error}); name another with --model.") from error
    if _KEY not in metadata:
        raise InputError(
            f"{path}: a safetensors file, but not a model of this program; "
            "import published weights with `hrtemvae model import-keras`."
        )
    try:
        described = json.loads(metadata[_KEY])
        if described["format"] != _FORMAT:
            raise InputError(f"{path}: model format {described['format']} is not {_FORMAT}; update this program.")
        architecture = Architecture.model_validate(described["architecture"])
        encoder = Encoder(architecture)
        decoder = Decoder(architecture, architecture.decoder) if architecture.decoder else None
        fill(encoder, _below("encoder.", tensors))
        if decoder is not None:
            fill(decoder, _below("decoder.", tensors))
        order = tuple(int(i) for i in described["latent_order"])
        if sorted(order) != list(range(architecture.latents)):
            raise ValueError(f"latent_order is no permutation of {architecture.latents} latents")
        return Model(
            name=described["name"],
            encoder=encoder.eval().requires_grad_(False),
            decoder=decoder.eval().requires_grad_(False) if decoder else None,
            latent_order=order,
            scaling=described["scaling"],
            trained_on=_trained_on(described.get("trained_on", {})),
            provenance=described["provenance"],
            sha256=file_sha256(path),
        )
    except (KeyError, ValueError, RuntimeError, ValidationError) as error:
        raise InputError(
            f"{path}: the model's tensors and its description do not belong together ({_first_line(error)}); "
            "name another with --model."
        ) from error


def _trained_on(told: Mapping[str, Any]) -> TrainedOn:
    periods = told.get("periods")
    return TrainedOn(told.get("pixel_size_nm"), (float(periods[0]), float(periods[1])) if periods else None)


def fill(module: torch.nn.Module, tensors: Mapping[str, torch.Tensor]) -> None:
    """Give ``module`` its ``tensors``; raises ValueError or RuntimeError where some lack or are not finite."""
    broken = [name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()]
    if broken:
        raise ValueError(f"tensors that are not finite: {broken}")
    missing, unexpected = module.load_state_dict(dict(tensors), strict=False)
    missing = [name for name in missing if not name.endswith("num_batches_tracked")]
    if missing or unexpected:
        raise ValueError(f"tensors missing: {missing}, unexpected: {unexpected}")


def _below(prefix: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def _first_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
