"""How the precision of encoding changes the maps of a movie, compared with arithmetic in float64.

    python benchmarks/precision.py MOVIE.h5 [--step 16] [--model dense]

fp32 and bf16 are what `hrtemvae analyze` writes on a CPU. tf32 imitates GPUs: the factors of every product
but those of the first layer, which is in float32 there, rounded to 10 bits after the first one, sums in float32.
float64 and tf32 are plain: windows scaled and encoded one by one, ranks by scipy; pixels that are scaled locally are
rounded to float32 then, as everywhere.
"""

import argparse
import subprocess
import tempfile
from pathlib import Path

import h5py
import numpy as np
import scipy.stats
import torch
from torch import Tensor, nn

from hrtemvae_hpc.area import Area
from hrtemvae_hpc.model.model_file import load_model
from hrtemvae_hpc.model.network import Encoder
from hrtemvae_hpc.movie.movie import Movie
from hrtemvae_hpc.scaling import LocalScaling

MAPS = {"variance": "variance", "spearman": "rho", "time_correlated_variance": "time-correlated variance"}


def as_tf32(x: Tensor) -> Tensor:
    """``x`` float32 rounded to TensorFloat-32: 10 bits after the first one, to nearest even."""
    bits = x.contiguous(memory_format=torch.preserve_format).view(torch.int32)
    return ((bits + 0xFFF + ((bits >> 13) & 1)) & ~0x1FFF).view(torch.float32)


def round_factors(encoder: Encoder) -> Encoder:
    """Round the factors of every product of ``encoder`` after the first layer to TensorFloat-32."""
    for module in encoder.modules():
        if isinstance(module, nn.Linear | nn.Conv2d) and module is not encoder.conv[0]:
            module.weight.data = as_tf32(module.weight.data)
        if isinstance(module, nn.Linear):
            module.register_forward_pre_hook(lambda _, inputs: (as_tf32(inputs[0]),))
    return encoder


@torch.inference_mode()
def plain_maps(movie: np.ndarray, step: int, name: str, tf32: bool) -> dict[str, np.ndarray]:
    """Maps [latents, windows] of ``movie`` [frames, rows, columns], in the model's order."""
    model = load_model(name)
    encoder, size = round_factors(model.encoder) if tf32 else model.encoder.double(), model.architecture.window
    series = []
    for frame in movie:
        pixels = torch.from_numpy(frame.astype(np.float64))
        if model.scaling == "local":
            pixels = LocalScaling(frame.shape, size).apply(pixels, Area.whole(*frame.shape)).double()
        x = pixels.unfold(0, size, step).unfold(1, size, step).reshape(-1, 1, size, size)
        if model.scaling == "window":
            low, high = x.amin((2, 3), keepdim=True), x.amax((2, 3), keepdim=True)
            x = (x - low) / (high - low)
        for layer in range(len(encoder.conv)):
            if tf32:
                x = as_tf32(x) if layer else x.float()
            x = encoder.layers(x, layer, layer + 1)
        series.append(encoder.mean(encoder.hidden(x, len(encoder.conv))))
    z = torch.stack(series)[..., list(model.latent_order)].double().numpy()
    variance = z.var(0)
    rank, time = scipy.stats.rankdata(z, axis=0), np.arange(len(z))[:, None, None]
    rank, time = rank - rank.mean(0), time - time.mean()
    rho = (rank * time).sum(0) / np.sqrt((rank**2).sum(0) * (time**2).sum())
    return {"variance": variance.T, "spearman": rho.T, "time_correlated_variance": ((rho * variance) ** 2).T}


def analyzed_maps(path: Path, step: int, model: str, precision: str) -> dict[str, np.ndarray]:
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder, "maps.h5")
        words = ["hrtemvae", "analyze", path, "-o", output, "--step", str(step), "--model", model, "--drift", "none"]
        subprocess.run([*words, "--precision", precision], check=True, capture_output=True)
        with h5py.File(output) as file:
            return {name: file["entry"][name]["data"][...].reshape(64, -1).astype(np.float64) for name in MAPS}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("movie", type=Path)
    parser.add_argument("--step", type=int, default=16)
    parser.add_argument("--model", default="published")
    options = parser.parse_args()
    with Movie(options.movie) as movie:
        pixels = movie.read(slice(0, movie.shape[0]), movie.area)
    expected = plain_maps(pixels, options.step, options.model, False)
    found = {
        "fp32": analyzed_maps(options.movie, options.step, options.model, "fp32"),
        "tf32 (imitated)": plain_maps(pixels, options.step, options.model, True),
        "bf16": analyzed_maps(options.movie, options.step, options.model, "bf16"),
    }
    print(f"{len(pixels)} frames, {expected['spearman'].shape[1]} windows, 64 latents\n")
    print("| precision | " + " | ".join(MAPS.values()) + " | rho, 99% of all within | rho, all within |")
    print("|---" * (len(MAPS) + 3) + "|")
    for precision, maps in found.items():
        relative = [np.linalg.norm(maps[name] - expected[name]) / np.linalg.norm(expected[name]) for name in MAPS]
        rho = np.abs(maps["spearman"] - expected["spearman"])
        cells = [*(f"{r:.2g}" for r in relative), f"{np.quantile(rho, 0.99):.2g}", f"{rho.max():.2g}"]
        print(f"| {precision} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
