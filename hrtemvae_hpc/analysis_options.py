"""The options of an analysis on the command line, for every command that analyses or has it done."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hrtemvae_hpc.config import AnalysisConfig

# Options of an analysis that override the configuration: flag, key, arguments for argparse.
_OVERRIDES: tuple[tuple[str, str, dict[str, Any]], ...] = (
    (
        "--dataset",
        "movie.dataset",
        {"metavar": "PATH", "help": "the movie inside the file, if it isn't found by itself"},
    ),
    ("--axes", "movie.axes", {"metavar": "tyx", "help": "order of the dataset's axes"}),
    ("--roi", "movie.roi", {"metavar": "y0:y1,x0:x1", "help": "region in pixels"}),
    ("--frames", "movie.frames", {"metavar": "a:b[:step]", "help": "range of frames"}),
    ("--on-bad-frame", "movie.on_bad_frame", {"metavar": "stop|skip", "help": "frames that can't be decoded"}),
    ("--clip-outliers", "preprocess.clip_outliers", {"action": "store_true", "help": "clip hot pixels"}),
    ("--low-pass", "preprocess.low_pass", {"action": "store_true", "help": "Gaussian low-pass of 0.25 cycles/pixel"}),
    ("--resample", "preprocess.resample", {"metavar": "model|FACTOR", "help": "scale frames to the model's, or by"}),
    ("--step", "windows.step", {"type": int, "metavar": "PIXELS", "help": "distance of windows (8)"}),
    ("--scaling", "windows.scaling", {"metavar": "window|frame", "help": "what is scaled to 0..1 together (window)"}),
    ("--model", "encoding.model", {"metavar": "FILE", "help": "model file (the bundled weights)"}),
    ("--precision", "encoding.precision", {"metavar": "fp32|tf32|bf16", "help": "arithmetic of the network (fp32)"}),
    ("--max-memory", "run.max_memory", {"metavar": "SIZE", "help": "memory of a rank, 2GB for example"}),
    ("--keep-parts", "run.keep_parts", {"action": "store_true", "help": "keep the part files"}),
)


def add_analysis_options(command: argparse.ArgumentParser) -> None:
    """Give ``command`` the options of an analysis."""
    command.add_argument("--config", type=Path, metavar="YAML", help="configuration, see configs/analyze.yaml")
    for flag, key, arguments in _OVERRIDES:
        command.add_argument(flag, dest=key, default=None, **arguments)


def configuration(options: argparse.Namespace) -> "AnalysisConfig":
    """The configuration that ``options`` ask for. Raises InputError where there is none such."""
    from hrtemvae_hpc.config import AnalysisConfig, load_config

    given = {key: getattr(options, key) for _, key, _ in _OVERRIDES}
    return load_config(
        options.config, {key: value for key, value in given.items() if value is not None}, AnalysisConfig
    )


def words_again(options: argparse.Namespace) -> list[str]:
    """``options`` as words of a command line that means the same in any folder; raises InputError like the above."""
    configuration(options)
    words = [] if options.config is None else ["--config", str(options.config.absolute())]
    for flag, key, _ in _OVERRIDES:
        value = getattr(options, key)
        if value is True:
            words.append(flag)
        elif value is not None:
            words += [flag, str(Path(value).absolute()) if key == "encoding.model" else str(value)]
    return words
