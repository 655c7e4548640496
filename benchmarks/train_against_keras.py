"""Trains the same network on the same segments in the published way and with this program, one after the other.

    python benchmarks/train_against_keras.py SEGMENTS.h5 --keras PYTHON [--epochs 6] [--seeds 3]

PYTHON is an interpreter with TensorFlow and h5py (`pip install tensorflow-cpu h5py`). The published way is written
here in Keras from the article: the PbS network, binary cross-entropy summed over pixels + 2 x divergence, Adam at
1e-3, batches of 32. For each seed both are trained; compared are the losses of the last epoch, mean over
seeds, and segments per second without the first epoch.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

KERAS = r"""
import json, os, sys, time
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import h5py, numpy as np, tensorflow as tf
from tensorflow import keras
from tensorflow.keras import layers
path, epochs, seed = sys.argv[1], *map(int, sys.argv[2:4])
keras.utils.set_random_seed(seed)
with h5py.File(path, "r") as f:
    x = (f["segments"][...][~f["validation"][...].astype(bool)] / 65535).astype("float32")[..., None]


class VAE(keras.Model):
    def __init__(self):
        super().__init__()
        i = keras.Input((64, 64, 1)); h = i
        for c in (32, 32, 64, 64):
            h = layers.Conv2D(c, 4, activation="relu", strides=2, padding="same")(h)
        h = layers.Dense(4096, activation="relu")(layers.Flatten()(h))
        self.encoder = keras.Model(i, [layers.Dense(64)(h), layers.Dense(64)(h)])
        i = keras.Input((64,)); h = layers.Reshape((4, 4, 64))(layers.Dense(1024, activation="relu")(i))
        for c in (64, 64, 32, 32):
            h = layers.Conv2DTranspose(c, 4, activation="relu", strides=2, padding="same")(h)
        self.decoder = keras.Model(i, layers.Conv2DTranspose(1, 4, activation="sigmoid", padding="same")(h))
        self.rec, self.kl = keras.metrics.Mean("rec"), keras.metrics.Mean("kl")

    @property
    def metrics(self):
        return [self.rec, self.kl]

    def train_step(self, x):
        with tf.GradientTape() as tape:
            mean, log_var = self.encoder(x, training=True)
            z = mean + tf.exp(0.5 * log_var) * tf.random.normal(tf.shape(mean))
            y = self.decoder(z, training=True)
            rec = tf.reduce_mean(tf.reduce_sum(keras.losses.binary_crossentropy(x, y), axis=(1, 2)))
            kl = tf.reduce_mean(tf.reduce_sum(-0.5 * (1 + log_var - tf.square(mean) - tf.exp(log_var)), axis=1))
            loss = rec + 2 * kl
        grads = tape.gradient(loss, self.trainable_weights)
        self.optimizer.apply_gradients(zip(grads, self.trainable_weights))
        self.rec.update_state(rec); self.kl.update_state(kl)
        return {"rec": self.rec.result(), "kl": self.kl.result()}


seconds = []


class Clock(keras.callbacks.Callback):
    def on_epoch_begin(self, *_): self.began = time.perf_counter()
    def on_epoch_end(self, *_): seconds.append(time.perf_counter() - self.began)


vae = VAE()
vae.compile(optimizer=keras.optimizers.Adam(1e-3))
history = vae.fit(x, epochs=epochs, batch_size=32, shuffle=True, verbose=0, callbacks=[Clock()]).history
rec, kl = float(history["rec"][-1]), float(history["kl"][-1])
print(json.dumps({"loss": rec + 2 * kl, "rec": rec, "kl": kl, "rate": len(x) * (epochs - 1) / sum(seconds[1:])}))
"""


def ours(segments: Path, epochs: int, seed: int, precision: str) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder, "train.yaml")
        optimizer = f"{{epochs: {epochs}, seed: {seed}, precision: {precision}}}"
        config.write_text(f"optimizer: {optimizer}\nrun: {{reconstructions_every: 1000}}\n")
        words = ["hrtemvae", "train", str(config), "--segments", str(segments), "-o", f"{folder}/m.safetensors"]
        # The model of so short a training may be refused; its losses exist all the same.
        done = subprocess.run(words, check=False, capture_output=True, text=True)
        if done.returncode not in (0, 2):
            sys.exit(done.stderr)
        lines = Path(folder, "m.safetensors.training", "losses.csv").read_text().splitlines()
    rows = [dict(zip(lines[0].split(","), map(float, line.split(",")), strict=True)) for line in lines[1:]]
    rec, kl = rows[-1]["reconstruction"], rows[-1]["divergence"]
    rate = (epochs - 1) / sum(1 / row["segments_per_second"] for row in rows[1:])
    return {"loss": rec + 2 * kl, "rec": rec, "kl": kl, "rate": rate}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("segments", type=Path)
    parser.add_argument("--keras", required=True, help="interpreter with TensorFlow")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    ways: dict[str, list[dict[str, float]]] = {"Keras": [], "hrtemvae fp32": [], "hrtemvae bf16": []}
    for seed in range(options.seeds):
        began = time.monotonic()
        words = [options.keras, "-c", KERAS, str(options.segments), str(options.epochs), str(seed)]
        env = {k: v for k, v in os.environ.items() if k not in ("PYTHONHOME", "PYTHONPATH", "PYTHONNOUSERSITE")}
        done = subprocess.run(words, capture_output=True, text=True, check=False, env=env)
        if done.returncode != 0:
            sys.exit(done.stderr)
        ways["Keras"].append(json.loads(done.stdout.splitlines()[-1]))
        for precision in ("fp32", "bf16"):
            ways[f"hrtemvae {precision}"].append(ours(options.segments, options.epochs, seed, precision))
        for name, runs in ways.items():
            print(f"seed {seed} {name}: {runs[-1]}", flush=True)
        print(f"({time.monotonic() - began:.0f} s)", file=sys.stderr)
    reference = {key: sum(run[key] for run in ways["Keras"]) / options.seeds for key in ("loss", "rec", "kl", "rate")}
    print(
        "| method | loss of the last epoch | reconstruction | divergence | segments/s | ratio |\n"
        "|---|---|---|---|---|---|"
    )
    for name, runs in ways.items():
        mean = {key: sum(run[key] for run in runs) / options.seeds for key in reference}
        print(
            f"| {name} | {mean['loss']:.1f} ({mean['loss'] / reference['loss'] - 1:+.2%}) | {mean['rec']:.1f} | "
            f"{mean['kl']:.2f} | {mean['rate']:.0f} | {mean['rate'] / reference['rate']:.2f} |"
        )


if __name__ == "__main__":
    main()
