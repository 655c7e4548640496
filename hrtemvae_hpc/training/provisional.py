"""Trains the bundled model: ``python -m hrtemvae_hpc.training.provisional MICROGRAPHS... -o model.safetensors``.

The published architecture, loss and optimiser, on simulated lattices and on segments with fringes from real
micrographs. Every epoch draws new simulated segments.
"""

import argparse
import json
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from hrtemvae_hpc import __version__
from hrtemvae_hpc.model.architecture import Architecture, DecoderArchitecture
from hrtemvae_hpc.model.checkpoint import Model, save_model
from hrtemvae_hpc.model.network import VAE
from hrtemvae_hpc.simulation.segments import random_segments
from hrtemvae_hpc.training.segments import cut_segments, micrograph_images

BETA = 2.0
WARM_UP = 0.25  # the share of the training over which beta rises from zero
LEARNING_RATE = 1e-3
LIMITS = (
    "Provisional. Trained on simulated lattices with periods of 4 to 26 pixels and on few real micrographs; "
    "not judged on rotation and translation tests. Lattices outside that range of periods, diffraction contrast "
    "and thick specimens were never shown to it."
)


def real_segments(paths: list[Path], size: int, most: int, generator: torch.Generator) -> Tensor:
    """At most ``most`` segments from each micrograph, as it is and binned by two."""
    kept = []
    for path, image in micrograph_images(paths):
        rows, columns = image.shape[0] // 2 * 2, image.shape[1] // 2 * 2
        binned = image[:rows, :columns].reshape(rows // 2, 2, columns // 2, 2).mean((1, 3))
        for scaled in (image, binned):
            if min(scaled.shape) < size:
                continue
            segments = cut_segments(scaled, size, size // 4)
            segments = segments[torch.randperm(len(segments), generator=generator)[:most]]
            print(f"{path.name}: {len(segments)} segments of {scaled.shape[0]} x {scaled.shape[1]}", flush=True)
            kept.append(segments)
    return torch.cat(kept) if kept else torch.empty(0, size, size)


def augment(segments: Tensor, generator: torch.Generator) -> Tensor:
    """Each segment turned by a multiple of 90 degrees, half of them flipped."""
    turns = torch.randint(4, (len(segments),), generator=generator)
    turned = torch.stack([torch.rot90(s, int(k)) for s, k in zip(segments, turns, strict=True)])
    flip = torch.rand(len(segments), 1, 1, generator=generator) < 0.5
    return torch.where(flip, turned.flip(2), turned)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("micrographs", nargs="*", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--simulated", type=int, default=20_000, help="simulated segments an epoch, thousands")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    torch.manual_seed(options.seed)
    generator = torch.Generator().manual_seed(options.seed)
    architecture = Architecture(decoder=DecoderArchitecture())
    size = architecture.window
    real = real_segments(options.micrographs, size, 600, generator)
    vae = VAE(architecture).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    steps_an_epoch = (options.simulated + len(real)) // 32
    optimizer = torch.optim.Adam(vae.parameters(), LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, LEARNING_RATE, total_steps=options.epochs * steps_an_epoch + 1, pct_start=0.05
    )
    history, means = [], Tensor()
    for epoch in range(1, options.epochs + 1):
        began, sums = time.monotonic(), torch.zeros(2)
        simulated = torch.cat([random_segments(1000, size, generator) for _ in range(options.simulated // 1000)])
        segments = torch.cat([simulated, augment(real, generator)]) if len(real) else simulated
        order = torch.randperm(len(segments), generator=generator)[: steps_an_epoch * 32].view(-1, 32)
        collected = []
        for batch in order:
            x = segments[batch, None].to(memory_format=torch.channels_last)
            noise = torch.randn(len(x), architecture.latents, generator=generator)
            with torch.autocast("cpu", torch.bfloat16):
                logits, mean, log_var = vae(x, noise)
            mean, log_var = mean.float(), log_var.float()
            reconstruction = F.binary_cross_entropy_with_logits(logits.float(), x, reduction="sum") / len(x)
            divergence = -0.5 * (1 + log_var - mean**2 - log_var.exp()).sum() / len(x)
            optimizer.zero_grad()
            beta = BETA * min(1.0, schedule.last_epoch / (WARM_UP * schedule.total_steps))
            (reconstruction + beta * divergence).backward()
            torch.nn.utils.clip_grad_norm_(vae.parameters(), 1e4)
            optimizer.step()
            schedule.step()
            sums += torch.tensor([reconstruction.item(), divergence.item()])
            collected.append(mean.detach())
        means = torch.cat(collected)
        losses = (sums / len(order)).tolist()
        history.append({"epoch": epoch, "reconstruction": losses[0], "kl": losses[1]})
        active = int((means.var(0) > 0.01).sum())
        print(json.dumps(history[-1]), f"active {active}, {time.monotonic() - began:.0f} s", flush=True)
        provenance = {
            "program": f"hrtemvae {__version__}, hrtemvae_hpc.training.provisional",
            "limits": LIMITS,
            "seed": options.seed,
            "beta": BETA,
            "beta_warm_up": WARM_UP,
            "simulated_segments_an_epoch": options.simulated,
            "real_segments": len(real),
            "micrographs": sorted({p.name for p in options.micrographs}),
            "variance_over_training": means.var(0).tolist(),
            "history": history,
        }
        latent_order = tuple(means.var(0).argsort().tolist())
        model = Model("provisional", vae.encoder, vae.decoder, latent_order, "window", provenance)
        save_model(model, options.output, torch.float16)


if __name__ == "__main__":
    main()
