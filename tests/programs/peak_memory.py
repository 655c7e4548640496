"""Run the program in a process of its own and print the most memory it took, in bytes."""

import resource
import subprocess
import sys

code = subprocess.run(["hrtemvae", *sys.argv[1:]], check=False).returncode
print("peak", resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024)
sys.exit(code)
