"""What the page of a result shows: its maps as pictures, within a budget of bytes, and what its scripts need."""

import base64
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hrtemvae_hpc.errors import printable
from hrtemvae_hpc.maps.colours import gradient, table
from hrtemvae_hpc.maps.drift_group import FrameCurves
from hrtemvae_hpc.maps.page_series import series_data
from hrtemvae_hpc.maps.page_windows import windows_data
from hrtemvae_hpc.maps.panel import Panel
from hrtemvae_hpc.maps.pictures import (
    COLOURS,
    MOST_SAMPLES,
    NOT_NEGATIVE,
    Coded,
    binning_of,
    code,
    frame_png,
    limits,
    map_png,
    thinned,
)
from hrtemvae_hpc.maps.result import Result
from hrtemvae_hpc.pages import inline
from hrtemvae_hpc.statistics.over_time import MINIMUM_FRAMES

BUDGET = 19_000_000  # bytes of pictures on a page
_LEADING = 6
_BETWEEN = 640  # pixels along a side of the frames between the first and the last
_MOST_POINTS = 8192  # of a curve
_SHORT_TITLES = {
    "time_correlated_variance": "(ρ · variance)²",
    "variance": "variance",
    "spearman": "Spearman's ρ",
    "mean": "mean",
    "valid_frames": "valid frames",
    "group": "√Σ(ρ · variance)² of a group",
    "excess_variance": "variance beyond noise",
    "change": "frame of the change",
    "significance": "chance of such a ρ anywhere",
    "reconstruction": "how well the model knows it",
}
_CERTAINTY = {"excess_variance": "excess_variance", "change": "change/frame", "significance": "significance"}
_TOGETHER = "all latents together"


@dataclass(frozen=True)
class MapPicture:
    """A map that is embedded in a page."""

    quantity: str
    latent: int | str | None  # the name of a group; None for a map that belongs to neither
    coded: Coded
    shown: tuple[float, float]  # the values that the colours cover
    picture: str  # a PNG file as a data URL

    @property
    def title(self) -> str:
        """What it shows."""
        if isinstance(self.latent, str):
            return f"{self.latent}: {_SHORT_TITLES[self.quantity]}"
        if self.latent is not None:
            return f"z{self.latent}: {_SHORT_TITLES[self.quantity]}"
        return _TOGETHER if self.quantity == "time_correlated_variance" else _SHORT_TITLES[self.quantity]

    @property
    def gradient(self) -> str:
        """Its colours as a CSS gradient."""
        return gradient(COLOURS[self.quantity])


@dataclass(frozen=True)
class FramePicture:
    """A frame that is embedded in a page."""

    index: int
    title: str
    picture: str


def picture_of(quantity: str, latent: int | str | None, values: np.ndarray, most: int = MOST_SAMPLES) -> MapPicture:
    """The map ``values`` [rows, columns] of ``quantity`` as a picture, of at most ``most`` pixels along a side."""
    values = thinned(values, most)
    coded, shown = code(quantity, values), limits(quantity, values)
    return MapPicture(quantity, latent, coded, shown, inline(map_png(quantity, coded, shown)))


def frame_picture(result: Result, number: int, most: int) -> FramePicture:
    """Frame ``number`` of those that ``result`` keeps, of at most ``most`` pixels along a side."""
    index, last = result.preview_frames[number], len(result.preview) - 1
    which = {0: "first ", last: "last "}.get(number, "")
    return FramePicture(index, f"{which}frame ({index})", inline(frame_png(thinned(result.preview[number], most))))


def frame_pictures(result: Result) -> list[FramePicture]:
    """The frames that ``result`` keeps; those between the first and the last are coarser."""
    last = len(result.preview) - 1
    return [frame_picture(result, n, MOST_SAMPLES if n in (0, last) else _BETWEEN) for n in range(last + 1)]


def map_pictures(result: Result, ranked: Sequence[int], budget: int) -> list[MapPicture]:
    """The maps of ``result`` that fit into ``budget`` bytes: of all latents, of groups, then of each as ``ranked``."""
    pictures = [
        picture_of("time_correlated_variance", None, result.together),
        picture_of("valid_frames", None, result.valid_frames),
        *([] if result.reconstruction is None else [picture_of("reconstruction", None, result.reconstruction)]),
        *(picture_of("group", name, result.group(name)) for name in result.process.model_groups),
    ]
    left = budget - sum(len(p.picture) for p in pictures)
    for quantity, latent in _most_wanted(ranked, certain=result.reproducibility is not None):
        picture = picture_of(quantity, latent, result.maps(_CERTAINTY.get(quantity, quantity), latent))
        left -= len(picture.picture)
        if left < 0:
            break
        pictures.append(picture)
    return pictures


