"""The command `hrtemvae simulate`."""

import argparse
from pathlib import Path

from hrtemvae_hpc.errors import show


def add_options(command: argparse.ArgumentParser) -> None:
    """Describe the command to its parser."""
    command.set_defaults(run=_run)
    command.add_argument("-o", "--output", type=Path, required=True, help="HDF5 file")
    command.add_argument("--frames", type=int, default=48, help="number of frames (48)")
    command.add_argument(
        "--size", type=int, nargs=2, default=(320, 448), metavar=("ROWS", "COLUMNS"), help="pixels (320 448)"
    )
    command.add_argument("--dose", type=float, default=60.0, help="electrons per pixel and frame (60)")
    command.add_argument("--drift", type=float, default=0.0, metavar="PIXELS", help="by which the specimen drifts (0)")
    command.add_argument("--seed", type=int, default=0, help="seed of the noise (0)")


def _run(options: argparse.Namespace) -> int:
    from hrtemvae_hpc.simulation.movies import simulate_movie

    rows, columns = options.size
    show(str(simulate_movie(options.output, options.frames, rows, columns, options.dose, options.seed, options.drift)))
    return 0
