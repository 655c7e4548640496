"""The errors a user can meet, each with the exit code it ends the program with."""

import os
import sys


class HrtemvaeError(Exception):
    """Base class: a sentence that says what is wrong, where, and what to do."""

    exit_code = 1


class InputError(HrtemvaeError):
    """The user's input or configuration is wrong."""

    exit_code = 2


class Stopped(HrtemvaeError):
    """A signal asked the program to stop; progress is saved."""

    exit_code = 3


class RankFailed(HrtemvaeError):
    """A rank, a node or a disk failed during the work; the same command may succeed."""

    exit_code = 4


class Blocked(RankFailed):
    """The same command would fail again until something is changed: a full disk, a device that can't be used."""

    exit_code = 5


def error_of(code: int, text: str) -> HrtemvaeError:
    """The error that ended a process with an exit ``code``, and what it said."""
    kinds = {kind.exit_code: kind for kind in (InputError, Stopped, RankFailed, Blocked)}
    return kinds.get(code, HrtemvaeError)(text)


def printable(text: str) -> str:
    """``text`` on one line: whatever a terminal would act on is escaped, including line breaks."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def show(text: str) -> None:
    """Print ``text``, of which only line breaks act on a terminal, on standard output.

    Work goes on if its reader has gone, as in `hrtemvae plan movie.h5 | head`.
    """
    try:
        print("\n".join(map(printable, text.split("\n"))), flush=True)
    except BrokenPipeError:
        discard_output()


def discard_output() -> None:
    """Let standard output lead nowhere from now on, as its reader has gone."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def report(error: HrtemvaeError, where: str = "") -> None:
    """Print ``error`` on standard error; only its first line begins with the program's name."""
    lines = [printable(line) for line in str(error).split("\n")]
    print(f"hrtemvae: {printable(where)}" + "\n  ".join(lines), file=sys.stderr, flush=True)
