"""What the page of a result says about its processes: where, when, by which latents, and how sure."""

from dataclasses import dataclass

import numpy as np

from hrtemvae_hpc.maps.page_data import picture_of
from hrtemvae_hpc.maps.process_lattice import ROTATION, LatticeChange
from hrtemvae_hpc.maps.processes import leading_latents, place_of
from hrtemvae_hpc.maps.result import Result

_LISTED = 6
_MOSTLY = 0.5  # of a latent's changes in one direction, from which on that is named


@dataclass(frozen=True)
class ProcessCard:
    """One process as the page shows it."""

    number: int
    what: str  # happens
    picture: str  # a PNG file as a data URL
    y: float  # its middle, in the units of the result
    x: float
    area: float  # of its place, in these units squared
    span: tuple[int, int] | None  # first and last frame of its time; None if unknown
    course: str  # points of an SVG line, 0 to 100 in both directions: how far it has come over time
    shaded: tuple[float, float]  # where its time begins on that line, and how long it lasts
    latent: int  # the one with the largest share
    latents: list[str]  # the leading ones, with their direction
    reproducibility: float


def process_cards(result: Result, most: int) -> list[ProcessCard]:
    """A card for each process of ``result``, of at most ``most`` pixels along a side; none in a result without any."""
    if result.processes is None:
        return []
    found, cards = result.processes.found, []
    dy, dx = result.spacing
    for i, part in enumerate(found.maps):
        place = place_of(part)
        strength = np.where(place, part, 0)
        first, last = (int(frame) for frame in result.processes.span[i])
        begins, ends = _along(result, first), _along(result, last)
        leading = leading_latents(found.weights[i])[:_LISTED]
        cards.append(
            ProcessCard(
                i + 1,
                what_happens(result.processes.lattice[i]),
                picture_of("process", None, part, most).picture,
                float(strength.sum(1) @ result.y / strength.sum()),
                float(strength.sum(0) @ result.x / strength.sum()),
                float(place.sum() * dy * dx),
                (first, last) if first >= 0 else None,
                _line(result.processes.series[i]),
                (begins, ends - begins),
                int(leading[0]),
                [f"z{latent}{_direction(found.direction[i, latent])}" for latent in leading],
                float(found.reproducibility[i]),
            )
        )
    return cards


def what_happens(lattice: LatticeChange) -> str:
    """The name of a process in words."""
    if lattice.name == ROTATION:
        return f"rotation by {abs(lattice.turned):.1f}° {'anti' * (lattice.turned < 0)}clockwise"
    return lattice.name or "change"


def _along(result: Result, frame: int) -> float:
    """Where ``frame`` lies between the first, 0, and the last, 100."""
    frames = result.process.frames
    return 100 * (frame - frames[0]) / max(frames[-1] - frames[0], 1)


def _line(series: np.ndarray) -> str:
    known = np.flatnonzero(np.isfinite(series))
    values = series[known] - series[known].min() if known.size else series[known]
    height = 100 * values / max(float(values.max(initial=0)), 1e-30)
    return " ".join(
        f"{100 * at / max(len(series) - 1, 1):.1f},{100 - y:.1f}" for at, y in zip(known, height, strict=True)
    )


def _direction(share: float) -> str:
    return " rises" if share >= _MOSTLY else " falls" if share <= -_MOSTLY else ""
