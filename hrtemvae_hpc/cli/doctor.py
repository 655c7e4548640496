"""The command `hrtemvae doctor`."""

import argparse


def add_options(command: argparse.ArgumentParser) -> None:
    """Describe the command to its parser."""
    command.set_defaults(run=_run)


def _run(_: argparse.Namespace) -> int:
    from hrtemvae_hpc.facility.doctor import examine

    return examine()
