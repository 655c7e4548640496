"""What a model responds to: tests on moving lattices, reconstruction, traversals, comparisons."""
