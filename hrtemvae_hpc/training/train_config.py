"""The configuration of a training. The defaults are the article's values."""

from functools import partial
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from hrtemvae_hpc.config import Section
from hrtemvae_hpc.model.architecture import Architecture, DecoderArchitecture
from hrtemvae_hpc.model.network import VAE, weights_of
from hrtemvae_hpc.schemas import Name


class DataSection(Section):
    """What the model learns from."""

    segments: tuple[str, ...] = Field((), description="files of `hrtemvae segments`")


class AugmentationSection(Section):
    """How a segment differs each time it is shown."""

    turn: bool = Field(False, description="rotate by a random multiple of 90 degrees")
    flip: bool = Field(False, description="mirror at random")
    noise: float = Field(0.0, ge=0, le=1, description="largest deviation of added Gaussian noise, of the range 0..1")
    contrast: float = Field(0.0, ge=0, le=2, description="largest exponent: values v become v^exp(+-contrast)")


class LossSection(Section):
    """Reconstruction + beta * divergence, summed over pixels and latents, averaged over the batch."""

    beta: float = Field(2.0, ge=0, description="weight of the divergence")
    warm_up: float = Field(0.0, ge=0, description="epochs over which beta rises from `first` to its value")
    first: float = Field(0.0, ge=0, description="beta at the start of the warm-up")
    hold: float = Field(0.0, ge=0, description="epochs that beta stays at `first` before it rises")


class OptimizerSection(Section):
    """Adam, and how long."""

    epochs: int = Field(20, ge=1, le=10**6, description="times that every segment is shown")
    batch: int = Field(32, ge=1, le=2**20, description="segments per step over all ranks")
    learning_rate: float = Field(1e-3, gt=0, description="largest rate of Adam")
    schedule: Literal["constant", "cosine"] = Field("constant", description="cosine: rises, then falls to zero")
    rise: float = Field(0.05, ge=0, lt=1, description="share of the steps over which a cosine schedule rises")
    clip_gradients: float | None = Field(None, gt=0, description="largest norm of the gradient; no limit if null")
    early_stopping: int | None = Field(
        None,
        ge=1,
        description="stop after this many epochs without a better validation loss; never if null",
    )
    precision: Literal["fp32", "bf16"] = Field("fp32", description="arithmetic of the network; losses are in fp32")
    seed: int = Field(0, ge=0, le=2**63 - 1, description="seed of initial weights, order, augmentation and sampling")


class ModelSection(Section):
    """The model file."""

    name: Name = Field("trained", description="recorded in results")
    weights: Literal["fp32", "fp16"] = Field("fp32", description="how weights are stored; fp16 halves the file")


class RunSection(Section):
    """How the work is done; none of this changes the model."""

    checkpoint_every: float = Field(
        300.0, gt=0, description="seconds between checkpoints; each epoch also ends with one"
    )
    reconstructions_every: int = Field(5, ge=1, description="epochs between drawn reconstructions")
    tensorboard: bool = Field(False, description="also write TensorBoard's files")


def _with_decoder(value: Any) -> Any:
    """The decoder's defaults for a network that is described without its decoder."""
    return {"decoder": {}, **value} if isinstance(value, dict) else value


def _trainable(network: Architecture) -> Architecture:
    if network.decoder is None:
        raise ValueError("a training needs a decoder")
    if network.decoder.kernel < 2:
        raise ValueError("the decoder's kernel must have 2 pixels or more to double an image")
    weights_of(partial(VAE, network))
    return network


class TrainConfig(Section):
    """Everything that determines a training except the segments."""

    example: ClassVar[str] = "configs/train.yaml"

    data: DataSection = DataSection()
    augmentation: AugmentationSection = AugmentationSection()
    network: Annotated[Architecture, BeforeValidator(_with_decoder), AfterValidator(_trainable)] = Architecture(
        decoder=DecoderArchitecture()
    )
    loss: LossSection = LossSection()
    optimizer: OptimizerSection = OptimizerSection()
    model: ModelSection = ModelSection()
    run: RunSection = RunSection()

    @model_validator(mode="after")
    def _beta_reaches_its_value(self) -> "TrainConfig":
        if self.loss.hold + self.loss.warm_up >= self.optimizer.epochs:
            raise ValueError("loss.hold and loss.warm_up leave no epoch at the full beta; train for more epochs")
        return self
