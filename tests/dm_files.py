"""DM3 and DM4 files written for tests, in the order in which DigitalMicrograph writes them.

https://www.er-c.org/cbb/info/dmformat; ncempy and rosettasciio read them.
"""

import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

TYPES = {"int16": 1, "float32": 2, "uint8": 6, "int32": 7, "int8": 9, "uint16": 10, "uint32": 11, "float64": 12}
OTHER_TYPES = {"complex64": 3, "complex128": 13}
_ELEMENTS = {"int16": 2, "int32": 3, "uint16": 4, "uint32": 5, "float32": 6, "float64": 7, "int8": 9, "uint8": 10,
             "uint64": 12}  # fmt: skip
Tags = Mapping[str, Any] | Sequence[Any]


class DmWriter:
    """Tags as bytes: mappings are groups with names, sequences groups without; numpy values keep their type."""

    def __init__(self, version: int) -> None:
        self.wide = version == 4

    def number(self, *values: int) -> bytes:
        return struct.pack(f">{len(values)}{'Q' if self.wide else 'I'}", *values)

    def group(self, tags: Tags) -> bytes:
        named = tags.items() if isinstance(tags, Mapping) else [("", value) for value in tags]
        entries = [self.entry(name, value) for name, value in named]
        return b"\1\0" + self.number(len(entries)) + b"".join(entries)

    def entry(self, name: str, value: Any) -> bytes:
        is_group = isinstance(value, Mapping | list | tuple)
        content = self.group(value) if is_group else self.data(value)
        label = struct.pack(">BH", 20 if is_group else 21, len(name)) + name.encode("latin-1")
        return label + (self.number(len(content)) if self.wide else b"") + content

    def data(self, value: Any) -> bytes:
        if isinstance(value, str):
            value = np.frombuffer(value.encode("utf-16-le"), "<u2")
        if isinstance(value, np.ndarray):
            kind = _ELEMENTS.get(value.dtype.name)
            if kind is None:  # complex: a structure of two
                half = _ELEMENTS[f"float{value.dtype.itemsize * 4}"]
                info = self.number(8, 20, 15, 0, 2, 0, half, 0, half, value.size)
            else:
                info = self.number(3, 20, kind, value.size)
            return b"%%%%" + info + bytes(value.tobytes())
        value = np.asarray(value)
        return b"%%%%" + self.number(1, _ELEMENTS[value.dtype.name]) + bytes(value.tobytes())


def image_tags(
    pixels: np.ndarray,
    name: str,
    scales: Sequence[float] = (),
    units: Sequence[str] = (),
    tags: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """An image; ``scales`` and ``units`` as the file lists them: of columns, rows, frames."""
    sides = pixels.shape[::-1]
    scales = [*scales, *[1.0] * len(sides)][: len(sides)]
    units = [*units, *[""] * len(sides)][: len(sides)]
    dimension = [
        {"Origin": np.float32(0), "Scale": np.float32(s), "Units": u} for s, u in zip(scales, units, strict=True)
    ]
    return {
        "ImageData": {
            "Calibrations": {
                "Brightness": {"Origin": np.float32(0), "Scale": np.float32(1), "Units": ""},
                "Dimension": dimension,
                "DisplayCalibratedUnits": np.uint8(1),
            },
            "Data": pixels.ravel(),
            "DataType": np.uint32((TYPES | OTHER_TYPES)[pixels.dtype.name]),
            "Dimensions": [np.uint32(side) for side in sides],
            "PixelDepth": np.uint32(pixels.dtype.itemsize),
        },
        "ImageTags": dict(tags or {}),
        "Name": name,
    }


def thumbnail(pixels: np.ndarray) -> dict[str, Any]:
    """A thumbnail in colours whose bytes depend on the pixels."""
    image = image_tags(np.full((8, 8), int(np.abs(pixels).sum()) % 2**31, np.int32), "thumbnail")
    image["ImageData"]["DataType"] = np.uint32(23)
    return image


def write_images(path: Path, images: Sequence[Mapping[str, Any]], version: int = 4, thumbnails: int = 1) -> Path:
    """A file of ``images`` of which the first are ``thumbnails``."""
    tags = {
        "DocumentObjectList": [{"ImageDisplayInfo": {"HighLimit": np.float32(0.5)}, "ImageSource": np.uint32(0)}],
        "ImageList": list(images),
        "ImageSourceList": [{"ClassName": "ImageSource:Simple", "ImageRef": np.uint32(thumbnails)}],
        "InImageMode": np.uint8(1),
        "Thumbnails": [{"ImageIndex": np.uint32(i)} for i in range(thumbnails)],
    }
    writer = DmWriter(version)
    content = writer.group(tags) + bytes(8)
    path.write_bytes(struct.pack(">I", version) + writer.number(len(content)) + struct.pack(">I", 1) + content)
    return path


def write_dm(path: Path, pixels: np.ndarray, version: int = 4, **about: Any) -> Path:
    """A file of one image or stack, with a thumbnail; ``about`` as of ``image_tags``."""
    return write_images(path, [thumbnail(pixels), image_tags(pixels, path.stem, **about)], version)


def taken_at(seconds: float) -> dict[str, Any]:
    """The tags of an image that was taken so many seconds after the first of January 2020, 0 o'clock."""
    return {"DataBar": {"Acquisition Date": "1/1/2020", "Acquisition Time (OS)": 132223104000000000 + seconds * 1e7}}
