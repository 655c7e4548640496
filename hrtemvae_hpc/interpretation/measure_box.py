"""The lattices of a box of a movie over time, measured by all ranks together."""

import math
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace

import numpy as np
from skimage.measure import block_reduce

from hrtemvae_hpc.errors import InputError, Stopped
from hrtemvae_hpc.interpretation.angles import lattice_angle, misfit, spacings
from hrtemvae_hpc.interpretation.areas import NOWHERE, eroded
from hrtemvae_hpc.interpretation.box_frames import BoxFrames
from hrtemvae_hpc.interpretation.follow import Measured, discover, measure_lattices
from hrtemvae_hpc.interpretation.phase import PhaseMaps, phase_maps, resolution
from hrtemvae_hpc.interpretation.spectra import Spectrum, power_spectrum
from hrtemvae_hpc.ranks.guard import StopRequest
from hrtemvae_hpc.ranks.progress import Progress, say
from hrtemvae_hpc.ranks.world import World

_ANCHORS = 12  # frames in which lattices are looked for
_SHOWN = 5  # frames of which pictures are kept
_MOST_PIXELS = 1024  # of a picture's side
_BLOCK = 8  # frames that a rank measures one after the other: they share what is read
_WORKING = 250, 60  # bytes per pixel that a thread takes, and for each lattice
_MOST_LATTICES = 8
_POLL_S = 0.2


@dataclass(frozen=True)
class View:
    """What is kept of a frame for pictures, every ``step``-th pixel."""

    frame: int  # of the box's
    image: np.ndarray  # [rows, columns] float32
    labels: np.ndarray  # [rows, columns] int8, as ``find_areas`` returns them
    power: np.ndarray  # [rows, columns] float32, the power spectrum with the highest of each few pixels
    phases: list[PhaseMaps | None]  # of each lattice with two reflections that is there


@dataclass(frozen=True)
class FrameLattices:
    """The lattices of one frame, NaN where they were not found."""

    reflections: list[np.ndarray]  # [1 or 2, 2] of each
    contrast: np.ndarray  # [lattices]
    areas: np.ndarray  # [lattices], pixels
    view: View | None


@dataclass(frozen=True)
class BoxLattices:
    """The lattices of a box over its frames; NaN where a lattice was not found."""

    box: BoxFrames
    reflections: list[np.ndarray]  # [1 or 2, frames, 2] of each lattice, cycles per pixel
    contrast: np.ndarray  # [lattices, frames], root mean square amplitude of the fringes over the image's mean
    area: np.ndarray  # [lattices, frames], pixels
    views: list[View]
    step: int  # pixels of the box per pixel of a view

    def physical(self, pixel_size: tuple[float, float]) -> list[np.ndarray]:
        """The reflections in cycles per unit of length, for pixels of that size."""
        return [g / np.array(pixel_size) for g in self.reflections]

    def angles(self, pixel_size: tuple[float, float]) -> np.ndarray:
        """The angle [lattices, frames] of each lattice in degrees."""
        return np.stack([lattice_angle(g) for g in self.physical(pixel_size)])

    def spacings(self, pixel_size: tuple[float, float]) -> np.ndarray:
        """The spacings [lattices, 2, frames] of each; NaN for a second reflection that there isn't."""
        found = np.full((len(self.reflections), 2, self.box.count), np.nan)
        for i, g in enumerate(self.physical(pixel_size)):
            found[i, : len(g)] = spacings(g)
        return found

    def misfits(self, pixel_size: tuple[float, float]) -> np.ndarray:
        """The rotation [lattices, lattices, frames] in degrees of the second against the first."""
        g = self.physical(pixel_size)
        return np.array([[misfit(one, other) for other in g] for one in g])


def box_bytes(pixels: int) -> int:
    """Bytes that measuring a box of so many pixels takes on each thread."""
    return pixels * (_WORKING[0] + _WORKING[1] * _MOST_LATTICES)


