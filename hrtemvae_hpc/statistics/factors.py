"""Factors without negative numbers, of many small matrices of one shape at once.

Each matrix is approximated by the product of two thin ones (Lee and Seung 1999, Nature 401, 788). One part at a time is
improved (hierarchical alternating least squares: Cichocki and Phan 2009, IEICE Transactions E92-A, 708), from a start
by singular vectors (NNDSVDa: Boutsidis and Gallopoulos 2008, Pattern Recognition 41, 1350).
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Factors:
    """Parts whose products with each other, summed, approximate some matrices [matrices, rows, columns]."""

    rows: np.ndarray  # [matrices, parts, rows] float32
    columns: np.ndarray  # [matrices, parts, columns] float32

    def leading(self, parts: int) -> "Factors":
        """The first ``parts`` of them."""
        return Factors(self.rows[:, :parts], self.columns[:, :parts])


def start_factors(matrices: np.ndarray, parts: int) -> Factors:
    """Where to begin for up to ``parts`` parts of ``matrices`` [matrices, rows, columns], without negative numbers.

    Of the positive and the negative halves of each pair of singular vectors, the one that explains more. What is 0 in
    it begins at the mean of its matrix.
    """
    exact = matrices.astype(np.float64)
    squares, vectors = np.linalg.eigh(exact.transpose(0, 2, 1) @ exact)
    columns = vectors[:, :, : -parts - 1 : -1].transpose(0, 2, 1)
    scales = np.sqrt(np.maximum(squares[:, : -parts - 1 : -1], 1e-30))[:, :, None]
    rows = columns @ exact.transpose(0, 2, 1) / scales
    halves = [(np.maximum(sign * rows, 0), np.maximum(sign * columns, 0)) for sign in (1, -1)]
    norms = [[np.linalg.norm(half, axis=2, keepdims=True) for half in pair] for pair in halves]
    weights = [row * column for row, column in norms]
    positive = weights[0] >= weights[1]
    share = np.sqrt(scales * np.maximum(*weights))
    mean = exact.mean((1, 2))[:, None, None]
    sides = []
    for side in range(2):
        half = np.where(positive, halves[0][side], halves[1][side])
        norm = np.where(positive, norms[0][side], norms[1][side])
        value = share * half / np.maximum(norm, 1e-30)
        sides.append(np.where(value > 0, value, mean).astype(np.float32))
    return Factors(*sides)


def improve_factors(matrices: np.ndarray, start: Factors, iterations: int) -> Factors:
    """Factors of ``matrices`` [matrices, rows, columns] float32 after some ``iterations`` from a ``start``."""
    rows, columns = start.rows.copy(), start.columns.copy()
    for _ in range(iterations):
        _improve(rows, columns @ matrices.transpose(0, 2, 1), columns)
        _improve(columns, rows @ matrices, rows)
    return Factors(rows, columns)


def _improve(side: np.ndarray, product: np.ndarray, other: np.ndarray) -> None:
    """Set each part of one ``side`` in turn to its least-squares value, or 0, while all else is held.

    ``product`` is that of the matrices with the ``other`` side.
    """
    gram = other @ other.transpose(0, 2, 1)
    for part in range(side.shape[1]):
        rest = product[:, part] - np.matmul(gram[:, part, None], side)[:, 0]
        side[:, part] = np.maximum(side[:, part] + rest / np.maximum(gram[:, part, part, None], 1e-30), 0)
