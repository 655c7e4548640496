"""The command `hrtemvae analyze`."""

import argparse
import math
import os
import time
from pathlib import Path

from hrtemvae_hpc.cli.options import add_analysis_options, add_restart, analysis_config
from hrtemvae_hpc.errors import InputError
from hrtemvae_hpc.files import is_folder
from hrtemvae_hpc.ranks.guard import StopRequest
from hrtemvae_hpc.ranks.launch import Job, run_guarded_in_world
from hrtemvae_hpc.ranks.world import World

_LONGEST_S = 86400


def add_options(command: argparse.ArgumentParser) -> None:
    """Describe the command to its parser."""
    command.set_defaults(run=_run)
    command.add_argument("movie", type=Path, help="file of any format in docs/formats.md, or folder of frames")
    add_analysis_options(command)
    command.add_argument("-o", "--output", type=Path, help="result file (MOVIE.maps.h5 in this folder)")
    add_restart(command, "an analysis")
    live = command.add_argument_group("while the movie is recorded")
    live.add_argument("--follow", action="store_true", help="draw maps while the movie grows, then analyse it")
    live.add_argument("--every", type=float, metavar="SECONDS", help="from one drawing to the next, at least (5)")
    live.add_argument("--settle", type=float, metavar="SECONDS", help="how long an ended movie has not changed (60)")
    live.add_argument("--json", action="store_true", help="print an object of JSON for each drawing, for programs")


def _run(options: argparse.Namespace) -> int:
    output = options.output or _default_output(options.movie)
    given = {name: getattr(options, name) for name in ("every", "settle") if getattr(options, name) is not None}
    if (given or options.json) and not options.follow:
        raise InputError("--every, --settle and --json belong to --follow; add that, or leave them out.")
    if any(not 0 < seconds < _LONGEST_S for seconds in given.values()):
        raise InputError(f"--every and --settle: give seconds between 0 and {_LONGEST_S}.")

    def load() -> Job:
        from hrtemvae_hpc.analysis.job import analyze

        def job(world: World, stop: StopRequest) -> None:
            config, path = world.on_root(lambda: analysis_config(options)), options.movie
            inputs = [options.config] if options.config else []
            if not options.follow:
                analyze(world, path, config, output, options.restart, stop, inputs)
                return
            from hrtemvae_hpc.live.follow import Following, finish_following, follow_recording

            how = Following(**{f"{name}_s": seconds for name, seconds in given.items()}, as_json=options.json)
            world.on_root(lambda: follow_recording(path, config, output, options.restart, stop, how), patience=math.inf)
            analyze(world, path, config, output, options.restart, stop, inputs, time.monotonic())
            if world.is_root:
                finish_following(output, how)

        return job

    return run_guarded_in_world(load)


def _default_output(movie: Path) -> Path:
    """MOVIE.maps.h5 without the ending of a file, or FOLDER.maps.h5, also for "." and its like."""
    name = Path(os.path.abspath(movie)).name if is_folder(movie) else movie.stem
    return Path(f"{name or 'movie'}.maps.h5")
