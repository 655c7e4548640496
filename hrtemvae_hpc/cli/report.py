"""The command `hrtemvae report`."""

import argparse
from pathlib import Path

from hrtemvae_hpc.errors import show


def add_options(command: argparse.ArgumentParser) -> None:
    """Describe the command to its parser."""
    command.set_defaults(run=_run)
    command.add_argument("result", type=Path, help="result file of `hrtemvae analyze`")
    command.add_argument("-o", "--output", type=Path, help="folder (RESULT.report beside the result)")
    command.add_argument(
        "--tiff", action="store_true", help="also write each quantity as a calibrated float32 TIFF stack"
    )


def _run(options: argparse.Namespace) -> int:
    from hrtemvae_hpc.maps.report import write_report

    folder = options.output or options.result.parent / f"{options.result.stem}.report"
    show(str(write_report(options.result, folder, options.tiff)))
    return 0
