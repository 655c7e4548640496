"""The command `hrtemvae plan`."""

import argparse
from pathlib import Path

from hrtemvae_hpc.cli.options import add_analysis_options, add_json, analysis_config
from hrtemvae_hpc.errors import show
from hrtemvae_hpc.ranks.guard import StopRequest
from hrtemvae_hpc.ranks.launch import Job, run_guarded_in_world
from hrtemvae_hpc.ranks.world import World


def add_options(command: argparse.ArgumentParser) -> None:
    """Describe the command to its parser."""
    command.set_defaults(run=_run)
    command.add_argument("movie", type=Path, help="file of any format in docs/formats.md, or folder of frames")
    add_analysis_options(command)
    add_json(command)


def _run(options: argparse.Namespace) -> int:
    def load() -> Job:
        from hrtemvae_hpc.analysis.job import plan_analysis

        def job(world: World, _: StopRequest) -> None:
            config = world.on_root(lambda: analysis_config(options))
            text = plan_analysis(world, options.movie, config, options.json)
            if world.is_root:
                show(text)

        return job

    return run_guarded_in_world(load)
