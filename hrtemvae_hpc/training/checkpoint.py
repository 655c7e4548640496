"""The state of a training on disk: one safetensors file, complete when it appears, to resume from bit for bit."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field, model_validator
from safetensors import SafetensorError

from hrtemvae_hpc.errors import InputError
from hrtemvae_hpc.files import replacing, saving
from hrtemvae_hpc.model.network import VAE
from hrtemvae_hpc.model.tensor_file import open_tensors, read_tensors
from hrtemvae_hpc.schemas import Described, mistake
from hrtemvae_hpc.sealed import check_seal, pack
from hrtemvae_hpc.training.train_config import LossSection

_KEY = "hrtemvae_training"
_MEASURED = {"reconstruction", "divergence", "validation_reconstruction", "validation_divergence", "active_latents"}


@dataclass
class Position:
    """How far a training has come. Random numbers follow from epoch and step, so they have no state of their own."""

    epoch: Annotated[int, Field(ge=0)] = 0  # epochs that are complete
    step: Annotated[int, Field(ge=0)] = 0  # steps of the next epoch that are done
    # Of its losses so far, over segments.
    sums: Annotated[list[float], Field(min_length=2, max_length=2)] = field(default_factory=lambda: [0.0, 0.0])
    seconds: Annotated[float, Field(ge=0)] = 0.0  # spent so far
    history: list[dict[str, int | float]] = field(default_factory=list)  # one entry per epoch

    def end_epoch(self, entry: dict[str, Any]) -> None:
        """Go to the start of the next epoch, with ``entry`` as the record of this one."""
        self.history.append(entry)
        self.epoch, self.step, self.sums, self.seconds = self.epoch + 1, 0, [0.0, 0.0], 0.0

    def best_epoch(self, loss: LossSection) -> int:
        """The epoch, counted from 1, with the least validation loss; 0 before one was trained at the full beta."""
        settled = [h for h in self.history if h["epoch"] > loss.hold + loss.warm_up]
        losses = [h["validation_reconstruction"] + loss.beta * h["validation_divergence"] for h in settled]
        return int(settled[losses.index(min(losses))]["epoch"]) if losses else 0


class _Description(Described):
    """What a checkpoint says besides its tensors."""

    key: str
    position: Position

    @model_validator(mode="after")
    def _epochs_are_known(self) -> "_Description":
        history = self.position.history
        if len(history) != self.position.epoch or any(h.get("epoch") != i for i, h in enumerate(history, 1)):
            raise ValueError("position.history is not that of its epochs")
        if not all(h.keys() >= _MEASURED for h in history):
            raise ValueError("position.history lacks losses")
        return self


def save_checkpoint(path: Path, key: str, vae: VAE, optimizer: torch.optim.Adam, position: Position) -> None:
    """Write network, optimiser and ``position`` of the training ``key`` to ``path``, atomically.

    Raises Blocked if the disk is full, RankFailed if it fails; what was at ``path`` is then still there.
    """
    tensors = {f"network.{name}": value for name, value in vae.state_dict().items()}
    names = [name for name, _ in vae.named_parameters()]
    for name, parameter in zip(names, optimizer.param_groups[0]["params"], strict=True):
        tensors |= {f"adam.{name}.{k}": v for k, v in optimizer.state.get(parameter, {}).items()}
    described = {_KEY: json.dumps({"key": key, "position": asdict(position)})}
    packed = pack({name: t.detach().contiguous().cpu().numpy() for name, t in tensors.items()}, described)
    advice = "make room and run the same command again; the previous checkpoint is kept."
    with saving(path, advice), replacing(path) as aside:
        aside.write_bytes(packed)


def load_checkpoint(path: Path, key: str, vae: VAE, optimizer: torch.optim.Adam) -> Position:
    """Load network and optimiser from ``path``, and return its position.

    Raises InputError if it can't be read or belongs to another training than ``key``.
    """
    try:
        with open_tensors(path) as file:
            described = _Description.model_validate_json((file.metadata() or {}).get(_KEY, ""))
            if described.key != key:
                raise InputError(
                    f"{path.parent}: holds a training with another configuration or other segments; "
                    "choose another output with -o, or start over with --restart."
                )
            tensors = read_tensors(file, _expected(vae, set(file.keys())))
            check_seal({name: tensor.numpy() for name, tensor in tensors.items()}, file.metadata() or {})
    except (OSError, SafetensorError, ValueError) as error:
        raise InputError(f"{path}: not a readable checkpoint ({mistake(error)}); start over with --restart.") from error
    vae.load_state_dict({n.removeprefix("network."): t for n, t in tensors.items() if n.startswith("network.")})
    for name, parameter in vae.named_parameters():
        prefix = f"adam.{name}."
        state = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
        # Fused Adam keeps its step count on the parameter's device.
        optimizer.state[parameter] = {
            k: t.to(parameter.device) if t.ndim == 0 else torch.empty_like(parameter).copy_(t) for k, t in state.items()
        }
    return described.position


def _expected(vae: VAE, names: set[str]) -> dict[str, torch.Tensor]:
    """The tensors of a checkpoint; Adam has a state only after its first step."""
    expected = {f"network.{name}": tensor for name, tensor in vae.state_dict().items()}
    if any(name.startswith("adam.") for name in names):
        for name, parameter in vae.named_parameters():
            step = torch.zeros((), dtype=torch.float32)
            expected |= {
                f"adam.{name}.{k}": t for k, t in (("step", step), ("exp_avg", parameter), ("exp_avg_sq", parameter))
            }
    return expected
