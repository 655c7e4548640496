"""The command `hrtemvae train`."""

import argparse
from collections.abc import Callable
from pathlib import Path

from hrtemvae_hpc.cli.options import add_restart
from hrtemvae_hpc.config_file import load_config
from hrtemvae_hpc.ranks.guard import StopRequest
from hrtemvae_hpc.ranks.launch import Job, run_guarded_in_world
from hrtemvae_hpc.ranks.world import World


def add_options(command: argparse.ArgumentParser) -> None:
    """Describe the command to its parser."""
    command.set_defaults(run=_run)
    command.add_argument("config", type=Path, help="configuration, see configs/train.yaml")
    command.add_argument("-o", "--output", type=Path, help="model file (CONFIG.safetensors in this folder)")
    command.add_argument("--segments", nargs="+", metavar="FILE", help="files of segments, instead of data.segments")
    command.add_argument("--latents", type=int, metavar="N", help="latent variables, instead of network.latents")
    command.add_argument("--init", type=Path, metavar="MODEL", help="start from this model instead of random weights")
    add_restart(command, "a training")


def _run(options: argparse.Namespace) -> int:
    output = options.output or Path(f"{options.config.stem}.safetensors")
    values = {"data.segments": options.segments, "network.latents": options.latents}
    overrides = {key: value for key, value in values.items() if value is not None}

    def load() -> Job:
        from hrtemvae_hpc.training.job import train
        from hrtemvae_hpc.training.train_config import TrainConfig

        def job(world: World, stop: StopRequest) -> None:
            config = world.on_root(lambda: load_config(options.config, overrides, TrainConfig))
            train(world, config, output, options.init, options.restart, stop)

        return job

    def join(stop: Callable[[], bool]) -> World:
        from hrtemvae_hpc.training.ranks import join_training

        return join_training(stop)

    return run_guarded_in_world(load, join)
