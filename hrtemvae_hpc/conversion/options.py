"""How a movie is converted: the options of ``hrtemvae convert``, which its file records."""

from typing import Literal

from pydantic import Field

from hrtemvae_hpc.config import MemorySize, MovieSection, RunSection, Section
from hrtemvae_hpc.schemas import Text


class CorrectionSection(Section):
    """What is done to the frames."""

    dark: Text | None = Field(None, description="file of dark frames, whose mean is subtracted from each frame")
    gain: Text | None = Field(None, description="file of gain frames, whose mean multiplies each frame after that")
    bad_pixels: Text | None = Field(
        None, description="file that is not zero at bad pixels, which get the median of their good neighbours"
    )
    bin: int = Field(1, ge=1, le=2**12, description="sum squares of so many pixels on a side")
    sum: int = Field(1, ge=1, le=2**20, description="sum so many frames to one")


class FileSection(Section):
    """How the frames are stored."""

    compression: Literal["blosc-zstd", "blosc-lz4", "gzip", "none"] = Field(
        "blosc-zstd", description="compression of the movie"
    )
    counts_per_electron: float | None = Field(
        None, gt=0, le=1e9, description="counts of a pixel per electron, kept with the movie for its dose rate"
    )


class MemorySection(Section):
    """How the work is done; this does not change the file."""

    max_memory: MemorySize = Field(None, description=RunSection.model_fields["max_memory"].description)


class ConversionConfig(Section):
    """Everything that determines a conversion except the movie."""

    movie: MovieSection = MovieSection()
    corrections: CorrectionSection = CorrectionSection()
    file: FileSection = FileSection()
    run: MemorySection = MemorySection()
