"""The drift of a movie from the measures of its blocks: two estimates, reconciled."""

from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve_banded
from scipy.ndimage import median_filter
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from hrtemvae_hpc.drift.consensus import WIDTHS, agreement, consensus
from hrtemvae_hpc.drift.drift import Drift, DriftEstimate, Floats
from hrtemvae_hpc.drift.measure import BlockMeasures, FrameMeasures, Prepared, measure_shift

_TOLERANCE = 0.5  # binned pixel by which the two estimates may differ
_SPAN = 64  # frames over which they may not: errors of chained shifts grow without end
_RIVAL = 0.5  # of the weight of what moves with the drift: as much may move together in another way
_CHAIN_NOISE = 3.0  # times the shifts of patches spread more when they are chained
_BLANK = 0.05  # of the median power: a frame with less shows no specimen
_LATTICE_RINGS = slice(8, 103)  # periods of 32 to 2.5 binned pixels
_ROUNDS = 6
_SLACK = 1e-6  # weight of what bridges frames without a measure


class _Blocks(NamedTuple):
    places: Floats  # [blocks, 2], binned pixels
    connected: NDArray[np.bool_]  # [blocks] to most others
    still: Floats  # [patches], the share of the movie's pairs of blocks in which a patch moves with the specimen


def solve_drift(measures: list[BlockMeasures], threads: int = 1) -> DriftEstimate:
    """The drift from the measures of all blocks, in order. The same for any number of ``threads``; on one rank.

    One estimate chains the shifts from frame to frame. The other follows from each frame's shift against the sum of
    its block, and the shifts of these sums against one another, also of distant ones: there what rotates or
    grows doesn't move with the rest, and the patches that hold it are left out of both estimates.
    """
    frames = [frame for block in measures for frame in block.frames]
    blank = _blank(frames)
    placed = _place_blocks(measures, threads)
    weights = placed.still**4  # what moves by itself at times hardly counts
    owner = np.repeat(np.arange(len(measures)), [len(block.frames) for block in measures])
    started = np.concatenate([np.arange(len(block.frames)) >= block.first for block in measures])

    links, linked = _followed([f.link.patches for f in frames], weights)
    linked &= ~blank & ~np.roll(blank, 1)
    linked[0] = False
    in_block, referred = _followed([f.to_reference.patches for f in frames], weights)
    referred &= ~blank & started & placed.connected[owner]
    referenced = placed.places[owner] + in_block

    binning = measures[0].binning
    path, trust = _reconcile(links, linked, referenced, referred)
    usable = np.flatnonzero(trust > 0)
    path = (path - path[usable[0]]) * binning if len(usable) else np.zeros_like(path)
    rival = _rival(np.array([f.link.patches for f in frames], np.float64), links, linked)
    difference = _difference(links, linked, referenced, referred) * binning
    # Where nothing is compared, nothing differs: most frames must be known by both estimates.
    enough = 2 * (linked & referred).sum() >= max(2, (~blank).sum() - 1)
    agree = bool(enough and difference <= _TOLERANCE * binning and rival <= _RIVAL)
    mean = np.array([f.mean for f in frames])
    deviation = np.array([f.deviation for f in frames])
    return DriftEstimate(
        drift=Drift(path[:, 0].copy(), path[:, 1].copy(), _quality(frames) * trust),
        agree=agree,
        difference=difference,
        rival=rival,
        blank=blank,
        mean=mean,
        contrast=np.divide(deviation, mean, out=np.zeros_like(mean), where=mean != 0),
        focus=_focus(np.array([f.rings for f in frames], np.float64), blank),
    )


def count_pairs(blocks: int) -> int:
    """How many pairs of so many blocks are compared: those at distances of 1, 2, 4, 8..."""
    return sum(max(0, blocks - 2**i) for i in range(blocks.bit_length()))


def _blank(frames: list[FrameMeasures]) -> NDArray[np.bool_]:
    """Which frames are flat, or have a small part of the power of most."""
    power = np.array([f.rings.sum(dtype=np.float64) for f in frames])
    return np.asarray((power <= _BLANK * np.median(power)) | (power == 0))


