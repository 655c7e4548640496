"""The command line: each command parses its options and hands over to one function."""

import argparse
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from hrtemvae_hpc import __version__
from hrtemvae_hpc.analysis_options import add_analysis_options, configuration
from hrtemvae_hpc.errors import HrtemvaeError, InputError, RankFailed, Stopped
from hrtemvae_hpc.facility.commands import add_facility_commands

if TYPE_CHECKING:
    from hrtemvae_hpc.distributed.guard import StopRequest
    from hrtemvae_hpc.distributed.world import World


def _parser() -> argparse.ArgumentParser:
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

    report = add("report", _report, "Draw a result: one HTML page and a PNG of each map.")
    report.add_argument("result", type=Path, help="result file of `hrtemvae analyze`")
    report.add_argument("-o", "--output", type=Path, help="folder (RESULT.report beside the result)")
    report.add_argument(
        "--tiff", action="store_true", help="also write each quantity as a calibrated float32 TIFF stack"
    )

    simulate = add("simulate", _simulate, "Simulate a movie with a known answer.")
    simulate.add_argument("-o", "--output", type=Path, required=True, help="HDF5 file")
    simulate.add_argument("--frames", type=int, default=48, help="number of frames (48)")
    simulate.add_argument("--size", type=int, nargs=2, default=(320, 448), metavar=("ROWS", "COLUMNS"))
    simulate.add_argument("--dose", type=float, default=60.0, help="electrons a pixel and frame (60)")
    simulate.add_argument("--seed", type=int, default=0)

    model = add("model", lambda _: 2, "Work with model files.")
    models = model.add_subparsers(required=True, metavar="COMMAND")
    keras = models.add_parser("import-keras", help="Read a network saved by Keras 3 (.keras files).")
    keras.set_defaults(run=_import_keras)
    keras.add_argument("encoder", type=Path)
    keras.add_argument("decoder", type=Path, nargs="?")
    keras.add_argument("-o", "--output", type=Path, required=True, help="model file (.safetensors)")
    add_facility_commands(add)
    return parser


def _plan(options: argparse.Namespace) -> int:
    from hrtemvae_hpc.distributed.job import plan_analysis

    def job(world: "World") -> None:
        text = plan_analysis(world, options.movie, world.on_root(lambda: configuration(options)))
        if world.is_root:
            print(text)

    _in_world(job)


def _analyze(options: argparse.Namespace) -> int:
    from hrtemvae_hpc.distributed.guard import run_guarded

    return run_guarded(lambda stop: _run(lambda _: _analyze_as_rank(options, stop), options))


def _analyze_as_rank(options: argparse.Namespace, stop: "StopRequest") -> int:
    from hrtemvae_hpc.distributed.job import analyze
    from hrtemvae_hpc.maps.report import write_page

    output = options.output or Path(f"{options.movie.stem}.maps.h5")

    def job(world: "World") -> None:
        config = world.on_root(lambda: configuration(options))
        if not analyze(world, options.movie, config, output, options.restart, stop):
            return
        try:
            print(f"report: {write_page(output, output.with_suffix('.html'))}", file=sys.stderr)
        except InputError as error:
            raise RankFailed(f"the result {output} is complete, but its page could not be drawn: {error}") from error

    _in_world(job, lambda: bool(stop))


def _in_world(job: Callable[["World"], None], stop: Callable[[], bool] = lambda: False) -> NoReturn:
    """Run ``job`` on this rank and end the rank, and where it must be all of them, with the right exit code."""
    from hrtemvae_hpc.distributed.guard import rank_of_launcher
    from hrtemvae_hpc.distributed.world import join_world

    try:
        world = join_world(stop)
    except InputError as error:
        if rank_of_launcher() != 0:
            os._exit(error.exit_code)  # rank 0 says it for all
        raise
    try:
        job(world)
    except HrtemvaeError as error:
        _say(error, "" if world.is_root else f"rank {world.rank} on {world.host}: ")
        world.leave(error.exit_code)
    except Exception:  # noqa: BLE001  a defect of ours must end every rank
        traceback.print_exc()
        world.abort(1)
    world.leave(0)


def _report(options: argparse.Namespace) -> int:
    from hrtemvae_hpc.maps.report import write_report

    folder = options.output or options.result.with_suffix(".report")
    print(write_report(options.result, folder, options.tiff))
    return 0


def _simulate(options: argparse.Namespace) -> int:
    from hrtemvae_hpc.simulation.movies import simulate_movie

    rows, columns = options.size
    print(simulate_movie(options.output, options.frames, rows, columns, options.dose, options.seed))
    return 0


def _import_keras(options: argparse.Namespace) -> int:
    from hrtemvae_hpc.model.checkpoint import save_model
    from hrtemvae_hpc.model.keras_file import import_keras

    for source in (options.encoder, options.decoder):
        if source is not None and options.output.exists() and source.exists() and options.output.samefile(source):
            raise InputError(f"{options.output}: is the file to be read; choose another output with -o.")
    model = import_keras(options.encoder, options.decoder)
    save_model(model, options.output)
    print(f"{options.output}: {model.architecture.latents} latents, window {model.architecture.window}")
    return 0


def _say(error: HrtemvaeError, where: str = "") -> None:
    print(f"hrtemvae: {where}{error}", file=sys.stderr, flush=True)


def _run(command: Callable[[argparse.Namespace], int], options: argparse.Namespace) -> int:
    try:
        return command(options)
    except HrtemvaeError as error:
        _say(error)
        return error.exit_code
    except KeyboardInterrupt:
        return Stopped.exit_code
    except BrokenPipeError:
        # The reader of our output has gone, as in `hrtemvae plan movie.h5 | head`.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def main(arguments: Sequence[str] | None = None) -> None:
    """The ``hrtemvae`` command."""
    options = _parser().parse_args(arguments)
    code = _run(options.run, options)
    sys.stdout.flush()
    sys.exit(code)
