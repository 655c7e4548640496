"""Commands of the program at a fraction of their start: a server that has loaded it forks a process for each.

Processes, exit codes, signals and descriptors are real; only loading PyTorch and HDF5 is not done again.

    python fork_server.py serve SOCKET                the server; it ends when its standard input does
    python fork_server.py run SOCKET SCRIPT ARGUMENTS...
                                                      one command, to be started by mpirun for example; SCRIPT is a file
                                                      of programs/, or "" for the program itself
"""

import contextlib
import gc
import json
import os
import selectors
import signal
import socket
import sys
from pathlib import Path
from types import FrameType
from typing import NoReturn

_FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
_LOADED = (
    "hrtemvae_hpc.analysis.job",
    "hrtemvae_hpc.conversion.job",
    "hrtemvae_hpc.evaluation.page",
    "hrtemvae_hpc.evaluation.traversal",
    "hrtemvae_hpc.facility.session_report",
    "hrtemvae_hpc.interpretation.lattice_job",
    "hrtemvae_hpc.maps.report",
    "hrtemvae_hpc.segments.job",
    "hrtemvae_hpc.simulation.movies",
    "hrtemvae_hpc.training.job",
    "torch._dynamo",  # by PyTorch's optimizers, when they are made
    "rsciio.tiff",
)


class Forked:
    """A command that a server has forked, with what ``subprocess.Popen`` offers for one."""

    def __init__(
        self,
        server: str,
        script: str,
        arguments: list[str],
        cwd: str,
        environment: dict[str, str],
        descriptors: list[int],
    ) -> None:
        """Start it with ``descriptors`` for standard input, output and error."""
        self._connection = socket.socket(socket.AF_UNIX)
        self._connection.connect(server)
        affinity = sorted(os.sched_getaffinity(0))
        request = json.dumps([script, arguments, cwd, environment, affinity]).encode()
        socket.send_fds(self._connection, [len(request).to_bytes(4, "big")], descriptors)
        self._connection.sendall(request)
        self.pid = int.from_bytes(self._connection.recv(4), "big")
        self._code: int | None = None

    def send_signal(self, number: int) -> None:
        """Send it a signal."""
        self._connection.sendall(bytes([number]))

    def poll(self) -> int | None:
        """Its exit code, or minus the signal that ended it; None while it runs."""
        try:
            return self.wait(0)
        except BlockingIOError:
            return None

    def wait(self, timeout: float | None = None) -> int:
        """What ``poll`` returns, once it has ended. Raises TimeoutError if it takes longer."""
        if self._code is None:
            self._connection.settimeout(timeout)
            status = self._connection.recv(4)
            self._connection.close()
            self._code = os.waitstatus_to_exitcode(int.from_bytes(status, "big"))
        return self._code