def _most_wanted(ranked: Sequence[int], certain: bool) -> Iterator[tuple[str, int]]:
    """Quantity and latent of each map: what the leading latents' figures show, then all of each latent.

    ``certain``: whether the result holds how certain maps are, which is wanted of the leading latents.
    """
    figures, others = ("time_correlated_variance", "spearman"), ("variance", "mean")
    for latents, quantities in (
        (ranked[:_LEADING], figures),
        (ranked[:_LEADING], (*others, *(_CERTAINTY if certain else ()))),
        (ranked[_LEADING:], figures + others),
    ):
        for latent in latents:
            for quantity in quantities:
                yield quantity, latent


def in_figures(picture: MapPicture, ranked: Sequence[int]) -> bool:
    """Whether the page shows ``picture`` without being asked."""
    return (picture.quantity in ("time_correlated_variance", "valid_frames") and picture.latent is None) or (
        picture.latent in ranked[:_LEADING] and picture.quantity in ("time_correlated_variance", "spearman")
    )


def viewer_data(result: Result, panel: Panel, pictures: Sequence[MapPicture], ranked: Sequence[int]) -> dict[str, Any]:
    """What the page's scripts need to know of ``result`` and its ``pictures``; those in figures are not repeated."""
    pixel = result.process.pixel_size if result.units == "nm" else None
    binning = binning_of(result.valid_frames.shape)
    first = zip((result.y[0], result.x[0]), binning, result.spacing, strict=True)
    return {
        "name": printable(result.path.stem),
        # Commands for a result; while a movie is recorded, its result is replaced again and again.
        "file": None if result.process.recording else shlex.quote(printable(str(result.path))),
        "recording": bool(result.process.recording),
        "units": panel.units,
        "pixel": pixel or (1.0, 1.0),
        "region": result.process.region,
        "origin": [float(centre + (b - 1) / 2 * spacing) for centre, b, spacing in first],
        "spacing": [s * b for s, b in zip(result.spacing, binning, strict=True)],
        "frame": panel.frame,
        "maps": panel.maps,
        "shape": pictures[0].coded.codes.shape,
        "pictures": [
            {
                "quantity": p.quantity,
                "latent": p.latent,
                "title": p.title,
                "low": p.coded.low,
                "high": p.coded.high,
                "power": p.coded.power,
                "shown": p.shown,
                "picture": None if in_figures(p, ranked) else p.picture,
            }
            for p in pictures
        ],
        "quantities": [
            {
                "name": name,
                "title": title,
                "colours": _packed(table(COLOURS[name])),
                "gradient": gradient(COLOURS[name]),
                "scales": name in NOT_NEGATIVE,
            }
            for name, title in _SHORT_TITLES.items()
        ],
        "binning": binning,
        "series": series_data(result, ranked),
        "windows": windows_data(result),
        "curves": frame_curves(result.curves) if result.curves else None,
        "variances": _variances(result),
    }


def frame_curves(curves: FrameCurves) -> dict[str, Any]:
    """Drift, brightness and focus of each frame (of every n-th, if there are many), as float32 in base64."""
    every = slice(None, None, -(-len(curves.frame) // _MOST_POINTS))
    shown = np.where(curves.blank, np.nan, 1.0)
    values = {
        "frame": curves.frame,
        "x": curves.frame if curves.time is None else curves.time,
        "dy": curves.dy * shown,
        "dx": curves.dx * shown,
        "applied_dy": curves.applied_dy,
        "applied_dx": curves.applied_dx,
        "mean": curves.mean * shown,
        "contrast": curves.contrast * shown,
        "focus": curves.focus * shown,
    }
    packed = {name: _packed(np.asarray(v[every], "<f4")) for name, v in values.items()}
    followed = bool(curves.applied_dy.any() or curves.applied_dx.any())
    return {"label": "frame" if curves.time is None else "time / s", "followed": followed, **packed}


def _packed(array: np.ndarray) -> str:
    return base64.b64encode(array.tobytes()).decode()


def _variances(result: Result) -> dict[str, list[float | None]]:
    """Variance over time of each latent, in the model's order: mean and 99th percentile over the windows."""
    enough = result.valid_frames >= MINIMUM_FRAMES
    if not enough.any():
        return {"mean": [], "high": []}
    variances = [result.maps("variance", latent)[enough] for latent in result.latent]
    return {
        "mean": [_finite(v.mean(dtype=float)) for v in variances],
        "high": [_finite(np.percentile(v, 99)) for v in variances],
    }


def _finite(number: float) -> float | None:
    return float(number) if np.isfinite(number) else None
