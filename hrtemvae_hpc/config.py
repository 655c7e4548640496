"""The configuration of an analysis: one schema for the YAML file and the command line.

The defaults are the article's values. Every value that changes a map is in `movie`, `drift`,
`preprocess`, `windows`, `encoding` or `statistics`; `run` says only how the work is done.
"""

import re
from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ByteSize, ConfigDict, Field, ValidationError, WrapValidator

from hrtemvae_hpc.schemas import Scaling, Text

_SIZES = "give a size such as 2GB or 500MiB"


def parse_size(value: Any, parse: Callable[[Any], Any]) -> Any:
    """Bytes from ``2GB``, ``500 MiB`` or a number."""
    if isinstance(value, str) and not re.fullmatch(r"\s*\d*\.?\d+\s*[A-Za-z]*\s*", value):
        raise ValueError(_SIZES)  # pydantic reads the beginning and ignores the rest
    try:
        return parse(value)
    except (ValidationError, OverflowError) as error:
        raise ValueError(_SIZES) from error


def parse_axes(value: Any) -> Any:
    """An order of the axes time, rows and columns."""
    if isinstance(value, str) and sorted(value) != ["t", "x", "y"]:
        raise ValueError("name each of the axes t, y and x once, for example tyx or yxt")
    return value


def parse_roi(value: Any) -> Any:
    """``y0:y1,x0:x1`` in pixels to ((y0, y1), (x0, x1))."""
    if not isinstance(value, str):
        return value
    match = re.fullmatch(r"\s*(\d*):(\d*)\s*,\s*(\d*):(\d*)\s*", value)
    if match is None:
        raise ValueError("give a region as y0:y1,x0:x1 in pixels, for example 0:512,128:640")
    a, b, c, d = (int(g) if g else None for g in match.groups())
    return (a, b), (c, d)


def parse_frames(value: Any) -> Any:
    """``a:b`` or ``a:b:step`` to (a, b, step)."""
    if isinstance(value, tuple) and value[2:] == (0,):
        raise ValueError("the step of frames must be at least 1")
    if not isinstance(value, str):
        return value
    match = re.fullmatch(r"\s*(\d*):(\d*)(?::(\d+))?\s*", value)
    if match is None or match[3] == "0":
        raise ValueError("give frames as a:b or a:b:step, for example 0:500:5")
    return tuple(int(g) if g else None for g in match.groups())


def parse_factor(value: Any) -> Any:
    """``model``, or a number between 0.05 and 20."""
    if value is None or value == "model":
        return value
    try:
        factor = float(value)
    except (TypeError, ValueError, OverflowError):
        factor = 0.0
    if not 0.05 <= factor <= 20:
        raise ValueError("choose model or a factor between 0.05 and 20")
    return factor


Count = Annotated[int, Field(ge=0, le=2**31)]  # of pixels or frames
Bounds = tuple[Count | None, Count | None]
Roi = tuple[Bounds, Bounds]  # first and last + 1 of rows and of columns
MemorySize = Annotated[Annotated[ByteSize, Field(ge=1, le=2**60)] | None, WrapValidator(parse_size)]
FrameRange = Annotated[tuple[Count | None, Count | None, Count | None], BeforeValidator(parse_frames)]


class Section(BaseModel):
    """A part of a configuration: frozen, and without unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)
    example: ClassVar[str] = ""  # of a whole configuration: the file that explains it


class MovieSection(Section):
    """Which pixels of the file are analysed, and what the file doesn't know about them."""

    dataset: Text | None = Field(None, description="path of the movie inside the file; by default the only one")
    axes: Annotated[str | None, BeforeValidator(parse_axes)] = Field(
        None, description="order of the dataset's axes, for example tyx or yxt; by default read from the file"
    )
    roi: Annotated[Roi | None, BeforeValidator(parse_roi)] = Field(
        None, description="region y0:y1,x0:x1 in pixels; by default the whole frame"
    )
    frames: FrameRange | None = Field(None, description="frames a:b or a:b:step; by default all")
    on_bad_frame: Literal["stop", "skip"] = Field(
        "stop", description="what to do with frames that can't be decompressed"
    )
    pixel_size: float | None = Field(
        None, gt=0, le=1e3, description="nm per pixel; by default what the file says, if it does"
    )
    frame_time: float | None = Field(
        None, gt=0, le=1e9, description="seconds from one frame to the next; by default what the file says"
    )


class DriftSection(Section):
    """How the drift of the specimen is corrected, and which frames show none of it."""

    correct: str = Field(
        "auto",
        min_length=1,
        description="auto: correct drift by whole pixels where two estimates of it agree; none; "
        "or a file of `hrtemvae drift`",
    )
    roi: Annotated[Roi | None, BeforeValidator(parse_roi)] = Field(
        None, description="region y0:y1,x0:x1 in which drift is estimated; by default what is analysed"
    )
    on_blank_frame: Literal["skip", "keep"] = Field(
        "skip", description="what to do with frames that show no image, found while drift is estimated"
    )


class PreprocessSection(Section):
    """What is done to a whole frame (or its region of interest) before it is cut into windows."""

    clip_outliers: bool = Field(False, description="set pixels above mean + 3.717 sigma to mean + 3.5 sigma")
    low_pass: bool = Field(False, description="Gaussian low-pass, sigma 0.25 cycles per pixel")
    resample: Annotated[Literal["model"] | float | None, BeforeValidator(parse_factor)] = Field(
        None, description="scale frames to the model's nm per pixel, or by a factor; by default not at all"
    )


class WindowsSection(Section):
    """How windows are laid over a frame and scaled."""

    step: int = Field(8, ge=1, le=2**31, description="pixels between neighbouring windows")
    scaling: Scaling | None = Field(
        None,
        description="window: scale each window to 0..1 by itself; frame: all windows of a frame together; "
        "local: each pixel by those around it; by default as the model was trained",
    )


class StatisticsSection(Section):
    """What series of latents are compared with."""

    against: Text | None = Field(
        None, description="CSV file with columns time_s,value: rho with this value instead of with time"
    )
    partial: bool = Field(
        False, description="rho given the drift, brightness and contrast of each frame (partial correlation)"
    )


class EncodingSection(Section):
    """Which network turns windows into latents."""

    model: str | None = Field(None, description="model file, or published or dense (bundled); by default published")
    precision: Literal["fp32", "tf32", "bf16"] = Field("fp32", description="arithmetic of the network")


class RunSection(Section):
    """How the work is done; none of this changes a map."""

    max_memory: MemorySize = Field(
        None, description="memory per rank, for example 2GB; by default 80% of the node's free memory"
    )
    keep_parts: bool = Field(False, description="keep the part files after the result is written")
    silent_after: float = Field(120.0, gt=0, description="seconds without progress after which a rank is reported")


class AnalysisConfig(Section):
    """Everything that determines an analysis except the movie."""

    example: ClassVar[str] = "configs/analyze.yaml"

    movie: MovieSection = MovieSection()
    drift: DriftSection = DriftSection()
    preprocess: PreprocessSection = PreprocessSection()
    windows: WindowsSection = WindowsSection()
    encoding: EncodingSection = EncodingSection()
    statistics: StatisticsSection = StatisticsSection()
    run: RunSection = RunSection()
