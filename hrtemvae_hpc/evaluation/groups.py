"""Groups: which latents of a model follow which change of a lattice, whatever its angle and period."""

from dataclasses import dataclass

import numpy as np
import torch

from hrtemvae_hpc.model.model_file import Model
from hrtemvae_hpc.model.periods import reconstructed_periods
from hrtemvae_hpc.simulation.changes import CHANGES, changing_windows

_LATTICES = 256  # for each change
_FRAMES = 12
_AT_ONCE = 64  # lattices
_HALF = 0.5


@dataclass(frozen=True)
class Group:
    """The latents that follow one change. Latents in the model's order."""

    change: str
    share: np.ndarray  # [latents] of the variance over time within a window, mean over the lattices

    @property
    def latents(self) -> tuple[int, ...]:
        """The fewest that hold more than half of the variance, by decreasing share."""
        order = np.argsort(-self.share)
        return tuple(int(i) for i in order[: 1 + int((np.cumsum(self.share[order]) <= _HALF).sum())])


def find_groups(model: Model, period: float) -> list[Group]:
    """A group for each of CHANGES, from lattices of the periods that ``model`` reconstructs.

    If these are not known, as without a decoder, all have ``period`` (pixels).
    """
    periods = reconstructed_periods(model) or (period, period)
    return [Group(change, _share(model, change, periods)) for change in CHANGES]


@torch.inference_mode()
def _share(model: Model, change: str, periods: tuple[float, float]) -> np.ndarray:
    generator = torch.Generator().manual_seed(CHANGES.index(change))
    size, shares = model.architecture.window, []
    for start in range(0, _LATTICES, _AT_ONCE):
        count = min(_AT_ONCE, _LATTICES - start)
        windows = changing_windows(change, count, _FRAMES, size, periods, generator, model.scaling)
        z = model.encoder(windows.view(-1, 1, size, size))[0].view(count, _FRAMES, -1)
        variance = z.var(1, correction=0)[:, list(model.latent_order)]
        shares.append(variance / variance.sum(1, keepdim=True).clamp_min(1e-12))
    return torch.cat(shares).mean(0).numpy()
