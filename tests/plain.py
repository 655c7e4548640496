"""What the program computes, by plain loops and scipy in float64: oracles for several tests."""

import warnings

import numpy as np
from scipy import signal, stats

from hrtemvae_hpc.model.architecture import same_padding
from hrtemvae_hpc.model.model_file import Model
from hrtemvae_hpc.model.network import Encoder
from hrtemvae_hpc.statistics.over_time import MAPS

PLAIN = ("noise", "change", "score", "even", "odd")  # besides MAPS


def plain_encoder(encoder: Encoder, window: np.ndarray) -> np.ndarray:
    """z_mean [latents] of one window by scipy's correlate2d in float64, written from the description of the layers."""
    a = encoder.architecture
    weights = {k: v.double().numpy() for k, v in encoder.state_dict().items()}
    maps = window[None].astype(float)
    for layer, stride in enumerate(a.strides):
        before, after = same_padding(maps.shape[1], a.kernel, stride) if a.padding == "same" else (0, 0)
        padded = np.pad(maps, ((0, 0), (before, after), (before, after)))
        kernels, bias = weights[f"conv.{layer}.weight"], weights[f"conv.{layer}.bias"]
        out = []
        for kernel, b in zip(kernels, bias, strict=True):
            full = sum(signal.correlate2d(p, k, "valid") for p, k in zip(padded, kernel, strict=True))
            out.append(full[::stride, ::stride] + b)
        maps = np.stack(out)

        def normalized(x: np.ndarray, layer: int = layer) -> np.ndarray:
            mean, var, gain, shift = (
                weights[f"norm.{layer}.{name}"][:, None, None]
                for name in ("running_mean", "running_var", "weight", "bias")
            )
            result: np.ndarray = (x - mean) / np.sqrt(var + a.epsilon) * gain + shift
            return result

        if a.normalization == "before_activation":
            maps = normalized(maps)
        maps = np.maximum(maps, 0)
        if a.normalization == "after_activation":
            maps = normalized(maps)
    flat = maps.transpose(1, 2, 0).ravel()
    hidden = np.maximum(weights["dense.weight"] @ flat + weights["dense.bias"], 0)
    z_mean: np.ndarray = weights["mean.weight"] @ hidden + weights["mean.bias"]
    return z_mean


def plain_scaled(window: np.ndarray) -> np.ndarray | None:
    """The published steps in float64; None where the window is flat or not finite."""
    w = window.astype(np.float64)
    if not np.isfinite(w).all() or w.max() == w.min():
        return None
    w = (w - w.mean()) / w.std()
    scaled: np.ndarray = (w - w.min()) / (w.max() - w.min())
    return scaled


def plain_local(frame: np.ndarray, window: int) -> np.ndarray:
    """Each pixel of ``frame`` in standard deviations from the mean of the finite ones around it, -3..3 as 0..1."""
    scaled = np.where(np.isfinite(frame), 0.5, np.nan)
    for y, x in zip(*np.nonzero(np.isfinite(frame)), strict=True):
        before, after = window // 2, (window + 1) // 2
        around = frame[max(0, y - before) : y + after, max(0, x - before) : x + after]
        around = around[np.isfinite(around)].astype(float)
        if np.ptp(around):
            scaled[y, x] = np.clip(0.5 + (frame[y, x] - around.mean()) / around.std() / 6, 0, 1)
    return scaled


def plain_latents(model: Model, pixels: np.ndarray, step: int) -> tuple[np.ndarray, np.ndarray]:
    """z [frames, windows, latents] and valid [frames, windows] by a loop; windows scaled by themselves, or locally."""
    size = model.architecture.window
    z, valid = [], []
    for frame in pixels:
        local = plain_local(frame, size) if model.scaling == "local" else None
        for y in range(0, frame.shape[0] - size + 1, step):
            for x in range(0, frame.shape[1] - size + 1, step):
                part = slice(y, y + size), slice(x, x + size)
                if local is None:
                    scaled = plain_scaled(frame[part])
                else:
                    scaled = local[part] if np.isfinite(local[part]).all() and np.ptp(local[part]) else None
                valid.append(scaled is not None)
                mean = np.zeros(model.architecture.latents) if scaled is None else plain_encoder(model.encoder, scaled)
                z.append(mean[list(model.latent_order)] if scaled is not None else mean)
    shape = len(pixels), -1
    return np.array(z).reshape(*shape, model.architecture.latents), np.array(valid).reshape(shape)


def plain_statistics(z: np.ndarray, valid: np.ndarray) -> dict[str, np.ndarray]:
    """The same maps by a loop over windows and latents."""
    frames, windows, latents = z.shape
    even = np.arange(frames) % 2 == 0
    maps = {name: np.full((windows, latents), np.nan) for name in (*MAPS, *PLAIN)}
    for w in range(windows):
        here = valid[:, w]
        if here.sum() < 3:
            continue
        pairs = np.flatnonzero(here[1:] & here[:-1])
        for k in range(latents):
            series = z[:, w, k].astype(float)
            maps["mean"][w, k], maps["variance"][w, k] = series[here].mean(), series[here].var()
            maps["spearman"][w, k] = plain_rho(series[here], np.flatnonzero(here))
            if len(pairs):
                maps["noise"][w, k] = np.mean([(series[t + 1] - series[t]) ** 2 for t in pairs]) / 2
            maps["change"][w, k], maps["score"][w, k] = plain_change(series, here)
            for name, half in (("even", here & even), ("odd", here & ~even)):
                if half.sum() >= 3:
                    maps[name][w, k] = plain_rho(series[half], np.flatnonzero(half)) * series[half].var()
    maps["time_correlated_variance"] = (maps["spearman"] * maps["variance"]) ** 2
    return maps


def plain_rho(one: np.ndarray, other: np.ndarray) -> float:
    """Spearman's rho; NaN if either is constant."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.ConstantInputWarning)
        return float(stats.spearmanr(one, other)[0])


def plain_change(series: np.ndarray, here: np.ndarray) -> tuple[float, float]:
    """Pettitt's change point by its definition: the first frame after it, and U there over the largest possible."""
    frames = np.flatnonzero(here)
    values, n = series[frames], len(frames)
    found, largest = (np.nan, np.nan), 0.0
    for t in range(1, n):
        u = np.sign(values[None, t:] - values[:t, None]).sum()
        if abs(u) > largest:
            found, largest = (float(frames[t]), float(u) / (n * n // 4)), abs(u)
    return found
