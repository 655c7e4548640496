"""What a conversion begins with: the movie, the images that correct it, and the file that it will be."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numcodecs
import numpy as np

from hrtemvae_hpc import __version__
from hrtemvae_hpc.config import MovieSection
from hrtemvae_hpc.conversion.blocks import Conversion
from hrtemvae_hpc.conversion.options import ConversionConfig
from hrtemvae_hpc.errors import InputError
from hrtemvae_hpc.identity import digest_of
from hrtemvae_hpc.movie.converted import ConvertedMovie
from hrtemvae_hpc.movie.corrections import BadPixels, Corrections
from hrtemvae_hpc.movie.images import open_images
from hrtemvae_hpc.movie.joined import open_movies
from hrtemvae_hpc.movie.movie import Movie

_SLAB_BYTES = 2**26  # of correction frames that are read together


@contextmanager
def open_conversion(paths: Sequence[Path], config: ConversionConfig, command: str) -> Iterator[tuple[Conversion, str]]:
    """A conversion, ready to run, and its identity. ``command`` is the command line that asks for it.

    Raises InputError if the movie or a file of corrections can't be used.
    """
    with open_movies(paths, config.movie) as movie:
        options = config.corrections
        corrections, fingerprints = _corrections(movie, config)
        frames = movie.shape[0] // options.sum
        height, width = corrections.shape(*movie.shape[1:])
        if frames == 0:
            raise InputError(f"{movie.where}: has {movie.shape[0]} frames, fewer than are summed; lower --sum.")
        if height * width == 0:
            raise InputError(
                f"{movie.where}: a frame is smaller than {options.bin} x {options.bin} pixels; lower --bin."
            )
        identity = digest_of(
            {
                "movie": movie.fingerprint,
                "corrections": fingerprints,
                "configuration": _configuration(config),
                "version": __version__,
                "numcodecs": numcodecs.__version__,
            }
        )
        times, timed = _times(movie, config.movie, options.sum, frames)
        size = movie.pixel_size_nm
        about = movie.source.description
        result = ConvertedMovie(
            shape=(frames, height, width),
            dtype=corrections.dtype(movie.dtype, options.sum),
            compression=config.file.compression,
            times=times,
            timed=timed,
            pixel_size_nm=size and (size[0] * options.bin, size[1] * options.bin),
            counts_per_electron=config.file.counts_per_electron,
            process={
                "program": "hrtemvae",
                "version": __version__,
                "command_line": command.encode(errors="backslashreplace").decode(),
                "configuration": json.dumps(_configuration(config)),
                "identity": identity,
            },
            source={
                "files": json.dumps([str(path.absolute()) for path in dict.fromkeys(movie.files)]),
                "format": about.format,
                "fingerprint": movie.fingerprint,
                "notes": json.dumps(about.notes),
                "metadata": json.dumps(about.metadata),
            },
        )
        yield Conversion(movie, corrections, options.sum, result), identity


def correction_files(config: ConversionConfig) -> list[Path]:
    """The files that frames are corrected with."""
    options = config.corrections
    return [Path(name) for name in (options.dark, options.gain, options.bad_pixels) if name is not None]


def _configuration(config: ConversionConfig) -> dict[str, object]:
    """What determines the file, as JSON can hold it."""
    return config.model_dump(mode="json", exclude={"run": True, "movie": {"on_bad_frame"}})


def _corrections(movie: Movie, config: ConversionConfig) -> tuple[Corrections, list[str]]:
    """The corrections of the selected part of ``movie``, and fingerprints of their files."""
    options = config.corrections
    images, fingerprints = {}, []
    for name, path in (("dark", options.dark), ("gain", options.gain), ("bad-pixels", options.bad_pixels)):
        if path is not None:
            image, fingerprint = _image(Path(path), movie, f"--{name}", mean=name != "bad-pixels")
            images[name] = image
            fingerprints.append(f"{name} {fingerprint}")
    bad = images.get("bad-pixels")
    return Corrections(
        images.get("dark"), images.get("gain"), None if bad is None else BadPixels.of(bad != 0), options.bin
    ), fingerprints


def _image(path: Path, movie: Movie, option: str, mean: bool) -> tuple[np.ndarray, str]:
    """The mean or, where that says nothing, the largest magnitude of the frames in ``path``, for the selected part.

    In the type that the movie is corrected in, and the fingerprint of the file. Raises InputError if they have another
    shape than those of the movie, or can't be used.
    """
    with Movie(path, source=open_images(path)) as file:
        if file.shape[1:] != movie.full_shape[1:]:
            raise InputError(
                f"{path}: its frames have {' x '.join(map(str, file.shape[1:]))} pixels, those of {movie.where} "
                f"{' x '.join(map(str, movie.full_shape[1:]))}; name a file of the same detector with {option}."
            )
        area = movie.area.moved(movie.top, movie.left)
        total = np.zeros((area.height, area.width))
        step = max(1, _SLAB_BYTES // (area.pixels * file.dtype.itemsize))
        for first in range(0, file.shape[0], step):
            try:
                frames = file.read(slice(first, min(first + step, file.shape[0])), area)
            except OSError as error:
                raise InputError(f"{path}: can't be decoded ({error}); copy it again.") from error
            total = (
                total + frames.sum(0, dtype=float) if mean else np.maximum(total, np.abs(frames.astype(float)).max(0))
            )
        image = total / file.shape[0] if mean else total
        if not np.isfinite(image).all():
            raise InputError(f"{path}: holds pixels that are not finite; name another file with {option}.")
        return image.astype(np.float64 if movie.dtype == np.float64 else np.float32), file.fingerprint


def _times(movie: Movie, section: MovieSection, together: int, frames: int) -> tuple[np.ndarray, bool]:
    """When each converted frame begins [frames], and whether in seconds: of summed frames the time of the first."""
    firsts = np.arange(frames) * together
    times = movie.source.description.times_s
    if times is not None and section.frame_time is None:
        return times[movie.frame_indices[firsts]].astype(float), True
    if movie.frame_time_s is not None:
        return firsts * movie.frame_time_s, True
    return firsts.astype(float), False
