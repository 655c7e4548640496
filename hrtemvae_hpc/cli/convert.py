"""The command `hrtemvae convert`."""

import argparse
import shlex
from pathlib import Path

from hrtemvae_hpc.cli.options import MOVIE_OPTIONS, SchemaOption, add_restart, add_schema_options, given
from hrtemvae_hpc.config_file import load_config
from hrtemvae_hpc.conversion.options import ConversionConfig
from hrtemvae_hpc.ranks.guard import StopRequest
from hrtemvae_hpc.ranks.launch import Job, run_guarded_in_world
from hrtemvae_hpc.ranks.world import World

_OF_FILE = (
    *MOVIE_OPTIONS,
    SchemaOption("--dark", "corrections.dark", "FILE"),
    SchemaOption("--gain", "corrections.gain", "FILE"),
    SchemaOption("--bad-pixels", "corrections.bad_pixels", "FILE"),
    SchemaOption("--bin", "corrections.bin", "N"),
    SchemaOption("--sum", "corrections.sum", "N"),
    SchemaOption("--compression", "file.compression", "blosc-zstd|blosc-lz4|gzip|none"),
    SchemaOption("--counts-per-electron", "file.counts_per_electron", "X"),
)
_OF_RUN = (SchemaOption("--max-memory", "run.max_memory", "SIZE"),)


def add_options(command: argparse.ArgumentParser) -> None:
    """Describe the command to its parser."""
    command.set_defaults(run=_run)
    command.add_argument(
        "inputs", type=Path, nargs="+", metavar="IN", help="movie; several are joined in the natural order of names"
    )
    command.add_argument("-o", "--output", type=Path, required=True, help="the movie's new file (.h5)")
    add_schema_options(command, ConversionConfig, (*_OF_FILE, *_OF_RUN))
    add_restart(command, "a conversion")


def _run(options: argparse.Namespace) -> int:
    values = given(options, _OF_FILE)
    words = [word for o in _OF_FILE if o.key in values for word in (o.flag, str(values[o.key]))]
    command = shlex.join(["hrtemvae", "convert", *map(str, options.inputs), *words])

    def load() -> Job:
        from hrtemvae_hpc.conversion.job import convert

        def job(world: World, stop: StopRequest) -> None:
            config = world.on_root(lambda: load_config(None, values | given(options, _OF_RUN), ConversionConfig))
            convert(world, options.inputs, config, command, options.output, options.restart, stop)

        return job

    return run_guarded_in_world(load)
