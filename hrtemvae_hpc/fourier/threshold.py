"""How strong fringes must be to count as a lattice."""

# The power of noise is exponentially distributed about its mean. With the mean estimated as in fringes.py, fewer than
# one in a thousand windows of white noise, or of noise over an amorphous film, has a peak 40 times as high.
FRINGE_THRESHOLD = 40.0
