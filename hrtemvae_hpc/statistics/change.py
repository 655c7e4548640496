"""When a series changes: Pettitt's change point, from its ranks.

U_t is the sum of sgn(x_i - x_j) over all i up to t and j after it (Pettitt 1979, Applied Statistics 28, 126, equation
2.1), which is the sum of twice the centred ranks up to t. The series changes after the t at which U is largest.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from hrtemvae_hpc.compiled import compiled


def changes_on_cpu(ranks: Tensor, valid: np.ndarray) -> tuple[Tensor, Tensor]:
    """The first frame after the change, and its score [windows, latents] float64, of ``ranks`` as statistics.ranks.

    Frames are counted among all, of which those that are ``valid`` [frames, windows] are compared. The score is the
    largest U over the largest that is possible, n^2 / 4 for n frames: 1 for a series that rises for good in the
    middle, -1 for one that falls, about 4 f (1 - f) for a clean step after the share f of its frames. Of equally
    large U the first counts. NaN for a constant series.
    """
    frame, score = torch.empty(2, *ranks.shape[:2], dtype=torch.float64)
    _fill_changes(ranks.numpy(), valid, frame.numpy(), score.numpy())
    return frame, score


@compiled(fastmath=set())
def _fill_changes(ranks: Any, valid: Any, frame: Any, score: Any) -> None:
    windows, latents, frames = ranks.shape
    for w in range(windows):
        count = 0
        for t in range(frames):
            count += valid[t, w]
        most = count * count // 4
        for k in range(latents):
            total, largest, place = 0.0, 0.0, -1
            for t in range(frames):
                if abs(largest) < abs(total) and valid[t, w]:
                    largest, place = total, t
                total += ranks[w, k, t]
            frame[w, k] = place if place >= 0 else np.nan
            score[w, k] = -largest / most if place >= 0 else np.nan


def changes_on_device(ranks: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """The same in tensors' operations."""
    before = ranks.double().cumsum(-1) - ranks
    before = torch.where(valid.T[:, None], before, 0)
    place = before.abs().argmax(-1)
    largest = before.gather(-1, place[..., None])[..., 0]
    score = -largest / (valid.sum(0)[:, None] ** 2 // 4)
    changed = largest != 0
    return torch.where(changed, place.double(), torch.nan), torch.where(changed, score, torch.nan)