def measure_box(world: World, box: BoxFrames, threads: int, stop: StopRequest, name: str) -> BoxLattices | None:
    """Find and follow the lattices of ``box``, called ``name`` in messages. Every rank calls this;
    rank 0 gets the result.

    Raises InputError if there is none, or a frame can't be decoded, and Stopped.
    """
    anchors = np.unique(np.linspace(0, box.count - 1, min(box.count, _ANCHORS)).round().astype(int))
    if world.is_root:
        say(f"{name}: looking for lattices in {len(anchors)} frames.")

    def image(number: int) -> np.ndarray:
        _check(stop)
        return box.image(int(anchors[number]))

    tracks = world.on_root(lambda: discover(image, len(anchors)), patience=math.inf)
    if not tracks:
        world.raise_once(
            InputError(
                f"{box.movie.where}: no lattice found in {name}, as no fringes stand out of the noise; choose a box "
                "around crystals with --box, or average more frames with --average."
            )
        )
    shown = np.unique(np.linspace(0, box.count - 1, _SHOWN).round().astype(int))
    step = -(-max(box.area.height, box.area.width) // _MOST_PIXELS)

    def measure(t: int) -> FrameLattices:
        image = box.image(t)
        found = measure_lattices(image, [_interpolated(track, anchors, t) for track in tracks])
        view = _view(t, image, found, [track[0] for track in tracks], step) if t in shown else None
        present = np.array([height.any() for height in found.amplitudes])
        strength = [np.sqrt((height**2).mean()) / found.level for height in found.amplitudes]
        return FrameLattices(
            [np.where(there, g, np.nan) for g, there in zip(found.reflections, present, strict=True)],
            np.where(present, strength, np.nan),
            np.array(found.areas),
            view,
        )

    ours = world.on_all(lambda: _share(world, box.count, measure, threads, stop, name))
    gathered = world.gather(ours, patience=math.inf)
    made: list[BoxLattices] = []
    world.on_root(lambda: made.append(_together(box, [dict(share) for share in gathered], step)), patience=math.inf)
    return made[0] if made else None


def _interpolated(track: np.ndarray, anchors: np.ndarray, t: int) -> np.ndarray:
    """The reflections [1 or 2, 2] at frame ``t`` of ``track`` [anchors, 1 or 2, 2]."""
    flat = track.reshape(len(anchors), -1)
    return np.array([np.interp(t, anchors, series) for series in flat.T]).reshape(track.shape[1:])


def _share(
    world: World,
    count: int,
    measure: Callable[[int], FrameLattices],
    threads: int,
    stop: StopRequest,
    name: str,
) -> list[tuple[int, FrameLattices]]:
    """What this rank measures: every so many blocks of frames, each on one thread."""
    blocks = [range(first, min(first + _BLOCK, count)) for first in range(0, count, _BLOCK)][world.rank :: world.size]
    progress = Progress(sum(map(len, blocks)), unit="frame") if world.is_root else None
    found: list[tuple[int, FrameLattices]] = []

    def measure_block(block: range) -> None:
        for t in block:
            _check(stop)
            found.append((t, measure(t)))

    with ThreadPoolExecutor(threads, "lattice") as pool:
        jobs = [pool.submit(measure_block, block) for block in blocks]
        waiting = set(jobs)
        try:
            while waiting:
                finished, waiting = wait(waiting, _POLL_S, FIRST_COMPLETED)
                _check(stop)
                for job in finished:
                    job.result()
                if progress:
                    progress.update(len(found), note=f"measuring {name}")
        finally:
            for job in jobs:
                job.cancel()
            if progress:
                progress.close()
    return found


def _check(stop: StopRequest) -> None:
    if stop:
        raise Stopped(f"stopped by {stop.name} while lattices were measured; run the same command again.")


def _view(t: int, image: np.ndarray, found: Measured, references: Sequence[np.ndarray], step: int) -> View:
    thin = slice(None, None, step)
    phases: list[PhaseMaps | None] = []
    for i, (now, reference) in enumerate(zip(found.reflections, references, strict=True)):
        inside = eroded(found.labels == i, resolution(now))  # at its edge others pass through the filter
        if len(now) == 2 and inside.any():
            phases.append(phase_maps(Spectrum(image, resolution(now)), now, reference, inside).thinned(thin))
        else:
            phases.append(None)
    blocks = (step, step)
    return View(
        t,
        block_reduce(image, blocks, np.mean).astype(np.float32),
        found.labels[thin, thin],
        block_reduce(power_spectrum(image), blocks, np.max),
        phases,
    )


def _together(box: BoxFrames, shares: Sequence[dict[int, FrameLattices]], step: int) -> BoxLattices:
    """The lattices by their mean area, the largest first, without those that no frame shows."""
    frames = [frame for _, frame in sorted(item for share in shares for item in share.items())]
    area = np.stack([frame.areas for frame in frames], 1)
    order = [int(i) for i in np.argsort(-area.mean(1), kind="stable") if area[i].any()]
    numbers = np.full(area.shape[0] + 1, NOWHERE, np.int8)  # the last stands for NOWHERE
    numbers[order] = np.arange(len(order))
    views = [
        replace(frame.view, labels=numbers[frame.view.labels], phases=[frame.view.phases[i] for i in order])
        for frame in frames
        if frame.view
    ]
    return BoxLattices(
        box,
        [np.stack([frame.reflections[i] for frame in frames], 1) for i in order],
        np.stack([frame.contrast for frame in frames], 1)[order],
        area[order],
        views,
        step,
    )
