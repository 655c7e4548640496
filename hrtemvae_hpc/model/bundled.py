"""The models that come with the program, by name."""

from pathlib import Path

BUNDLED = {name: Path(__file__).parent / "data" / f"{name}.safetensors" for name in ("published", "dense")}
