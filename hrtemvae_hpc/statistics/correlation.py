"""Spearman's rho of series with what they are compared with, and the autocorrelation of what that leaves of them.

With ranks r of a series, x of the compared values less what the given quantities explain, and an orthonormal basis q of
these: rho = r.x / sqrt((r.r - sum (r.q)^2) x.x), the partial correlation of ranks (Kendall & Stuart 1973, volume 2,
chapter 27), which is Spearman's rho where nothing is given.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from hrtemvae_hpc.compiled import compiled

_LEFT = 1e-9  # of a sum of squares: less than that is left by rounding


def rho_on_cpu(ranks: Tensor, basis: np.ndarray, pattern: np.ndarray, half: slice) -> tuple[Tensor, Tensor]:
    """rho and r.r - sum (r.q)^2 [windows, latents] float64 of ``ranks`` [windows, latents, frames].

    Window w is compared with ``basis[pattern[w]]`` [1 + quantities, frames], in the frames of ``half`` alone. NaN
    where the ranks, or those of the values, are constant or explained.
    """
    rho, squares = torch.empty(2, *ranks.shape[:2], dtype=torch.float64)
    part = ranks.numpy()[..., half]
    _fill_rho(part, np.ascontiguousarray(basis[..., half]), pattern, rho.numpy(), squares.numpy())
    return rho, squares


@compiled(fastmath=set())
def _fill_rho(ranks: Any, basis: Any, pattern: Any, rho: Any, squares: Any) -> None:
    windows, latents, frames = ranks.shape
    for w in range(windows):
        x = basis[pattern[w]]
        length = 0.0
        for t in range(frames):
            length += x[0, t] * x[0, t]
        for k in range(latents):
            product, square = 0.0, 0.0
            for t in range(frames):
                r = np.float64(ranks[w, k, t])
                product += r * x[0, t]
                square += r * r
            left = square
            for q in range(1, len(x)):
                explained = 0.0
                for t in range(frames):
                    explained += ranks[w, k, t] * x[q, t]
                left -= explained * explained
            squares[w, k] = left if left > _LEFT * square else 0.0
            rho[w, k] = product / np.sqrt(squares[w, k] * length)


def rho_on_device(ranks: Tensor, basis: np.ndarray, pattern: np.ndarray, half: slice) -> tuple[Tensor, Tensor]:
    """The same in tensors' operations."""
    x = _of_windows(basis, pattern, ranks)[..., half]
    wide = ranks[..., half].double()
    square = (wide**2).sum(-1)
    products = torch.einsum("wkt,wqt->wkq", wide, x)
    left = square - (products[..., 1:] ** 2).sum(-1)
    left = torch.where(left > _LEFT * square, left, 0)
    return products[..., 0] / torch.sqrt(left * (x[:, :1] ** 2).sum(-1)), left


def autocorrelation_on_cpu(ranks: Tensor, valid: np.ndarray, basis: np.ndarray, pattern: np.ndarray) -> Tensor:
    """Correlation [windows, latents] float64 of neighbouring frames' ranks, less what basis and values explain.

    The mean product of neighbours that are both ``valid`` [frames, windows] over the mean square; 0 where nothing is
    left, or no neighbours are.
    """
    found = torch.empty(ranks.shape[:2], dtype=torch.float64)
    _fill_autocorrelation(ranks.numpy(), valid, basis, pattern, found.numpy())
    return found


@compiled(fastmath=set())
def _fill_autocorrelation(ranks: Any, valid: Any, basis: Any, pattern: Any, found: Any) -> None:
    windows, latents, frames = ranks.shape
    rest = np.empty(frames)
    here = np.empty(frames)
    lengths = np.empty(basis.shape[1])
    for w in range(windows):
        x = basis[pattern[w]]
        count, pairs = 0, 0
        for t in range(frames):
            here[t] = valid[t, w]
            count += valid[t, w]
            pairs += t > 0 and valid[t, w] and valid[t - 1, w]
        for q in range(len(x)):
            lengths[q] = 0
            for t in range(frames):
                lengths[q] += x[q, t] * x[q, t]
        for k in range(latents):
            whole = 0.0
            for t in range(frames):
                rest[t] = ranks[w, k, t]
                whole += rest[t] * rest[t]
            for q in range(len(x)):
                if lengths[q] > 0:
                    share = 0.0
                    for t in range(frames):
                        share += ranks[w, k, t] * x[q, t]
                    share /= lengths[q]
                    for t in range(frames):
                        rest[t] -= share * x[q, t]
            square, product = rest[0] * rest[0], 0.0
            for t in range(1, frames):
                square += rest[t] * rest[t]
                product += rest[t] * rest[t - 1]  # 0 where one isn't valid
            enough = pairs > 0 and square > _LEFT * whole
            found[w, k] = (product / pairs) / (square / count) if enough else 0.0


def autocorrelation_on_device(ranks: Tensor, valid: Tensor, basis: np.ndarray, pattern: np.ndarray) -> Tensor:
    """The same in tensors' operations."""
    x, wide = _of_windows(basis, pattern, ranks), ranks.double()
    lengths = (x**2).sum(-1)
    shares = torch.einsum("wkt,wqt->wkq", wide, x) / torch.where(lengths > 0, lengths, 1)[:, None]
    rest = wide - torch.einsum("wkq,wqt->wkt", shares, x)
    square = (rest**2).sum(-1)
    pairs = (valid[1:] & valid[:-1]).sum(0)[:, None]
    product = (rest[..., 1:] * rest[..., :-1]).sum(-1)
    enough = (pairs > 0) & (square > _LEFT * (wide**2).sum(-1))
    return torch.where(enough, (product / pairs) / (square / valid.sum(0)[:, None]), 0)


def _of_windows(basis: np.ndarray, pattern: np.ndarray, like: Tensor) -> Tensor:
    return torch.from_numpy(basis[pattern]).to(like.device)
