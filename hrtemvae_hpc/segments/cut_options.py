"""How micrographs become segments: the options of ``hrtemvae segments``, which its file of segments records."""

from typing import Literal

from pydantic import Field

from hrtemvae_hpc.config import FrameRange, PreprocessSection, Section
from hrtemvae_hpc.fourier.threshold import FRINGE_THRESHOLD


class CutOptions(Section):
    """How micrographs become segments."""

    window: int = Field(64, ge=8, description="rows and columns of a segment, pixels")
    scaling: Literal["window", "local"] = Field(
        "window", description="scale each segment by itself, or each pixel by those around it"
    )
    stride: int = Field(32, ge=1, description="pixels between neighbouring segments")
    frames: FrameRange = Field((None, None, None), description="frames a:b or a:b:step of stacks; by default all")
    clip_outliers: bool = Field(False, description=PreprocessSection.model_fields["clip_outliers"].description)
    low_pass: bool = Field(False, description=PreprocessSection.model_fields["low_pass"].description)
    pixel_size: float | None = Field(None, gt=0, description="nm per pixel to which all micrographs are scaled")
    assume_pixel_size: float | None = Field(None, gt=0, description="nm per pixel of files that don't state it")
    turns: int = Field(0, ge=0, description="how often each micrograph is cut again after a random rotation")
    threshold: float = Field(FRINGE_THRESHOLD, ge=0, description="least fringe strength of segments that are kept")
    most: int = Field(1000, ge=1, description="most segments kept per file")
    seed: int = Field(0, ge=0, description="seed of the choice of segments and angles")
