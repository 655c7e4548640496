"""The baselines beside the latents: read and measured as a plain loop does."""

import runpy
from pathlib import Path

import h5py
import numpy as np
from commands import Program
from plain import plain_scaled
from scipy import stats

from hrtemvae_hpc.interpretation.reopen import reopen
from hrtemvae_hpc.maps.result import open_result

BASELINES = runpy.run_path(str(Path(__file__).parents[1] / "benchmarks/baselines.py"))


def test_windows_follow_the_drift_and_are_measured(
    hrtemvae: Program, tmp_path: Path, movie_path: Path, tiny_model_path: Path
) -> None:
    rows = "".join(f"{t},,{t % 4},{-2 * (t % 3)},1\n" for t in range(12))
    (tmp_path / "table.csv").write_text(f"frame,time_s,dy_px,dx_px,quality\n{rows}")
    words = ("--model", tiny_model_path, "--drift", "table.csv", "-o", "maps.h5")
    outcome = hrtemvae("analyze", movie_path, *words)
    assert outcome.code == 0, outcome.text
    with open_result(tmp_path / "maps.h5") as result, reopen(result) as again:
        components = BASELINES["fit_components"](again)
        found = BASELINES["measure"](again)
        valid_frames = result.valid_frames
    with h5py.File(movie_path) as file:
        movie = file["movie"][...].astype(float)
    for row, column in ((0, 0), (3, 4), (6, 9)):
        at = [(t, 8 * row + t % 4, 8 * column - 2 * (t % 3)) for t in range(12)]
        seen = [(t, y, x) for t, y, x in at if min(y, x) >= 0 and y + 16 <= 70 and x + 16 <= 90]
        series = np.stack([movie[t, y : y + 16, x : x + 16].ravel() for t, y, x in seen])
        assert len(series) == valid_frames[row, column]
        n = max(1, len(series) // 5)
        early, late = series[:n].mean(0), series[-n:].mean(0)
        expected = [
            np.mean([np.mean((pixel - pixel.mean()) ** 2) for pixel in series.T]),
            np.mean((series[-1] - series[0]) ** 2),
            np.mean((late - early) ** 2),
            1 - stats.pearsonr(series[0], series[-1])[0],
            1 - stats.pearsonr(early, late)[0],
        ]
        shown = [values[row, column] for values in found.of_pixels.values()]
        np.testing.assert_allclose(shown, expected, rtol=1e-4)
        scores = np.stack([components.components_ @ (plain_scaled(w) - components.mean_) for w in series])
        rho = [stats.spearmanr(each, np.arange(len(each)))[0] for each in scores.T]
        np.testing.assert_allclose(found.components[:, row, column], (rho * scores.var(0)) ** 2, rtol=1e-2, atol=1e-6)
