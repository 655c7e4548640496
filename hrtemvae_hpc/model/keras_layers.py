"""Layers as Keras describes and stores them: what this program must know about each kind."""

from dataclasses import dataclass
from typing import Annotated, Any, Generic, Literal, TypeVar

import numpy as np
from pydantic import BeforeValidator, Field, ValidationError
from pydantic_core import from_json

from hrtemvae_hpc.model.architecture import Kernel, Width
from hrtemvae_hpc.schemas import Described, Name, mistake, short

ARRAYS = {
    "Conv2D": 2,
    "Conv2DTranspose": 2,
    "Dense": 2,
    "BatchNormalization": 4,
}  # number that a layer of each kind has
LARGEST = 2**28  # bytes of all arrays of a network
_MOST_LAYERS = 1000


def _side(value: Any) -> Any:
    """The one number in a pair of equal ones."""
    if not isinstance(value, list) or len(value) != 2 or value[0] != value[1]:
        raise ValueError("expected two equal numbers")
    return value[0]


class LayerConfig(Described):
    """What Keras says about a layer of any kind."""

    name: Name
    batch_shape: Annotated[list[int | None], Field(max_length=5)] | None = None
    batch_input_shape: Annotated[list[int | None], Field(max_length=5)] | None = None


class Convolution(LayerConfig):
    """Forward or transposed."""

    filters: Width
    kernel_size: Annotated[Kernel, BeforeValidator(_side)]
    strides: Annotated[Kernel, BeforeValidator(_side)]
    dilation_rate: Annotated[Literal[1], BeforeValidator(_side)]
    padding: Literal["same"]
    data_format: Literal["channels_last"]
    use_bias: Literal[True]
    activation: Literal["relu", "linear", "sigmoid"]


class Dense(LayerConfig):
    units: int
    activation: Literal["relu", "linear"]


class BatchNormalization(LayerConfig):
    epsilon: float


class Activation(LayerConfig):
    activation: Literal["relu"]


class Reshape(LayerConfig):
    target_shape: Annotated[list[int], Field(min_length=3, max_length=3)]


_KINDS: dict[str, type[LayerConfig]] = {
    "Conv2D": Convolution,
    "Conv2DTranspose": Convolution,
    "Dense": Dense,
    "BatchNormalization": BatchNormalization,
    "Activation": Activation,
    "Reshape": Reshape,
}
C = TypeVar("C", bound=LayerConfig)


@dataclass(frozen=True)
class Layer(Generic[C]):
    """One layer of a network, with its arrays in the order in which Keras creates them."""

    kind: str
    config: C
    arrays: list[np.ndarray]

    @property
    def name(self) -> str:
        return short(self.config.name)


class _Entry(Described):
    class_name: Name
    config: dict[str, Any]


class _Layers(Described):
    layers: Annotated[list[_Entry], Field(max_length=_MOST_LAYERS)]


class _Network(Described):
    config: _Layers


def describe(network: Any) -> list[tuple[str, LayerConfig]]:
    """Kind and configuration of each layer of a ``network`` as ``parse`` returns it.

    Raises ValueError if it is not a network, or a layer of a known kind is not described as it should be.
    """
    layers = []
    for entry in _Network.model_validate(network).config.layers:
        try:
            layers.append((entry.class_name, _KINDS.get(entry.class_name, LayerConfig).model_validate(entry.config)))
        except ValidationError as error:
            raise ValueError(f"layer {short(entry.config.get('name'))}: {mistake(error)}") from error
    return layers


def parse(text: bytes) -> Any:
    """What Keras wrote as JSON, with lists for its tuples. Raises ValueError if it isn't JSON."""
    return _without_tuples(from_json(text))


def _without_tuples(value: Any) -> Any:
    if isinstance(value, dict):
        if value.get("class_name") == "__tuple__":
            return _without_tuples(value.get("items"))
        return {k: _without_tuples(v) for k, v in value.items()}
    return [_without_tuples(v) for v in value] if isinstance(value, list) else value
