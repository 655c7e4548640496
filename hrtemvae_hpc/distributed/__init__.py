"""The ranks: their world, the plan, the handing out of tiles, part files and the gather."""
