"""Options from the schemas: their help, type and default are those of the field that each of them sets."""

import argparse
from collections.abc import Callable, Container, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from hrtemvae_hpc.config import AnalysisConfig
from hrtemvae_hpc.config_file import load_config
from hrtemvae_hpc.errors import InputError
from hrtemvae_hpc.model.bundled import BUNDLED
from hrtemvae_hpc.schemas import place, reason

S = TypeVar("S", bound=BaseModel)


class SchemaOption(NamedTuple):
    """An option that sets one field of a schema."""

    flag: str
    key: str  # of the field: its name, after that of its section and a dot where it is in one
    metavar: str | None = None


# Which pixels of a movie are read, and what its files don't know.
MOVIE_OPTIONS = (
    SchemaOption("--dataset", "movie.dataset", "PATH"),
    SchemaOption("--axes", "movie.axes", "tyx"),
    SchemaOption("--roi", "movie.roi", "y0:y1,x0:x1"),
    SchemaOption("--frames", "movie.frames", "a:b[:step]"),
    SchemaOption("--pixel-size", "movie.pixel_size", "NM"),
    SchemaOption("--frame-time", "movie.frame_time", "SECONDS"),
)
_ANALYSIS = (
    *MOVIE_OPTIONS,
    SchemaOption("--on-bad-frame", "movie.on_bad_frame", "stop|skip"),
    SchemaOption("--drift", "drift.correct", "auto|none|FILE"),
    SchemaOption("--drift-roi", "drift.roi", "y0:y1,x0:x1"),
    SchemaOption("--on-blank-frame", "drift.on_blank_frame", "skip|keep"),
    SchemaOption("--clip-outliers", "preprocess.clip_outliers"),
    SchemaOption("--low-pass", "preprocess.low_pass"),
    SchemaOption("--resample", "preprocess.resample", "model|FACTOR"),
    SchemaOption("--step", "windows.step", "PIXELS"),
    SchemaOption("--scaling", "windows.scaling", "window|frame|local"),
    SchemaOption("--model", "encoding.model", "FILE"),
    SchemaOption("--precision", "encoding.precision", "fp32|tf32|bf16"),
    SchemaOption("--against", "statistics.against", "FILE"),
    SchemaOption("--partial", "statistics.partial"),
    SchemaOption("--max-memory", "run.max_memory", "SIZE"),
    SchemaOption("--keep-parts", "run.keep_parts"),
)


def add_schema_options(
    command: argparse.ArgumentParser, schema: type[BaseModel], options: tuple[SchemaOption, ...]
) -> None:
    """Give ``command`` options for fields of ``schema``; one that is not given is None."""
    for option in options:
        holder = schema
        *section, name = option.key.split(".")
        if section:
            holder = holder.model_fields[section[0]].annotation  # type: ignore[assignment]
        field = holder.model_fields[name]
        kinds = {*(get_args(field.annotation) or [field.annotation])} - {type(None)}
        how: dict[str, Any] = {"action": "store_true"} if kinds == {bool} else {"metavar": option.metavar}
        if kinds in ({int}, {float}):
            how["type"] = next(iter(kinds))
        shown = field.default is not None and kinds != {bool} and not isinstance(field.default, tuple)
        default = f" ({field.default})" if shown else ""
        text = f"{field.description}{default}".replace("%", "%%")
        command.add_argument(option.flag, dest=option.key, default=None, help=text, **how)


def given(options: argparse.Namespace, names: tuple[SchemaOption, ...]) -> dict[str, Any]:
    """What ``options`` set, by the field's key."""
    return {o.key: value for o in names if (value := getattr(options, o.key)) is not None}


def from_options(schema: type[S], values: Mapping[str, Any]) -> S:
    """``schema`` with ``values`` by field. Raises InputError that names the option of the first that is refused."""
    try:
        return schema.model_validate(values)
    except ValidationError as error:
        raise InputError(f"--{place(error).replace('_', '-')}: {reason(error)}.") from error


def add_analysis_options(command: argparse.ArgumentParser, flags: Container[str] | None = None) -> None:
    """Give ``command`` the options of an analysis, all or those that ``flags`` name."""
    command.add_argument("--config", type=Path, metavar="YAML", help="configuration, see configs/analyze.yaml")
    add_schema_options(command, AnalysisConfig, tuple(o for o in _ANALYSIS if flags is None or o.flag in flags))


def analysis_config(options: argparse.Namespace) -> AnalysisConfig:
    """The configuration that ``options`` ask for. Raises InputError if it isn't valid."""
    offered = tuple(o for o in _ANALYSIS if o.key in options)
    return load_config(options.config, given(options, offered), AnalysisConfig)


def analysis_words(options: argparse.Namespace) -> list[str]:
    """``options`` as arguments that mean the same in any folder; raises InputError as ``analysis_config`` does."""
    analysis_config(options)
    words = [] if options.config is None else ["--config", str(options.config.absolute())]
    for flag, key, _ in _ANALYSIS:
        value = getattr(options, key)
        if value is True:
            words.append(flag)
        elif value is not None:
            words += [flag, _from_anywhere(key, str(value))]
    return words


def _from_anywhere(key: str, value: str) -> str:
    """``value`` of an option, with an absolute path if it names a file."""
    names = {"encoding.model": BUNDLED, "statistics.against": (), "drift.correct": ("auto", "none")}
    return str(Path(value).absolute()) if key in names and value not in names[key] else value


def subcommands(
    command: argparse.ArgumentParser,
) -> Callable[[str, Callable[[argparse.Namespace], int], str], argparse.ArgumentParser]:
    """Make ``command`` a group; the returned function adds a command to it, by name, function and help."""
    commands = command.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, run: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=text)
        added.set_defaults(run=run)
        return added

    return add


def add_json(command: argparse.ArgumentParser) -> None:
    """Give ``command`` the choice of JSON for what it prints."""
    command.add_argument("--json", action="store_true", help="print an object of JSON, for programs")


def add_restart(command: argparse.ArgumentParser, what: str) -> None:
    """Give ``command`` the choice between resuming and restarting ``what`` was stopped."""
    again = command.add_mutually_exclusive_group()
    again.add_argument("--resume", action="store_true", help=f"resume {what} that was stopped (the default)")
    again.add_argument("--restart", action="store_true", help=f"start {what} from scratch, discarding earlier work")
