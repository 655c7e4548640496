"""A training from configuration to model file, on one rank or many, resuming where a stopped one ended."""

import math
import time
import traceback
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hrtemvae_hpc import __version__
from hrtemvae_hpc.errors import InputError, RankFailed
from hrtemvae_hpc.files import failure_of
from hrtemvae_hpc.identity import digest_of
from hrtemvae_hpc.model.model_file import Model, load_model
from hrtemvae_hpc.model.network import VAE
from hrtemvae_hpc.outputs import Output, check_outputs, is_model
from hrtemvae_hpc.processor import has_bfloat16
from hrtemvae_hpc.ranks.claim import ClaimedFolder
from hrtemvae_hpc.ranks.guard import StopRequest
from hrtemvae_hpc.ranks.progress import Progress, format_seconds, say
from hrtemvae_hpc.ranks.resources import bind_device, compute_threads, device_name, keep_freed_memory
from hrtemvae_hpc.ranks.saved import note_saved
from hrtemvae_hpc.ranks.world import World
from hrtemvae_hpc.training.batches import Segments, generator
from hrtemvae_hpc.training.checkpoint import Position, load_checkpoint, save_checkpoint
from hrtemvae_hpc.training.objective import initialize
from hrtemvae_hpc.training.pictures import TensorBoard, draw_losses, write_losses, write_reconstructions
from hrtemvae_hpc.training.promotion import ACTIVE, NothingLearned, as_model, store, validate_saved
from hrtemvae_hpc.training.train_config import TrainConfig
from hrtemvae_hpc.training.trainer import Trainer

CHECKPOINT = "checkpoint.safetensors"
BEST = "best.safetensors"
_CANDIDATE = "candidate.safetensors"
_NAMES = [
    CHECKPOINT, BEST, _CANDIDATE, r"losses\.(csv|png)", r"reconstructions-\d{4,}\.png",
    r"tensorboard/events\.out\.tfevents\.[\w.-]+",
]  # fmt: skip
_SHOWN = 24  # validation segments whose reconstructions are drawn
_FULL = 128  # segments per step that are worth the narrow type on a GPU
_DRAW_EVERY_S = 30.0  # the curve of losses, which takes longer to draw than a short epoch


