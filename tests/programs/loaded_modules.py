"""Run the program and print the modules it has loaded to standard error."""

import atexit
import sys

from hrtemvae_hpc.cli import main

atexit.register(lambda: print(*sys.modules, file=sys.stderr))
main()
