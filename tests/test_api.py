"""The interface in Python: its documentation runs, and it gives the numbers of the files."""

import re
from pathlib import Path

import numpy as np
import pytest
from commands import Program
from conftest import drifting_pixels, read_maps, read_processes, read_series
from plain import plain_latents

from hrtemvae_hpc import api
from hrtemvae_hpc.errors import InputError
from hrtemvae_hpc.model.model_file import Model

DOCS = Path(__file__).parents[1] / "docs" / "api.md"


def test_the_documentation_runs(
    hrtemvae: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    outcome = hrtemvae("simulate", "--frames", 12, "--size", 192, 224, "-o", "movie.h5")
    assert outcome.code == 0, outcome.text
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    blocks = re.findall(r"```python\n(.*?)```", DOCS.read_text(), re.DOTALL)
    assert len(blocks) == 3
    for block in blocks:
        exec(block, names)
    assert "nm" in capsys.readouterr().out


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