class Training:
    """One training on this rank: its parts, and the files it leaves in ``folder``."""

    def __init__(self, world: World, config: TrainConfig, output: Path, init: Path | None) -> None:
        self.world = world
        self.config = config
        self.output = output
        self.folder = output.with_name(output.name + ".training")
        self.claimed = ClaimedFolder(self.folder, "training", _NAMES)
        self.segments = Segments([Path(p) for p in config.data.segments], config.network.window)
        if config.network.padding == "valid" and self.segments.scaling == "window":
            raise InputError(
                f"{config.data.segments[0]}: each segment is scaled by itself, but a network without padding needs "
                "pixels that have one value in all windows; cut them with --scaling local, or set network.padding to "
                "same."
            )
        if init is not None and self.folder.absolute() in init.absolute().parents:
            raise InputError(f"{init}: lies in the folder of this training, which clears it; copy it elsewhere first.")
        self.initial = None if init is None else load_model(init)
        if self.initial and (self.initial.architecture != config.network or self.initial.decoder is None):
            raise InputError(f"{init}: its network differs from the configuration's; set network: to its values.")
        if self.initial and (self.initial.scaling == "local") != (self.segments.scaling == "local"):
            raise InputError(
                f"{init}: was trained on pixels scaled by {self.initial.scaling}, but these segments are scaled by "
                f"{self.segments.scaling}; cut them as it needs them, or start without it."
            )
        self.key = self._key()
        if config.run.tensorboard and not find_spec("tensorboard"):
            raise InputError(
                "run.tensorboard: TensorBoard isn't installed; install the extra [training], or set it to false."
            )
        decoder = config.network.decoder
        norms = {config.network.normalization, decoder.normalization if decoder else "none"}
        if norms != {"none"} and world.size > 1 and not torch.cuda.is_available():
            raise InputError("batch normalisation over several ranks needs GPUs; train this network on one rank.")

    def _key(self) -> str:
        """Identified by everything that determines the numbers of the model."""
        return digest_of(
            {
                "configuration": self.config.model_dump(mode="json", exclude={"run", "data"}),
                "segments": self.segments.sha256,
                "init": self.initial.sha256 if self.initial else None,
                "version": __version__,
            }
        )

    def check_same_everywhere(self) -> None:
        """Raise InputError if a rank sees other segments or another model under the same names."""
        self.world.check_same(
            self.key,
            lambda rank, _: (
                f"{rank} sees different segments or a different initial model than rank 0 under the same names; make "
                "it see the same files."
            ),
        )

    def is_done(self) -> bool:
        """Whether the output holds the model of this very training."""
        try:
            return load_model(self.output).provenance.get("training_key") == self.key
        except InputError:
            return False

    def network(self) -> VAE:
        """The network before the first step, the same on every rank."""
        vae = VAE(self.config.network)
        if self.initial is not None and self.initial.decoder is not None:
            vae.encoder.load_state_dict(self.initial.encoder.state_dict())
            vae.decoder.load_state_dict(self.initial.decoder.state_dict())
        else:
            initialize(vae, generator(torch.device("cpu"), self.config.optimizer.seed))
        vae.requires_grad_(True)
        if self.world.size == 1:
            return vae
        return torch.nn.SyncBatchNorm.convert_sync_batchnorm(vae)  # type: ignore[no-untyped-call, no-any-return]


def train(world: World, config: TrainConfig, output: Path, init: Path | None, restart: bool, stop: StopRequest) -> None:
    """Train a model as ``config`` asks for and write it to ``output`` once it has proved itself on validation segments.

    A model already there stays in use until then. Losses, reconstructions and checkpoints are kept beside it. Resumes
    from the last checkpoint of the same training, unless ``restart``. Raises InputError, Stopped or RankFailed.
    """
    if refusal := try_to_train(world, config, output, init, restart, stop):
        world.raise_once(NothingLearned(refusal))


def try_to_train(
    world: World, config: TrainConfig, output: Path, init: Path | None, restart: bool, stop: StopRequest
) -> str:
    """As ``train``, but a network that has learned nothing is no error: every rank gets the sentence that says so.

    The sentence is empty if the model is in use.
    """
    began = time.monotonic()
    inputs = [Path(p) for p in config.data.segments] + ([] if init is None else [init])
    world.on_root(lambda: check_outputs([Output(output, "the model", is_model)], inputs))
    training = world.on_all(lambda: Training(world, config, output, init))
    training.check_same_everywhere()
    if not restart and world.on_root(training.is_done):
        if world.is_root:
            say(f"{output} already is the model of this training; --restart would train it again.")
        return ""
    world.on_root(lambda: _take_folder(training, restart))
    try:
        device = bind_device(world)
        torch.set_num_threads(compute_threads(world))
        keep_freed_memory()
        trainer = Trainer(world, config, training.segments, training.network(), device)
        with training.claimed:
            position = _begin(training, trainer)
            _announce(training, device, position)
            _run_epochs(training, trainer, position, stop)
            return _finish(training, trainer, position, began)
    except (RuntimeError, OSError) as error:  # of a device, of the ranks' connections, of the disk
        if isinstance(error, RuntimeError):
            traceback.print_exc()
        what = " ".join(str(error).split())[:300]
        kind = failure_of(error) if isinstance(error, OSError) else RankFailed
        raise kind(
            f"rank {world.rank} on {world.host} failed: {what} The last checkpoint is kept: run the same command again "
            "to resume."
        ) from error


