"""The process record of a result, /entry/process, as reports and verdicts need it."""

import math
from typing import Annotated, Any

import h5py
from pydantic import Field, Json, ValidationError, model_validator

from hrtemvae_hpc.hdf5 import check_array, read_array
from hrtemvae_hpc.schemas import Described, Groups, place, reason
from hrtemvae_hpc.windows.grid import WindowGrid

_LARGEST = 2**24  # bytes of an array of the record
_LARGEST_NUMBER = 2**31

Count = Annotated[int, Field(ge=0, le=2**63 - 1)]
Pixels = Annotated[int, Field(ge=0, le=_LARGEST_NUMBER)]
Factor = Annotated[float, Field(ge=1e-3, le=1e3)]
Positive = Annotated[float, Field(gt=0)]
Seconds = Annotated[float, Field(ge=0)]


class RankRecord(Described):
    """A rank that computed."""

    rank: Count
    host: str
    device: str
    threads: Count


class Record(Described):
    """How a result came about."""

    program: str
    version: str
    date: str
    command_line: str
    configuration: Json[dict[str, dict[str, Any]]]
    model: str
    model_sha256: str
    model_provenance: Json[dict[str, Any]]
    model_groups: Json[Groups] = Field(default_factory=dict)  # earlier versions have none
    movie: str
    movie_dataset: str
    movie_layout: str
    movie_shape: Json[tuple[Pixels, Pixels, Pixels]]  # frames, rows, columns
    movie_storage: str
    movie_fingerprint: str
    recording: str = ""  # how the maps came about, if they were drawn while the movie was recorded
    frames: Json[Annotated[list[Pixels], Field(min_length=1)]]
    bad_frames: Json[list[Pixels]]
    region: Json[tuple[Pixels, Pixels, Pixels, Pixels]]  # rows and columns of the movie's frame, first and last + 1
    window: Annotated[int, Field(ge=1, le=_LARGEST_NUMBER)]
    step: Annotated[int, Field(ge=1, le=_LARGEST_NUMBER)]
    resampling: Annotated[tuple[Factor, Factor], Field(strict=False)]  # analysed rows and columns per row and column
    pixel_size: Annotated[tuple[Positive, Positive] | None, Field(strict=False)] = None  # nm, of the movie
    frame_time: Positive | None = None  # s
    arithmetic: Json[dict[str, str]]  # what determines the last bits
    ranks: Json[list[RankRecord]]
    encodings: Count
    encodings_resumed: Count
    seconds: Seconds
    seconds_by_stage: Json[dict[str, Seconds]]
    bytes_read: Count
    read_amplification: Seconds

    @model_validator(mode="after")
    def _region_lies_in_the_frame(self) -> "Record":
        top, bottom, left, right = self.region
        if not (top < bottom <= self.movie_shape[1] and left < right <= self.movie_shape[2]):
            raise ValueError("the region lies outside of the movie's frame")
        return self

    @property
    def grid(self) -> WindowGrid:
        """The windows of the region, resampled."""
        top, bottom, left, right = self.region
        height, width = (round(n * f) for n, f in zip((bottom - top, right - left), self.resampling, strict=True))
        return WindowGrid(height, width, self.window, self.step)


def read_record(process: h5py.Group) -> Record:
    """The record in the group ``process``. Raises ValueError, with a reason, where it isn't one; or one of DAMAGED."""
    try:
        return Record.model_validate({name: _read(process, name) for name in Record.model_fields if name in process})
    except ValidationError as error:
        raise ValueError(f"process/{place(error)}: {reason(error)}") from error


def _read(process: h5py.Group, name: str) -> Any:
    dataset = check_array(process, name, "iufO", most=_LARGEST)
    if h5py.check_string_dtype(dataset.dtype) and math.prod(dataset.shape) == 1:
        return dataset.asstr()[()]
    return read_array(process, name, "iuf").tolist()
