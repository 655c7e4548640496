"""Records FRAMES.npy to PATH in MODE: as many frames as each line of the input says; "close" closes the file.

swmr: the dataset grows, and others may read it; flushed: it grows, in the oldest format; reserved: it has all frames
from the beginning, and chunks of 4.
"""

import sys

import h5py
import numpy as np

path, content, mode = sys.argv[1:]
frames = np.load(content)
shape = frames.shape[1:]
file = h5py.File(path, "w", libver="earliest" if mode == "flushed" else "latest")
if mode == "reserved":
    data = file.create_dataset("movie", frames.shape, frames.dtype, chunks=(4, *shape))
else:
    data = file.create_dataset("movie", (0, *shape), frames.dtype, maxshape=(None, *shape), chunks=(1, *shape))
if mode != "flushed":
    file.swmr_mode = True
written = 0
for line in sys.stdin:
    if line == "close\n":
        file.close()
    else:
        for _ in range(int(line)):
            if mode != "reserved":
                data.resize(written + 1, 0)
            data[written] = frames[written]
            written += 1
            data.flush()
        file.flush()
    print("done", flush=True)
