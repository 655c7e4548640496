"""Where each family of HDF5 files keeps its movie, its axes and its calibration.

NeXus: https://manual.nexusformat.org (default, signal, axes; older files: "Find the default plottable data").
NCEM/Berkeley EMD: https://emdatasets.com/format (emd_group_type, dim1..dim3). Velox EMD: /Data/Image/*/Data with axes
y, x, t and JSON metadata. HyperSpy: /Experiments/*/data with axis-0.. groups. DM5, not tried with a real file:
https://www.gatan.com/dm5-documentation (/ImageList/*/ImageData/Data).
"""

import json
import re
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from hrtemvae_hpc.errors import InputError, printable
from hrtemvae_hpc.hdf5 import DAMAGED, check_array, read_array
from hrtemvae_hpc.movie.calibration import convert, spacing
from hrtemvae_hpc.movie.chunks import check_chunks
from hrtemvae_hpc.movie.formats.pieces import increasing
from hrtemvae_hpc.movie.located import Located, Scales, Step
from hrtemvae_hpc.movie.series import check_parts, frame_time, is_part, part_names

_MOST = 10_000  # datasets that are examined
_SHOWN = 5  # names in a message
_DIMENSION = 2**26  # bytes of an axis, and of a frame's metadata
Metadata = dict[str, Any]


def locate(file: h5py.File, path: Path, dataset: str | None) -> Located:
    """The movie of ``file``: the named ``dataset``, or the only one that some layout offers.

    Raises InputError when there is none, or several and none was named.
    """
    if dataset is not None and not isinstance(named := _get(file, dataset), h5py.Dataset):
        if isinstance(named, h5py.Group) and part_names(named):
            return _in_parts(path, named)
        raise InputError(
            f"{path}: there is no dataset {printable(dataset)!r}; name another with --dataset."
            + listed(" It holds {}.", _three_dimensional(all_datasets(file)))
        )
    datasets = all_datasets(file)
    offers: dict[object, Located] = {}
    for offer in (*_nexus(file), *_emd(file, datasets), *_velox(file), *_hyperspy(file), *_dm5(file)):
        offers.setdefault(_identity(file[offer.dataset]), offer)
    if dataset is not None:
        return offers.get(_identity(file[dataset])) or _plain(dataset, file[dataset])
    if len(datasets) > _MOST:
        raise InputError(f"{path}: holds more than {_MOST} datasets; name the movie with --dataset.")
    groups = _groups_of_parts(file, datasets)
    parts = {f"{group.name.rstrip('/')}/{name}" for group in groups for name in part_names(group)}
    movies = [o for o in offers.values() if file[o.dataset].ndim == 3 and o.dataset not in parts]
    nexus_default = [offer for offer in movies if offer.layout == "NeXus"]
    plain = [name for name in _three_dimensional(datasets) if name not in parts]
    for candidates in (nexus_default, movies):
        if len(candidates) == 1:
            return candidates[0]
    if not movies and len(plain) == 1:
        return _plain(plain[0], datasets[plain[0]])
    if not movies and not plain and len(groups) == 1:
        return _in_parts(path, groups[0])
    if names := sorted({offer.dataset for offer in movies} | set(plain) | {str(group.name) for group in groups}):
        raise InputError(f"{path}: holds several movies; name one with --dataset" + listed(": {}.", names))
    flat = [f"{name} {item.shape}" for name, item in datasets.items() if item.shape]
    raise InputError(
        f"{path}: no dataset of three dimensions (frames, rows, columns) in this file"
        + (listed("; it holds {}.", flat) or "; it holds no dataset at all.")
    )


def _groups_of_parts(file: h5py.File, datasets: dict[str, h5py.Dataset]) -> list[h5py.Group]:
    """The groups that hold a movie in parts, of which at least one is there."""
    names = (name.rpartition("/") for name in datasets)
    holders = dict.fromkeys(holder or "/" for holder, _, name in names if is_part(name))
    return [file[holder] for holder in holders if part_names(file[holder])]


