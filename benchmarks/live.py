"""Records a movie in real time, follows it, and shows how long drawings lag and when an edge that moves is named.

A crystal of which nothing moves for some seconds; then one edge grows. The recorder writes HDF5 in SWMR mode.

python benchmarks/live.py [--rate 20] [--size 512] [--still 20] [--moving 40] [--model dense] [--step 16] [--kill]
"""

import argparse
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from hrtemvae_hpc.simulation.movies import Scene

_DOSE, _CONTRAST, _ANGLES = 60, 0.45, (7.0, 20.7)
_SAME = ("mean", "variance", "spearman", "time_correlated_variance")


def images(size: int, still: int, moving: int) -> tuple[np.ndarray, np.ndarray]:
    """Frames [frames, size, size] uint16, and the columns [2] between which the edge moves."""
    scene, random = Scene(size, size), np.random.default_rng(0)
    lattices = [scene.lattice(angle) for angle in _ANGLES]
    frames = np.empty((still + moving, size, size), np.uint16)
    covers = []
    for t in range(still + moving):
        progress = max(0, t - still) / moving
        covers.append(scene.first(progress)[size // 2] > 0.5)
        image = scene.first(progress) * lattices[0] + scene.second(0.0) * lattices[1]
        frames[t] = random.poisson(_DOSE * np.clip(1 + _CONTRAST * image, 0.02, None))
    return frames, np.array([np.argmax(covers[-1]), np.argmax(covers[0])])


def record(path: Path, frames: np.ndarray, rate: float) -> None:
    """Write ``frames`` at ``rate`` frames per second."""
    with h5py.File(path, "w", libver="latest") as file:
        shape = frames.shape[1:]
        data = file.create_dataset("movie", (0, *shape), frames.dtype, maxshape=(None, *shape), chunks=(1, *shape))
        file.swmr_mode = True
        began = time.monotonic()
        for t, frame in enumerate(frames):
            time.sleep(max(0.0, began + t / rate - time.monotonic()))
            data.resize(t + 1, 0)
            data[t] = frame
            data.flush()


def maps(path: Path) -> list[np.ndarray]:
    with h5py.File(path) as file:
        return [file[f"entry/{name}/data"][...] for name in _SAME]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=float, default=20.0, help="frames per second")
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--still", type=float, default=20.0, help="seconds")
    parser.add_argument("--moving", type=float, default=40.0, help="seconds")
    parser.add_argument("--model", default="dense")
    parser.add_argument("--step", type=int, default=16)
    parser.add_argument("--kill", action="store_true", help="kill the follower in the middle, and start it again")
    options = parser.parse_args()
    still, moving = (round(options.rate * seconds) for seconds in (options.still, options.moving))
    frames, edge = images(options.size, still, moving)
    with tempfile.TemporaryDirectory() as folder:
        movie, result = Path(folder, "live.h5"), Path(folder, "maps.h5")
        words = ["hrtemvae", "analyze", str(movie), "--model", options.model, "--step", str(options.step)]
        follow = [*words, "-o", str(result), "--follow", "--json", "--frame-time", str(1 / options.rate)]
        recorder = multiprocessing.Process(target=record, args=(movie, frames, options.rate))
        began = time.monotonic()
        recorder.start()
        updates: list[dict[str, Any]] = []
        code = _follow(follow, updates, began, options.still if options.kill else None)
        if options.kill:
            code = _follow(follow, updates, began, None)
        recorder.join()
        subprocess.run([*words, "-o", f"{folder}/alone.h5", "--frame-time", str(1 / options.rate)],
                       check=True, stderr=subprocess.DEVNULL)  # fmt: skip
        same = all(
            np.array_equal(a, b, equal_nan=True)
            for a, b in zip(maps(result), maps(Path(folder, "alone.h5")), strict=True)
        )
    _show(updates, options.still, edge)
    print(f"exit code {code}; the maps are {'the same as' if same else 'OTHER than'} those of the complete movie")


def _follow(command: list[str], updates: list[dict[str, Any]], began: float, kill_after_s: float | None) -> int:
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=sys.stderr, start_new_session=True) as process:
        assert process.stdout
        for line in process.stdout:
            updates.append({**json.loads(line), "at_s": time.monotonic() - began})
            if kill_after_s and updates[-1]["at_s"] > kill_after_s:
                os.killpg(process.pid, signal.SIGKILL)
        return process.wait()


def _show(updates: list[dict[str, Any]], still_s: float, edge: np.ndarray) -> None:
    live = [each for each in updates if not each["final"]]
    print("| drawn at | shows up to | encoded | step | lag | places at the edge | elsewhere |")
    print("|---" * 7 + "|")
    named = None
    for each in live:
        at_edge = [edge[0] - 32 <= place["x_px"] <= edge[1] + 32 for place in each["places"]]
        print(
            f"| {each['at_s']:.1f} s | {each['time_s']:.1f} s | {each['encoded']} | {each['step']} | "
            f"{each['delay_s']:.1f} s | {sum(at_edge)} | {len(at_edge) - sum(at_edge)} |"
        )
        if named is None and any(at_edge):
            named = each["at_s"] - still_s
    print(f"largest lag {max(each['delay_s'] for each in live):.1f} s; the edge is named {named:.1f} s after it begins"
          if named else "the edge is not named")  # fmt: skip


if __name__ == "__main__":
    main()
