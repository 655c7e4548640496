"""The structure: which folder may import which, in one direction, and where outside libraries are used."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "hrtemvae_hpc"
MODULES = sorted(m for m in PACKAGE.rglob("*.py") if m.parent != PACKAGE or m.stem not in ("__init__", "__main__"))
# What each folder may import. All may import the files beside them (errors, files, config...), which import no folder.
MAY_IMPORT = {
    "ranks": set(),
    "fourier": set(),
    "drift": {"fourier"},
    "statistics": set(),
    "model": set(),
    "movie": set(),
    "windows": {"model"},
    "maps": {"movie", "statistics", "windows"},
    "analysis": {"ranks", "fourier", "statistics", "model", "movie", "drift", "windows", "maps"},
    "conversion": {"ranks", "movie"},
    "segments": {"ranks", "fourier", "movie"},
    "simulation": {"ranks", "fourier", "movie", "segments"},
    "facility": {"ranks", "model", "movie", "windows", "maps"},
    "training": {"ranks", "model", "segments"},
    "evaluation": {"model", "simulation", "statistics", "training", "windows"},
    "interpretation": {"ranks", "fourier", "drift", "model", "movie", "statistics", "windows", "maps", "analysis"},
    "live": {"ranks", "fourier", "statistics", "model", "movie", "drift", "windows", "maps", "analysis"},
    "api": {"ranks", "model", "windows", "maps", "interpretation"},
    "cli": {
        "ranks",
        "model",
        "movie",
        "conversion",
        "simulation",
        "maps",
        "analysis",
        "segments",
        "facility",
        "training",
        "evaluation",
        "interpretation",
        "live",
    },
}
MOST_LAYERS = 9
ONLY_IN = {
    "mpi4py": {"ranks", "analysis"},
    "h5py": {"hdf5", "movie", "maps", "segments", "model", "interpretation"},  # model: Keras keeps weights in HDF5
    "numcodecs": {"movie", "conversion"},
    "xxhash": {"movie", "conversion"},
    "rsciio": {"segments"},
    "spython": {"facility"},
    "torch.distributed": {"training"},
}


def folder(module: Path) -> str:
    return module.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(module: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def name_of(module: Path) -> str:
    return ".".join(module.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


@pytest.mark.parametrize("module", MODULES, ids=lambda m: str(m.relative_to(PACKAGE)))
def test_a_folder_imports_only_what_it_may(module: Path) -> None:
    own = folder(module)
    for name in imports(module):
        if name.startswith("hrtemvae_hpc."):
            other = name.split(".")[1]
            if other in MAY_IMPORT:
                assert other == own or other in MAY_IMPORT.get(own, set()), f"{module} imports {name}"
        for package, folders in ONLY_IN.items():
            if f"{name}.".startswith(f"{package}."):
                assert own in folders, f"{module} imports {package}"


def test_there_are_few_layers() -> None:
    """Folders, and the files beside them, each one layer above the highest of those that it imports.

    The file that starts the program is none.
    """
    below: dict[str, set[str]] = {}
    for module in MODULES:
        names = {name.split(".")[1] for name in imports(module) if name.startswith("hrtemvae_hpc.")}
        below.setdefault(folder(module), set()).update(names - {folder(module), "__version__"})
    layers: dict[str, int] = {}
    for name in TopologicalSorter(below).static_order():
        layers[name] = 1 + max((layers[each] for each in below[name]), default=0)
    assert set(MAY_IMPORT) == {folder(module) for module in MODULES if module.parent != PACKAGE}
    assert max(layers.values()) <= MOST_LAYERS


def test_no_module_imports_itself_indirectly() -> None:
    names = {name_of(module) for module in MODULES}
    TopologicalSorter({name_of(m): (imports(m) & names) - {name_of(m)} for m in MODULES}).prepare()


@pytest.mark.parametrize("name", ["windows", "statistics", "fourier"])
def test_arithmetic_knows_neither_mpi_nor_files(name: str) -> None:
    for module in (PACKAGE / name).glob("*.py"):
        assert not {n.split(".")[0] for n in imports(module)} & {"mpi4py", "h5py", "pathlib"}, module


@pytest.mark.parametrize("module", MODULES, ids=lambda m: str(m.relative_to(PACKAGE)))
def test_no_file_is_too_long(module: Path) -> None:
    assert len(module.read_text().splitlines()) <= 400
