"""The commands `hrtemvae session ...`."""

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

from hrtemvae_hpc.cli.options import add_analysis_options, add_json, analysis_words, subcommands
from hrtemvae_hpc.errors import InputError, printable, show
from hrtemvae_hpc.facility.image import CHECKOUT
from hrtemvae_hpc.facility.movies import Found
from hrtemvae_hpc.facility.session import Session, array_chunks, begin_session, default_folder, open_session, queued_of
from hrtemvae_hpc.facility.session_run import run_session
from hrtemvae_hpc.facility.session_status import describe_session, session_as_json


def add_options(command: argparse.ArgumentParser) -> None:
    """Describe the commands to their parser."""
    add = subcommands(command)

    submit = add("submit", _submit, "Submit what is missing to Slurm, as slurm/session.sh does.")
    run = add("run", _run, "Analyse what is missing on this machine, without Slurm.")
    run.add_argument("--ranks", type=int, default=1, help="MPI ranks for each movie (1)")
    watch = add("watch", _watch, "Analyse movies on this machine as they arrive, until it is stopped.")
    watch.add_argument("--ranks", type=int, default=1, help="MPI ranks for each movie (1)")
    watch.add_argument("--announce", action="store_true", help=argparse.SUPPRESS)
    status = add("status", _status, "Show the state of each movie.")
    add_json(status)
    report = add("report", _report, "Draw the page of the session: what happens where, what failed.")
    prepare = add("prepare", _prepare, "(for slurm/session.sh) Freeze the manifest, list what to submit.")
    prepare.add_argument("--queued", default="", help=argparse.SUPPRESS)
    prepare.add_argument("--array-size", type=int, default=1001, help=argparse.SUPPRESS)
    prepare.add_argument("--only", help=argparse.SUPPRESS)  # these numbers of a session that a watch has begun
    for each in (watch, prepare):
        each.add_argument(
            "--settle",
            type=float,
            default=60.0,
            metavar="SECONDS",
            help="how long the files of a movie must not have changed (60)" if each is watch else argparse.SUPPRESS,
        )
    for each in (submit, run, watch, prepare):
        each.add_argument("movies", type=Path, help="folder with movies: stacks, and folders of frames")
        add_analysis_options(each)
    for each in (submit, run, prepare):
        each.add_argument("--refused", action="store_true", help="also movies that were refused and have not changed")
    for each in (status, report):
        each.add_argument("movies", type=Path, nargs="?", help="folder with movies")
    for each in (submit, run, watch, status, report, prepare):
        each.add_argument("-o", "--output", type=Path, help="folder of the session (MOVIES.maps in this folder)")

    begin = add("begin", _begin, "(for slurm/session.sh) Record a start; print log and command.")
    begin.add_argument("--ranks", type=int, required=True, help=argparse.SUPPRESS)
    end = add("end", _end, "(for slurm/session.sh) Record an end.")
    end.add_argument("--code", type=int, required=True, help=argparse.SUPPRESS)
    end.add_argument("--again", action="store_true", help=argparse.SUPPRESS)
    for each in (begin, end):
        each.add_argument("index", type=int, help="number of the movie in the session of this folder")


def _folder(options: argparse.Namespace) -> Path:
    if options.output is None and options.movies is None:
        return Path()
    return Path(options.output or default_folder(options.movies))


def _submit(options: argparse.Namespace) -> int:
    script = CHECKOUT / "slurm" / "session.sh"
    if not script.is_file() or shutil.which("sbatch") is None:
        raise InputError(
            "sessions are submitted from a checkout of the project, on a machine with sbatch; inside the image or on "
            "a single machine use `hrtemvae session run`."
        )
    output = [] if options.output is None else ["-o", options.output]
    refused = ["--refused"] * options.refused
    sys.stdout.flush()
    command = ["bash", script, options.movies, *output, *refused, *analysis_words(options)]
    return subprocess.run(command, check=False).returncode


def _run(options: argparse.Namespace) -> int:
    from hrtemvae_hpc.facility.session_report import write_session_page

    session = begin_session(options.movies, _folder(options), analysis_words(options))
    try:
        run_session(session, session.missing(refused=options.refused), options.ranks, show)
    finally:
        show(describe_session(session))
    show(f"report: {write_session_page(session)}")
    return session.worst_code


def _watch(options: argparse.Namespace) -> int:
    from hrtemvae_hpc.facility.session_report import write_session_page
    from hrtemvae_hpc.facility.session_watch import watch_session

    def announce(session: Session, new: list[int]) -> None:
        names = ", ".join(printable(session.names[i]) for i in new)
        show(f"{','.join(map(str, new))} {len(new)} new: {names}")

    def analyse(session: Session, new: list[int]) -> None:
        try:
            run_session(session, new, options.ranks, show)
        finally:
            write_session_page(session)

    folder = _folder(options)
    if not options.announce:
        show(f"watching {options.movies}; results go to {folder}. Stop it with Ctrl-C.")
    work = announce if options.announce else analyse
    session = watch_session(options.movies, folder, analysis_words(options), options.settle, work)
    if not options.announce:
        show(describe_session(session))
    return 0


def _status(options: argparse.Namespace) -> int:
    session = open_session(_folder(options))
    show(session_as_json(session) if options.json else describe_session(session))
    return 0


def _report(options: argparse.Namespace) -> int:
    from hrtemvae_hpc.facility.session_report import write_session_page

    show(str(write_session_page(open_session(_folder(options)))))
    return 0


def _prepare(options: argparse.Namespace) -> int:
    found = Found() if options.only else None
    session = begin_session(options.movies, _folder(options), analysis_words(options), found)
    print(session.id, session.folder, session.movies_folder, sep="\n")
    missing = session.missing(queued_of(session, options.queued), options.refused)
    if options.only:
        missing = sorted(set(missing) & set(map(int, options.only.split(","))))
    for offset, numbers in array_chunks(missing, options.array_size):
        print(offset, numbers)
    return 0


def _begin(options: argparse.Namespace) -> int:
    session = open_session(Path())
    movie = session.begin(options.index, options.ranks)
    if movie is not None:
        print(str(movie.log), "hrtemvae", *session.arguments(movie), sep="\0", end="\0")
    return 0


def _end(options: argparse.Namespace) -> int:
    open_session(Path()).end(options.index, options.code, options.again)
    return 0