def _in_parts(path: Path, group: h5py.Group) -> Located:
    names = part_names(group)
    check_parts(path, group, names)
    return Located(str(group.name), "HDF5 in parts", scales=(frame_time(group), None, None), parts=tuple(names))


def open_dataset(file: h5py.File, name: str) -> h5py.Dataset:
    """The dataset ``name``, with its raw files, if it has any, looked for beside the file that holds it."""
    access = h5py.h5p.create(h5py.h5p.DATASET_ACCESS)
    access.set_efile_prefix(b"${ORIGIN}")
    return h5py.Dataset(h5py.h5d.open(file.id, name.encode("utf-8", "surrogateescape"), access))


def listed(sentence: str, names: Sequence[str]) -> str:
    """``sentence`` with the first few of ``names``, "" if there are none."""
    shown = ", ".join(printable(name)[:200] for name in names[:_SHOWN])
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return sentence.format(shown + more) if names else ""


def _get(group: h5py.Group, name: str) -> object:
    try:
        return group.get(name)
    except DAMAGED:
        return None  # a broken link doesn't count


def _identity(dataset: h5py.Dataset) -> object:
    """The same for a dataset under any of its names."""
    known = h5py.h5o.get_info(dataset.id)
    return known.fileno, known.addr


def all_datasets(file: h5py.File) -> dict[str, h5py.Dataset]:
    """Every dataset by its path, including those behind soft and external links, without endless loops.

    One more than ``_MOST`` if there are more.
    """
    datasets: dict[str, h5py.Dataset] = {}
    visited: set[object] = set()
    waiting: list[tuple[h5py.Group, str]] = [(file, "")]
    while waiting and len(visited) <= 2 * _MOST and len(datasets) <= _MOST:
        group, prefix = waiting.pop(0)
        for name in group:
            item = _get(group, name)
            if not isinstance(item, h5py.Group | h5py.Dataset) or item in visited:
                continue
            visited.add(item)
            if isinstance(item, h5py.Dataset):
                datasets[f"{prefix}/{name}"] = item
            else:
                waiting.append((item, f"{prefix}/{name}"))
            if len(datasets) > _MOST:
                break
    return datasets


def _three_dimensional(datasets: dict[str, h5py.Dataset]) -> list[str]:
    return [name for name, item in datasets.items() if item.ndim == 3]


def _text(value: object) -> str:
    if isinstance(value, np.ndarray):
        value = value.item() if value.size == 1 else ""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _plain(name: str, dataset: h5py.Dataset) -> Located:
    """A dataset of no known layout; its attributes ``pixel_size_nm`` and ``frame_time_s`` are read if they exist."""
    size, time = (np.ravel(dataset.attrs.get(key, ())) for key in ("pixel_size_nm", "frame_time_s"))
    t = (float(time[0]), "s") if time.size == 1 and time.dtype.kind in "iuf" else None
    y, x = ((float(size[i]), "nm") if size.size in (1, 2) and size.dtype.kind in "iuf" else None for i in (0, -1))
    return Located(name, "plain HDF5", scales=(t, y, x), by_letter=True)


def _scales(steps: Sequence[Step | None], units: Sequence[str]) -> Scales:
    return tuple(None if step is None else (step, unit) for step, unit in zip(steps, units, strict=True))


def _number(value: object) -> float | None:
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return None


def _attribute(group: object, name: str) -> object:
    """An attribute of ``group``, "" if there is none or it isn't a group."""
    return group.attrs.get(name, "") if isinstance(group, h5py.Group) else ""


def _spacing(axis: object) -> Step | None:
    """The distance of the positions along an axis, or these if they increase unevenly; None if there are none."""
    if not isinstance(axis, h5py.Dataset):
        return None
    try:
        positions = read_array(axis.parent, str(axis.name), "iuf", 1, _DIMENSION)
    except (ValueError, KeyError):
        return None
    even = spacing(positions)
    return increasing(positions.astype(float)) if even is None else even


