"""The command `hrtemvae drift`."""

import argparse
from pathlib import Path

from hrtemvae_hpc.cli.options import add_analysis_options, analysis_config
from hrtemvae_hpc.ranks.guard import StopRequest
from hrtemvae_hpc.ranks.launch import Job, run_guarded_in_world
from hrtemvae_hpc.ranks.world import World

_FLAGS = {
    "--dataset", "--axes", "--frames", "--on-bad-frame", "--pixel-size", "--frame-time", "--drift-roi", "--max-memory",
}  # fmt: skip


def add_options(command: argparse.ArgumentParser) -> None:
    """Describe the command to its parser."""
    command.set_defaults(run=_run)
    command.add_argument("movie", type=Path, help="file or folder of a movie")
    add_analysis_options(command, _FLAGS)
    command.add_argument("-o", "--output", type=Path, help="table (MOVIE.drift.csv in this folder), with a picture")


def _run(options: argparse.Namespace) -> int:
    output = options.output or Path(f"{options.movie.resolve().stem}.drift.csv")

    def load() -> Job:
        from hrtemvae_hpc.analysis.drift_job import write_drift_of

        def job(world: World, stop: StopRequest) -> None:
            config = world.on_root(lambda: analysis_config(options))
            write_drift_of(world, options.movie, config, output, stop)

        return job

    return run_guarded_in_world(load)
