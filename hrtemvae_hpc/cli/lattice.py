"""The command `hrtemvae lattice`."""

import argparse
from pathlib import Path

from hrtemvae_hpc.cli.options import add_analysis_options, analysis_config
from hrtemvae_hpc.errors import InputError
from hrtemvae_hpc.ranks.guard import StopRequest
from hrtemvae_hpc.ranks.launch import Job, run_guarded_in_world
from hrtemvae_hpc.ranks.world import World

_FLAGS = {
    "--dataset", "--axes", "--roi", "--frames", "--pixel-size", "--frame-time", "--drift", "--drift-roi",
    "--max-memory",
}  # fmt: skip
_AVERAGE = 5


def add_options(command: argparse.ArgumentParser) -> None:
    """Describe the command to its parser."""
    command.set_defaults(run=_run)
    command.add_argument("input", type=Path, help="result of `hrtemvae analyze`, or file or folder of a movie")
    command.add_argument(
        "--box",
        action="append",
        default=[],
        metavar="y0:y1,x0:x1",
        help="pixels in which lattices are measured; several times for several boxes (all that is analysed)",
    )
    command.add_argument("--movie", type=Path, metavar="FILE", help="the movie of a result, if it was moved")
    command.add_argument("--model", type=Path, metavar="FILE", help="the model of a result, if it was moved")
    command.add_argument(
        "--average",
        type=int,
        default=_AVERAGE,
        metavar="FRAMES",
        help=f"neighbouring frames, an odd number, whose mean is measured against noise ({_AVERAGE})",
    )
    add_analysis_options(command, _FLAGS)
    command.add_argument(
        "-o", "--output", type=Path, help="HDF5 file (INPUT.lattice.h5 in this folder), with a table and a page"
    )


def _run(options: argparse.Namespace) -> int:
    output = options.output or Path(f"{options.input.resolve().stem}.lattice.h5")

    def load() -> Job:
        from hrtemvae_hpc.interpretation.lattice_job import measure_lattices_of

        def job(world: World, stop: StopRequest) -> None:
            config = world.on_root(lambda: analysis_config(options))
            if options.average < 1 or options.average % 2 == 0:
                world.raise_once(InputError(f"--average {options.average}: give an odd number of frames."))
            measure_lattices_of(
                world, options.input, (options.movie, options.model), config, options.box, options.average, output, stop
            )

        return job

    return run_guarded_in_world(load)
