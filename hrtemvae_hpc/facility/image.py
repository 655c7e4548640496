"""The Apptainer image: built once for each content, verified before it gets its name."""

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from hrtemvae_hpc import __version__
from hrtemvae_hpc.errors import InputError, RankFailed
from hrtemvae_hpc.facility import wheelhouse
from hrtemvae_hpc.facility.apptainer import Apptainer
from hrtemvae_hpc.files import file_sha256

CHECKOUT = Path(__file__).parents[2]
DEFINITION = CHECKOUT / "containers" / "hrtemvae.def"
LOCK = CHECKOUT / "containers" / "requirements.lock"
DEFAULT_IMAGE = CHECKOUT / "containers" / "hrtemvae.sif"
_SHOWN = 12  # lines of a failed build


def torch_lock(build: str) -> Path:
    """The lock file of a build of PyTorch: ``cpu``, ``cuda``, or a lock file itself. Raises InputError for others."""
    lock = CHECKOUT / f"requirements-{build}.lock" if build in ("cpu", "cuda") else Path(build)
    if not lock.is_file():
        raise InputError(f"--torch {build}: choose cpu, cuda, or the path of a lock file with hashes.")
    return lock


def content_key(torch: Path | str, arguments: Sequence[str]) -> str:
    """SHA-256 over everything that determines an image: definition, lock files, package and build arguments.

    An unverified PyTorch, a requirement for pip instead of a lock file, counts only by its text.
    """
    digest = hashlib.sha256(repr(sorted(arguments)).encode())
    digest.update(b"\0unverified\0" + torch.encode() if isinstance(torch, str) else b"\0torch\0" + torch.read_bytes())
    for path in (DEFINITION, LOCK, *wheelhouse.sources(CHECKOUT)):
        digest.update(f"\0{path.relative_to(CHECKOUT)}\0".encode() + path.read_bytes())
    return digest.hexdigest()


def build_image(target: Path, torch: Path | str, arguments: Sequence[str], say: Callable[[str], None]) -> bool:
    """Build the image ``target``, unless it is up to date; returns whether it was built.

    ``torch`` is the lock file of PyTorch, or a requirement for pip, which is not verified. ``arguments`` are KEY=VALUE
    for the definition's %arguments. The build runs beside the target, and only an image whose %test passed takes its
    name.

    Raises InputError if something that is needed is missing, RankFailed if the build or its test fails;
    an existing image then stays.
    """
    if not DEFINITION.is_file():
        raise InputError(f"{DEFINITION}: there is no definition file; build the image from a checkout of the project.")
    if not os.access(target.absolute().parent, os.W_OK) or target.is_dir():
        raise InputError(f"{target}: can't be written; choose another place with -o.")
    if malformed := [a for a in arguments if "=" not in a]:
        raise InputError(f"--build-arg {malformed[0]}: give KEY=VALUE, see %arguments in {DEFINITION}.")
    apptainer = Apptainer()
    key = content_key(torch, arguments)
    if os.path.lexists(target):
        known = (apptainer.labels(target) or {}).get("hrtemvae.content")
        if known is None:
            raise InputError(f"{target}: exists and is not an image of this program; choose another place with -o.")
        if known == key:
            return False
    with _build_folder(target) as folder:
        listed = wheelhouse.fill(folder / "wheelhouse", CHECKOUT, LOCK, torch, say)
        given = {
            "WHEELHOUSE": str(listed.parent),
            "VERSION": __version__,
            "COMMIT": _commit(),
            "LOCK_SHA256": file_sha256(LOCK),
            "TORCH_LOCK_SHA256": "unverified" if isinstance(torch, str) else file_sha256(torch),
            "CONTENT": key,
        }
        if any(listed.parent.glob("*triton*.whl")):
            given["COMPILER"] = "gcc libpython3.11-dev"
        options = [f"--build-arg={name}={value}" for name, value in given.items()]
        built = folder / "image.sif"
        say(f"{Path(apptainer.program).name} build, with its test")
        with _build_settings(folder):
            _build(apptainer, built, [*options, *(f"--build-arg={a}" for a in arguments)])
        if not built.is_file() or (apptainer.labels(built) or {}).get("hrtemvae.content") != key:
            raise RankFailed(f"{apptainer.program} build succeeded but left no image; {target} is unchanged.")
        built.replace(target)
    return True


