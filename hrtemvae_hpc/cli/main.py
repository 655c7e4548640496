"""The ``hrtemvae`` command: the table of commands, and how one of them runs and ends."""

import argparse
import atexit
import gc
import signal
import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from importlib import import_module
from types import FrameType

from hrtemvae_hpc import __version__
from hrtemvae_hpc.caches import keep_caches
from hrtemvae_hpc.errors import HrtemvaeError, Stopped, discard_output, report
from hrtemvae_hpc.ranks.guard import STOP_SIGNALS, end_process, run_guarded


@dataclass(frozen=True)
class Command:
    """A command: what it does, an example, and the module of this package whose ``add_options`` knows the rest."""

    module: str
    text: str
    example: str
    guarded: bool = False  # reads files in one process and may hang in a library: then a guardian ends it


COMMANDS = {
    "simulate": Command(
        "simulate",
        "Simulate a movie with a known answer.",
        "simulate --frames 12 --size 192 224 -o movie.h5",
        guarded=True,
    ),
    "convert": Command(
        "convert",
        "Convert a movie, corrected, binned and compressed, to a file that tiles are read from quickly.",
        "convert movie.h5 --bin 2 --compression gzip -o converted.h5",
    ),
    "plan": Command(
        "plan", "Show how a movie would be analysed and how long that would take.", "plan movie.h5 --step 16"
    ),
    "analyze": Command(
        "analyze",
        "Analyse a movie: map how each latent variable varies over time.",
        "analyze movie.h5 --step 16 -o maps.h5",
    ),
    "drift": Command(
        "drift", "Measure how far the specimen drifts, frame by frame.", "drift movie.h5 --drift-roi 0:128,0:128"
    ),
    "report": Command(
        "report", "Draw a result: one HTML page and a PNG of each map.", "report maps.h5 --tiff", guarded=True
    ),
    "lattice": Command(
        "lattice",
        "Measure lattices over time: spacings, angles, misfit, areas, rotation and strain.",
        "lattice movie.h5 --box 20:180,30:200 -o lattices.h5",
    ),
    "trace": Command(
        "trace",
        "Follow the latent variables of single places over time.",
        "trace maps.h5 --at 96,112 --box 64:128,128:192 --latents 50,46",
        guarded=True,
    ),
    "verify": Command(
        "verify", "Check that results and movies are exactly as they were written.", "verify maps.h5", guarded=True
    ),
    "session": Command("session", "Analyse all movies of a folder.", "session run movies --step 32"),
    "segments": Command(
        "segments",
        "Cut micrographs into segments with lattice fringes, to train a model on.",
        "segments --simulated 400 --validation 0.1 -o segments.h5",
    ),
    "train": Command(
        "train",
        "Train a model on segments; alone, or on many ranks under torchrun, srun or mpirun.",
        "train train.yaml --segments segments.h5 -o model.safetensors",
    ),
    "model": Command(
        "model",
        "Import, evaluate and compare models.",
        "model traverse model.safetensors -o latents.png",
        guarded=True,
    ),
    "image": Command("image", "Build, test and describe the Apptainer image.", "image build -o hrtemvae.sif"),
    "doctor": Command("doctor", "Check that ranks, MPI, devices, files and the image work together here.", "doctor"),
}


def parser(named: Collection[str] = tuple(COMMANDS)) -> argparse.ArgumentParser:
    """The parser of all commands; only those that are ``named`` get their options, which take time to load."""
    top = argparse.ArgumentParser("hrtemvae", description="Maps of what changes in in situ HRTEM movies.")
    top.add_argument("--version", action="version", version=f"hrtemvae {__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, command in COMMANDS.items():
        example = f"example: hrtemvae {command.example}"
        added = commands.add_parser(name, help=command.text, description=command.text, epilog=example)
        if name in named:
            import_module(f"hrtemvae_hpc.cli.{command.module}").add_options(added)
    return top


def _interrupt(number: int, _: FrameType | None) -> None:
    raise KeyboardInterrupt(signal.Signals(number).name)


def _run(arguments: Sequence[str]) -> int:
    try:
        for number in STOP_SIGNALS:
            signal.signal(number, _interrupt)
        options = parser(arguments[:1]).parse_args(arguments)
        if COMMANDS[options.command].guarded:
            return run_guarded(lambda _: _carry_out(options))
        return _carry_out(options)
    except HrtemvaeError as error:
        report(error)
        return error.exit_code
    except KeyboardInterrupt as asked:
        report(Stopped(f"stopped by {asked}; run the same command again."))
        end_process(Stopped.exit_code)  # without waiting for threads
    finally:
        for number in STOP_SIGNALS:  # none may raise while Python ends
            signal.signal(number, signal.SIG_DFL)


def _carry_out(options: argparse.Namespace) -> int:
    try:
        code: int = options.run(options)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        discard_output()
        return 0


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command that ``arguments`` (those of the process) name, and exit with its code."""
    # PyTorch consists of so many objects that garbage collection takes a fifth of its loading time, and half a second
    # at the end.
    gc.set_threshold(100_000, 50, 50)
    atexit.register(gc.freeze)
    keep_caches()
    sys.exit(_run(sys.argv[1:] if arguments is None else arguments))
