"""A layer as Keras describes and stores it."""

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Layer:
    """One layer of a network, with its arrays in the order in which Keras creates them."""

    class_name: str
    name: str
    config: dict[str, Any]
    arrays: list[np.ndarray]
