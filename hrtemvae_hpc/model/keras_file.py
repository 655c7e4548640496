"""Reads the layers of networks saved by Keras 3 (.keras files) without Keras or TensorFlow.

A .keras file is a zip archive: config.json describes the layers, model.weights.h5 holds their arrays under
layers/<name>/vars, numbered by class in the order of creation (https://keras.io/guides/serialization_and_saving).
"""

import io
import json
import re
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import h5py

from hrtemvae_hpc.errors import InputError
from hrtemvae_hpc.model.keras_layers import Layer


def read_keras_file(path: Path) -> list[Layer]:
    """The layers in ``path``. Raises InputError where it is no .keras file."""
    try:
        with zipfile.ZipFile(path) as archive:
            described = json.loads(archive.read("config.json"))["config"]["layers"]
            with h5py.File(io.BytesIO(archive.read("model.weights.h5")), "r") as weights:
                return _layers(described, weights)
    except (zipfile.BadZipFile, KeyError, OSError, ValueError, TypeError) as error:
        raise InputError(f"{path}: not a readable Keras 3 file ({' '.join(str(error).split())[:200]}).") from error


def _layers(described: list[dict[str, Any]], weights: h5py.File) -> list[Layer]:
    seen: Counter[str] = Counter()
    layers = []
    for entry in described:
        class_name = entry["class_name"]
        # Keras stores layers by snake-cased class name and a running number, not by their own names.
        snake = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=.)(?=[A-Z][a-z])", "_", class_name).lower()
        stored = snake if seen[class_name] == 0 else f"{snake}_{seen[class_name]}"
        seen[class_name] += 1
        group = weights.get(f"layers/{stored}/vars")
        arrays = [group[str(i)][...] for i in range(len(group))] if group is not None else []
        layers.append(Layer(class_name, entry["config"]["name"], entry["config"], arrays))
    return layers
