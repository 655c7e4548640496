"""The engine against a plain loop over windows."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY, random_model
from hypothesis import example, given, settings
from hypothesis import strategies as st
from plain import plain_encoder, plain_latents

from hrtemvae_hpc.errors import InputError, RankFailed
from hrtemvae_hpc.model.architecture import Architecture, Normalization
from hrtemvae_hpc.model.model_file import Model
from hrtemvae_hpc.model.network import Encoder
from hrtemvae_hpc.schemas import Scaling
from hrtemvae_hpc.windows.engine import Engine, Precision
from hrtemvae_hpc.windows.layers import folded
from hrtemvae_hpc.windows.runs import find_runs
from hrtemvae_hpc.windows.shared_frame import SharedConvolutions, shares_all
from hrtemvae_hpc.windows.shared_runs import SharedLayers

CPU = torch.device("cpu")


def make_engine(model: Model, step: int = 8, scaling: Scaling = "window", precision: Precision = "fp32") -> Engine:
    return Engine(model, CPU, precision, scaling, step)


def plain_layers(encoder: Encoder, windows: torch.Tensor, depth: int) -> tuple[torch.Tensor, float]:
    """The outputs of the first ``depth`` convolutions of float32 windows [n, 1, size, size].

    And the largest sum of absolute terms on the way there: what is small may be a difference of such sums, rounded.
    """
    absolute, largest = copy.deepcopy(encoder), [0.0]
    for conv in absolute.conv:
        conv.get_parameter("weight").abs_()
        conv.get_parameter("bias").abs_()
    for norm in absolute.norm:
        norm.register_forward_pre_hook(lambda _, inputs: largest.append(float(inputs[0].abs().max())))
    for layer in range(depth):
        largest.append(float(absolute.layers(windows.abs(), layer, layer + 1).abs().max()))
        windows = encoder.layers(windows, layer, layer + 1)
    return windows, max(largest)


@settings(max_examples=20, deadline=None)
@given(
    window=st.integers(9, 20),
    kernel=st.integers(1, 6),
    stride=st.integers(1, 3),
    step=st.one_of(st.integers(1, 9), st.integers(10, 30)),
    extra=st.tuples(st.integers(0, 11), st.integers(0, 11)),
    normalization=st.sampled_from(["none", "before_activation", "after_activation"]),
    dtype=st.sampled_from(["u1", "i2", "u2", "i4", "f2", "f4", "f8"]),
)
def test_agrees_with_a_plain_loop(
    window: int,
    kernel: int,
    stride: int,
    step: int,
    extra: tuple[int, int],
    normalization: Normalization,
    dtype: str,
) -> None:
    architecture = Architecture(
        window=window,
        channels=(2, 3),
        kernel=kernel,
        stride=stride,
        hidden=7,
        latents=3,
        normalization=normalization,
    )
    model = random_model(architecture)
    apart = step if step > 9 else 0  # at least two windows along each axis
    shape = (2, window + extra[0] + apart, window + extra[1] + apart)
    pixels = np.random.default_rng(0).integers(0, 120, shape).astype(dtype)
    z, valid = make_engine(model, step).encode(pixels, np.ones((2, 1), bool))
    expected, expected_valid = plain_latents(model, pixels, step)
    np.testing.assert_array_equal(valid, expected_valid)
    np.testing.assert_allclose(z, expected, atol=1e-4)


@settings(max_examples=60, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 9)),
    values=st.integers(1, 4),
    longest=st.integers(1, 9),
    at_once=st.integers(1, 20),
)
def test_runs_hold_each_window_once_in_lines_of_one_scale(
    shape: tuple[int, int, int], values: int, longest: int, at_once: int
) -> None:
    scales = np.random.default_rng(0).integers(0, values, (*shape, 2)).astype(float)
    windows: list[tuple[int, ...]] = []
    for piece in (piece for runs in find_runs(scales, longest) for piece in runs.split(at_once)):
        count, length, _ = piece.windows.shape
        assert length <= longest
        assert count == 1 or count * length <= at_once
        steps = np.diff(piece.windows, axis=1)
        assert (steps == ((0, 0, 1) if piece.along_x else (0, 1, 0))).all()
        own = scales[tuple(np.moveaxis(piece.windows, -1, 0))]
        assert (own == own[:, :1]).all()
        windows.extend(map(tuple, piece.windows.reshape(-1, 3)))
    assert sorted(windows) == list(np.ndindex(shape))


def test_windows_with_the_same_extreme_pixels_are_one_run() -> None:
    scales = np.zeros((1, 4, 5, 2))
    scales[0, 0] = 1, 2
    found = {(runs.along_x, runs.windows.shape[1]): len(runs.windows) for runs in find_runs(scales, 8)}
    assert found == {(True, 5): 4}


@settings(max_examples=40, deadline=None)
@example(32, 3, 2, 8, (40, 3), (4, 4, 5), "after_activation", 0.0, torch.float32)
@example(64, 4, 2, 8, (80, 9), (4, 4, 5, 3), "none", 0.0, torch.bfloat16)
@example(16, 2, 3, 9, (18, 9), (2, 3), "none", 0.0, torch.float32)
@given(
    window=st.integers(4, 40),
    kernel=st.integers(1, 7),
    stride=st.integers(1, 4),
    step=st.integers(1, 12),
    extra=st.tuples(st.integers(0, 60), st.integers(0, 20)),
    channels=st.lists(st.integers(1, 9), min_size=1, max_size=4).map(tuple),
    normalization=st.sampled_from(["none", "before_activation", "after_activation"]),
    level=st.sampled_from([0.0, 1e2, 1e5]),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
)
def test_shared_layers_are_the_plain_ones(
    window: int,
    kernel: int,
    stride: int,
    step: int,
    extra: tuple[int, int],
    channels: tuple[int, ...],
    normalization: Normalization,
    level: float,
    dtype: torch.dtype,
) -> None:
    architecture = Architecture(
        window=window, channels=channels, kernel=kernel, stride=stride, normalization=normalization
    )
    exact = random_model(architecture).encoder
    random = torch.Generator().manual_seed(0)
    frames = torch.rand(3, window + extra[0], window + extra[1], generator=random)
    frames[1] += level  # far from what would be 0 in the frame
    cut = frames.unfold(1, window, step).unfold(2, window, step).flatten(1, 2)
    low, high = cut.amin((2, 3)), cut.amax((2, 3))
    scaled = (cut - low[..., None, None]) / (high - low)[..., None, None]
    narrow = copy.deepcopy(folded(exact)).to(dtype)
    with torch.inference_mode():
        layers = SharedLayers(folded(exact), narrow, step)
        numbers, found = layers.windows(frames, low, high)
    plain, largest = plain_layers(exact, scaled.flatten(0, 1)[:, None], layers.depth)
    shared = torch.empty_like(plain)
    shared[numbers] = found.float()
    assert sorted(numbers.tolist()) == list(range(low.numel()))
    assert found.dtype == dtype
    tolerance = 5e-5 * max(1.0, largest)
    if dtype == torch.bfloat16:
        tolerance += layers.depth / 128 * largest  # rounded twice a layer at most
    torch.testing.assert_close(shared, plain, rtol=0, atol=tolerance)


@settings(max_examples=60, deadline=None)
@example(14, 4, 1, 1, (12, 19), (3, 1, 1), "none", torch.float32)
@given(
    window=st.integers(4, 40),
    kernel=st.integers(1, 7),
    stride=st.integers(1, 4),
    step=st.integers(1, 12),
    extra=st.tuples(st.integers(0, 30), st.integers(0, 30)),
    channels=st.lists(st.integers(1, 9), min_size=1, max_size=4).map(tuple),
    normalization=st.sampled_from(["none", "before_activation", "after_activation"]),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
)
def test_shared_convolutions_are_the_plain_ones(
    window: int,
    kernel: int,
    stride: int,
    step: int,
    extra: tuple[int, int],
    channels: tuple[int, ...],
    normalization: Normalization,
    dtype: torch.dtype,
) -> None:
    architecture = Architecture(
        window=window, channels=channels, kernel=kernel, stride=stride, normalization=normalization
    )
    encoder = random_model(architecture).encoder.to(dtype)
    random = torch.Generator().manual_seed(0)
    frames = torch.rand(2, window + extra[0], window + extra[1], generator=random).to(dtype)
    cut = frames.unfold(1, window, step).unfold(2, window, step).reshape(-1, 1, window, window)
    plain, largest = plain_layers(encoder.float(), cut.float(), len(channels))
    with torch.inference_mode():
        shared = SharedConvolutions(encoder.to(dtype), step).windows(frames)
    assert shared.dtype == dtype
    tolerance = 1e-5 if dtype == torch.float32 else 2**-7 * len(channels)
    torch.testing.assert_close(shared.float(), plain, rtol=0, atol=tolerance * largest)


@pytest.mark.parametrize(
    ("dtype", "level", "odd"),
    [
        ("u2", 60_000, 0),
        ("f4", 0, -3e7),
        ("f4", 0, -1e10),
        ("f4", 0, -3.4e38),
        ("f4", 0, 3.4e38),
        ("f8", 0, -1e300),
        ("i8", 0, -(2**62)),
    ],
)
def test_an_odd_pixel_leaves_windows_without_it_alone(tiny_model: Model, dtype: str, level: int, odd: float) -> None:
    pixels = np.random.default_rng(0).integers(level, level + 20, (2, 16, 40)).astype(dtype)
    pixels[:, 3, 39] = odd
    z, valid = make_engine(tiny_model).encode(pixels, np.ones((2, 1), bool))
    expected, _ = plain_latents(tiny_model, pixels[:, :, :32], 8)
    np.testing.assert_allclose(z[:, :3], expected, atol=1e-5)
    assert valid.all()


@pytest.mark.parametrize(
    ("dtype", "offset"), [("u4", 4_000_000_000), ("i8", 2**50), ("f8", 1e12), ("u2", 65_000), ("f4", 0.0)]
)
def test_small_contrast_on_a_high_level_is_not_lost(tiny_model: Model, dtype: str, offset: float) -> None:
    contrast = np.random.default_rng(0).integers(0, 200, (2, 16, 16))
    pixels = (np.array(offset, dtype) + contrast.astype(dtype)).astype(dtype)
    z, _ = make_engine(tiny_model).encode(pixels, np.ones((2, 1), bool))
    expected, _ = make_engine(tiny_model).encode(contrast.astype("f8"), np.ones((2, 1), bool))
    torch.testing.assert_close(z, expected, rtol=0, atol=1e-6)


def test_flat_and_non_finite_windows_have_no_scaled_form(tiny_model: Model) -> None:
    pixels = np.random.default_rng(0).random((4, 16, 32)).astype("f4")
    pixels[0, :, :16] = 3
    pixels[1, 5, 5] = np.nan
    pixels[2, 0, 20] = -np.inf
    z, valid = make_engine(tiny_model, 16).encode(pixels, np.array([True, True, True, False])[:, None])
    assert valid.tolist() == [[False, True], [False, True], [True, False], [False, False]]
    assert (z[~valid] == 0).all()
    assert torch.isfinite(z).all()


def test_all_convolutions_are_shared_where_that_takes_fewer_products() -> None:
    assert [step for step in (1, 4, 8, 9, 16, 20, 30, 50, 64, 80) if shares_all(Architecture(), step)] == [
        1,
        4,
        8,
        16,
        20,
    ]


@pytest.mark.parametrize("step", [8, 24])
def test_scaling_by_frame_uses_the_frame_range(tiny_model: Model, step: int) -> None:
    pixels = np.random.default_rng(0).integers(100, 200, (3, 2 * step + 16, step + 16)).astype("u2")
    limits = np.array([[50.0, 300.0], [100.0, 250.0], [7.0, 7.0]])
    z, valid = make_engine(tiny_model, step, "frame").encode(pixels, np.ones((3, 1), bool), limits)
    scaled = (pixels[0, 2 * step :, step:] - 50.0) / 250.0
    expected = plain_encoder(tiny_model.encoder, scaled)[list(tiny_model.latent_order)]
    np.testing.assert_allclose(z[0, 5], expected, atol=1e-5)
    assert valid.all(1).tolist() == valid.any(1).tolist() == [True, True, False]


def test_bfloat16_is_close_and_tf32_is_refused_on_a_cpu() -> None:
    model = random_model(Architecture())
    pixels = np.random.default_rng(0).integers(0, 1000, (4, 64, 64)).astype("u2")
    exact, _ = make_engine(model).encode(pixels, np.ones((4, 1), bool))
    rough, _ = make_engine(model, precision="bf16").encode(pixels, np.ones((4, 1), bool))
    assert rough.dtype == torch.float32
    assert 0 < (rough - exact).norm() / exact.norm() < 0.03
    with pytest.raises(InputError, match="tf32"):
        make_engine(model, precision="tf32")


def test_a_network_that_overflows_is_reported(tiny_model: Model) -> None:
    model = random_model(TINY)
    model.encoder.mean.bias[0] = torch.inf
    with pytest.raises(RankFailed, match="overflow"):
        make_engine(model).encode(np.random.default_rng(0).random((1, 16, 16)), np.ones((1, 1), bool))


@pytest.mark.gpu
@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-4), ("tf32", 5e-3), ("bf16", 0.05)])
def test_gpu_agrees_with_cpu(precision: Precision, tolerance: float) -> None:
    pixels = np.random.default_rng(0).integers(0, 1000, (6, 120, 120)).astype("u2")
    exact, _ = make_engine(random_model(Architecture())).encode(pixels, np.ones((6, 1), bool))
    engine = Engine(random_model(Architecture()), torch.device("cuda"), precision, "window", 8)
    z, _ = engine.encode(pixels, np.ones((6, 1), bool))
    assert (z.cpu() - exact).norm() / exact.norm() < tolerance


@pytest.mark.gpu
def test_a_gpu_without_a_compiler_uses_plain_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    from hrtemvae_hpc.windows.fused import FusedFirstLayer

    def fail(*_: object) -> None:
        raise RuntimeError("Triton can't compile")

    pixels = np.random.default_rng(0).integers(0, 1000, (6, 120, 120)).astype("u2")
    fused = Engine(random_model(Architecture()), torch.device("cuda"), "fp32", "window", 8)
    expected, _ = fused.encode(pixels, np.ones((6, 1), bool))
    monkeypatch.setattr(FusedFirstLayer, "windows", fail)
    engine = Engine(random_model(Architecture()), torch.device("cuda"), "fp32", "window", 8)
    z, _ = engine.encode(pixels, np.ones((6, 1), bool))
    assert (fused.without, engine.without) == ("", "Triton can't compile")
    torch.testing.assert_close(z, expected, rtol=0, atol=1e-4)


def test_oracle_latents(shared: Path) -> None:
    import h5py

    from hrtemvae_hpc.model.keras_import import import_keras

    with h5py.File(shared / "oracle" / "movie.h5") as file:
        pixels = file["entry/data/data"][...]
    expected = np.load(shared / "oracle" / "expected.npz")["z_mean"]
    model = import_keras(shared / "oracle" / "encoder.keras")
    z, valid = make_engine(model).encode(pixels, np.ones((len(pixels), 1), bool))
    assert valid.all()
    np.testing.assert_allclose(z.view(expected.shape), expected, rtol=0, atol=1e-4)