def _build(apptainer: Apptainer, built: Path, options: Sequence[str]) -> None:
    last: deque[str] = deque(maxlen=_SHOWN)
    try:
        for line in apptainer.lines("build", *options, built, DEFINITION):
            last.append(line.rstrip())
    except subprocess.CalledProcessError as error:
        output = "\n  ".join(last)
        raise RankFailed(f"building the image failed; nothing was replaced. Its last lines:\n  {output}") from error


@contextmanager
def _build_folder(target: Path) -> Iterator[Path]:
    """A folder beside ``target``, removed at the end; in HRTEMVAE_SCRATCH, if that lies on the same disk."""
    beside = target.absolute().parent
    scratch = Path(os.environ.get("HRTEMVAE_SCRATCH", beside))
    place = scratch if scratch.is_dir() and scratch.stat().st_dev == beside.stat().st_dev else beside
    folder = Path(tempfile.mkdtemp(prefix=".image-", dir=place))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _build_settings(folder: Path) -> Iterator[None]:
    """Unpack in ``folder``, because /tmp is often too small, and compress quickly, unless the user says how."""
    settings = {
        "APPTAINER_TMPDIR": str(folder),
        "APPTAINER_MKSQUASHFS_ARGS": os.environ.get("APPTAINER_MKSQUASHFS_ARGS", "-Xcompression-level 1"),
    }
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _commit() -> str:
    git = ["git", "-C", str(CHECKOUT)]
    try:
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        changed = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head + "-changed" * bool(changed)


def test_image(image: Path) -> str:
    """Run the image's %test and return its last line; raises RankFailed if it fails."""
    apptainer = Apptainer()
    _labels(apptainer, image)
    last: deque[str] = deque(maxlen=_SHOWN)
    try:
        last.extend(line.rstrip() for line in apptainer.lines("test", image))
    except subprocess.CalledProcessError as error:
        output = "\n  ".join(last)
        raise RankFailed(f"{image}: its test failed. Its last lines:\n  {output}") from error
    return last[-1] if last else "passed"


def _labels(apptainer: Apptainer, image: Path) -> dict[str, str]:
    labels = apptainer.labels(image) if image.is_file() else None
    if labels is None or "hrtemvae.content" not in labels:
        raise InputError(f"{image}: is missing or not an image of this program; make one with `hrtemvae image build`.")
    return labels


_INSIDE = """
import platform, h5py, mpi4py, numpy, torch
from mpi4py import MPI
print("Python", platform.python_version())
print("PyTorch", torch.__version__, "CUDA", torch.version.cuda, "ROCm", torch.version.hip)
print("MPI", MPI.Get_library_version().split(",")[0].splitlines()[0], "mpi4py", mpi4py.__version__)
print("HDF5", h5py.version.hdf5_version, "numpy", numpy.__version__)
"""


def describe_image(image: Path) -> str:
    """A description of ``image``. Raises InputError if it is not an image of this program."""
    apptainer = Apptainer()
    labels = _labels(apptainer, image)
    size = image.stat().st_size
    lines = [
        f"{image}: {size / 1e6:,.0f} MB, sha256 {file_sha256(image)}",
        f"built       {labels.get('org.label-schema.build-date', 'unknown')}",
        f"hrtemvae    {labels['hrtemvae.version']}, commit {labels['hrtemvae.commit']}",
        f"lock        {labels['hrtemvae.lock']}",
        f"torch lock  {labels.get('hrtemvae.torch', 'unknown')}",
        f"content     {labels['hrtemvae.content']}",
    ]
    inside = apptainer.output(image, ["python", "-c", _INSIDE])
    lines += ["{:11} {}".format(*line.split(" ", 1)) for line in inside.splitlines() if line]
    return "\n".join(lines)
