"""Hold the HDF5 file FILE open for writing, locked, until a line comes."""

import sys

import h5py

with h5py.File(sys.argv[1], "r+", locking=True):
    print("held", flush=True)
    input()
