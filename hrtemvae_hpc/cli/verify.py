"""The command `hrtemvae verify`."""

import argparse
import os
from collections.abc import Callable
from pathlib import Path

from tqdm import tqdm

from hrtemvae_hpc.errors import InputError, report, show
from hrtemvae_hpc.outputs import is_movie


def add_options(command: argparse.ArgumentParser) -> None:
    """Describe the command to its parser."""
    command.set_defaults(run=_run)
    command.add_argument(
        "files",
        type=Path,
        nargs="+",
        metavar="FILE",
        help="result of `hrtemvae analyze`, or movie of `hrtemvae convert`",
    )


def _run(options: argparse.Namespace) -> int:
    code = 0
    for path in options.files:
        movie = is_movie(path)
        with tqdm(unit="frame" if movie else "B", unit_scale=True, delay=2, leave=False, disable=None) as bar:
            try:
                summary = _check(path, movie, bar.update)
            except InputError as error:
                bar.close()
                report(error)
                code = error.exit_code
            else:
                bar.close()
                show(f"{path}: {summary}")
    return code


def _check(path: Path, movie: bool, progress: Callable[[int], object]) -> str:
    if movie:
        from hrtemvae_hpc.movie.converted import check_converted

        return check_converted(path, len(os.sched_getaffinity(0)), progress)
    from hrtemvae_hpc.maps.digest import check_whole

    return check_whole(path, progress, name_damage=True)
