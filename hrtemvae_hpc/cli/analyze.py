"""The command `hrtemvae analyze`."""

import argparse
import os
from pathlib import Path

from hrtemvae_hpc.cli.options import add_analysis_options, add_restart, analysis_config
from hrtemvae_hpc.files import is_folder
from hrtemvae_hpc.ranks.guard import StopRequest
from hrtemvae_hpc.ranks.launch import Job, run_guarded_in_world
from hrtemvae_hpc.ranks.world import World


def add_options(command: argparse.ArgumentParser) -> None:
    """Describe the command to its parser."""
    command.set_defaults(run=_run)
    command.add_argument("movie", type=Path, help="file of any format in docs/formats.md, or folder of frames")
    add_analysis_options(command)
    command.add_argument("-o", "--output", type=Path, help="result file (MOVIE.maps.h5 in this folder)")
    add_restart(command, "an analysis")


def _run(options: argparse.Namespace) -> int:
    output = options.output or _default_output(options.movie)

    def load() -> Job:
        from hrtemvae_hpc.analysis.job import analyze

        def job(world: World, stop: StopRequest) -> None:
            config = world.on_root(lambda: analysis_config(options))
            inputs = [options.config] if options.config else []
            analyze(world, options.movie, config, output, options.restart, stop, inputs)

        return job

    return run_guarded_in_world(load)


def _default_output(movie: Path) -> Path:
    """MOVIE.maps.h5 without the ending of a file, or FOLDER.maps.h5, also for "." and its like."""
    name = Path(os.path.abspath(movie)).name if is_folder(movie) else movie.stem
    return Path(f"{name or 'movie'}.maps.h5")
