"""The house: imports run one way, and each outside world has one door."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "hrtemvae_hpc"
MODULES = sorted(PACKAGE.rglob("*.py"))
# A room may import from its own floor and the floors below it.
FLOORS = [
    {
        *("compiled", "config", "errors", "files", "hdf5", "memory", "outputs", "pages", "pixels", "schemas", "sealed"),
        "yaml_file",
    },
    {"model"},
    {"maps", "movie", "windows", "statistics", "simulation", "fourier"},
    {"distributed"},
    {"segments"},
    {"training"},
    {"evaluation"},
    {"analysis_options", "model_commands", "facility"},
    {"cli"},
]
DOORS = {
    "mpi4py": {"distributed"},
    "h5py": {"hdf5", "movie", "maps", "segments", "model"},  # model: Keras keeps weights in HDF5
    "rsciio": {"segments"},
    "spython": {"facility"},
    "torch.distributed": {"training"},
}


def room(module: Path) -> str:
    return module.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(module: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module or "")
    return found


def floor(name: str) -> int:
    return next(i for i, rooms in enumerate(FLOORS) if name in rooms)


@pytest.mark.parametrize("module", MODULES, ids=lambda m: str(m.relative_to(PACKAGE)))
def test_imports_run_one_way(module: Path) -> None:
    if module.parent == PACKAGE and module.stem in ("__init__", "__main__"):
        return
    for name in imports(module):
        if name.startswith("hrtemvae_hpc."):
            assert floor(name.split(".")[1]) <= floor(room(module)), f"{module} imports {name}"
        for package, rooms in DOORS.items():
            if f"{name}.".startswith(f"{package}."):
                assert room(module) in rooms, f"{module} imports {package}"


@pytest.mark.parametrize("name", ["windows", "statistics"])
def test_windows_and_statistics_know_neither_mpi_nor_files(name: str) -> None:
    for module in (PACKAGE / name).glob("*.py"):
        assert not {n.split(".")[0] for n in imports(module)} & {"mpi4py", "h5py", "pathlib"}, module


@pytest.mark.parametrize("module", MODULES, ids=lambda m: str(m.relative_to(PACKAGE)))
def test_no_file_holds_two_rooms(module: Path) -> None:
    assert len(module.read_text().splitlines()) <= 400