def _order(names: list[str], units: list[str]) -> str:
    """The order of three axes from their names, else from which one counts time; else frames come first."""
    initials = [name.strip().lower()[:1] for name in names]
    if sorted(initials) == ["t", "x", "y"]:
        return "".join(initials)
    timed = [i for i, u in enumerate(units) if convert(1.0, u, "s") is not None]
    if len(timed) == 1 and timed[0] == 2:
        return "yxt"
    if sorted(initials[1:]) == ["x", "y"]:
        return "t" + "".join(initials[1:])
    if sorted(initials[:2]) == ["x", "y"]:
        return "".join(initials[:2]) + "t"
    return "tyx"


def _nexus(file: h5py.File) -> Iterator[Located]:
    group = _nexus_data(file)
    name = _nexus_signal(group)
    signal = None if name is None else _get(group, name)
    if name is None or not isinstance(signal, h5py.Dataset):
        return
    where = f"{group.name.rstrip('/')}/{name}"
    names = _nexus_axes(group, signal)
    if signal.ndim != 3 or len(names) != 3:
        yield Located(where, "NeXus")
        return
    axes = [_get(group, name) for name in names]
    units = [_text(a.attrs.get("units", "")) if isinstance(a, h5py.Dataset) else "" for a in axes]
    steps = [_spacing(axis) for axis in axes]
    yield Located(where, "NeXus", _order(names, units), _scales(steps, units))


def _nexus_data(file: h5py.File) -> h5py.Group:
    """The group of default data; where no default is named, the first NXdata of the first NXentry."""
    group: h5py.Group = file
    visited: list[h5py.Group] = []
    while group not in visited:
        visited.append(group)
        if "default" in group.attrs:
            following = _get(group, _text(group.attrs["default"]))
        else:
            wanted = {"": "NXentry", "NXroot": "NXentry", "NXentry": "NXdata"}.get(_nexus_class(group))
            members = (_get(group, name) for name in islice(group, _MOST)) if wanted else ()
            following = next((member for member in members if _nexus_class(member) == wanted), None)
        if not isinstance(following, h5py.Group):
            break
        group = following
    return group


def _nexus_class(item: object) -> str:
    return _text(item.attrs.get("NX_class", "")) if isinstance(item, h5py.Group) else "no group"


def _nexus_signal(group: h5py.Group) -> str | None:
    """The name of the data to plot: the group names it, or in older files it is marked itself."""
    if "signal" in group.attrs:
        return _text(group.attrs["signal"])
    if _nexus_class(group) != "NXdata":
        return None
    members = ((name, _get(group, name)) for name in islice(group, _MOST))
    marked = (n for n, m in members if isinstance(m, h5py.Dataset) and _text(m.attrs.get("signal", "")) == "1")
    return next(marked, None)


def _nexus_axes(group: h5py.Group, signal: h5py.Dataset) -> list[str]:
    """The names of the axes: listed by the group or the signal, or in older files numbered from 1."""
    if "axes" in group.attrs:
        return [_text(name) for name in np.ravel(group.attrs["axes"])]
    if "axes" in signal.attrs:
        return re.split("[:,]", _text(signal.attrs["axes"]).strip("[]"))
    numbered = {}
    for name in islice(group, _MOST):
        member = _get(group, name)
        if isinstance(member, h5py.Dataset) and "axis" in member.attrs:
            numbered[_text(member.attrs["axis"])] = name
    return [numbered[str(i + 1)] for i in range(signal.ndim) if str(i + 1) in numbered]


def _dm5(file: h5py.File) -> Iterator[Located]:
    images = _get(file, "ImageList")
    if not isinstance(images, h5py.Group):
        return
    for key in images:
        data = _get(images, f"{key}/ImageData/Data")
        if not isinstance(data, h5py.Dataset) or data.ndim != 3:
            continue
        dimensions = _get(images, f"{key}/ImageData/Calibrations/Dimension")
        members = [_get(dimensions, name) for name in dimensions] if isinstance(dimensions, h5py.Group) else []
        axes = members[::-1] if len(members) == 3 else [None] * 3  # the first is x, which HDF5 stores last
        units = [_text(_attribute(axis, "Units")) for axis in axes]
        steps = [_number(_attribute(axis, "Scale")) for axis in axes]
        yield Located(f"/ImageList/{key}/ImageData/Data", "DM5", "tyx", _scales(steps, units))


