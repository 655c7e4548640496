"""What the latents of a window say of its lattices: their correlation with angles and areas, and a simulated pair.

Wang et al. (see CITATION.cff), Figure 5: lattices with the angles that were measured are drawn and encoded, and their
latents compared with those of the movie.
"""

from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata

from hrtemvae_hpc.interpretation.encode import encode_places
from hrtemvae_hpc.interpretation.measure_box import BoxLattices
from hrtemvae_hpc.interpretation.places import Place, centres
from hrtemvae_hpc.interpretation.reopen import Reopened
from hrtemvae_hpc.scaling import margin
from hrtemvae_hpc.windows.grid import Rectangle
from hrtemvae_hpc.windows.in_memory import for_engine

_LEADING = 4


@dataclass(frozen=True)
class LatentsOfBox:
    """The window in the middle of a box, over the box's frames."""

    window: tuple[int, int]  # row and column in the grid of the result
    z: np.ndarray  # [frames, latents] float32, NaN where not valid
    quantities: list[str]  # angles, misfits and areas, by lattice
    rho: np.ndarray  # [quantities, latents], Spearman's, NaN where one of both is constant
    images: np.ndarray | None  # [frames, rows, columns] float32 of the simulated window; None if it shows no lattice
    simulated: np.ndarray | None  # [frames, latents] float32, of these

    @property
    def leading(self) -> list[int]:
        """The latents that follow the angles best, of those that vary much."""
        angular = [i for i, name in enumerate(self.quantities) if not name.startswith("area")]
        variance = np.nan_to_num(np.nanvar(self.z, 0))
        score = np.nan_to_num(abs(self.rho[angular])).max(0) * np.sqrt(variance)
        return [int(k) for k in np.argsort(-score, kind="stable")[:_LEADING]]


def latents_of_box(again: Reopened, box: BoxLattices) -> LatentsOfBox:
    """Encode the window nearest to the middle of ``box``, as the result was, and a simulation of its lattices."""
    y, x = centres(again.result)
    middle = [(span.start + span.stop - 1) / 2 for span in box.box.place]
    row, column = (int(abs(line - at).argmin()) for line, at in zip((y, x), middle, strict=True))
    z, valid = encode_places(again, [Place("the middle of the box", np.array([[row, column]]))])
    own = np.where(valid, z[:, 0], np.nan)[box.box.frames]
    size = box.box.movie.pixel_size_nm or (1.0, 1.0)
    series = {f"area {i + 1}": area.astype(float) for i, area in enumerate(box.area)}
    series |= {f"angle {i + 1}": angle for i, angle in enumerate(box.angles(size))}
    series |= {f"misfit {i + 1}": angle for i, angle in enumerate(box.misfits(size)[0]) if i}
    rho = np.stack([spearman(own, values) for values in series.values()])
    images = simulated_window(again, box, row, column)
    simulated = None if images is None else encode_images(again, images)
    if images is not None:
        around = margin(again.engine.scaling, again.grid.window)
        images = images[:, around : images.shape[1] - around, around : images.shape[2] - around]
    return LatentsOfBox((row, column), own, list(series), rho, images, simulated)


def spearman(z: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Spearman's rho [latents] of each of ``z`` [frames, latents] with ``values`` [frames] where both are known."""
    known = np.isfinite(z).all(1) & np.isfinite(values)
    if known.sum() < 3:
        return np.full(z.shape[1], np.nan)
    ranks, other = rankdata(z[known], axis=0), rankdata(values[known])
    ranks, other = ranks - ranks.mean(0), other - other.mean()
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(other @ ranks / np.sqrt((ranks**2).sum(0) * (other**2).sum()))


def simulated_window(again: Reopened, box: BoxLattices, row: int, column: int) -> np.ndarray | None:
    """The window as a sum of waves with the measured reflections [frames, rows, columns] float32; None without any.

    It has the margin that scaling it needs. Each lattice lies where the view nearest in time shows it. It turns about
    the middle of the window, with the phases of the first frame.
    """
    grid = again.result.process.grid
    area = grid.area(Rectangle(row, row + 1, column, column + 1))
    source = again.reader.transform.shown(area)
    around = margin(again.engine.scaling, grid.window)
    places = [
        _pixels(span, inner, outer.start, around) for span, inner, outer in zip(area, source, box.box.area, strict=True)
    ]
    centre = [float(at.mean()) for at in places]
    y, x = places[0][:, None] - centre[0], places[1][None] - centre[1]
    inside = [np.clip(np.rint(at / box.step).astype(int), 0, n - 1) for at, n in zip(
        places, box.views[0].labels.shape, strict=True)]  # fmt: skip
    first = box.box.image(0)
    pixels = first[np.ix_(*(np.clip(np.rint(at).astype(int), 0, n - 1) for at, n in zip(
        places, first.shape, strict=True)))]  # fmt: skip
    images = np.zeros((box.box.count, *pixels.shape), np.float32)
    times = np.array([view.frame for view in box.views])
    for t, image in enumerate(images):
        labels = box.views[int(abs(times - t).argmin())].labels[np.ix_(*inside)]
        for i, reflections in enumerate(box.reflections):
            here = labels == i
            began = box.views[0].labels[np.ix_(*inside)] == i
            if not here.any() or not np.isfinite(reflections[:, t]).all():
                continue
            for start, now in zip(reflections[:, 0], reflections[:, t], strict=True):
                phase = 0.0
                if began.any() and np.isfinite(start).all():
                    wave = np.exp(-2j * np.pi * (start[0] * y + start[1] * x))
                    phase = float(np.angle((wave * (pixels - pixels[began].mean()))[began].sum()))
                image += here * np.cos(2 * np.pi * (now[0] * y + now[1] * x) + phase)
    return images if images.any() else None


def _pixels(span: slice, source: slice, start: int, around: int) -> np.ndarray:
    """Where the pixels of ``span`` of the analysed frame lie in a box that begins at ``start`` of the movie's.

    And as many ``around`` it, before and after.
    """
    count = span.stop - span.start
    scale = (source.stop - source.start) / count
    return np.asarray(source.start + (np.arange(-around, count + around) + 0.5) * scale - 0.5 - start)


def encode_images(again: Reopened, images: np.ndarray) -> np.ndarray:
    """The latents [frames, latents] float32 of ``images`` [frames, rows, columns] of a window with its margin.

    NaN for a flat one.
    """
    engine = again.engine
    frames, limits = for_engine(images, engine.scaling, engine.window)
    around = margin(engine.scaling, engine.window)
    inner = slice(around, around + engine.window)
    frames = frames[:, inner, inner]
    z, valid = engine.encode(frames, np.ones((len(images), 1), bool), limits)
    return np.where(valid.cpu().numpy(), z[:, 0].cpu().numpy(), np.nan).astype(np.float32)
