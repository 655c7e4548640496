"""The commands of a facility: image, doctor and session, each handed over to its room."""

import argparse
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from hrtemvae_hpc.analysis_options import add_analysis_options, words_again
from hrtemvae_hpc.errors import InputError, show

Command: TypeAlias = Callable[[argparse.Namespace], int]
Add: TypeAlias = Callable[[str, Command, str], argparse.ArgumentParser]


def add_facility_commands(add: Add) -> None:
    """Add the commands to a parser by its ``add``, which is given name, function and help."""
    image = add("image", lambda _: 2, "Build, test and describe the Apptainer image.")
    images = image.add_subparsers(required=True, metavar="COMMAND")
    build = images.add_parser("build", help="Build the image, unless it is up to date.")
    build.set_defaults(run=_image_build)
    build.add_argument("-o", "--output", type=Path, help="image file (containers/hrtemvae.sif)")
    torch = build.add_mutually_exclusive_group()
    torch.add_argument("--torch", default="cpu", metavar="BUILD", help="PyTorch: cpu (default), cuda, or a lock file")
    torch.add_argument("--unverified-torch", metavar="SPEC", help="PyTorch as pip takes it, not verified by hashes")
    build.add_argument(
        "--build-arg", action="append", default=[], metavar="KEY=VALUE", help="for %%arguments in the definition"
    )
    for name, run, text in (
        ("test", _image_test, "Analyse a small movie on two ranks inside the image."),
        ("info", _image_info, "Tell what an image is made of."),
    ):
        command = images.add_parser(name, help=text)
        command.set_defaults(run=run)
        command.add_argument("image", type=Path, nargs="?", help="image file (containers/hrtemvae.sif)")
    add("doctor", _doctor, "Check whether ranks, MPI, devices, files and the image fit together here.")
    _add_session_commands(add("session", lambda _: 2, "Analyse all movies of a folder."))


def _add_session_commands(session: argparse.ArgumentParser) -> None:
    commands = session.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, run: Command, text: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text)
        command.set_defaults(run=run)
        return command

    submit = add("submit", _session_submit, "Submit what is missing to Slurm, as slurm/session.sh does.")
    run = add("run", _session_run, "Analyse what is missing on this machine, without Slurm.")
    run.add_argument("--ranks", type=int, default=1, help="MPI ranks for each movie (1)")
    status = add("status", _session_status, "Tell how each movie stands.")
    report = add("report", _session_report, "Draw the page of the session: what happens where, what failed.")
    prepare = add("prepare", _session_prepare, "(for slurm/session.sh) Freeze the manifest, list what to submit.")
    prepare.add_argument("--queued", default="", help=argparse.SUPPRESS)
    prepare.add_argument("--array-size", type=int, default=1001, help=argparse.SUPPRESS)
    for command in (submit, run, prepare):
        command.add_argument("movies", type=Path, help="folder with movies, searched to any depth")
        command.add_argument("--refused", action="store_true", help="also movies that were refused as they are")
        add_analysis_options(command)
    for command in (status, report):
        command.add_argument("movies", type=Path, nargs="?", help="folder with movies")
    for command in (submit, run, status, report, prepare):
        command.add_argument("-o", "--output", type=Path, help="folder of the session (MOVIES.maps in this folder)")

    begin = add("begin", _session_begin, "(for slurm/session.sh) Note a start, tell log and command.")
    begin.add_argument("--ranks", type=int, required=True, help=argparse.SUPPRESS)
    end = add("end", _session_end, "(for slurm/session.sh) Note an end.")
    end.add_argument("--code", type=int, required=True, help=argparse.SUPPRESS)
    end.add_argument("--again", action="store_true", help=argparse.SUPPRESS)
    for command in (begin, end):
        command.add_argument("index", type=int, help="number of the movie in the session of this folder")


def _image_build(options: argparse.Namespace) -> int:
    from hrtemvae_hpc.facility.image import DEFAULT_IMAGE, build_image, torch_lock

    image = options.output or DEFAULT_IMAGE
    torch = options.unverified_torch or torch_lock(options.torch)
    built = build_image(image, torch, options.build_arg, show)
    show(f"{image}: {'built and tested' if built else 'is up to date'}")
    return 0


def _image_test(options: argparse.Namespace) -> int:
    from hrtemvae_hpc.facility.image import DEFAULT_IMAGE, test_image

    show(test_image(options.image or DEFAULT_IMAGE))
    return 0


def _image_info(options: argparse.Namespace) -> int:
    from hrtemvae_hpc.facility.image import DEFAULT_IMAGE, describe_image

    show(describe_image(options.image or DEFAULT_IMAGE))
    return 0


def _doctor(_: argparse.Namespace) -> int:
    from hrtemvae_hpc.facility.doctor import examine

    return examine()


def _session_folder(options: argparse.Namespace) -> Path:
    from hrtemvae_hpc.facility.session import default_folder

    if options.output is None and options.movies is None:
        return Path()
    return Path(options.output or default_folder(options.movies))


def _session_submit(options: argparse.Namespace) -> int:
    from hrtemvae_hpc.facility.image import CHECKOUT

    script = CHECKOUT / "slurm" / "session.sh"
    if not script.is_file() or shutil.which("sbatch") is None:
        raise InputError(
            "sessions are submitted where Slurm's sbatch is, from a checkout of the project; inside the image or on a "
            "single machine use `hrtemvae session run`."
        )
    output = [] if options.output is None else ["-o", options.output]
    refused = ["--refused"] * options.refused
    sys.stdout.flush()
    command = ["bash", script, options.movies, *output, *refused, *words_again(options)]
    return subprocess.run(command, check=False).returncode


def _session_run(options: argparse.Namespace) -> int:
    from hrtemvae_hpc.facility.session import begin_session
    from hrtemvae_hpc.facility.session_report import write_session_page
    from hrtemvae_hpc.facility.session_run import run_session
    from hrtemvae_hpc.facility.session_status import describe_session

    session = begin_session(options.movies, _session_folder(options), words_again(options))
    try:
        run_session(session, session.missing(refused=options.refused), options.ranks, show)
    finally:
        show(describe_session(session))
    show(f"report: {write_session_page(session)}")
    return session.worst_code


def _session_status(options: argparse.Namespace) -> int:
    from hrtemvae_hpc.facility.session import open_session
    from hrtemvae_hpc.facility.session_status import describe_session

    show(describe_session(open_session(_session_folder(options))))
    return 0


def _session_report(options: argparse.Namespace) -> int:
    from hrtemvae_hpc.facility.session import open_session
    from hrtemvae_hpc.facility.session_report import write_session_page

    show(str(write_session_page(open_session(_session_folder(options)))))
    return 0


def _session_prepare(options: argparse.Namespace) -> int:
    from hrtemvae_hpc.facility.session import array_chunks, begin_session, queued_of

    session = begin_session(options.movies, _session_folder(options), words_again(options))
    print(session.id, session.folder, session.movies_folder, sep="\n")
    missing = session.missing(queued_of(session, options.queued), options.refused)
    for offset, numbers in array_chunks(missing, options.array_size):
        print(offset, numbers)
    return 0


def _session_begin(options: argparse.Namespace) -> int:
    from hrtemvae_hpc.facility.session import open_session

    session = open_session(Path())
    movie = session.begin(options.index, options.ranks)
    if movie is not None:
        print(str(movie.log), "hrtemvae", *session.arguments(movie), sep="\0", end="\0")
    return 0


def _session_end(options: argparse.Namespace) -> int:
    from hrtemvae_hpc.facility.session import open_session

    open_session(Path()).end(options.index, options.code, options.again)
    return 0
