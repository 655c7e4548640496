"""The command line: each command parses its options and hands over to one function."""

import argparse
import atexit
import gc
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from hrtemvae_hpc import __version__
from hrtemvae_hpc.distributed.guard import STOP_SIGNALS, end_process, run_guarded
from hrtemvae_hpc.errors import HrtemvaeError, Stopped, show, tell

if TYPE_CHECKING:
    from hrtemvae_hpc.distributed.guard import StopRequest
    from hrtemvae_hpc.distributed.world import World


def _parser() -> argparse.ArgumentParser:
    from hrtemvae_hpc.analysis_options import add_analysis_options
    from hrtemvae_hpc.facility.commands import add_facility_commands
    from hrtemvae_hpc.maps.commands import add_map_commands
    from hrtemvae_hpc.model_commands import add_model_commands
    from hrtemvae_hpc.segments.commands import add_segment_commands
    from hrtemvae_hpc.training.commands import add_training_commands

    parser = argparse.ArgumentParser("hrtemvae", description="Maps of what changes in in situ HRTEM movies.")
    parser.add_argument("--version", action="version", version=f"hrtemvae {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, run: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text)
        command.set_defaults(run=run)
        return command

    plan = add("plan", _plan, "Show how a movie would be analysed, and how long that takes.")
    analyze = add("analyze", _analyze, "Analyse a movie: maps of how each latent variable varies over time.")
    for command in (plan, analyze):
        command.add_argument("movie", type=Path, help="HDF5 file")
        add_analysis_options(command)
    analyze.add_argument("-o", "--output", type=Path, help="result file (MOVIE.maps.h5 in this folder)")
    again = analyze.add_mutually_exclusive_group()
    again.add_argument("--resume", action="store_true", help="go on where a stopped run ended (the default)")
    again.add_argument("--restart", action="store_true", help="forget parts and result of an earlier run")

    add_map_commands(add)

    simulate = add("simulate", _simulate, "Simulate a movie with a known answer.")
    simulate.add_argument("-o", "--output", type=Path, required=True, help="HDF5 file")
    simulate.add_argument("--frames", type=int, default=48, help="number of frames (48)")
    simulate.add_argument("--size", type=int, nargs=2, default=(320, 448), metavar=("ROWS", "COLUMNS"))
    simulate.add_argument("--dose", type=float, default=60.0, help="electrons a pixel and frame (60)")
    simulate.add_argument("--seed", type=int, default=0)

    add_model_commands(add)
    add_segment_commands(add)
    add_training_commands(add)
    add_facility_commands(add)
    return parser


def _join(stop: Callable[[], bool]) -> "World":
    """The world of ranks; what computes is loaded first, under the guardian but without MPI."""
    import hrtemvae_hpc.distributed.job  # noqa: F401
    from hrtemvae_hpc.distributed.world import join_world

    return join_world(stop)


def _plan(options: argparse.Namespace) -> int:
    from hrtemvae_hpc.distributed.launch import run_guarded_in_world

    def job(world: "World", _: "StopRequest") -> None:
        from hrtemvae_hpc.analysis_options import configuration
        from hrtemvae_hpc.distributed.job import plan_analysis

        text = plan_analysis(world, options.movie, world.on_root(lambda: configuration(options)))
        if world.is_root:
            show(text)

    return run_guarded_in_world(job, _join)


def _analyze(options: argparse.Namespace) -> int:
    from hrtemvae_hpc.distributed.launch import run_guarded_in_world

    output = options.output or Path(f"{options.movie.stem}.maps.h5")

    def job(world: "World", stop: "StopRequest") -> None:
        from hrtemvae_hpc.analysis_options import configuration
        from hrtemvae_hpc.distributed.job import analyze

        config = world.on_root(lambda: configuration(options))
        inputs = [options.config] if options.config else []
        analyze(world, options.movie, config, output, options.restart, stop, inputs)

    return run_guarded_in_world(job, _join)


def _simulate(options: argparse.Namespace) -> int:
    from hrtemvae_hpc.simulation.movies import simulate_movie

    rows, columns = options.size
    show(str(simulate_movie(options.output, options.frames, rows, columns, options.dose, options.seed)))
    return 0


def _interrupt(number: int, _: FrameType | None) -> None:
    raise KeyboardInterrupt(signal.Signals(number).name)


# They read files on one process, which may hang in a library: a guardian ends them then.
_GUARDED = {"report", "verify", "simulate", "model"}


def _run(arguments: Sequence[str] | None) -> int:
    try:
        for number in STOP_SIGNALS:
            signal.signal(number, _interrupt)
        options = _parser().parse_args(arguments)
        if options.command in _GUARDED:
            return run_guarded(lambda _: _carry_out(options))
        return _carry_out(options)
    except HrtemvaeError as error:
        tell(error)
        return error.exit_code
    except KeyboardInterrupt as asked:
        tell(Stopped(f"stopped by {asked}; run the same command again."))
        end_process(Stopped.exit_code)  # without waiting for threads


def _carry_out(options: argparse.Namespace) -> int:
    try:
        code: int = options.run(options)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        # The reader of our output has gone, as in `hrtemvae plan movie.h5 | head`.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def main(arguments: Sequence[str] | None = None) -> None:
    """The ``hrtemvae`` command."""
    # PyTorch is made of so many objects that looking for garbage among them takes a fifth of the time to load it, and
    # half a second at the end.
    gc.set_threshold(100_000, 50, 50)
    atexit.register(gc.freeze)
    sys.exit(_run(arguments))
