"""From maps to what happened: traces of single places, lattices, significance, processes."""
