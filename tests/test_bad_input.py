"""Bad input: exit code 2, one sentence that names file, dataset and remedy, and nothing left behind."""

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from commands import Outcome, Program, command_line, environment
from conftest import assert_refused, assert_same_maps, drifting_pixels
from damage import break_chunk

PIXELS = drifting_pixels(5, 40, 40)


def hdf5(**datasets: object) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        with h5py.File(path, "w") as file:
            for name, data in datasets.items():
                file[name] = data

    return write


def truncated(path: Path) -> None:
    hdf5(m=PIXELS)(path)
    path.write_bytes(path.read_bytes()[:5000])


def bad_chunk(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("m", data=PIXELS, chunks=(2, 40, 40), compression="gzip")
    break_chunk(path, "m", 1)


def external(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["m"] = h5py.ExternalLink("gone.h5", "m")


FILES = {
    "missing": (lambda _: None, "there is no such file"),
    "empty": (lambda p: p.touch(), "is empty (0 bytes)"),
    "a folder": (lambda p: p.mkdir(), "is a folder"),
    "truncated": (truncated, "is truncated"),
    "not HDF5": (lambda p: p.write_text("frames"), "is not an HDF5 file"),
    "damaged": (lambda p: p.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(500)), "damaged HDF5 file"),
    "no dataset": (hdf5(), "no dataset of three dimensions"),
    "an image only": (hdf5(m=PIXELS[0]), "/m (40, 40)"),
    "several": (hdf5(a=PIXELS, b=PIXELS), "--dataset: /a, /b"),
    "a link to nowhere": (external, "no dataset of three dimensions"),
    "a name too long": (None, "can't be accessed"),
    "complex": (hdf5(m=PIXELS.astype(complex)), "dataset /m: holds complex numbers"),
    "text": (hdf5(m=np.full((3, 20, 20), b"text")), "dataset /m: holds text"),
    "booleans": (hdf5(m=PIXELS > 100), "dataset /m: holds booleans"),
    "zero frames": (hdf5(m=PIXELS[:0]), "dataset /m: is empty"),
    "a single frame": (hdf5(m=PIXELS[:1]), "dataset /m: 1 frame can't vary over time"),
    "two frames": (hdf5(m=PIXELS[:2]), "dataset /m: 2 frames can't vary over time"),
    "small frames": (hdf5(m=PIXELS[:, :15]), "dataset /m: 15 x 40 pixels are smaller than the model's window of 16"),
    "bad chunk": (bad_chunk, "can't be decoded at frame 2, 3"),
}


@pytest.mark.parametrize("what", FILES)
def test_movies_that_can_not_be_analysed(hrtemvae: Program, tmp_path: Path, tiny_model_path: Path, what: str) -> None:
    write, words = FILES[what]
    folder = tmp_path / "in put"
    folder.mkdir()
    movie = folder / ("movie.h5" if write else "m" * 300)
    if write:
        write(movie)
    work = tmp_path / "work"
    work.mkdir()
    outcome = hrtemvae("analyze", movie, "--model", tiny_model_path, cwd=work)
    assert_refused(outcome, str(movie), words)
    assert list(work.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--dataset", "n"], "no dataset 'n'"),
        (["--roi", "0:41,0:40"], "region's rows 0:41 do not lie in 0:40"),
        (["--roi", "0:40,9:8"], "region's columns 9:8"),
        (["--roi", "0:10,0:40"], "10 x 40 pixels are smaller"),
        (["--roi", "all"], "--roi: give a region as y0:y1,x0:x1"),
        (["--frames", "0:6"], "frames 0:6 do not lie in 0:5"),
        (["--frames", "1:3"], "2 frames can't vary over time"),
        (["--axes", "xyz"], "--axes: name each of the axes t, y and x once"),
        (["--step", "0"], "--step: input should be greater than or equal to 1, not 0"),
        (["--precision", "tf32"], "tf32: needs an NVIDIA GPU"),
        (["--model", "none.safetensors"], "none.safetensors: there is no such model file"),
        (["--config", "none.yaml"], "none.yaml: the configuration can't be read"),
        (["--max-memory", "50MB"], "raise --max-memory to"),
        (["-o", "none/maps.h5"], "there is no such folder"),
        (["-o", "movie.h5"], "is itself one of the inputs"),
        (["-o", "link.h5"], "is itself one of the inputs"),
        (["-o", "folder"], "is a folder"),
        (["-o", "maps.html"], "would be overwritten by its page"),
        (["-o", "n" * 300], "can't be written"),
    ],
)
def test_options_that_do_not_fit(
    hrtemvae: Program, tmp_path: Path, tiny_model_path: Path, options: list[str], words: str
) -> None:
    hdf5(m=PIXELS)(tmp_path / "movie.h5")
    (tmp_path / "link.h5").symlink_to("movie.h5")
    (tmp_path / "folder").mkdir()
    before = sorted(tmp_path.rglob("*")), (tmp_path / "movie.h5").read_bytes()
    outcome: Outcome = hrtemvae("analyze", "movie.h5", "--model", tiny_model_path, *options)
    assert_refused(outcome, words)
    assert (sorted(tmp_path.rglob("*")), (tmp_path / "movie.h5").read_bytes()) == before


