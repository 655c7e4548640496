"""The program where imagecodecs isn't installed."""

import sys

from hrtemvae_hpc.cli import main

sys.modules["imagecodecs"] = None  # type: ignore[assignment]  # tifffile has not been loaded yet
main()
