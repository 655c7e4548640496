"""The interface in Python: its documentation runs, and it gives the numbers of the files."""

import contextlib
import io
import re
from collections.abc import Callable
from pathlib import Path

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pytest
import tifffile
import torch
from commands import Program
from conftest import drifting_pixels, read_maps, read_processes, read_series
from matplotlib.figure import Figure
from plain import plain_latents, plain_scaled

from hrtemvae_hpc import api
from hrtemvae_hpc.errors import InputError
from hrtemvae_hpc.model.model_file import Model
from hrtemvae_hpc.movie.preprocess import clip_outliers

DOCS = Path(__file__).parents[1] / "docs"


@pytest.fixture(scope="module")
def documented(tmp_path_factory: pytest.TempPathFactory, run_in: Callable[[Path], Program]) -> tuple[Path, str]:
    """The folder of a simulated movie in which the examples of docs/api.md ran, and what they printed."""
    folder = tmp_path_factory.mktemp("documented") / "demo"
    folder.mkdir()
    outcome = run_in(folder)("simulate", "--frames", 12, "--size", 256, 320, "-o", "movie.h5")
    assert outcome.code == 0, outcome.text
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / "api.md").read_text(), re.DOTALL)
    assert len(blocks) == 3
    names: dict[str, object] = {}
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()) as printed:
        patch.chdir(folder)
        for block in blocks:
            exec(block, names)
    return folder, printed.getvalue()


def test_the_documentation_runs(documented: tuple[Path, str]) -> None:
    assert "nm" in documented[1]


def test_the_notebook_runs(documented: tuple[Path, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process, which has loaded what a kernel of its own would have to."""
    folder = documented[0]
    notebook = nbformat.read(DOCS / "example.ipynb", as_version=4)  # type: ignore[no-untyped-call]
    nbformat.validate(notebook)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in cells)
    (folder.parent / "docs").mkdir()
    monkeypatch.chdir(folder.parent / "docs")
    drawn: list[Figure] = []

    def keep() -> None:
        drawn.append(plt.gcf())
        plt.close()

    monkeypatch.setattr(plt, "show", keep)
    names: dict[str, object] = {}
    for cell in cells:
        exec(cell.source, names)
    assert len(drawn) == 5
    assert all(panel.get_ylabel() for figure in drawn for panel in figure.axes)
    expected = read_maps(folder / "maps.h5")["time_correlated_variance"].sum(0)
    np.testing.assert_allclose(tifffile.imread(folder / "total.tif"), expected, rtol=1e-5)
    table = np.loadtxt(folder / "series.csv", delimiter=",", skiprows=1)
    assert table.shape == (12, 65)


def test_a_result_is_what_the_file_holds(
    hrtemvae: Program, tmp_path: Path, movie_path: Path, tiny_model_path: Path
) -> None:
    options = {"model": tiny_model_path, "clip_outliers": True, "config": None}
    path = api.analyze(movie_path, tmp_path / "maps.h5", ranks=2, **options)
    maps = api.open_result(path)
    expected = read_maps(path)
    np.testing.assert_array_equal(maps.reproducibility, expected.pop("reproducibility/correlation"))
    del expected["significance/largest_rho"]  # of no window
    for name, values in expected.items():
        np.testing.assert_array_equal(maps[name.removesuffix("/data").replace("/", "_")], values)
    named = {"data": "processes", "weights": "process_weights", "series": "process_series", "span": "process_span"}
    for name, values in read_processes(path).items():
        if (stored := named.get(name.removeprefix("processes/"))) is not None:
            np.testing.assert_array_equal(maps[stored], values)
    kept = read_series(path)
    np.testing.assert_array_equal(maps.series, kept["series/data"])
    np.testing.assert_array_equal(maps.series_y, maps.y.values[kept["series/row"]])
    np.testing.assert_array_equal(maps.series_x, maps.x.values[kept["series/column"]])
    assert maps.bin_frame.values.tolist() == kept["series/frame"].tolist()
    assert {axis: maps.sizes[axis] for axis in ("latent", "y", "x")} == {"latent": 5, "y": 7, "x": 10}
    assert maps.y.attrs["units"] == "pixel"
    assert maps.attrs["configuration"]["preprocess"]["clip_outliers"] is True
    series = api.trace(path, at=[(31.5, 39.5), (8, 8)])
    np.testing.assert_array_equal(series.variance, maps.variance.values[:, [3, 0], [4, 0]].T)
    np.testing.assert_array_equal(series.y, [31.5, 7.5])
    np.testing.assert_array_equal(series.shown, [0, 6, 11])
    clipped = clip_outliers(torch.from_numpy(drifting_pixels(12, 70, 90)[6].astype(np.float32))).numpy()
    window = plain_scaled(clipped[:16, :16])
    assert window is not None
    np.testing.assert_allclose(series.window[1, 1], window, atol=1e-6)
    assert "reconstruction" not in series  # the model has no decoder


@pytest.mark.parametrize("scaling", ["window", "frame"])
def test_frames_in_memory_are_encoded(tiny_model: Model, scaling: str) -> None:
    frames = drifting_pixels(3, 60, 45).astype(np.float32)
    frames[1, :20, :20] = np.nan
    z = api.encode(frames, tiny_model, step=9, scaling=scaling)  # type: ignore[arg-type]
    np.testing.assert_array_equal(z.y, 7.5 + 9 * np.arange(5))
    assert np.isnan(z[1, 0, 0]).all()
    if scaling == "window":
        expected, valid = plain_latents(tiny_model, frames, 9)
        expected[~valid] = np.nan
        np.testing.assert_allclose(z.values.reshape(expected.shape), expected, atol=1e-4)
    single = api.encode(frames[2], tiny_model, step=9, scaling=scaling)  # type: ignore[arg-type]
    np.testing.assert_allclose(single[0], z[2], atol=1e-5)


def test_what_can_not_be_done_is_said(tiny_model: Model, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nothing\.h5.*there is no such file"):
        api.analyze("nothing.h5", tmp_path / "maps.h5")
    with pytest.raises(InputError, match="can't be encoded"):
        api.encode(np.zeros((3, 9, 9)), tiny_model)
    with pytest.raises(InputError, match="no such model file"):
        api.load_model("nothing")
