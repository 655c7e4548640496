"""Claim the folder FOLDER as soon as the file GO is there, say so, and keep it for three seconds."""

import sys
import time
from pathlib import Path

from hrtemvae_hpc.ranks.claim import Claim

folder, go = map(Path, sys.argv[1:])
print("ready", flush=True)
until = time.monotonic() + 60
while not go.exists() and time.monotonic() < until:
    time.sleep(0.001)
Claim(folder).take()
print("won", flush=True)
time.sleep(3)
