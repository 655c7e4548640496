"""The training loop: global batches, each shared among the ranks, from any position to the end of its epoch."""

import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NoReturn

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from hrtemvae_hpc.errors import InputError, Stopped
from hrtemvae_hpc.model.network import VAE
from hrtemvae_hpc.ranks.guard import StopRequest, doing
from hrtemvae_hpc.ranks.world import World
from hrtemvae_hpc.training.batches import Segments, augment, epoch_order, generator, share
from hrtemvae_hpc.training.checkpoint import Position
from hrtemvae_hpc.training.objective import beta_at, divergence, entropy_floor, learning_rate_at, reconstruction_loss
from hrtemvae_hpc.training.ranks import sum_over_ranks
from hrtemvae_hpc.training.train_config import TrainConfig

_EXCHANGE_EVERY = 16  # steps after which the ranks exchange losses and signals
_ADAM_EPSILON = 1e-7  # Keras' default, which the published training used


@dataclass(frozen=True)
class Losses:
    """Means over segments, in nats."""

    reconstruction: float
    divergence: float


@dataclass(frozen=True)
class EpochState:
    """What all ranks know after some steps of an epoch."""

    shown: int  # segments of this epoch
    stop: bool  # some rank was asked to stop
    save: bool  # a checkpoint is due
    last: bool  # the epoch has ended