def _emd(file: h5py.File, datasets: dict[str, h5py.Dataset]) -> Iterator[Located]:
    for name, data in datasets.items():
        if name.rpartition("/")[2] != "data":
            continue
        group = file[name.rpartition("/")[0] or "/"]
        if "emd_group_type" not in group.attrs:
            continue
        offered = [_get(group, f"dim{i}") for i in (1, 2, 3)]
        dims = [d for d in offered if isinstance(d, h5py.Dataset)]
        if data.ndim != 3 or len(dims) != 3:
            yield Located(name, "EMD (NCEM/Berkeley)")
            continue
        names = [_text(d.attrs.get("name", "")) for d in dims]
        units = [_text(d.attrs.get("units", "")) for d in dims]
        steps = [_spacing(dim) for dim in dims]
        yield Located(name, "EMD (NCEM/Berkeley)", _order(names, units), _scales(steps, units))


def _velox(file: h5py.File) -> Iterator[Located]:
    images = _get(file, "Data/Image")
    if not isinstance(images, h5py.Group):
        return
    for key in images:
        data = _get(images, f"{key}/Data")
        if not isinstance(data, h5py.Dataset) or data.ndim != 3 or data.dtype.kind not in "iuf":
            continue
        metadata = _velox_metadata(_get(images, f"{key}/Metadata"))
        result = _inside(metadata, "BinaryResult")
        size = _inside(result, "PixelSize")
        steps = [_number(size.get("height")), _number(size.get("width")), _velox_frame_time(metadata)]
        units = [str(result.get("PixelUnitY", "")), str(result.get("PixelUnitX", "")), "s"]
        yield Located(f"/Data/Image/{key}/Data", "EMD (Velox)", "yxt", _scales(steps, units))


def _velox_metadata(dataset: object) -> Metadata:
    """The JSON text of the first frame, padded with zeros."""
    if not isinstance(dataset, h5py.Dataset) or dataset.ndim != 2 or 0 in dataset.shape:
        return {}
    try:
        check_array(dataset.parent, str(dataset.name), "iu", 2)
        first = slice(0, min(len(dataset), _DIMENSION)), slice(0, 1)
        check_chunks(dataset, first)
        loaded = json.loads(dataset[first].tobytes().split(b"\0")[0])
    except (ValueError, OSError, RecursionError):
        return {}
    return loaded if isinstance(loaded, dict) else {}


def _inside(metadata: Metadata, key: str) -> Metadata:
    value = metadata.get(key)
    return value if isinstance(value, dict) else {}


def _velox_frame_time(metadata: Metadata) -> float | None:
    """Seconds from one frame to the next: of the scan, else the camera's exposure."""
    scan = _number(_inside(metadata, "Scan").get("FrameTime"))
    if scan is not None:
        return scan
    detector = _inside(metadata, "BinaryResult").get("Detector")
    detectors = _inside(metadata, "Detectors")
    for entry in (_inside(detectors, name) for name in detectors):
        if entry.get("DetectorName") == detector:
            return _number(entry.get("ExposureTime"))
    return None


def _hyperspy(file: h5py.File) -> Iterator[Located]:
    experiments = _get(file, "Experiments")
    if not isinstance(experiments, h5py.Group):
        return
    for key in experiments:
        data = _get(experiments, f"{key}/data")
        if not isinstance(data, h5py.Dataset) or data.ndim != 3:
            continue
        axes = [_get(experiments, f"{key}/axis-{i}") for i in range(3)]
        names, units = ([_text(_attribute(axis, name)) for axis in axes] for name in ("name", "units"))
        steps = [_number(_attribute(axis, "scale")) for axis in axes]
        yield Located(f"/Experiments/{key}/data", "HyperSpy", _order(names, units), _scales(steps, units))
