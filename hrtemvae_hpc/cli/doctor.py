"""The command `hrtemvae doctor`."""

import argparse

from hrtemvae_hpc.cli.options import add_json


def add_options(command: argparse.ArgumentParser) -> None:
    """Describe the command to its parser."""
    command.set_defaults(run=_run)
    add_json(command)


def _run(options: argparse.Namespace) -> int:
    from hrtemvae_hpc.facility.doctor import examine

    return examine(options.json)
