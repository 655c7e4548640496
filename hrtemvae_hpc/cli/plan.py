"""The command `hrtemvae plan`."""

import argparse
import shlex
from pathlib import Path

from hrtemvae_hpc.cli.options import add_analysis_options, add_json, analysis_config, analysis_words
from hrtemvae_hpc.errors import InputError, show
from hrtemvae_hpc.ranks.guard import StopRequest
from hrtemvae_hpc.ranks.launch import Job, run_guarded_in_world
from hrtemvae_hpc.ranks.world import World

_MOST_NODES = 10_000


def add_options(command: argparse.ArgumentParser) -> None:
    """Describe the command to its parser."""
    command.set_defaults(run=_run)
    command.add_argument("movie", type=Path, help="file of any format in docs/formats.md, or folder of frames")
    add_analysis_options(command)
    command.add_argument(
        "--nodes", type=int, default=1, help="for a job on so many nodes like this one, with its sbatch command (1)"
    )
    add_json(command)


def _submission(options: argparse.Namespace, ranks: int) -> str:
    """The command that submits the job; a script chooses as many ranks on a node as GPUs, or one."""
    tasks = [f"--ntasks-per-node={ranks}"] if ranks > 1 else []
    words = [str(options.movie.absolute()), *analysis_words(options)]
    return shlex.join(["sbatch", f"--nodes={options.nodes}", *tasks, "slurm/analyze.sh", *words])


def _run(options: argparse.Namespace) -> int:
    if not 1 <= options.nodes <= _MOST_NODES:
        raise InputError(f"--nodes {options.nodes}: give 1 to {_MOST_NODES:,}.")

    def load() -> Job:
        from hrtemvae_hpc.analysis.job import plan_analysis

        def job(world: World, _: StopRequest) -> None:
            config = world.on_root(lambda: analysis_config(options))
            text = plan_analysis(world, options.movie, config, options.json, options.nodes)
            if world.is_root:
                show(text)
                if options.nodes > 1 and not options.json:
                    show(f"submit    {_submission(options, world.size)}")

        return job

    return run_guarded_in_world(load)
