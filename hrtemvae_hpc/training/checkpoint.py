"""The state of a training on disk: one safetensors file, complete when it appears, from which it goes on to the bit."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from hrtemvae_hpc.errors import InputError, RankFailed
from hrtemvae_hpc.files import replacing
from hrtemvae_hpc.model.network import VAE
from hrtemvae_hpc.training.train_config import LossSection

_KEY = "hrtemvae_training"


@dataclass
class Position:
    """How far a training is. Random numbers follow from epoch and step, so that they need no state of their own."""

    epoch: int = 0  # epochs that are complete
    step: int = 0  # steps of the next epoch that are done
    sums: list[float] = field(default_factory=lambda: [0.0, 0.0])  # of its losses so far, over segments
    seconds: float = 0.0  # spent so far
    history: list[dict[str, Any]] = field(default_factory=list)  # one entry an epoch

    def end_epoch(self, entry: dict[str, Any]) -> None:
        """Go to the start of the next epoch, with ``entry`` as what is known of this one."""
        self.history.append(entry)
        self.epoch, self.step, self.sums, self.seconds = self.epoch + 1, 0, [0.0, 0.0], 0.0

    def best_epoch(self, loss: LossSection) -> int:
        """The epoch, counted from 1, with the least validation loss; 0 before one was trained at the full beta."""
        settled = [h for h in self.history if h["epoch"] > loss.hold + loss.warm_up]
        losses = [h["validation_reconstruction"] + loss.beta * h["validation_divergence"] for h in settled]
        return int(settled[losses.index(min(losses))]["epoch"]) if losses else 0


def save_checkpoint(path: Path, key: str, vae: VAE, optimizer: torch.optim.Adam, position: Position) -> None:
    """Write network, optimiser and ``position`` of the training ``key`` to ``path``, atomically.

    Raises RankFailed where the disk is full or fails; what was at ``path`` is then still there.
    """
    tensors = {f"network.{name}": value for name, value in vae.state_dict().items()}
    names = [name for name, _ in vae.named_parameters()]
    for name, parameter in zip(names, optimizer.param_groups[0]["params"], strict=True):
        tensors |= {f"adam.{name}.{k}": v for k, v in optimizer.state.get(parameter, {}).items()}
    described = {_KEY: json.dumps({"key": key, "position": asdict(position)})}
    try:
        with replacing(path) as aside:
            save_file({name: t.detach().contiguous().cpu() for name, t in tensors.items()}, aside, described)
    except (OSError, SafetensorError) as error:
        raise RankFailed(
            f"{path}: the checkpoint can't be written ({error}); make room and run the same command again, the one "
            "before it is kept."
        ) from error


def load_checkpoint(path: Path, key: str, vae: VAE, optimizer: torch.optim.Adam) -> Position:
    """Give network and optimiser what ``path`` holds, and return its position.

    Raises InputError where it can't be read or belongs to another training than ``key``.
    """
    try:
        with safe_open(path, "pt") as file:
            described = json.loads((file.metadata() or {})[_KEY])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise InputError(f"{path}: not a readable checkpoint ({error}); begin anew with --restart.") from error
    if described["key"] != key:
        raise InputError(
            f"{path.parent}: holds a training with another configuration or other segments; "
            "choose another output with -o, or begin anew with --restart."
        )
    network = {n.removeprefix("network."): t for n, t in tensors.items() if n.startswith("network.")}
    vae.load_state_dict(network)
    parameters = dict(vae.named_parameters())
    for name, parameter in parameters.items():
        prefix = f"adam.{name}."
        state = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
        # Fused Adam keeps its step count on the parameter's device.
        optimizer.state[parameter] = {
            k: t.to(parameter.device) if t.ndim == 0 else torch.empty_like(parameter).copy_(t) for k, t in state.items()
        }
    return Position(**described["position"])