def serve(path: str) -> None:
    """Fork a process for each request that comes to the socket ``path``, until standard input ends."""
    from importlib import import_module

    for name in _LOADED:
        import_module(name)
    _prepare()
    gc.collect()
    gc.freeze()  # so that no process copies these objects when it collects its own
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(64)
    running: set[int] = set()
    print("ready", flush=True)
    with selectors.DefaultSelector() as selector:
        selector.register(listener, selectors.EVENT_READ, lambda: _start(listener, selector, running))
        selector.register(sys.stdin, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is sys.stdin:
                    for child in running:
                        os.killpg(child, signal.SIGKILL)
                    return
                if key.fd in selector.get_map():  # not of a command that has just ended
                    key.data()


def _prepare() -> None:
    """Do once what each process would do again: load compiled loops, draw ranks by chance, read fonts and templates."""
    import numpy as np
    import torch
    from matplotlib.figure import Figure

    from hrtemvae_hpc.maps import report
    from hrtemvae_hpc.model.model_file import DEFAULT_MODEL, load_model
    from hrtemvae_hpc.pages import _templates, png
    from hrtemvae_hpc.statistics.chance import largest_by_chance
    from hrtemvae_hpc.statistics.comparison import Comparison
    from hrtemvae_hpc.statistics.over_time import series_statistics
    from hrtemvae_hpc.statistics.significance import PermutationTest
    from hrtemvae_hpc.windows.engine import Engine

    frames, cpu = 4, torch.device("cpu")
    engine = Engine(load_model(DEFAULT_MODEL), cpu, "fp32", "window", 8)
    pixels = np.random.default_rng(0).integers(0, 99, (frames, 72, 72)).astype("u2")
    z, valid = engine.encode(pixels, np.ones((frames, 1), bool), None)
    series_statistics(z, valid, PermutationTest(Comparison.with_time(frames), cpu))
    largest_by_chance(12, 5)  # of the movie and the model that most tests use
    figure = Figure()
    figure.subplots().set_title("reads the fonts")
    png(figure)
    for name in ("report", "viewer", "figure", "page"):
        _templates(Path(report.__file__).parent).get_template(f"{name}.html.j2")


def _start(listener: socket.socket, selector: selectors.BaseSelector, running: set[int]) -> None:
    """Start the command that the next connection asks for; its signals come there, and its end is reported."""
    connection, _ = listener.accept()
    size, descriptors, _, _ = socket.recv_fds(connection, 4, 3)
    request = b""
    while len(request) < int.from_bytes(size, "big"):
        request += connection.recv(2**16)
    child = os.fork()
    if child == 0:
        os.setsid()
        script, arguments, cwd, environment, affinity = json.loads(request)
        _become(script, arguments, cwd, environment, affinity, descriptors)
    for descriptor in descriptors:
        os.close(descriptor)
    with contextlib.suppress(OSError):
        connection.sendall(child.to_bytes(4, "big"))
    running.add(child)
    ended = os.pidfd_open(child)

    def forward() -> None:
        numbers = connection.recv(16)
        for number in numbers:
            os.kill(child, number)
        if not numbers:  # nobody waits for it any more
            selector.unregister(connection)
            os.kill(child, signal.SIGKILL)  # it may not have a group of its own yet
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child, signal.SIGKILL)

    def end() -> None:
        _, status = os.waitpid(child, 0)
        running.remove(child)
        with contextlib.suppress(OSError):
            connection.sendall(status.to_bytes(4, "big"))
        with contextlib.suppress(KeyError):
            selector.unregister(connection)
        selector.unregister(ended)
        connection.close()
        os.close(ended)

    selector.register(connection, selectors.EVENT_READ, forward)
    selector.register(ended, selectors.EVENT_READ, end)


def _become(
    script: str,
    arguments: list[str],
    cwd: str,
    environment: dict[str, str],
    affinity: list[int],
    descriptors: list[int],
) -> NoReturn:
    """Run the program as if this process had just been started."""
    import atexit
    import runpy

    os.sched_setaffinity(0, affinity)
    for place, descriptor in enumerate(descriptors):
        os.dup2(descriptor, place)
    os.closerange(3, 1024)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = [script or str(Path(sys.executable).with_name("hrtemvae")), *arguments]
    from hrtemvae_hpc.cli import main

    code = 1
    try:
        if script:
            runpy.run_path(script, run_name="__main__")
        else:
            main(arguments)
        code = 0
    except SystemExit as ends:
        code = ends.code if isinstance(ends.code, int) else int(ends.code is not None)
    except BaseException:  # noqa: BLE001  as Python does at the end of a program
        sys.excepthook(*sys.exc_info())
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)


def _run(path: str, script: str, arguments: list[str]) -> NoReturn:
    forked = Forked(path, script, arguments, os.getcwd(), dict(os.environ), [0, 1, 2])

    def forward(number: int, _: FrameType | None) -> None:
        forked.send_signal(number)

    for number in _FORWARDED:
        signal.signal(number, forward)
    code = forked.wait()
    if code < 0:
        signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(sys.argv[2])
    else:
        _run(sys.argv[2], sys.argv[3], sys.argv[4:])
