"""The groups of a result that say how certain its maps are: what is made of tiles, what is read, what is verified."""

from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from results import LATENTS, made_up_info, make_up_result, tiles_of

from hrtemvae_hpc.errors import InputError
from hrtemvae_hpc.maps.certainty import enough_frames
from hrtemvae_hpc.maps.digest import check_whole
from hrtemvae_hpc.maps.result import open_result, read_result
from hrtemvae_hpc.maps.result_writing import write_result
from hrtemvae_hpc.statistics.over_time import ALL_MAPS

GROUPS = ("noise", "excess_variance", "change", "significance", "reproducibility")


@pytest.fixture
def result(tmp_path: Path) -> Path:
    return make_up_result(tmp_path / "maps.h5", frames=[3, 5, 7, 9, 11, 13])


def test_maps_are_made_of_tiles(result: Path) -> None:
    ((_, tile),) = tiles_of(made_up_info().grid)
    kind = {name: tile.maps[i] for i, name in enumerate(ALL_MAPS)}
    with open_result(result) as opened:
        maps = {
            place: np.stack([opened.maps(place, latent) for latent in range(LATENTS)])
            for place in ("noise", "excess_variance", "change", "change/frame", "change/time", "significance")
        }
        largest = opened.file["entry/significance/largest_rho"][...]
        np.testing.assert_array_equal(opened.file["entry/significance/p_value"], kind["chance"])
        assert opened.reproducibility == pytest.approx(np.ones(LATENTS)), "even and odd are one map times numbers"
    np.testing.assert_array_equal(maps["noise"], kind["noise"])
    np.testing.assert_array_equal(maps["excess_variance"], kind["variance"] - kind["noise"])
    np.testing.assert_array_equal(maps["change"], kind["score"])
    known = np.isfinite(kind["change"])
    np.testing.assert_array_equal(maps["change/frame"], np.where(known, 9, np.nan))
    np.testing.assert_array_equal(maps["change/time"], np.where(known, 1.5, np.nan))
    typical = np.median([np.nanmedian(each) for each in kind["autocorrelation"]])
    ratio = 1 + np.maximum(kind["autocorrelation"], typical) / 0.98
    for value, chance in zip((kind["spearman"] / ratio).flat, maps["significance"].flat, strict=True):
        assert np.isnan(value) or chance == pytest.approx((1 + (largest >= value - 1e-5).sum()) / 100)


def test_a_movie_without_times_has_no_map_of_them(tmp_path: Path) -> None:
    info = replace(made_up_info(), times_s=None)
    write_result(tmp_path / "maps.h5", tmp_path, info, tiles_of(info.grid))
    with open_result(tmp_path / "maps.h5") as opened:
        assert "time" not in opened.file["entry/change"]
        assert opened.maps("change/frame", 0)[0, 0] == 3


@pytest.mark.parametrize("place", ["change/frame", "significance/data", "reproducibility/correlation"])
def test_a_changed_value_is_found(result: Path, place: str) -> None:
    with h5py.File(result, "r+") as file:
        dataset = file[f"entry/{place}"]
        values = dataset[...]
        values.flat[0] += 1
        dataset[...] = values
    with pytest.raises(InputError, match=f"/entry/{place} differ"):
        check_whole(result, name_damage=True)


def test_a_result_of_an_earlier_version_is_read(result: Path) -> None:
    with h5py.File(result, "r+") as file:
        for name in GROUPS:
            del file[f"entry/{name}"]
        opened = read_result(result, file)
        assert opened.reproducibility is None
        assert np.isfinite(opened.maps("variance", 0)).any()


@pytest.mark.parametrize("place", ["noise", "change/frame", "reproducibility/correlation"])
def test_a_result_with_some_of_the_groups_is_refused(result: Path, place: str) -> None:
    with h5py.File(result, "r+") as file:
        del file[f"entry/{place}"]
        with pytest.raises(InputError, match="is not a result"):
            read_result(result, file)


def test_windows_with_less_than_half_of_the_frames_are_not_enough() -> None:
    valid = np.array([[10, 5, 4], [0, 9, 10]])
    assert enough_frames(valid).tolist() == [[True, True, False], [False, True, True]]
