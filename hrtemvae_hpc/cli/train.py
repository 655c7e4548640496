"""The command `hrtemvae train`."""

import argparse
from collections.abc import Callable
from pathlib import Path

from hrtemvae_hpc.cli.options import add_restart
from hrtemvae_hpc.config_file import load_config
from hrtemvae_hpc.errors import InputError, show
from hrtemvae_hpc.files import is_folder
from hrtemvae_hpc.outputs import Output, check_outputs, is_model, is_numbers, is_page
from hrtemvae_hpc.ranks.guard import StopRequest
from hrtemvae_hpc.ranks.launch import Job, run_guarded_in_world
from hrtemvae_hpc.ranks.world import World


def add_options(command: argparse.ArgumentParser) -> None:
    """Describe the command to its parser."""
    command.set_defaults(run=_run)
    command.add_argument("config", type=Path, help="configuration, see configs/train.yaml")
    command.add_argument("-o", "--output", type=Path, help="model file (CONFIG.safetensors in this folder)")
    command.add_argument("--segments", nargs="+", metavar="FILE", help="files of segments, instead of data.segments")
    latents = command.add_mutually_exclusive_group()
    latents.add_argument("--latents", type=int, metavar="N", help="latent variables, instead of network.latents")
    latents.add_argument(
        "--sweep-latents",
        type=int,
        nargs="+",
        metavar="N",
        help="train one model for each of these numbers of latents, and draw a page that compares them",
    )
    command.add_argument("--init", type=Path, metavar="MODEL", help="start from this model instead of random weights")
    add_restart(command, "a training")


def _run(options: argparse.Namespace) -> int:
    return run_guarded_in_world(lambda: _sweep(options) if options.sweep_latents else _train(options), _join)


def _output(options: argparse.Namespace) -> Path:
    return options.output or Path(f"{options.config.stem}.safetensors")


def _overrides(options: argparse.Namespace) -> dict[str, object]:
    values = {"data.segments": options.segments, "network.latents": options.latents}
    return {key: value for key, value in values.items() if value is not None}


def _join(stop: Callable[[], bool]) -> World:
    from hrtemvae_hpc.training.ranks import join_training

    return join_training(stop)


def _train(options: argparse.Namespace) -> Job:
    from hrtemvae_hpc.training.job import train
    from hrtemvae_hpc.training.train_config import TrainConfig

    def job(world: World, stop: StopRequest) -> None:
        config = world.on_root(lambda: load_config(options.config, _overrides(options), TrainConfig))
        train(world, config, _output(options), options.init, options.restart, stop)

    return job


def _sweep(options: argparse.Namespace) -> Job:
    from hrtemvae_hpc.evaluation.sweep import SweepPage
    from hrtemvae_hpc.training.sweep import Member, members_of, sweep
    from hrtemvae_hpc.training.train_config import TrainConfig

    output = _output(options)

    def prepare() -> tuple[list[Member], Path]:
        if options.init:
            raise InputError("--init: the model has one number of latents, so it can't start a sweep; leave it out.")
        if is_folder(output):
            raise InputError(f"{output}: is a folder; name a model file with -o.")
        config = load_config(options.config, _overrides(options), TrainConfig)
        members = members_of(config, options.sweep_latents, output)
        page = output.with_suffix(".sweep.html")
        models = [Output(member.output, "a model", is_model) for member in members]
        numbers = Output(page.with_suffix(".json"), "its numbers", is_numbers)
        check_outputs([*models, Output(page, "the page", is_page), numbers], [Path(p) for p in config.data.segments])
        return members, page

    def job(world: World, stop: StopRequest) -> None:
        members, page = world.on_root(prepare)
        sweep(world, members, options.restart, stop, SweepPage(page, members).add)
        if world.is_root:
            show(str(page))

    return job
