"""The model file: one safetensors file whose metadata describe what the network is and where it came from.

Tensors may be stored in half precision to keep a file small; they are computed with in float32.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import ConfigDict, Field, field_validator, model_validator
from safetensors import SafetensorError
from safetensors.torch import save

from hrtemvae_hpc.errors import InputError
from hrtemvae_hpc.files import file_sha256, is_file, replacing
from hrtemvae_hpc.model.architecture import Architecture
from hrtemvae_hpc.model.bundled import BUNDLED
from hrtemvae_hpc.model.network import Decoder, Encoder, filled, weights_of
from hrtemvae_hpc.model.tensor_file import open_tensors, read_tensors
from hrtemvae_hpc.outputs import MODEL_KEY
from hrtemvae_hpc.schemas import Described, Groups, Name, Scaling, mistake, short

DEFAULT_MODEL = BUNDLED["published"]
_FORMAT = 1


@dataclass(frozen=True)
class TrainedOn:
    """The scale of the segments that a model learned from."""

    pixel_size_nm: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = (
        None  # None if they had none, or different ones
    )


@dataclass(frozen=True)
class Model:
    """A network in evaluation mode, and what belongs to it."""

    name: str
    encoder: Encoder
    decoder: Decoder | None
    latent_order: tuple[int, ...]  # the network's own indices, ascending variance over the training set
    scaling: Scaling = "window"
    trained_on: TrainedOn = TrainedOn()
    provenance: Mapping[str, Any] = field(default_factory=dict)
    groups: Mapping[str, tuple[int, ...]] = field(default_factory=dict)  # latents by what they follow, if known
    sha256: str = ""  # of the file without its groups: the same weights stay the same model

    @property
    def architecture(self) -> Architecture:
        return self.encoder.architecture


def save_model(model: Model, path: Path, dtype: torch.dtype = torch.float32) -> None:
    """Write ``model`` to ``path``, atomically; its tensors as ``dtype``. Raises OSError if that fails."""
    tensors = _put_below("encoder.", model.encoder.state_dict())
    if model.decoder is not None:
        tensors |= _put_below("decoder.", model.decoder.state_dict())
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
    with replacing(path) as aside:
        aside.write_bytes(_file(tensors, described, model.groups))


def store_groups(path: Path, groups: Mapping[str, tuple[int, ...]]) -> None:
    """Keep ``groups`` in the model file ``path``, in place of those it has; all else stays to the bit.

    Raises OSError if that fails.
    """
    with open_tensors(path) as file:
        contents = _file(*_stored(file), groups)
    with replacing(path) as aside:
        aside.write_bytes(contents)


def _file(
    tensors: dict[str, torch.Tensor], described: Mapping[str, Any], groups: Mapping[str, tuple[int, ...]] | None = None
) -> bytes:
    whole = {**described, "groups": groups} if groups else described
    return save(tensors, {MODEL_KEY: json.dumps(whole)})


def _stored(file: Any) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Tensors and description of an open model file, as they are stored, without its groups."""
    described = json.loads(file.metadata()[MODEL_KEY])
    described.pop("groups", None)
    return {name: file.get_tensor(name) for name in file.keys()}, described  # noqa: SIM118


class _Source(Described):
    """A file of segments that a model learned from."""

    file: str
    segments: int
    sources: int


class _Provenance(Described):
    """What this program reads of a model's history; anything else is kept as it is."""

    model_config = ConfigDict(extra="allow")

    variance_over_training: Annotated[list[float], Field(max_length=4096)] | None = None
    training_key: str | None = None
    segments: Annotated[list[_Source], Field(max_length=4096)] | None = None
    history: list[dict[str, Any]] | None = None

    @model_validator(mode="after")
    def _numbers_are_finite(self) -> "_Provenance":
        json.dumps(self.model_dump(), allow_nan=False)
        return self


class _Description(Described):
    """What a model file says besides its tensors."""

    format: Literal[1]
    name: Name
    architecture: Architecture
    scaling: Scaling
    latent_order: Annotated[tuple[int, ...], Field(max_length=4096)]
    trained_on: TrainedOn = TrainedOn()
    provenance: _Provenance
    groups: Groups = Field(default_factory=dict)

    @field_validator("format", mode="before")
    @classmethod
    def _is_known(cls, value: Any) -> Any:
        if value != _FORMAT:
            raise ValueError(f"is not {_FORMAT}; update this program")
        return value

    @model_validator(mode="after")
    def _latents_agree(self) -> "_Description":
        latents = self.architecture.latents
        if sorted(self.latent_order) != list(range(latents)):
            raise ValueError(f"latent_order is not a permutation of {latents} latents")
        variance = self.provenance.variance_over_training
        if variance is not None and len(variance) != latents:
            raise ValueError(f"provenance.variance_over_training is not that of {latents} latents")
        if any(latent >= latents for group in self.groups.values() for latent in group):
            raise ValueError(f"groups name latents beyond the {latents} of the model")
        return self


def model_path(model: str | Path | None) -> Path:
    """The file of ``model``, which is a file or the name of a bundled one; of the default one if it is None."""
    return DEFAULT_MODEL if model is None else BUNDLED.get(str(model), Path(model))


def load_model(model: str | Path) -> Model:
    """Read a model file, or a bundled model by its name.

    Raises InputError when the file is missing, isn't a model file, or its tensors do not fit its architecture.
    """
    path = model_path(model)
    if not is_file(path):
        raise InputError(f"{path}: there is no such model file; name one with --model, or one of {', '.join(BUNDLED)}.")
    try:
        with open_tensors(path) as file:
            text = (file.metadata() or {}).get(MODEL_KEY)
            if text is None:
                raise InputError(
                    f"{path}: a safetensors file, but not a model of this program; "
                    "import published weights with `hrtemvae model import-keras`."
                )
            described = _Description.model_validate_json(text)
            a = described.architecture
            encoder, decoder = partial(Encoder, a), partial(Decoder, a, a.decoder) if a.decoder else None
            expected = _put_below("encoder.", weights_of(encoder))
            expected |= _put_below("decoder.", weights_of(decoder)) if decoder else {}
            tensors = read_tensors(file, expected)
            own = hashlib.sha256(_file(*_stored(file))).hexdigest() if described.groups else file_sha256(path)
        return Model(
            name=described.name,
            encoder=filled(encoder, _below("encoder.", tensors)),
            decoder=filled(decoder, _below("decoder.", tensors)) if decoder else None,
            latent_order=described.latent_order,
            scaling=described.scaling,
            trained_on=described.trained_on,
            provenance=described.provenance.model_dump(exclude_unset=True),
            groups=described.groups,
            sha256=own,
        )
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: not a readable model file ({short(error)}); name another with --model.") from error
    except ValueError as error:
        raise InputError(
            f"{path}: the model's tensors and its description do not belong together ({mistake(error)}); "
            "name another with --model."
        ) from error


def _put_below(prefix: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {f"{prefix}{name}": tensor for name, tensor in tensors.items()}


def _below(prefix: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
