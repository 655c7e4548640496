"""The grid of windows, its tiles and blocks, and the engine that encodes them."""
