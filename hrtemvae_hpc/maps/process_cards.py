"""What the page of a result says about its processes: where, when, by which latents, and how sure."""

from dataclasses import dataclass

import numpy as np

from hrtemvae_hpc.maps.page_data import picture_of
from hrtemvae_hpc.maps.processes import leading_latents, place_of
from hrtemvae_hpc.maps.result import Result

_LISTED = 6
_MOSTLY = 0.5  # of a latent's changes in one direction, from which on that is named


@dataclass(frozen=True)
class ProcessCard:
    """One process as the page shows it."""

    number: int
    picture: str  # a PNG file as a data URL
    y: float  # its middle, in the units of the result
    x: float
    area: float  # of its place, in these units squared
    change: tuple[float, float, float] | None  # quartiles of its change points, as frames
    latent: int  # the one with the largest share
    latents: list[str]  # the leading ones, with their direction
    reproducibility: float


def process_cards(result: Result) -> list[ProcessCard]:
    """A card for each process of ``result``; none in a result that has none."""
    if result.processes is None:
        return []
    found, cards = result.processes.found, []
    dy, dx = result.spacing
    for i, part in enumerate(found.maps):
        place = place_of(part)
        strength = np.where(place, part, 0)
        change = result.processes.change[i]
        leading = leading_latents(found.weights[i])[:_LISTED]
        cards.append(
            ProcessCard(
                i + 1,
                picture_of("process", None, part).picture,
                float(strength.sum(1) @ result.y / strength.sum()),
                float(strength.sum(0) @ result.x / strength.sum()),
                float(place.sum() * dy * dx),
                (float(change[0]), float(change[1]), float(change[2])) if np.isfinite(change).all() else None,
                int(leading[0]),
                [f"z{latent}{_direction(found.direction[i, latent])}" for latent in leading],
                float(found.reproducibility[i]),
            )
        )
    return cards


def _direction(share: float) -> str:
    return " rises" if share >= _MOSTLY else " falls" if share <= -_MOSTLY else ""
