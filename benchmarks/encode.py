"""Encodes a movie in memory with plain PyTorch and with this program, each in its own process, and prints the ratios.

    python benchmarks/encode.py [--frames 16] [--size 640] [--rounds 3]

On a GPU if PyTorch sees one (then use a larger movie: --frames 64 --size 2048), else on the CPU.

Plain PyTorch is batched PyTorch with nothing shared between windows: unfold, scale each window, batches of 512 (4,096
on a GPU), channels last, all cores in each operation. hrtemvae is the engine of `hrtemvae analyze`, with its number
of threads, from raw pixels on. The floor is the time that the matrix products of all layers but the first would take
for each window by itself, at the rate of large products, on all cores by oneDNN or on the GPU. Where windows share more
than the first layer, hrtemvae may be faster than the floor; otherwise the share of the floor is the share of the matrix
peak. The network without padding, that of configs/dense.yaml with random weights, has a floor of its own: the products
that are left when all windows share theirs.
"""

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from hrtemvae_hpc.area import Area
from hrtemvae_hpc.model.architecture import Architecture
from hrtemvae_hpc.model.model_file import DEFAULT_MODEL, Model, load_model
from hrtemvae_hpc.model.network import Encoder
from hrtemvae_hpc.movie.tiles import TilePixels
from hrtemvae_hpc.movie.transform import Transform
from hrtemvae_hpc.processor import has_bfloat16
from hrtemvae_hpc.scaling import LocalScaling
from hrtemvae_hpc.threads import on_threads
from hrtemvae_hpc.windows.engine import Engine
from hrtemvae_hpc.windows.grid import Rectangle, Tiling, WindowGrid
from hrtemvae_hpc.windows.in_memory import for_engine

DTYPES = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16}
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
ON_GPU = DEVICE.type == "cuda"
PRECISIONS = list(DTYPES) if ON_GPU else ["fp32", "bf16"] if has_bfloat16() else ["fp32"]
STEP = 8
WAYS = {
    "plain": "plain PyTorch",
    "window": "hrtemvae",
    "frame": "hrtemvae, one scale per frame",
    "local": "hrtemvae, a network without padding",
    "floor": "floor: products of all layers but the first",
    "local floor": "floor of the network without padding",
}
WITHOUT_PADDING = Architecture(channels=(32, 64, 64, 128), stride=(2, 2, 2, 1), padding="valid", hidden=512)


def model_for(scaling: str) -> Model:
    """The bundled model, or one without padding of random weights for local scaling."""
    bundled = load_model(DEFAULT_MODEL)
    if scaling != "local":
        return bundled
    torch.manual_seed(0)
    encoder = Encoder(WITHOUT_PADDING).eval().requires_grad_(False)
    return replace(bundled, encoder=encoder, decoder=None, scaling="local")


class Prepared:
    """A movie in memory, ready to be encoded block by block by one engine."""

    def __init__(self, engine: Engine, movie: np.ndarray) -> None:
        self.engine, self.frames = engine, len(movie)
        shape = movie.shape[1:]
        local = LocalScaling(shape, engine.window) if engine.scaling == "local" else None
        self.tile = TilePixels.of(movie, Area.whole(*shape), Transform(None, local))
        self.frame_range = for_engine(movie, "frame", engine.window)[1] if engine.scaling == "frame" else None
        self.grid = WindowGrid(*shape, engine.window, STEP)
        everything = Rectangle(0, self.grid.rows, 0, self.grid.columns)
        self.blocks = Tiling(self.grid, engine.block, self.grid.rows, self.grid.columns).blocks(everything)

    def encode(self, block: Rectangle) -> tuple[Tensor, Tensor]:
        """The latents of a block, and which are valid."""
        patch = self.tile.patch(self.grid.area(block))
        return self.engine.encode(patch, np.ones((self.frames, 1), bool), self.frame_range)


