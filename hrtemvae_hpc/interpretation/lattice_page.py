"""The page of measured lattices."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hrtemvae_hpc.interpretation import lattice_figures as figures
from hrtemvae_hpc.interpretation.areas import GAINED, KEPT, LOST, change_of
from hrtemvae_hpc.interpretation.lattice_file import units_of
from hrtemvae_hpc.interpretation.lattice_latents import LatentsOfBox
from hrtemvae_hpc.interpretation.measure_box import BoxLattices
from hrtemvae_hpc.pages import inline, write_page


@dataclass(frozen=True)
class Row:
    """What the page's table says about a lattice; numbers of the first and last frame that show it."""

    colour: str
    spacings: tuple[float, float]  # medians
    angle: tuple[float, float]
    misfit: tuple[float, float]
    contrast: float
    area: tuple[float, float]
    lost: float
    gained: float
    kept: float
    frames: int  # that show it


@dataclass(frozen=True)
class Shown:
    """A box on the page."""

    place: tuple[int, int, int, int]
    units: str
    rows: list[Row]
    pictures: dict[str, str]
    window: tuple[int, int] | None  # whose latents are compared
    latents: list[tuple[int, list[float]]]  # the leading ones, with their rho
    quantities: list[str]


def write_lattice_page(
    page: Path, boxes: Sequence[BoxLattices], latents: Sequence[LatentsOfBox | None], facts: Mapping[str, object]
) -> None:
    """Draw ``boxes`` as the HTML page ``page``. Raises InputError if it can't be written."""
    shown = [_shown(box, own) for box, own in zip(boxes, latents, strict=True)]
    movie = boxes[0].box.movie
    left_out = movie.shape[0] - boxes[0].box.count
    write_page(
        Path(__file__).with_name("lattice.html.j2"), page, boxes=shown, facts=facts, movie=movie, left_out=left_out
    )


def _shown(box: BoxLattices, own: LatentsOfBox | None) -> Shown:
    size, units = units_of(box)
    y, x = box.box.place
    pictures = {
        "spectra": figures.spectra(box),
        "areas": figures.areas(box),
        "changes": figures.changes(box),
        "phases": figures.phases(box),
        "curves": figures.curves(box),
        "latents": figures.latents(box, own) if own else None,
    }
    rows = rows_of(box, size)
    inlined = {name: inline(picture) if picture else "" for name, picture in pictures.items()}
    return Shown(
        (y.start, y.stop, x.start, x.stop),
        "px" if units == "pixel" else units,
        rows,
        inlined,
        own.window if own else None,
        [(k, own.rho[:, k].tolist()) for k in own.leading] if own else [],
        own.quantities if own else [],
    )


def rows_of(box: BoxLattices, size: tuple[float, float]) -> list[Row]:
    """What is said about each lattice of ``box``, for pixels of that size."""
    angles, misfits, spacings = box.angles(size), box.misfits(size)[0], box.spacings(size)
    pixel = size[0] * size[1]
    first, last = box.views[0].labels, box.views[-1].labels
    rows = []
    for i, area in enumerate(box.area):
        change = change_of(first == i, last == i)
        lost, gained, kept = (float((change == what).sum()) * pixel * box.step**2 for what in (LOST, GAINED, KEPT))
        found = np.flatnonzero(np.isfinite(angles[i]))
        ends = found[[0, -1]]
        second = spacings[i, 1][found]
        rows.append(
            Row(
                figures.COLOURS[i],
                (float(np.median(spacings[i, 0][found])), float(np.median(second))),
                (float(angles[i][ends[0]]), float(angles[i][ends[1]])),
                (float(misfits[i][ends[0]]), float(misfits[i][ends[1]])),
                float(np.median(box.contrast[i][found])),
                (float(area[0] * pixel), float(area[-1] * pixel)),
                lost,
                gained,
                kept,
                len(found),
            )
        )
    return rows
