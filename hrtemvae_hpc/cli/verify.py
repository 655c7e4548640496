"""The command `hrtemvae verify`."""

import argparse
from pathlib import Path

from tqdm import tqdm

from hrtemvae_hpc.errors import InputError, report, show


def add_options(command: argparse.ArgumentParser) -> None:
    """Describe the command to its parser."""
    command.set_defaults(run=_run)
    command.add_argument("results", type=Path, nargs="+", metavar="RESULT", help="result file of `hrtemvae analyze`")


def _run(options: argparse.Namespace) -> int:
    from hrtemvae_hpc.maps.digest import check_whole

    code = 0
    for path in options.results:
        with tqdm(unit="B", unit_scale=True, delay=2, leave=False, disable=None) as bar:
            try:
                summary = check_whole(path, bar.update, name_damage=True)
            except InputError as error:
                bar.close()
                report(error)
                code = error.exit_code
            else:
                bar.close()
                show(f"{path}: {summary}")
    return code