def _followed(rows: list[NDArray[np.float32]], weights: Floats) -> tuple[Floats, NDArray[np.bool_]]:
    """The consensus of each frame's patches [frames, 2], and which have one."""
    found = [consensus(each[:, :2], each[:, 2].astype(np.float64) ** 2 * weights) for each in rows]
    return np.array([place for place, _ in found]), np.array([weight > 0 for _, weight in found])


def _pair_shifts(measures: list[BlockMeasures], threads: int) -> tuple[NDArray[np.intp], Floats]:
    """Pairs of blocks [pairs, 2] at distances of 1, 2, 4, 8..., and the shifts of their sums [pairs, patches, 3]."""
    sums = [Prepared.of(block.reference.astype(np.float32)) for block in measures]
    count, places = len(sums), np.zeros((len(sums), 2))
    shifts: dict[tuple[int, int], Floats] = {}
    for b in range(1, count):
        # From where the last frame of one block lies to where the first of the next does.
        last = measures[b - 1].frames[-1].to_reference.patches
        expected, _ = consensus(last[:, :2], last[:, 2] ** 2)
        found = _shifts(sums[b - 1].with_fresh_patches(), sums[b], expected)
        place, weight = consensus(found[:, :2], found[:, 2] ** 2)
        places[b] = places[b - 1] + (place if weight else expected)
        shifts[b - 1, b] = found

    def measure(a: int) -> None:
        reference, distance = sums[a].with_fresh_patches(), 2
        while (b := a + distance) < count:
            shifts[a, b] = _shifts(reference, sums[b], tuple(places[b] - places[a]))
            distance *= 2

    with ThreadPoolExecutor(threads, "drift") as pool:
        list(pool.map(measure, range(count)))
    pairs = sorted(shifts, key=lambda pair: (pair[1] - pair[0], pair))
    return np.array(pairs, np.intp), np.stack([shifts[pair] for pair in pairs])


def _shifts(reference: Prepared, moved: Prepared, expected: tuple[float, float]) -> Floats:
    found = measure_shift(reference, moved.with_fresh_patches(), expected)
    return found.patches.astype(np.float64)


def _place_blocks(measures: list[BlockMeasures], threads: int) -> _Blocks:
    """Where the sum of each block lies: robust least squares over patches of pairs of blocks.

    The weights of deviating patches fall step by step (see ``consensus``); a patch that deviates between distant
    blocks counts less everywhere.
    """
    count, patches = len(measures), len(measures[0].frames[0].link.patches)
    if count == 1:
        return _Blocks(np.zeros((1, 2)), np.ones(1, bool), np.ones(patches))
    pairs, rows = _pair_shifts(measures, threads)
    places = np.zeros((count, 2))
    shifts, power = rows[..., :2], rows[..., 2] ** 2
    distance = (pairs[:, 1] - pairs[:, 0]).astype(np.float64)[:, None]
    seen = (distance * power).sum(0)
    incidence = np.zeros((len(pairs), count))
    incidence[np.arange(len(pairs)), pairs[:, 0]] = -1
    incidence[np.arange(len(pairs)), pairs[:, 1]] = 1
    still = np.ones(patches)
    for width in np.repeat(WIDTHS, _ROUNDS):
        agreed = power * agreement(shifts - (incidence @ places)[:, None], width)
        still = np.divide((distance * agreed).sum(0), seen, out=np.zeros(patches), where=seen > 0)
        counted = agreed * still
        weight = counted.sum(1)
        normal = np.einsum("pa,p,pb->ab", incidence, weight, incidence) + _SLACK * np.eye(count)
        places = np.linalg.solve(normal, np.einsum("pa,px->ax", incidence, (counted[..., None] * shifts).sum(1)))

    found = power.any(1)
    a, b = pairs[found].T
    _, label = connected_components(coo_array((np.ones(len(a)), (a, b)), shape=(count, count)), directed=False)
    return _Blocks(places, label == np.bincount(label).argmax(), still)


