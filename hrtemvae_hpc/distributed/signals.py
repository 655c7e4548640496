"""Signals that ask a rank to stop, noted for its main loop."""

import os
import signal
from types import FrameType

from hrtemvae_hpc.distributed.guard import STOP_SIGNALS, orphaned


class StopRequest:
    """Becomes true when SIGTERM, SIGUSR1 or SIGINT came, or the guardian process is gone."""

    def __init__(self) -> None:
        self.name = ""
        for number in STOP_SIGNALS:
            signal.signal(number, self._note)

    def _note(self, number: int, _: FrameType | None) -> None:
        self.name = self.name or signal.Signals(number).name

    def __bool__(self) -> bool:
        if not self.name and orphaned():
            self.name = f"the end of its guardian process (now under {os.getppid()})"
        return bool(self.name)