def plain_way(encoder: Encoder, movie: np.ndarray, window: int, dtype: torch.dtype) -> None:
    with torch.inference_mode():
        for frame in movie:
            pixels = torch.from_numpy(frame.astype(np.float32)).to(DEVICE)
            windows = pixels.unfold(0, window, STEP).unfold(1, window, STEP).reshape(-1, 1, window, window)
            for batch in windows.split(4096 if ON_GPU else 512):
                low, high = batch.amin((2, 3), keepdim=True), batch.amax((2, 3), keepdim=True)
                scaled = ((batch - low) / (high - low)).to(dtype).contiguous(memory_format=torch.channels_last)
                encoder.mean(encoder.hidden(scaled)).float()


def product_rate(dtype: torch.dtype) -> float:
    """Floating point operations per second of a product of two large matrices."""
    side = 8192 if ON_GPU else 2048
    a, b = torch.randn(2, side, side, device=DEVICE).to(dtype)
    product = torch.matmul if ON_GPU else lambda a, b: torch.ops.mkldnn._linear_pointwise(a, b, None, "none", [], "")
    return 2 * side**3 / min(seconds(lambda: product(a, b)) for _ in range(20))


def operations(a: Architecture) -> float:
    """Floating point operations of a window in all layers but the first; shared ones of networks without padding."""
    pitch, total = a.strides[0], 0.0
    for layer in range(1, len(a.channels)):
        pitch *= a.strides[layer]
        places = a.sizes[layer + 1] ** 2 if a.padding == "same" else (STEP / pitch) ** 2
        total += places * a.kernel**2 * a.channels[layer - 1] * a.channels[layer]
    return 2 * (total + a.hidden * (a.sizes[-1] ** 2 * a.channels[-1] + a.latents))


def seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    if ON_GPU:
        torch.cuda.synchronize()
    return time.perf_counter() - began


def measure(way: str, precision: str, frames: int, size: int) -> float:
    """Windows per second."""
    dtype = DTYPES[precision]
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision == "tf32"
    model = model_for("local" if "local" in way else way)
    if "floor" in way:
        return product_rate(dtype) / operations(model.architecture)
    movie = np.random.default_rng(0).poisson(100, (frames, size, size)).astype(np.uint16)
    if way == "plain":
        encoder = model.encoder.to(DEVICE, dtype).to(memory_format=torch.channels_last)

        def work(movie: np.ndarray) -> None:
            plain_way(encoder, movie, model.architecture.window, dtype)
    else:
        engine = Engine(model, DEVICE, precision, way, STEP)
        pool = ThreadPoolExecutor(engine.at_once(torch.get_num_threads()), initializer=engine.begin_thread)

        def work(movie: np.ndarray) -> None:
            prepared = Prepared(engine, movie)
            on_threads(pool, prepared.encode, prepared.blocks)

    work(movie[:, :192, :192])
    grid = WindowGrid(size, size, model.architecture.window, STEP)
    return frames * grid.rows * grid.columns / seconds(lambda: work(movie))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--size", type=int, default=640)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--measure", nargs=2, metavar=("WAY", "PRECISION"), help="one way only, for the table's use")
    options = parser.parse_args()
    size = ["--frames", str(options.frames), "--size", str(options.size)]
    if options.measure:
        print(measure(*options.measure, options.frames, options.size))
        return
    rates: dict[tuple[str, str], list[float]] = {(way, precision): [] for precision in PRECISIONS for way in WAYS}
    for _ in range(options.rounds):
        for way, precision in rates:
            words = [sys.executable, __file__, "--measure", way, precision, *size]
            rates[way, precision].append(float(subprocess.run(words, check=True, capture_output=True).stdout))
    where = torch.cuda.get_device_name() if ON_GPU else f"{torch.get_num_threads()} cores"
    print(f"{where}, {options.frames} frames of {options.size} x {options.size}, median of ", end="")
    print(f"{options.rounds} rounds\n\n| method | windows/s | relative to plain PyTorch in fp32 | share of the floor |")
    print("|---|---|---|---|")
    for (way, precision), own in rates.items():
        ratio = statistics.median(a / b for a, b in zip(own, rates["plain", "fp32"], strict=True))
        floor = "local floor" if "local" in way else "floor"
        share = statistics.median(a / b for a, b in zip(own, rates[floor, precision], strict=True))
        print(f"| {WAYS[way]}, {precision} | {statistics.median(own):,.0f} | {ratio:.2f} | {share:.0%} |")


if __name__ == "__main__":
    main()