class Trainer:
    """A network, its optimiser, and this rank's share of every batch."""

    def __init__(self, world: World, config: TrainConfig, segments: Segments, vae: VAE, device: torch.device) -> None:
        """``vae`` must hold the same weights on every rank."""
        self.world = world
        self.config = config
        self.segments = segments
        self.device = device
        self.vae = vae.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        o = config.optimizer
        self.optimizer = torch.optim.Adam(self.vae.parameters(), o.learning_rate, eps=_ADAM_EPSILON, fused=True)
        self.steps_per_epoch = math.ceil(len(segments.training) / o.batch)
        if device.type == "cuda":
            torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
            torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = False, True
        self._network: torch.nn.Module = self.vae
        if world.size > 1:
            self._network = DistributedDataParallel(self.vae, gradient_as_bucket_view=True)

    def run_epoch(self, position: Position, stop: StopRequest, due: Callable[[], bool]) -> Iterator[EpochState]:
        """Train from ``position`` to the end of its epoch; yields every few steps, on all ranks at the same step.

        ``position`` is up to date then. ``due`` says on rank 0 whether a checkpoint is due. Raises InputError when a
        loss is not finite.
        """
        self._network.train()
        sums = torch.zeros(2, dtype=torch.float64, device=self.device)
        o, epoch = self.config.optimizer, position.epoch
        order = epoch_order(self.segments.training, o.seed, epoch)
        began, spent = time.monotonic(), position.seconds
        for step, (x, count) in enumerate(self._batches(order, position.step), position.step):
            doing(f"training, epoch {epoch + 1}, step {step + 1}")
            sums += self._step(x, count, epoch, step)
            last = step + 1 == self.steps_per_epoch
            if last or (step + 1) % _EXCHANGE_EVERY == 0:
                asked, wanted = self._exchange(sums, position, stop, due)
                position.step, position.seconds = step + 1, spent + time.monotonic() - began
                yield EpochState(min((step + 1) * o.batch, len(order)), asked, wanted, last)

    def losses(self, position: Position) -> Losses:
        """The losses of the epoch that ended at ``position``, averaged over its segments."""
        return Losses(*(total / len(self.segments.training) for total in position.sums))

    def _exchange(
        self, sums: Tensor, position: Position, stop: StopRequest, due: Callable[[], bool]
    ) -> tuple[bool, bool]:
        """Add ``sums`` of all ranks to the position; returns whether any was asked to stop, and whether to save."""
        flags = torch.tensor([bool(stop), self.world.is_root and due()], dtype=torch.float64, device=self.device)
        weights = torch.stack([p.detach().sum() for p in self.vae.parameters()]).sum().double()
        together = sum_over_ranks(torch.cat([sums, flags, weights[None]])).tolist()
        sums.zero_()
        if not all(map(math.isfinite, together)):
            self.world.raise_once(
                InputError(
                    f"losses or weights are not finite in epoch {position.epoch + 1}, after step {position.step}; "
                    "lower optimizer.learning_rate or set optimizer.clip_gradients, and start over with --restart. "
                    "The last checkpoint and the model of the best epoch are kept."
                )
            )
        position.sums = [a + b for a, b in zip(position.sums, together[:2], strict=True)]
        return together[2] > 0, together[3] > 0

    def stop(self, position: Position) -> NoReturn:
        """End every rank at a position that is saved."""
        where = f"after {position.epoch} of {self.config.optimizer.epochs} epochs and {position.step} steps"
        self.world.raise_once(Stopped(f"stopped {where}; run the same command again to resume."))

    def _batches(self, order: np.ndarray, first_step: int) -> Iterator[tuple[Tensor, int]]:
        """This rank's part of each batch from ``first_step`` on, and the size of the batch; loaded one step ahead."""
        batch = self.config.optimizer.batch
        starts = range(first_step * batch, len(order), batch)

        def load(start: int) -> tuple[Tensor, int]:
            whole = order[start : start + batch]
            x = self.segments.load(whole[share(len(whole), self.world.rank, self.world.size)])
            return (x.pin_memory() if self.device.type == "cuda" else x), len(whole)

        with ThreadPoolExecutor(1, "batches") as pool:
            ahead = pool.submit(load, starts[0]) if starts else None
            for following in [*starts[1:], None]:
                if ahead is None:
                    return
                ready, ahead = ahead.result(), None if following is None else pool.submit(load, following)
                yield ready

    def _step(self, x: Tensor, count: int, epoch: int, step: int) -> Tensor:
        """One step of the optimiser; returns the sums of both losses over this rank's part of ``count`` segments."""
        o, loss = self.config.optimizer, self.config.loss
        random = generator(self.device, o.seed, epoch, step)
        part = share(count, self.world.rank, self.world.size)
        x = augment(
            x.to(self.device, non_blocking=True), count, part, self.config.augmentation, random, self.segments.scaling
        )
        x = x.contiguous(memory_format=torch.channels_last)
        noise = torch.randn(count, self.config.network.latents, generator=random, device=self.device)[part]
        logits, mean, log_var = self._forward(self._network, x, noise)
        reconstruction, kl = reconstruction_loss(logits, x), divergence(mean, log_var)
        at = epoch * self.steps_per_epoch + step
        beta = beta_at(at / self.steps_per_epoch, loss)
        if o.schedule == "cosine":
            rate = learning_rate_at(at, o.epochs * self.steps_per_epoch, o.learning_rate, o.rise)
            self.optimizer.param_groups[0]["lr"] = rate
        self.optimizer.zero_grad()
        # DistributedDataParallel averages gradients over ranks; the loss is a mean over the whole batch.
        ((reconstruction + beta * kl) * (self.world.size / count)).backward()  # type: ignore[no-untyped-call]
        if o.clip_gradients is not None:
            torch.nn.utils.clip_grad_norm_(self.vae.parameters(), o.clip_gradients)
        self.optimizer.step()
        return torch.stack([reconstruction, kl]).detach().double()

    def _forward(self, network: torch.nn.Module, x: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        with self._arithmetic():
            logits, mean, log_var = network(x, noise)
        return logits.float(), mean.float(), log_var.float()

    def _arithmetic(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.optimizer.precision == "bf16")

    @torch.no_grad()
    def share_state(self) -> None:
        """Copy the network and the optimiser's state of rank 0 to all ranks."""
        if self.world.size == 1:
            return
        for value in self.vae.state_dict().values():
            dist.broadcast(value, 0)
        for parameter in self.vae.parameters():
            state = self.optimizer.state[parameter]
            if not self.world.is_root:
                state["step"] = torch.zeros((), device=parameter.device)
                state |= {name: torch.zeros_like(parameter) for name in ("exp_avg", "exp_avg_sq")}
            for name in ("step", "exp_avg", "exp_avg_sq"):
                dist.broadcast(state[name], 0)

    @torch.no_grad()
    def validate(self) -> tuple[Losses, np.ndarray]:
        """Losses over the validation segments as they are, decoded from the mean of their latents, of all ranks.

        Also the variance [latents] of each latent's mean over them.
        """
        self.vae.eval()
        latents, count = self.config.network.latents, len(self.segments.validation)
        sums = torch.zeros(2, dtype=torch.float64, device=self.device)
        moments = torch.zeros(2, latents, dtype=torch.float64, device=self.device)
        for x in self._local_batches(self.segments.validation):
            logits, mean, log_var = self._forward(self.vae, x, torch.zeros(len(x), latents, device=self.device))
            sums += torch.stack([reconstruction_loss(logits, x), divergence(mean, log_var)]).double()
            moments += _moments(mean)
        losses = Losses(*(sum_over_ranks(sums) / count).tolist())
        return losses, _variance(sum_over_ranks(moments), count)

    @torch.no_grad()
    def latent_variance(self) -> np.ndarray:
        """Variance [latents] of each latent's mean over the training segments, float64, of all ranks."""
        self.vae.eval()
        latents = self.config.network.latents
        moments = torch.zeros(2, latents, dtype=torch.float64, device=self.device)
        for x in self._local_batches(self.segments.training):
            with self._arithmetic():
                mean = self.vae.encoder(x)[0]
            moments += _moments(mean)
        return _variance(sum_over_ranks(moments), len(self.segments.training))

    def entropy_floor(self) -> float:
        """Entropy of the validation segments, nats per segment: the least cross-entropy there can be. By all ranks."""
        floor = torch.zeros(1, dtype=torch.float64, device=self.device)
        for x in self._local_batches(self.segments.validation):
            floor += entropy_floor(x).double()
        return float(sum_over_ranks(floor)) / len(self.segments.validation)

    def _local_batches(self, which: np.ndarray) -> Iterator[Tensor]:
        local = which[share(len(which), self.world.rank, self.world.size)]
        for x in self.segments.batches(local):
            yield x.to(self.device).contiguous(memory_format=torch.channels_last)


def _moments(mean: Tensor) -> Tensor:
    wide = mean.double()
    return torch.stack([wide.sum(0), (wide**2).sum(0)])


def _variance(moments: Tensor, count: int) -> np.ndarray:
    first, second = moments / count
    return np.asarray((second - first**2).cpu().numpy())
