"""What commands print with --json, as programs read it."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from commands import Program


def printed(program: Program, *arguments: object, code: int = 0, **how: Any) -> Any:
    """The object on standard output, which holds nothing else but lines of standard error."""
    outcome = program(*arguments, "--json", **how)
    assert outcome.code == code, outcome.text
    (line,) = (line for line in outcome.text.splitlines() if line.startswith("{"))
    return json.loads(line)


@pytest.mark.parametrize("ranks", [None, 2])
def test_plan(hrtemvae: Program, movie_path: Path, tiny_model_path: Path, ranks: int | None) -> None:
    plan = printed(hrtemvae, "plan", movie_path, "--model", tiny_model_path, "--pixel-size", 0.02, ranks=ranks)
    assert (plan["frames"], plan["pixels"], plan["windows"]) == (12, [70, 90], [7, 10])
    assert plan["encodings"] == 12 * 70
    assert plan["pixel_size_nm"] == [0.02, 0.02]
    assert [rank["rank"] for rank in plan["ranks"]] == list(range(ranks or 1))
    assert all(rank["memory"] > plan["tile_bytes"] + plan["working_bytes"] for rank in plan["ranks"])
    assert plan["seconds"]["total"] >= plan["seconds"]["tiles"] > 0
    assert plan["warnings"] == []


def test_plan_warns(hrtemvae: Program, tmp_path: Path) -> None:
    assert hrtemvae("simulate", "-o", "m.h5", "--frames", 3, "--size", 192, 192).code == 0
    plan = printed(hrtemvae, "plan", "m.h5", "--pixel-size", 0.05, "--step", 32)
    assert any("the model was trained at 0.0145" in warning for warning in plan["warnings"])


def test_doctor(hrtemvae: Program, tmp_path: Path) -> None:
    found = printed(hrtemvae, "doctor", ranks=2)
    assert {check["what"] for check in found["checks"]} >= {"program", "ranks", "MPI", "HDF5"}
    assert found["verdict"] in ("ok", "warning")
    missing = str(tmp_path / "none")
    found = printed(hrtemvae, "doctor", code=2, variables={"HRTEMVAE_SCRATCH": missing})
    assert found["verdict"] == "wrong"
    (scratch,) = (check for check in found["checks"] if check["what"] == "scratch")
    assert scratch["verdict"] == "WRONG"


def test_session_status(hrtemvae: Program, tmp_path: Path, movie_path: Path, tiny_model_path: Path) -> None:
    (tmp_path / "night").mkdir()
    shutil.copy(movie_path, tmp_path / "night" / "a.h5")
    (tmp_path / "night" / "cut.h5").write_bytes(movie_path.read_bytes()[:2000])
    hrtemvae("session", "run", "night", "--model", tiny_model_path)
    status = printed(hrtemvae, "session", "status", "night")
    movies = {movie["movie"]: movie for movie in status["movies"]}
    assert (movies["a.h5"]["state"], movies["a.h5"]["starts"]) == ("done", 1)
    assert Path(movies["a.h5"]["result"]).is_file()
    assert movies["cut.h5"]["state"] == "failed"
    assert "truncated" in movies["cut.h5"]["remark"]
