"""Optional corrections of a whole frame, as published for still images."""

import math

import torch
from torch import Tensor

# A pixel is an outlier where its Gaussian density exp(-((x - mean) / sigma)^2 / 2) is under 0.001.
OUTLIER_SIGMAS = math.sqrt(-2 * math.log(0.001))
CLIPPED_SIGMAS = 3.5
LOW_PASS_SIGMA = 0.25  # cycles per pixel


def clip_outliers(frame: Tensor) -> Tensor:
    """Set pixels above mean + 3.717 sigma of ``frame`` [rows, columns] to mean + 3.5 sigma.

    Non-finite pixels are left as they are and do not count. Wang et al. (see CITATION.cff), movie preprocessing.
    """
    finite = frame[torch.isfinite(frame)].double()
    if finite.numel() == 0:
        return frame
    mean, sigma = finite.mean(), finite.std(correction=0)
    outlier = torch.isfinite(frame) & (frame > mean + OUTLIER_SIGMAS * sigma)
    return torch.where(outlier, (mean + CLIPPED_SIGMAS * sigma).to(frame.dtype), frame)


def low_pass(frame: Tensor) -> Tensor:
    """Multiply the spectrum of ``frame`` [rows, columns] by a Gaussian of sigma 0.25 cycles per pixel.

    The published filter: sigma 1024 spectrum pixels for a frame of 4096. A non-finite pixel makes the whole
    frame non-finite.
    """
    rows, columns = frame.shape
    fy, fx = torch.fft.fftfreq(rows, dtype=frame.dtype)[:, None], torch.fft.rfftfreq(columns, dtype=frame.dtype)
    gain = torch.exp(-(fy**2 + fx**2) / (2 * LOW_PASS_SIGMA**2))
    filtered: Tensor = torch.fft.irfft2(torch.fft.rfft2(frame) * gain, s=(rows, columns))
    return filtered if torch.isfinite(frame).all() else torch.full_like(frame, torch.nan)