def _take_folder(training: Training, restart: bool) -> None:
    """Claim the folder of a training for this run, and clear it unless an earlier training is resumed."""
    training.claimed.take()
    if restart or not (training.folder / CHECKPOINT).exists():
        training.claimed.clear()


def _begin(training: Training, trainer: Trainer) -> Position:
    """Where the checkpoint is, if there is one, on every rank; only rank 0 needs to see it."""

    def load() -> Position:
        path = training.folder / CHECKPOINT
        return load_checkpoint(path, training.key, trainer.vae, trainer.optimizer) if path.exists() else Position()

    position = training.world.on_root(load)
    if position.epoch or position.step:
        trainer.share_state()
    return position


def _announce(training: Training, device: torch.device, position: Position) -> None:
    world, segments, o = training.world, training.segments, training.config.optimizer
    places = world.allgather(f"{world.host} {device_name(device)}, {torch.get_num_threads()} threads")
    if not world.is_root:
        return
    say(
        f"{len(segments.training):,} segments to train on, {len(segments.validation):,} to validate on; "
        f"{o.epochs} epochs, batches of {o.batch}, {o.precision}."
    )
    for rank, place in enumerate(places):
        say(f"rank {rank}: {place}")
    if advice := _advice(device, o.precision, o.batch // world.size):
        say(f"advice: {advice}")
    if position.epoch or position.step:
        say(f"resuming after {position.epoch} epochs and {position.step} steps.")


def _advice(device: torch.device, precision: str, segments: int) -> str:
    """What would make steps of so many ``segments`` per rank faster, if anything."""
    if precision == "bf16" and device.type == "cpu" and not has_bfloat16():
        return "this processor has no bfloat16 instructions; with optimizer.precision: fp32 it is many times faster."
    if precision == "bf16" and device.type == "cuda" and segments < _FULL:
        return (
            f"{segments} segments at a time keep a GPU waiting, in bf16 longer than in fp32; set optimizer.precision: "
            "fp32, or a larger optimizer.batch."
        )
    return ""


def _run_epochs(training: Training, trainer: Trainer, position: Position, stop: StopRequest) -> None:
    """All epochs that are left."""
    world, config, folder = training.world, training.config, training.folder
    count, epochs = len(training.segments.training), config.optimizer.epochs
    progress = None
    if world.is_root:
        done = position.epoch * count + position.step * config.optimizer.batch
        progress = Progress(epochs * count, "segment", epochs, "epoch", done, position.epoch)
    floor = trainer.entropy_floor()
    board = TensorBoard(folder) if config.run.tensorboard and world.is_root else None
    saved, drawn = time.monotonic(), -math.inf

    def due() -> bool:
        return time.monotonic() - saved > config.run.checkpoint_every

    def save() -> None:
        nonlocal saved
        save_checkpoint(folder / CHECKPOINT, training.key, trainer.vae, trainer.optimizer, position)
        note_saved()
        saved = time.monotonic()

    def progressed(shown: int) -> None:
        if progress:
            progress.update(position.epoch * count + shown, position.epoch, _note(position.history))
            training.claimed.heartbeat((position.epoch * count + shown) / (epochs * count))

    def end_epoch(variance: np.ndarray) -> None:
        nonlocal drawn
        write_losses(folder / "losses.csv", position.history)
        is_last = position.epoch == epochs or _has_stopped_improving(position, config)
        if is_last or time.monotonic() - drawn > _DRAW_EVERY_S:
            draw_losses(folder / "losses.png", position.history, floor)
            drawn = time.monotonic()
        if board:
            board.write(position.history[-1])
        if position.epoch % config.run.reconstructions_every == 0 or position.epoch == epochs:
            _draw(training, trainer, folder / f"reconstructions-{position.epoch:04d}.png")
        if position.best_epoch(config.loss) == position.epoch:
            store(_model(training, trainer, variance, position), folder / BEST, "fp32")
        save()

    try:
        while position.epoch < epochs and not _has_stopped_improving(position, config):
            stopping = False
            for look in trainer.run_epoch(position, stop, due):
                progressed(look.shown)
                stopping = look.stop
                if not look.last and (look.stop or look.save):
                    world.on_root(save, patience=math.inf)
                if not look.last and look.stop:
                    trainer.stop(position)
            losses, seconds = trainer.losses(position), position.seconds
            validation, variance = trainer.validate()
            position.end_epoch(
                {
                    "epoch": position.epoch + 1,
                    "reconstruction": losses.reconstruction,
                    "divergence": losses.divergence,
                    "validation_reconstruction": validation.reconstruction,
                    "validation_divergence": validation.divergence,
                    "active_latents": int((variance > ACTIVE).sum()),
                    "segments_per_second": round(count / seconds, 1),
                }
            )
            world.on_root(lambda values=variance: end_epoch(values), patience=math.inf)  # type: ignore[misc]
            if progress and not progress.live:
                say(f"epoch {position.epoch} of {epochs}: {_note(position.history)}")
            if stopping:
                trainer.stop(position)
    finally:
        if progress:
            progress.close()


def _note(history: list[dict[str, Any]]) -> str:
    if not history:
        return ""
    h = history[-1]
    return (
        f"cross-entropy {h['reconstruction']:.1f}, divergence {h['divergence']:.2f}; validation "
        f"{h['validation_reconstruction']:.1f}, {h['validation_divergence']:.2f}; {h['active_latents']} active latents"
    )


def _has_stopped_improving(position: Position, config: TrainConfig) -> bool:
    """Whether the validation loss has not improved for as many epochs as early stopping allows."""
    patience, best = config.optimizer.early_stopping, position.best_epoch(config.loss)
    return patience is not None and best > 0 and position.epoch - best >= patience


@torch.no_grad()
def _draw(training: Training, trainer: Trainer, path: Path) -> None:
    x = training.segments.load(training.segments.validation[:: max(1, len(training.segments.validation) // _SHOWN)])
    x = x[:_SHOWN].to(trainer.device)
    write_reconstructions(path, x.cpu(), torch.sigmoid(trainer.vae.decoder(trainer.vae.encoder(x)[0])).cpu())


def _model(training: Training, trainer: Trainer, variance: np.ndarray, position: Position) -> Model:
    history = {
        "training_key": training.key,
        "initial_model_sha256": training.initial.sha256 if training.initial else None,
        "ranks": training.world.size,
        "device": device_name(trainer.device),
        "history": position.history,
    }
    return as_model(trainer.vae, variance, training.config, training.segments, history)


def _finish(training: Training, trainer: Trainer, position: Position, began: float) -> str:
    """Order the latents, validate the model and put it into use; returns why it is not, on every rank."""
    config, folder = training.config, training.folder
    if config.optimizer.early_stopping is not None:
        best = load_model(folder / BEST)
        trainer.vae.encoder.load_state_dict(best.encoder.state_dict())
        if best.decoder is not None:
            trainer.vae.decoder.load_state_dict(best.decoder.state_dict())
    variance, floor = trainer.latent_variance(), trainer.entropy_floor()

    def promote() -> str:
        candidate = folder / _CANDIDATE
        store(_model(training, trainer, variance, position), candidate, config.model.weights)
        try:
            loss = validate_saved(candidate, training.segments, int((variance > ACTIVE).sum()))
        except NothingLearned as error:
            return str(error)
        candidate.replace(training.output)
        (folder / CHECKPOINT).unlink(missing_ok=True)
        say(
            f"model: {training.output}, cross-entropy of validation segments {loss:.1f} (floor {floor:.1f}), "
            f"{int((variance > ACTIVE).sum())} of {len(variance)} latents active "
            f"({format_seconds(time.monotonic() - began)})"
        )
        return ""

    return training.world.on_root(promote, patience=math.inf)
