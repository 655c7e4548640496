"""Ranks of many series, of all their frames and of the even and the odd ones by themselves, in order of time."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from hrtemvae_hpc.compiled import compiled
from hrtemvae_hpc.statistics.sort import sort_series

_LAST = np.iinfo(np.int64).max


def fill_ranks_on_cpu(z: np.ndarray, valid: np.ndarray, ranks: Tensor) -> Tensor:
    """Fill ``ranks`` [windows, latents, frames] float32 with twice the centred ranks of ``z`` among ``valid`` frames.

    ``z`` is [frames, windows, latents], ``valid`` [frames, windows]. The ranks are whole numbers, 0 where not valid.
    Returns the same of the even frames among these, and of the odd ones among those.
    """
    frames, windows, latents = z.shape
    keys = np.empty((windows, latents, frames), np.int64)
    _fill_keys(z.view(np.int32), valid, keys)
    sort_series(keys.reshape(-1, frames))
    halves = torch.zeros_like(ranks)
    _fill_ranks(keys, valid, ranks.zero_().numpy(), halves.numpy())
    return halves


@compiled(fastmath=set())
def _fill_keys(bits: Any, valid: Any, keys: Any) -> None:
    """Whole numbers that sort like the values, with the frame in their lower half; frames left out come last.

    ``bits`` [frames, windows, latents] are the values' own, as int32; keys are [windows, latents, frames].
    """
    frames, windows, latents = bits.shape
    for w in range(windows):
        for t in range(frames):
            if valid[t, w]:
                for k in range(latents):
                    value = bits[t, w, k]
                    value = 0 if value == -0x80000000 else value  # -0 is 0
                    keys[w, k, t] = (np.int64(value ^ ((value >> 31) & 0x7FFFFFFF)) << 32) | t
            else:
                keys[w, :, t] = _LAST


@compiled(fastmath=set())
def _fill_ranks(keys: Any, valid: Any, ranks: Any, halves: Any) -> None:
    """``keys`` are sorted."""
    windows, latents, frames = keys.shape
    count, before, after = np.zeros(2, np.int64), np.zeros(2, np.int64), np.zeros(2, np.int64)
    for w in range(windows):
        count[:] = 0
        for t in range(frames):
            count[t & 1] += valid[t, w]
        n = count[0] + count[1]
        for k in range(latents):
            after[:] = 0
            i = 0
            while i < n:
                value, stop = keys[w, k, i] >> 32, i
                before[0], before[1] = after[0], after[1]
                while stop < n and keys[w, k, stop] >> 32 == value:
                    after[keys[w, k, stop] & 1] += 1
                    stop += 1
                for j in range(i, stop):
                    t = keys[w, k, j] & 0xFFFFFFFF
                    ranks[w, k, t] = i + stop - n
                    halves[w, k, t] = before[t & 1] + after[t & 1] - count[t & 1]
                i = stop


def fill_ranks_on_device(z: Tensor, valid: Tensor, ranks: Tensor) -> Tensor:
    """The same in tensors' operations."""
    even = (torch.arange(len(z), device=z.device) % 2 == 0)[:, None]
    ranks.copy_(_ranks(z, valid).permute(1, 2, 0))
    return (_ranks(z, valid & even) + _ranks(z, valid & ~even)).permute(1, 2, 0)


def _ranks(z: Tensor, valid: Tensor) -> Tensor:
    """Twice the centred ranks [frames, windows, latents] float32 of the ``valid`` frames among these."""
    count = valid.sum(0)
    values, by_value = torch.sort(torch.where(valid[..., None], z, torch.inf), dim=0, stable=True)
    ranked = (_doubled_average_ranks(values) - (count - 1)[:, None]).float()
    ranks = torch.zeros_like(z).scatter(0, by_value, ranked)
    return torch.where(valid[..., None], ranks, 0)


def _doubled_average_ranks(values: Tensor) -> Tensor:
    """Twice the ranks (from 0) of sorted ``values`` along dimension 0; equal values share their average rank."""
    position = torch.arange(len(values), device=values.device)[:, None, None].expand(values.shape)
    starts = torch.ones_like(values, dtype=torch.bool)
    starts[1:] = values[1:] != values[:-1]
    ends = torch.ones_like(starts)
    ends[:-1] = starts[1:]
    first = torch.where(starts, position, 0).cummax(0).values
    last = torch.where(ends, position, len(values)).flip(0).cummin(0).values.flip(0)
    return first + last
