"""Patches: the pixels of a block, converted and transformed batch by batch, on a CPU or a GPU."""

import numpy as np
import pytest
import torch

from hrtemvae_hpc.area import Area
from hrtemvae_hpc.movie.resample import Resampler
from hrtemvae_hpc.movie.tiles import TilePixels
from hrtemvae_hpc.movie.transform import Transform
from hrtemvae_hpc.patch import PINNED, Patch
from hrtemvae_hpc.scaling import LocalScaling

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
TYPES = ["u1", "i1", "<u2", ">u2", "i2", "u4", "i4", "i8", "u8", "f2", "f4", "f8", ">f4"]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", TYPES)
def test_pixels_of_any_type_become_floating(device: str, dtype: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 100, (5, 6, 7)).astype(dtype)
    frames = Patch.of(pixels).frames(slice(1, 4), torch.device(device))
    wide = np.dtype(dtype).itemsize > (4 if "f" in dtype else 2)
    assert frames.dtype == (torch.float64 if wide else torch.float32)
    np.testing.assert_array_equal(frames.cpu(), pixels[1:4])


@pytest.mark.gpu
def test_memory_that_is_still_being_read_is_not_written_to() -> None:
    pixels = np.random.default_rng(0).integers(0, 60_000, (6 * PINNED, 500, 500)).astype("u2")
    device = torch.device("cuda")
    busy = torch.rand(4096, 4096, device=device)
    sent = []
    for t in range(len(pixels)):
        busy @ busy  # keeps the stream from copying at once
        sent.append(Patch.of(pixels[:, : 100 + t]).frames(slice(t, t + 1), device))
    for t, frames in enumerate(sent):
        np.testing.assert_array_equal(frames[0].cpu(), pixels[t, : 100 + t])


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("resampled", [False, True])
def test_a_part_of_the_frames_has_the_values_of_all(device: str, resampled: bool) -> None:
    pixels = np.random.default_rng(0).integers(0, 1000, (9, 40, 50)).astype("u2")
    resampler = Resampler(40, 50, (52, 65)) if resampled else None
    transform = Transform(resampler, LocalScaling((52, 65) if resampled else (40, 50), 16))
    area = Area(slice(5, 30), slice(0, 33))
    source = transform.source(area)
    tile = TilePixels.of(pixels[:, source.rows, source.columns], source, transform)
    tile.lost[3] = True
    patch = tile.patch(area)
    assert patch.shape == (9, 25, 33)
    whole = patch.array()
    assert np.isnan(whole[3]).all()
    assert np.isfinite(np.delete(whole, 3, 0)).all()
    for part in (slice(0, 2), slice(2, 9)):
        frames = patch.frames(part, torch.device(device)).cpu()
        np.testing.assert_allclose(frames, whole[part], atol=1e-6)
