"""The command `hrtemvae analyze`."""

import argparse
from pathlib import Path

from hrtemvae_hpc.cli.options import add_analysis_options, add_restart, analysis_config
from hrtemvae_hpc.ranks.guard import StopRequest
from hrtemvae_hpc.ranks.launch import Job, run_guarded_in_world
from hrtemvae_hpc.ranks.world import World


def add_options(command: argparse.ArgumentParser) -> None:
    """Describe the command to its parser."""
    command.set_defaults(run=_run)
    command.add_argument("movie", type=Path, help="HDF5 file")
    add_analysis_options(command)
    command.add_argument("-o", "--output", type=Path, help="result file (MOVIE.maps.h5 in this folder)")
    add_restart(command, "an analysis")


def _run(options: argparse.Namespace) -> int:
    output = options.output or Path(f"{options.movie.stem}.maps.h5")

    def load() -> Job:
        from hrtemvae_hpc.analysis.job import analyze

        def job(world: World, stop: StopRequest) -> None:
            config = world.on_root(lambda: analysis_config(options))
            inputs = [options.config] if options.config else []
            analyze(world, options.movie, config, output, options.restart, stop, inputs)

        return job

    return run_guarded_in_world(load)
