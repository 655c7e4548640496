"""What all maps over time cost, permutations included, relative to encoding their windows with the bundled network.

    python benchmarks/certainty.py [--frames 20 62 200] [--rounds 3] [--gaps 8]

One block of windows on one core, alternately encoded and reduced to maps; medians. ``--gaps`` windows of the block have
frames of their own, so that their permutations are not those of the rest.
"""

import argparse
import statistics
import time

import numpy as np
import torch

from hrtemvae_hpc.model.model_file import DEFAULT_MODEL, load_model
from hrtemvae_hpc.statistics.comparison import Comparison
from hrtemvae_hpc.statistics.over_time import series_statistics
from hrtemvae_hpc.statistics.significance import PermutationTest
from hrtemvae_hpc.windows.engine import Engine


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, nargs="+", default=[20, 62, 200])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--gaps", type=int, default=8)
    options = parser.parse_args()
    torch.set_num_threads(1)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = load_model(DEFAULT_MODEL)
    print("| frames | precision | encoding, ms | maps, ms | share | with gaps, ms | share |")
    print("|---|---|---|---|---|---|---|")
    for frames in options.frames:
        test = PermutationTest(Comparison.with_time(frames), device)
        for precision in ("fp32", "bf16"):
            engine = Engine(model, device, precision, "window", 8)
            side = engine.side(engine.block)
            pixels = np.random.default_rng(0).poisson(100, (frames, side, side)).astype(np.uint16)

            @torch.inference_mode()
            def timed(
                pixels: np.ndarray = pixels, engine: Engine = engine, test: PermutationTest = test
            ) -> list[float]:
                times = [time.perf_counter()]

                def mark() -> None:
                    if device.type == "cuda":
                        torch.cuda.synchronize()
                    times.append(time.perf_counter())

                z, valid = engine.encode(pixels, np.ones((len(pixels), 1), bool))
                mark()
                series_statistics(z, valid, test)
                mark()
                for window in range(options.gaps):
                    valid[window % len(pixels), window] = False
                mark()
                series_statistics(z, valid, test)
                mark()
                return np.diff(times).tolist()

            timed()
            rounds = zip(*(timed() for _ in range(options.rounds)), strict=True)
            encoding, maps, _, gaps = (1e3 * statistics.median(each) for each in rounds)
            print(
                f"| {frames} | {precision} | {encoding:.0f} | {maps:.1f} | {maps / encoding:.1%} | {gaps:.1f} | "
                f"{gaps / encoding:.1%} |"
            )


if __name__ == "__main__":
    main()
