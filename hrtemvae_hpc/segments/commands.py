"""The command `hrtemvae segments`."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from hrtemvae_hpc.errors import InputError

if TYPE_CHECKING:
    from hrtemvae_hpc.distributed.guard import StopRequest
    from hrtemvae_hpc.distributed.world import World


def add_segment_commands(
    add: Callable[[str, Callable[[argparse.Namespace], int], str], argparse.ArgumentParser],
) -> None:
    """Add the command to a parser by its ``add``, which is given name, function and help."""
    command = add("segments", _segments, "Cut micrographs into segments with lattice fringes, to train a model on.")
    command.add_argument("micrographs", type=Path, nargs="*", help="files, or folders that are searched to any depth")
    command.add_argument("-o", "--output", type=Path, required=True, help="file of segments (.h5)")
    command.add_argument("--window", type=int, metavar="PIXELS", help="side of a segment (64)")
    command.add_argument("--stride", type=int, metavar="PIXELS", help="distance of segments (32)")
    command.add_argument("--frames", metavar="a:b[:step]", help="frames of stacks (all)")
    command.add_argument("--clip-outliers", action="store_true", default=None, help="clip hot pixels")
    command.add_argument("--low-pass", action="store_true", default=None, help="Gaussian low-pass of 0.25 cycles/pixel")
    command.add_argument("--pixel-size", type=float, metavar="NM", help="scale all micrographs to so many nm a pixel")
    command.add_argument("--assume-pixel-size", type=float, metavar="NM", help="nm a pixel of files that don't tell")
    command.add_argument("--turns", type=int, metavar="N", help="also cut each micrograph turned by N random angles")
    command.add_argument("--threshold", type=float, help="fringe strength above which a segment is kept (40)")
    command.add_argument("--most", type=int, metavar="N", help="most segments of one file, for balance (1000)")
    command.add_argument("--seed", type=int, help="of the choice of segments and angles (0)")
    command.add_argument("--validation", type=float, default=0.1, metavar="SHARE", help="of the files (0.1)")
    command.add_argument("--simulated", type=int, metavar="N", help="N simulated segments instead of micrographs")
    command.add_argument("--restart", action="store_true", help="forget what a stopped run left")


def _segments(options: argparse.Namespace) -> int:
    from pydantic import ValidationError

    from hrtemvae_hpc.config import parse_frames
    from hrtemvae_hpc.segments.cut import CutOptions

    if bool(options.micrographs) == (options.simulated is not None):
        raise InputError("name micrographs, or a number of segments with --simulated.")
    if not 0 <= options.validation < 1:
        raise InputError(f"--validation: {options.validation:g} is no share between 0 and 1.")
    given = {name: value for name in CutOptions.model_fields if (value := getattr(options, name)) is not None}
    try:
        if options.frames is not None:
            a, b, *step = parse_frames(options.frames)
            given["frames"] = (a, b, *(step or [None]))
        cut = CutOptions(**given)
    except ValidationError as error:
        first = error.errors()[0]
        flag = "--" + str(first["loc"][0]).replace("_", "-")
        raise InputError(f"{flag}: {first['msg'][0].lower()}{first['msg'][1:]}, not {first['input']!r}.") from error
    except ValueError as error:
        raise InputError(f"--frames: {error}.") from error
    if options.simulated is not None:
        useless = sorted(given.keys() - {"window", "seed", "threshold"})
        if useless:
            raise InputError(f"--{useless[0].replace('_', '-')}: is for micrographs, not for simulated segments.")
        from hrtemvae_hpc.segments.simulate import simulate_segments

        return simulate_segments(options.output, options.simulated, cut, options.validation)

    from hrtemvae_hpc.distributed.launch import run_guarded_in_world

    def job(world: "World", stop: "StopRequest") -> None:
        from hrtemvae_hpc.segments.job import build_segments

        build_segments(world, options.micrographs, cut, options.validation, options.output, options.restart, stop)

    return run_guarded_in_world(job)