@pytest.mark.parametrize("ranks", [2])
def test_one_sentence_from_many_ranks(hrtemvae: Program, tmp_path: Path, tiny_model_path: Path, ranks: int) -> None:
    work = tmp_path / "work"
    work.mkdir()
    bad_chunk(tmp_path / "movie.h5")
    hdf5(m=PIXELS[:2])(tmp_path / "short.h5")
    for movie in ("none.h5", "movie.h5", "short.h5"):
        outcome = hrtemvae("analyze", tmp_path / movie, "--model", tiny_model_path, ranks=ranks, cwd=work)
        assert_refused(outcome, movie)
        assert list(work.iterdir()) == []
    (tmp_path / "c.yaml").write_text("windoes: 1")
    assert_refused(hrtemvae("plan", tmp_path / "movie.h5", "--config", tmp_path / "c.yaml", ranks=ranks), "windoes")


def test_a_movie_that_only_one_rank_can_not_see(tmp_path: Path, movie_path: Path, tiny_model_path: Path) -> None:
    rest = ["--model", tiny_model_path, "-o", "maps.h5"]
    first = command_line(["analyze", movie_path, *rest])
    second = command_line(["analyze", "nowhere.h5", *rest])
    command = ["mpirun", "-n", "1", *first, ":", "-n", "1", *second]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=40, check=False
    )
    assert done.returncode == 2, done.stderr
    assert re.search(r"hrtemvae: rank 1 on \S+: nowhere\.h5: there is no such file", done.stderr)
    assert not (tmp_path / "maps.h5").exists()


def test_parts_of_another_analysis_are_not_mixed(
    hrtemvae: Program, tmp_path: Path, movie_path: Path, tiny_model_path: Path
) -> None:
    command = ["analyze", movie_path, "--model", tiny_model_path, "-o", "maps.h5"]
    assert hrtemvae(*command, "--keep-parts").code == 0
    (tmp_path / "maps.h5").unlink()
    outcome = hrtemvae(*command, "--step", 4)
    assert_refused(outcome, "holds parts of another analysis", "--restart")
    outcome = hrtemvae(*command)
    assert outcome.code == 0
    assert "tiles are done" in outcome.text


def test_an_output_that_is_not_writable(
    hrtemvae: Program, tmp_path: Path, movie_path: Path, tiny_model_path: Path
) -> None:
    if os.geteuid() == 0:
        folder = Path("/proc")  # where even root can't write
    else:
        folder = tmp_path / "locked"
        folder.mkdir(mode=0o500)
    outcome = hrtemvae("analyze", movie_path, "--model", tiny_model_path, "-o", folder / "maps.h5")
    assert_refused(outcome, str(folder), "can't be written")


def test_damaged_part_is_computed_again(
    hrtemvae: Program, tmp_path: Path, movie_path: Path, tiny_model_path: Path
) -> None:
    command = ["analyze", movie_path, "--model", tiny_model_path, "-o", "maps.h5"]
    assert hrtemvae(*command, "--keep-parts").code == 0
    part = next((tmp_path / "maps.h5.parts").glob("*.safetensors"))
    part.write_bytes(part.read_bytes()[:-7])
    whole = tmp_path / "whole.h5"
    (tmp_path / "maps.h5").rename(whole)
    assert hrtemvae(*command).code == 0
    assert_same_maps(whole, tmp_path / "maps.h5")


@pytest.mark.parametrize("what", ["none.h5", "text.h5", "movie.h5", "."])
def test_reports_of_other_files(hrtemvae: Program, tmp_path: Path, what: str) -> None:
    (tmp_path / "text.h5").write_text("maps")
    hdf5(m=PIXELS)(tmp_path / "movie.h5")
    outcome = hrtemvae("report", what)
    assert_refused(outcome, what, "hrtemvae analyze")
    assert not list(tmp_path.glob("*.report"))


@pytest.mark.parametrize("ranks", [None, 4])
def test_unknown_options_are_reported(hrtemvae: Program, movie_path: Path, ranks: int | None) -> None:
    """mpirun ends the other ranks once one has ended: signals come while Python ends."""
    outcome = hrtemvae("analyze", movie_path, "--fast", ranks=ranks)
    assert outcome.code == 2
    assert "unrecognized arguments: --fast" in outcome.text
    assert "Traceback" not in outcome.text
