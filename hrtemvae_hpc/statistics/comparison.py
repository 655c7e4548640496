"""What series are compared with: the time or a measured quantity, perhaps given others, and blocks of it permuted."""

import itertools
import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

PERMUTATIONS = 999  # at most
_FEWEST_BLOCKS = 5
_SEED = 0
_EXPLAINED = 1e-9  # of a sum of squares: less than that is left by rounding


@dataclass(frozen=True)
class Comparison:
    """What Spearman's rho of a series is computed with.

    ``values`` [frames] are the time or what was measured at it; ``given`` [quantities, frames] is held constant: rho
    is then the partial correlation of ranks. ``used`` [frames] is false for frames that no window has.
    """

    values: Floats
    given: Floats
    used: Mask

    @classmethod
    def with_time(cls, frames: int) -> "Comparison":
        """With the order of all of so many frames."""
        return cls(np.arange(frames, dtype=np.float64), np.empty((0, frames)), np.ones(frames, np.bool_))

    @property
    def blocks(self) -> int:
        """The number of blocks of frames that are permuted: the square root of the number of frames, at least 5.

        A block of frames keeps the correlation between them, so long blocks keep more of it; few blocks have few
        permutations. The length that balances errors of a test grows with the square root of the number of frames
        (Sun, Phillips & Jin 2008, Econometrica 76, 175, for weights that fall linearly with the lag, as those of
        blocks do). It follows from the number of frames alone.
        """
        used = int(self.used.sum())
        return max(1, min(used, max(_FEWEST_BLOCKS, round(math.sqrt(used)))))

    @cached_property
    def orders(self) -> NDArray[np.int32]:
        """Orders of the used frames [permutations, used] in which whole blocks are permuted.

        All orders but the true one if these are less than 1000, else 999 of them drawn with a fixed seed. Blocks have
        the same length within one frame.
        """
        count = self.blocks
        blocks = np.array_split(np.flatnonzero(self.used).astype(np.int32), count)
        if math.factorial(count) <= PERMUTATIONS + 1:
            places = list(itertools.permutations(range(count)))[1:]
        else:
            random = np.random.default_rng(_SEED)
            places = [tuple(random.permutation(count)) for _ in range(PERMUTATIONS)]
        drawn = [np.concatenate([blocks[i] for i in order]) for order in places]
        return np.array(drawn, np.int32).reshape(len(drawn), int(self.used.sum()))

    def basis(self, mask: Mask) -> Floats:
        """Vectors [1 + quantities, frames] for series of the frames in ``mask`` [frames]; zero in all others.

        The first is twice the centred ranks of the values, less what the given quantities explain. The others are an
        orthonormal basis of the ranks of these; some are zero if the quantities depend on each other.
        """
        vectors = np.zeros((1 + len(self.given), len(mask)))
        ranks = centred_ranks(self.values[mask])
        if len(self.given) and len(ranks):
            _, sizes, rows = np.linalg.svd(
                np.stack([centred_ranks(quantity[mask]) for quantity in self.given]), full_matrices=False
            )
            axes = rows[sizes > _EXPLAINED * max(1.0, sizes[0])]
            vectors[1 : 1 + len(axes), mask] = axes
            left = _without(_without(ranks[None], axes), axes)[0]  # twice, because of rounding
            ranks = left if left @ left > _EXPLAINED * (ranks @ ranks) else np.zeros_like(ranks)
        vectors[0, mask] = ranks
        return vectors

    def permuted(self, mask: Mask) -> NDArray[np.float32]:
        """The first vector of the basis, blocks permuted [permutations, frames], each of length 1.

        Of frames that ``mask`` leaves out, the others of their block close up: each row permutes the window's own
        ranks. What the given quantities explain of a row is taken off again (Smith's way; Winkler et al. 2014,
        NeuroImage 92, 381, table 2).
        """
        vectors = self.basis(mask)
        rows = np.zeros((len(self.orders), len(mask)), np.float32)
        order = self.orders[mask[self.orders]].reshape(len(self.orders), int(mask.sum()))
        np.put_along_axis(rows, order, vectors[0, mask].astype(np.float32)[None], axis=1)
        if len(self.given):
            rows = _without(rows, vectors[1:].astype(np.float32))
        length = np.sqrt(np.einsum("pt,pt->p", rows, rows, dtype=np.float64))[:, None]
        return np.asarray(np.divide(rows, length, out=np.zeros_like(rows), where=length > 0))


def centred_ranks(values: NDArray[np.generic]) -> Floats:
    """Twice the centred ranks of ``values`` [n]: whole numbers; equal values share their average rank."""
    _, which, counts = np.unique(values, return_inverse=True, return_counts=True)
    stops = counts.cumsum()
    return np.asarray((2 * stops - counts - len(values))[which.ravel()], np.float64)


def _without(rows: np.ndarray, axes: np.ndarray) -> np.ndarray:
    return np.asarray(rows - (rows @ axes.T) @ axes)
