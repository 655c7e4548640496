"""All formats but HDF5. To load their libraries takes half a second, so this is imported when such a file is met."""

from hrtemvae_hpc.movie.formats.dm import DM
from hrtemvae_hpc.movie.formats.mrc import MRC
from hrtemvae_hpc.movie.formats.npy import NPY
from hrtemvae_hpc.movie.formats.packed import PACKED
from hrtemvae_hpc.movie.formats.seq import SEQ
from hrtemvae_hpc.movie.formats.ser import EMI, SER
from hrtemvae_hpc.movie.formats.tiff import TIFF
from hrtemvae_hpc.movie.formats.tvips import TVIPS

FORMATS = (NPY, DM, TIFF, SER, SEQ, TVIPS, MRC)
FOR_FILES = (*FORMATS, EMI, PACKED)  # not looked for in folders
