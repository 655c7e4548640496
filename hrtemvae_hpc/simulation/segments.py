"""Random single windows of simulated lattices, for training."""

import math

import torch
from torch import Tensor


def random_segments(count: int, size: int, generator: torch.Generator) -> Tensor:
    """``count`` segments [count, size, size], float32, each scaled to 0..1.

    A segment shows one or two lattices (two beams and their sum, a period of 4 to 26 pixels), each over the
    whole of it, ending at a straight edge, or over nothing, on an amorphous background, under Poisson noise.
    """

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(count, *(shape or (1, 1)), generator=generator)

    axis = torch.arange(size, dtype=torch.float32) - (size - 1) / 2
    y, x = axis[None, :, None], axis[None, None, :]

    image = _amorphous(count, size, generator) * uniform(0.02, 0.2)
    normal = uniform(0, 2 * math.pi)
    offset = uniform(-0.75, 0.75) * size / 2
    distance = y * torch.sin(normal) + x * torch.cos(normal) - offset
    edge = torch.sigmoid(distance / uniform(0.5, 3.0))
    first_only = uniform(0, 1) < 0.5  # no edge: the lattice fills the segment
    first = torch.where(first_only, torch.ones_like(edge), edge)
    second = torch.where(uniform(0, 1) < 0.2, 1 - edge + first_only * edge * 0.7, torch.zeros_like(edge))
    image += first * _lattice(y, x, uniform) + second * _lattice(y, x, uniform)

    low, high = image.amin((1, 2), keepdim=True), image.amax((1, 2), keepdim=True)
    dose = torch.exp(uniform(math.log(60.0), math.log(4000.0)))
    contrast = uniform(0.3, 0.7)
    electrons = torch.poisson(dose * (1 + contrast * (2 * (image - low) / (high - low) - 1)), generator)
    low, high = electrons.amin((1, 2), keepdim=True), electrons.amax((1, 2), keepdim=True)
    return (electrons - low) / (high - low).clamp_min(1e-6)


def _lattice(y: Tensor, x: Tensor, uniform) -> Tensor:  # type: ignore[no-untyped-def]
    """Two beams of similar period and any angle, and their sum, bright or dark."""
    period = torch.exp(uniform(math.log(4.0), math.log(26.0)))
    angle = uniform(0, 2 * math.pi)
    between = uniform(math.radians(55), math.radians(125))
    ratio = uniform(0.8, 1.25)
    image = torch.zeros(())
    strengths = (uniform(0.6, 1.0), uniform(0.0, 1.0), uniform(0.0, 0.3))
    waves = []
    for a, p in ((angle, period), (angle + between, period * ratio)):
        waves.append(2 * math.pi * (y * torch.sin(a) + x * torch.cos(a)) / p + uniform(0, 2 * math.pi))
    waves.append(waves[0] + waves[1])
    for strength, wave in zip(strengths, waves, strict=True):
        image = image + strength * torch.cos(wave)
    scaled: Tensor = image * uniform(0.5, 1.0)
    return scaled


def _amorphous(count: int, size: int, generator: torch.Generator) -> Tensor:
    """White noise low-passed to grains of about two to three pixels, unit standard deviation."""
    noise = torch.fft.rfft2(torch.randn(count, size, size, generator=generator))
    fy, fx = torch.fft.fftfreq(size)[:, None], torch.fft.rfftfreq(size)[None]
    grains: Tensor = torch.fft.irfft2(noise * torch.exp(-(fy**2 + fx**2) / (2 * 0.1**2)), s=(size, size))
    return grains / grains.std((1, 2), keepdim=True)
