"""One analysis: its plan, the handing out of tiles, part files and the gather."""
