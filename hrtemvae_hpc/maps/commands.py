"""The commands about results: `hrtemvae report` and `hrtemvae verify`."""

import argparse
from collections.abc import Callable
from pathlib import Path

from hrtemvae_hpc.errors import InputError, show, tell


def add_map_commands(
    add: Callable[[str, Callable[[argparse.Namespace], int], str], argparse.ArgumentParser],
) -> None:
    """Add the commands to a parser by its ``add``, which is given name, function and help."""
    report = add("report", _report, "Draw a result: one HTML page and a PNG of each map.")
    report.add_argument("result", type=Path, help="result file of `hrtemvae analyze`")
    report.add_argument("-o", "--output", type=Path, help="folder (RESULT.report beside the result)")
    report.add_argument(
        "--tiff", action="store_true", help="also write each quantity as a calibrated float32 TIFF stack"
    )
    verify = add("verify", _verify, "Check whether results are as they were written, to the bit.")
    verify.add_argument("results", type=Path, nargs="+", metavar="RESULT", help="result file of `hrtemvae analyze`")


def _report(options: argparse.Namespace) -> int:
    from hrtemvae_hpc.maps.report import write_report

    folder = options.output or options.result.parent / f"{options.result.stem}.report"
    show(str(write_report(options.result, folder, options.tiff)))
    return 0


def _verify(options: argparse.Namespace) -> int:
    from tqdm import tqdm

    from hrtemvae_hpc.maps.digest import check_whole

    code = 0
    for path in options.results:
        with tqdm(unit="B", unit_scale=True, delay=2, leave=False, disable=None) as bar:
            try:
                found = check_whole(path, bar.update, name_damage=True)
            except InputError as error:
                bar.close()
                tell(error)
                code = error.exit_code
            else:
                bar.close()
                show(f"{path}: {found}")
    return code
