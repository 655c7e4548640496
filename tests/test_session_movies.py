"""What a session finds in a folder: files and folders of all formats that are movies, and nothing else."""

import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile
from commands import Program
from conftest import assert_same_maps, drifting_pixels
from dm_files import write_dm
from hostile import refusal
from test_formats_ser import write as write_ser

from hrtemvae_hpc.facility.movies import Found, find_movies
from hrtemvae_hpc.facility.session import begin_session

PIXELS = drifting_pixels(6, 40, 48)
RECORDED = {"In-situ": {"Recorded": {"# Frames": np.uint32(len(PIXELS))}}}


def find(folder: Path) -> set[str]:
    return set(find_movies(folder, folder / "out").names)


def write_frames(folder: Path, write: Callable[[Path, np.ndarray], object], ending: str) -> None:
    folder.mkdir(parents=True)
    for i, pixels in enumerate(PIXELS):
        write(folder / f"frame_{i}{ending}", pixels)


def write_tree(folder: Path) -> None:
    for i, pixels in enumerate(PIXELS):
        second = folder / "Hour_00" / "Minute_00" / f"Second_{i // 3:02}"
        second.mkdir(parents=True, exist_ok=True)
        write_dm(second / f"m_Hour_00_Minute_00_Second_{i // 3:02}_Frame_{i % 3:04}.dm4", pixels)


def test_files_that_hold_several_frames(tmp_path: Path) -> None:
    np.save(tmp_path / "stack.npy", PIXELS)
    write_dm(tmp_path / "stack.dm4", PIXELS)
    tifffile.imwrite(tmp_path / "stack.tif", PIXELS)
    write_ser(tmp_path / "stack_1.ser", PIXELS)
    (tmp_path / "stack.emi").write_bytes(b"of the series")
    (tmp_path / "damaged.h5").write_bytes(b"\x89HDF\r\n\x1a\n")
    expected = {"stack.npy", "stack.dm4", "stack.tif", "stack_1.ser", "damaged.h5"}
    assert find(tmp_path) == expected
    np.save(tmp_path / "dark.npy", PIXELS[0])
    np.save(tmp_path / "pair.npy", PIXELS[:2])
    write_dm(tmp_path / "reference.dm4", PIXELS[0])
    write_ser(tmp_path / "reference_1.ser", PIXELS[:1])
    with h5py.File(tmp_path / "reference.h5", "w") as file:
        file["m"] = PIXELS[:1]
    (tmp_path / "notes.txt").write_text("12:30 heating")
    (tmp_path / "stack.dm4.maps.h5").write_bytes(b"a result")
    assert find(tmp_path) == expected


def test_a_recording_is_one_movie(tmp_path: Path) -> None:
    write_dm(tmp_path / "m.dm4", PIXELS[0], tags=RECORDED)
    content = PIXELS.tobytes()
    (tmp_path / "m.raw").write_bytes(content[:9000])
    (tmp_path / "m.raw_1").write_bytes(content[9000:])
    assert find(tmp_path) == {"m.dm4"}


def test_the_files_of_a_detector_are_one_movie(tmp_path: Path) -> None:
    for i in (1, 2):
        with h5py.File(tmp_path / f"m_data_00000{i}.h5", "w") as file:
            file["entry/data/data"] = PIXELS[3 * i - 3 : 3 * i]
    with h5py.File(tmp_path / "m_master.h5", "w") as file:
        for i in (1, 2):
            file[f"entry/data/data_00000{i}"] = h5py.ExternalLink(f"m_data_00000{i}.h5", "/entry/data/data")
    assert find(tmp_path) == {"m_master.h5"}


@pytest.mark.parametrize(
    ("write", "ending"),
    [
        (write_dm, ".dm4"),
        (lambda path, pixels: tifffile.imwrite(path, pixels), ".tif"),
        (lambda path, pixels: write_ser(path, pixels[None]), "_1.ser"),
        (lambda path, pixels: np.save(path, pixels), ".npy"),
    ],
)
def test_a_folder_of_frames_is_one_movie(tmp_path: Path, write: Callable[..., object], ending: str) -> None:
    write_frames(tmp_path / "late" / "frames", write, ending)
    for i in range(len(PIXELS)):
        (tmp_path / "late" / "frames" / f"frame_{i}.emi").write_bytes(b"of the frame")
    (tmp_path / "late" / "frames" / "log.txt").write_text("heating")
    with h5py.File(tmp_path / "late" / "frames.h5", "w") as file:
        file["m"] = PIXELS
    assert find(tmp_path) == {"late/frames", "late/frames.h5"}