def _rival(patches: Floats, links: Floats, linked: NDArray[np.bool_]) -> float:
    """The weight of patches that move together in another way than ``links``, relative to those that move as it says.

    ``patches`` [frames, patches, 3] are their own links, which are chained over up to ``_SPAN`` frames; the largest.
    """
    known = linked[:, None] & (patches[..., 2] > 0)
    apart = np.where(known[..., None], patches[..., :2] - links[:, None], 0.0)
    power = np.where(known, patches[..., 2] ** 2, 0.0)
    largest = 0.0
    for start in range(0, len(links), _SPAN):
        away = apart[start : start + _SPAN].sum(0) / _CHAIN_NOISE
        weights = power[start : start + _SPAN].mean(0)
        with_it = (weights * agreement(away, WIDTHS[-1])).sum()
        others = weights * (np.hypot(away[:, 0], away[:, 1]) > 3 * WIDTHS[-1])
        if with_it > 0:
            largest = max(largest, consensus(away, others)[1] / float(with_it))
    return largest


def _reconcile(
    links: Floats, linked: NDArray[np.bool_], referenced: Floats, referred: NDArray[np.bool_]
) -> tuple[Floats, Floats]:
    """The path [frames, 2] that suits both estimates best, and how far each frame is known by one, 0..1.

    Weighted least squares: sum of r |x[t] - referenced[t]|^2 + sum of l |x[t] - x[t-1] - links[t]|^2, in which what
    doesn't fit counts less. Where both fail, a straight line remains.
    """
    measured = np.where(linked[:, None], links, 0.0)
    link_weight, place_weight = linked.astype(np.float64), referred.astype(np.float64)
    path = np.zeros_like(links)
    for width in (np.inf, *np.repeat(WIDTHS, _ROUNDS)):
        if width < np.inf:
            link_weight = linked * agreement(path - np.roll(path, 1, 0) - measured, width)
            place_weight = referred * agreement(path - referenced, width)
        spring = link_weight + _SLACK
        spring[0] = 0.0
        following = np.append(spring[1:], 0.0)
        diagonal = place_weight + spring + following + _SLACK**2
        pull = spring[:, None] * measured
        right = place_weight[:, None] * referenced + pull - np.append(pull[1:], [[0.0, 0.0]], 0)
        path[:] = solve_banded((1, 1), np.stack([-spring, diagonal, -following]), right)
    return path, np.maximum(place_weight, np.maximum(link_weight, np.append(link_weight[1:], 0.0)))


def _difference(links: Floats, linked: NDArray[np.bool_], referenced: Floats, referred: NDArray[np.bool_]) -> float:
    """The most by which the estimates differ over up to ``_SPAN`` frames, binned pixels.

    Where a link is missing, nothing can differ.
    """
    known = np.flatnonzero(referred)
    chained = np.cumsum(np.where(linked[:, None], links, 0.0), 0)[known]
    gaps = np.cumsum(~linked)[known]
    apart, most = chained - referenced[known], 0.0
    for lag in (1, 2, 4, 8, 16, 32, _SPAN):
        unbroken = gaps[lag:] == gaps[:-lag]
        away = (apart[lag:] - apart[:-lag])[unbroken]
        most = max(most, float(np.hypot(away[:, 0], away[:, 1]).max(initial=0.0)))
    return most


def _quality(frames: list[FrameMeasures]) -> Floats:
    """The best correlation of each frame with another or with the sum of those before."""
    link = np.array([f.link.quality for f in frames])
    link[0] = 0.0
    reference = np.array([f.to_reference.quality for f in frames])
    reference[reference > 0.9999] = 0.0  # with itself
    best: Floats = np.maximum(reference, np.maximum(link, np.append(link[1:], 0.0)))
    return best.clip(0, 1)


def _focus(rings: Floats, blank: NDArray[np.bool_]) -> Floats:
    """The power of each frame in the ring of the lattice, relative to the rings beside it [frames]; 0 where blank.

    The ring is where the mean radial power of the movie rises highest above its running median.
    """
    if blank.all():
        return np.zeros(len(rings))
    mean = rings[~blank].mean(0)
    rise = mean / np.maximum(median_filter(mean, 17, mode="nearest"), 1e-30)
    ring = _LATTICE_RINGS.start + int(rise[_LATTICE_RINGS].argmax())
    beside = np.r_[ring - 7 : ring - 3, ring + 4 : ring + 8]
    power, ground = rings[:, ring - 1 : ring + 2].mean(1), rings[:, beside].mean(1)
    return np.asarray(np.where(blank, 0.0, power / np.where(ground > 0, ground, np.inf)))
