"""The commands `hrtemvae image ...`."""

import argparse
from pathlib import Path

from hrtemvae_hpc.cli.options import subcommands
from hrtemvae_hpc.errors import show
from hrtemvae_hpc.facility.image import DEFAULT_IMAGE, build_image, describe_image, test_image, torch_lock


def add_options(command: argparse.ArgumentParser) -> None:
    """Describe the commands to their parser."""
    add = subcommands(command)
    build = add("build", _build, "Build the image, unless it is up to date.")
    build.add_argument("-o", "--output", type=Path, help="image file (containers/hrtemvae.sif)")
    torch = build.add_mutually_exclusive_group()
    torch.add_argument("--torch", default="cpu", metavar="BUILD", help="PyTorch: cpu (default), cuda, or a lock file")
    torch.add_argument("--unverified-torch", metavar="SPEC", help="PyTorch as pip takes it, not verified by hashes")
    build.add_argument(
        "--build-arg", action="append", default=[], metavar="KEY=VALUE", help="for %%arguments in the definition"
    )
    for name, run, text in (
        ("test", _test, "Analyse a small movie on two ranks inside the image."),
        ("info", _info, "Show what an image is made of."),
    ):
        add(name, run, text).add_argument("image", type=Path, nargs="?", help="image file (containers/hrtemvae.sif)")


def _build(options: argparse.Namespace) -> int:
    image = options.output or DEFAULT_IMAGE
    torch = options.unverified_torch or torch_lock(options.torch)
    built = build_image(image, torch, options.build_arg, show)
    show(f"{image}: {'built and tested' if built else 'is up to date'}")
    return 0


def _test(options: argparse.Namespace) -> int:
    show(test_image(options.image or DEFAULT_IMAGE))
    return 0


def _info(options: argparse.Namespace) -> int:
    show(describe_image(options.image or DEFAULT_IMAGE))
    return 0
