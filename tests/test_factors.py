"""Factors of many matrices are those that scikit-learn finds of each."""

import warnings

import numpy as np
import pytest
from sklearn.decomposition import NMF
from sklearn.exceptions import ConvergenceWarning

from hrtemvae_hpc.statistics.factors import improve_factors, start_factors


def planted(count: int, rows: int, columns: int, noise: float) -> np.ndarray:
    """Matrices of four parts each, with zeros, and some noise."""
    random = np.random.default_rng(5)
    parts = random.gamma(0.5, size=(count, rows, 4)), random.gamma(0.5, size=(count, 4, columns))
    matrices = parts[0] @ parts[1] + noise * random.normal(size=(count, rows, columns))
    return np.maximum(matrices, 0).astype(np.float32)


def by_scikit_learn(matrix: np.ndarray, parts: int, iterations: int) -> tuple[np.ndarray, np.ndarray]:
    model = NMF(parts, init="nndsvda", max_iter=iterations, tol=0, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit_transform(matrix.astype(np.float64)), model.components_


@pytest.mark.parametrize(("rows", "columns"), [(90, 40), (40, 90)])
@pytest.mark.parametrize("parts", [2, 4])  # its start is random for those that are noise
def test_each_matrix_is_factored_as_scikit_learn_does(rows: int, columns: int, parts: int) -> None:
    matrices = planted(3, rows, columns, 0.2)
    found = improve_factors(matrices, start_factors(matrices, 6).leading(parts), 20)
    for i, matrix in enumerate(matrices):
        for ours, theirs in zip((found.rows[i].T, found.columns[i]), by_scikit_learn(matrix, parts, 20), strict=True):
            np.testing.assert_allclose(ours, theirs, atol=2e-3 * theirs.max())


def test_what_was_planted_is_found() -> None:
    matrices = planted(2, 60, 50, 0)
    found = improve_factors(matrices, start_factors(matrices, 4), 2000)
    error = matrices - found.rows.transpose(0, 2, 1) @ found.columns
    assert np.sqrt((error**2).mean()) < 0.02 * matrices.std()


def test_a_matrix_of_zeros_and_a_part_too_many_stay_finite() -> None:
    matrices = np.zeros((2, 7, 5), np.float32)
    matrices[1] = np.outer(np.arange(7), np.arange(5))
    found = improve_factors(matrices, start_factors(matrices, 3), 50)
    np.testing.assert_allclose(found.rows.transpose(0, 2, 1) @ found.columns, matrices, atol=1e-3)
    assert (found.rows >= 0).all()
    assert (found.columns >= 0).all()
