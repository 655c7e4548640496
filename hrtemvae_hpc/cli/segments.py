"""The command `hrtemvae segments`."""

import argparse
from pathlib import Path

from hrtemvae_hpc.cli.options import SchemaOption, add_schema_options, from_options, given
from hrtemvae_hpc.errors import InputError
from hrtemvae_hpc.ranks.guard import StopRequest
from hrtemvae_hpc.ranks.launch import Job, run_guarded_in_world
from hrtemvae_hpc.ranks.world import World
from hrtemvae_hpc.segments.cut_options import CutOptions

_CUT = (
    SchemaOption("--window", "window", "PIXELS"),
    SchemaOption("--scaling", "scaling", "window|local"),
    SchemaOption("--stride", "stride", "PIXELS"),
    SchemaOption("--frames", "frames", "a:b[:step]"),
    SchemaOption("--clip-outliers", "clip_outliers"),
    SchemaOption("--low-pass", "low_pass"),
    SchemaOption("--pixel-size", "pixel_size", "NM"),
    SchemaOption("--assume-pixel-size", "assume_pixel_size", "NM"),
    SchemaOption("--turns", "turns", "N"),
    SchemaOption("--threshold", "threshold", "STRENGTH"),
    SchemaOption("--most", "most", "N"),
    SchemaOption("--seed", "seed", "N"),
)
_OF_SIMULATED = {"window", "scaling", "seed", "threshold"}


def add_options(command: argparse.ArgumentParser) -> None:
    """Describe the command to its parser."""
    command.set_defaults(run=_run)
    command.add_argument("micrographs", type=Path, nargs="*", help="files, or folders that are searched to any depth")
    command.add_argument("-o", "--output", type=Path, required=True, help="file of segments (.h5)")
    add_schema_options(command, CutOptions, _CUT)
    command.add_argument(
        "--validation", type=float, default=0.1, metavar="SHARE", help="share of the files to validate on (0.1)"
    )
    command.add_argument("--simulated", type=int, metavar="N", help="N simulated segments instead of micrographs")
    command.add_argument("--restart", action="store_true", help="discard what an earlier, stopped run left behind")


def _run(options: argparse.Namespace) -> int:
    if bool(options.micrographs) == (options.simulated is not None):
        raise InputError("name micrographs, or a number of segments with --simulated.")
    if not 0 <= options.validation < 1:
        raise InputError(f"--validation: {options.validation:g} is not between 0 and 1.")
    values = given(options, _CUT)
    cut = from_options(CutOptions, values)
    if options.simulated is not None:
        useless = sorted(values.keys() - _OF_SIMULATED)
        if useless:
            raise InputError(f"--{useless[0].replace('_', '-')}: is for micrographs, not for simulated segments.")
        from hrtemvae_hpc.simulation.segments import simulate_segments

        return simulate_segments(options.output, options.simulated, cut, options.validation)

    def load() -> Job:
        from hrtemvae_hpc.segments.job import build_segments

        def job(world: World, stop: StopRequest) -> None:
            build_segments(world, options.micrographs, cut, options.validation, options.output, options.restart, stop)

        return job

    return run_guarded_in_world(load)
