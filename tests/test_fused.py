"""The first layer's GPU kernel: run by Triton's interpreter on the CPU, and compiled for GPUs that may be absent."""

import copy
import importlib.util
from functools import cache
from types import ModuleType

import numpy as np
import pytest
import torch
from conftest import random_model
from hypothesis import given, settings
from hypothesis import strategies as st

from hrtemvae_hpc.model.architecture import Architecture, Normalization
from hrtemvae_hpc.model.network import Encoder
from hrtemvae_hpc.windows.layers import folded
from hrtemvae_hpc.windows.plain import PlainLayers

triton = pytest.importorskip("triton", reason="Triton is made for Linux only")


@cache
def load(interpret: bool) -> ModuleType:
    """The module, its kernel for the interpreter or for compilation."""
    spec = importlib.util.find_spec("hrtemvae_hpc.windows.fused")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with triton.knobs.runtime.scope():
        triton.knobs.runtime.interpret = interpret
        spec.loader.exec_module(module)
    return module


def scaled_frames(
    window: int, step: int, extra: tuple[int, int], dtype: torch.dtype, level: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Frames, and what becomes 0 and 1 of each window."""
    frames = torch.rand(2, window + extra[0], window + extra[1], generator=torch.Generator().manual_seed(0))
    frames = frames.to(dtype)
    frames[1] += level
    cut = frames.unfold(1, window, step).unfold(2, window, step).flatten(3).flatten(1, 2)
    return frames, cut.amin(2), cut.amax(2)


def outputs(
    encoder: Encoder, step: int, dtype: torch.dtype, device: str, frames: tuple[torch.Tensor, ...], interpret: bool
) -> torch.Tensor:
    layer = load(interpret).FusedFirstLayer(folded(encoder), step, dtype, torch.device(device))
    found: torch.Tensor
    _, found = layer.windows(*(f.to(device) for f in frames))
    return found


@settings(max_examples=12, deadline=None)
@given(
    window=st.integers(4, 30),
    kernel=st.integers(1, 6),
    stride=st.integers(1, 3),
    step=st.integers(1, 9),
    extra=st.tuples(st.integers(0, 11), st.integers(0, 11)),
    channels=st.integers(1, 9),
    normalization=st.sampled_from(["none", "before_activation", "after_activation"]),
    pixels=st.sampled_from([(torch.float32, 0.0), (torch.float32, 1e2), (torch.float64, 1e9)]),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
)
def test_the_kernel_computes_the_plain_first_layer(
    window: int,
    kernel: int,
    stride: int,
    step: int,
    extra: tuple[int, int],
    channels: int,
    normalization: Normalization,
    pixels: tuple[torch.dtype, float],
    dtype: torch.dtype,
) -> None:
    architecture = Architecture(
        window=window, channels=(channels,), kernel=kernel, stride=stride, normalization=normalization
    )
    encoder = random_model(architecture).encoder
    frames = scaled_frames(window, step, extra, *pixels)
    _, plain = PlainLayers(copy.deepcopy(encoder), step, 1).windows(*frames)
    found = outputs(encoder, step, dtype, "cpu", frames, interpret=True)
    assert found.dtype == dtype
    assert found.shape == plain.shape
    assert found.is_contiguous(memory_format=torch.channels_last)
    # The interpreter cuts bfloat16 off instead of rounding it.
    tolerance = 2e-6 if dtype == torch.float32 else 2**-7
    torch.testing.assert_close(found.float(), plain, rtol=0, atol=tolerance * max(1.0, float(plain.abs().max())))


@pytest.mark.parametrize("target", [("cuda", 80, 32), ("cuda", 90, 32), ("hip", "gfx90a", 64)], ids=str)
@pytest.mark.parametrize(("pixels", "result"), [("*fp32", "*bf16"), ("*fp64", "*fp32")])
def test_the_kernel_compiles_for_gpus(target: tuple[str, int | str, int], pixels: str, result: str) -> None:
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    module = load(interpret=False)
    kernel = module._first_layer
    encoder = random_model(Architecture()).encoder
    layer = module.FusedFirstLayer(encoder, 8, torch.float32, torch.device("cpu"))
    types = dict.fromkeys(kernel.arg_names, "i32") | dict.fromkeys(("frames", "low", "high"), pixels)
    types |= dict.fromkeys(("taps", "bias", "gain", "shift"), "*fp32") | {"out": result}
    types |= dict.fromkeys(layer._fixed, "constexpr")
    constants = {(kernel.arg_names.index(name),): value for name, value in layer._fixed.items()}
    compiled = triton.compile(
        ASTSource(kernel, types, constants), target=GPUTarget(*target), options={"num_warps": module._WARPS}
    )
    assert compiled.asm["cubin" if target[0] == "cuda" else "hsaco"]


@pytest.mark.gpu
@pytest.mark.parametrize("normalization", ["none", "before_activation", "after_activation"])
@pytest.mark.parametrize("pixels", [(torch.float32, 0.0), (torch.float64, 1e9)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_on_a_gpu(normalization: Normalization, pixels: tuple[torch.dtype, float], dtype: torch.dtype) -> None:
    encoder = random_model(Architecture(normalization=normalization)).encoder
    frames = scaled_frames(64, 8, (57, 91), *pixels)
    _, plain = PlainLayers(copy.deepcopy(encoder), 8, 1).windows(*frames)
    found = outputs(encoder, 8, dtype, "cuda", frames, interpret=False).cpu()
    tolerance = (2e-6 if dtype == torch.float32 else 2**-8) * max(1.0, float(plain.abs().max()))
    np.testing.assert_allclose(found.float(), plain, rtol=0, atol=tolerance)