def test_gatans_trees(tmp_path: Path) -> None:
    write_tree(tmp_path / "m")
    write_dm(tmp_path / "m" / "m.dm4", PIXELS[0], tags=RECORDED)
    np.save(tmp_path / "m" / "beside.npy", PIXELS)
    found = find_movies(tmp_path, tmp_path / "out")
    assert found == Found(["m/beside.npy", "m"], [])


def test_images_are_not_frames(tmp_path: Path) -> None:
    """Of different shapes; fewer than an analysis needs; with a stack, or something else, among them."""
    for folder in ("shapes", "few", "stack", "other"):
        (tmp_path / folder).mkdir()
    for i in range(4):
        write_dm(tmp_path / "shapes" / f"{i}.dm4", PIXELS[i, i:])
        write_dm(tmp_path / "stack" / f"{i}.dm4", PIXELS if i == 2 else PIXELS[i])
        write_dm(tmp_path / "other" / f"{i}.dm4", PIXELS[i])
    write_dm(tmp_path / "few" / "0.dm4", PIXELS[0])
    write_dm(tmp_path / "few" / "1.dm4", PIXELS[1])
    np.save(tmp_path / "other" / "stack.npy", PIXELS)
    assert find(tmp_path) == {"stack/2.dm4", "other/stack.npy"}


def test_what_cannot_be_opened_is_reported(tmp_path: Path) -> None:
    np.save(tmp_path / "stack.npy", PIXELS)
    np.save(tmp_path / "table.npy", PIXELS[0, 0])
    found = find_movies(tmp_path, tmp_path / "out")
    assert found.names == ["stack.npy"]
    assert len(found.left_out) == 1
    assert "table.npy" in found.left_out[0]


def test_a_movie_is_not_a_session(tmp_path: Path) -> None:
    write_frames(tmp_path / "frames", write_dm, ".dm4")
    assert find_movies(tmp_path / "frames", tmp_path).left_out[0].endswith("analyse it with `hrtemvae analyze`.")
    assert "holds no movies" in refusal(lambda: begin_session(tmp_path / "frames", tmp_path / "out", []))


def test_real_files(shared: Path) -> None:
    assert find(shared / "data" / "formats") == {
        "Custom_movie.mrc",
        "dmTest_3D_int16_64,65,66.dm3",
        "dmTest_3D_int16_64,65,66.dm4",
        "temp.mrc",
    } | {
        # HDF5 that can't be opened as a movie, which the session will report.
        "example2_v3.1.hspy",
        "example_image.emd",
        "fei_example_complex_fft.emd",
    }


def test_a_session_of_several_formats(hrtemvae: Program, tmp_path: Path, shared: Path, tiny_model_path: Path) -> None:
    write_frames(tmp_path / "night" / "frames", write_dm, ".dm4")
    with h5py.File(tmp_path / "night" / "frames.h5", "w") as file:
        file["m"] = PIXELS
    shutil.copy(shared / "data/formats/temp.mrc", tmp_path / "night" / "real.mrc")
    shutil.copy(shared / "data/formats/dm4_2d_test-10.dm4", tmp_path / "night" / "reference.dm4")
    done = hrtemvae("session", "run", "night", "--model", tiny_model_path)
    assert done.code == 0, done.text
    assert "3 done" in done.text
    results = tmp_path / "night.maps"
    assert_same_maps(results / "frames.maps.h5", results / "frames.h5.maps.h5")
    page = (results / "session.html").read_text()
    assert page.count('<div class="movie"') == 3
    for name in ("frames", "frames.h5", "real.mrc"):
        assert (results / f"{name}.maps.html").is_file()
        assert f'href="{name}.maps.html"' in page
    again = hrtemvae("session", "run", "night", "--model", tiny_model_path)
    assert again.code == 0, again.text
    assert "1 of" not in again.text
