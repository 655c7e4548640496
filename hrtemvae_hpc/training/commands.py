"""The command `hrtemvae train`."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hrtemvae_hpc.distributed.guard import StopRequest
    from hrtemvae_hpc.distributed.world import World


def add_training_commands(
    add: Callable[[str, Callable[[argparse.Namespace], int], str], argparse.ArgumentParser],
) -> None:
    """Add the command to a parser by its ``add``, which is given name, function and help."""
    command = add("train", _train, "Train a model on segments; alone, or on many ranks under torchrun, srun or mpirun.")
    command.add_argument("config", type=Path, help="configuration, see configs/train.yaml")
    command.add_argument("-o", "--output", type=Path, help="model file (CONFIG.safetensors in this folder)")
    command.add_argument("--segments", nargs="+", metavar="FILE", help="files of segments, instead of data.segments")
    command.add_argument("--latents", type=int, metavar="N", help="latent variables, instead of network.latents")
    command.add_argument("--init", type=Path, metavar="MODEL", help="start from this model instead of random weights")
    again = command.add_mutually_exclusive_group()
    again.add_argument("--resume", action="store_true", help="go on where a stopped training ended (the default)")
    again.add_argument("--restart", action="store_true", help="forget an earlier training of the same output")


def _train(options: argparse.Namespace) -> int:
    from hrtemvae_hpc.distributed.launch import run_guarded_in_world

    output = options.output or Path(f"{options.config.stem}.safetensors")
    given = {"data.segments": options.segments, "network.latents": options.latents}
    overrides = {key: value for key, value in given.items() if value is not None}

    def join(stop: Callable[[], bool]) -> "World":
        import hrtemvae_hpc.training.job  # noqa: F401  under the guardian, but without MPI
        from hrtemvae_hpc.training.ranks import join_training

        return join_training(stop)

    def job(world: "World", stop: "StopRequest") -> None:
        from hrtemvae_hpc.config import load_config
        from hrtemvae_hpc.training.job import train
        from hrtemvae_hpc.training.train_config import TrainConfig

        config = world.on_root(lambda: load_config(options.config, overrides, TrainConfig))
        train(world, config, output, options.init, options.restart, stop)

    return run_guarded_in_world(job, join)
