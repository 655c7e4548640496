"""The errors a user can meet, each with the exit code it ends the program with."""


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
    """A rank, a device or the disk failed while the work was under way."""

    exit_code = 4
