"""Progress of the work: a live bar on a terminal, a plain line in a log from time to time."""

import os
import sys
import time

from tqdm import tqdm

from hrtemvae_hpc.errors import printable

_FIRST_LINE_S = 5.0
_LONGEST_SILENCE_S = 60.0


def on_terminal() -> bool:
    """Whether standard error ends on a terminal, directly or through a launcher on this host."""
    if sys.stderr.isatty():
        return True
    # A launcher reads our standard error through a pipe and shows it on its own.
    pid = os.getppid()
    for _ in range(3):
        try:
            if os.readlink(f"/proc/{pid}/fd/2").startswith(("/dev/pts/", "/dev/tty")):
                return "OMPI_COMM_WORLD_SIZE" in os.environ or "PMI_SIZE" in os.environ
            with open(f"/proc/{pid}/stat") as file:
                pid = int(file.read().rpartition(")")[2].split()[1])
        except (OSError, ValueError, IndexError):
            return False
    return False


class Progress:
    """Counts ``total`` units of work, and the larger ``steps`` they belong to, if any."""

    def __init__(
        self, total: int, unit: str, steps: int = 0, step: str = "", done: int = 0, steps_done: int = 0
    ) -> None:
        self.total = total
        self.unit = unit
        self.steps = steps
        self.step = step
        self.steps_done = steps_done
        self._done = self._already = done
        self._began = self._last = time.monotonic()
        self._pause = _FIRST_LINE_S
        self._bar = None
        if on_terminal():
            self._bar = tqdm(
                total=total,
                initial=done,
                unit=unit,
                unit_scale=True,
                dynamic_ncols=True,
                mininterval=0.3,
                smoothing=0.05,
            )

    def begin(self) -> None:
        """Measure the rate from now on."""
        self._began = time.monotonic()

    def update(self, done: int, steps_done: int = 0, note: str = "") -> None:
        """Show that ``done`` units and ``steps_done`` steps are finished, and a ``note`` beside them."""
        self.steps_done = steps_done
        place = f"{self.step} {steps_done}/{self.steps}" if self.steps else ""
        now = time.monotonic()
        if self._bar is not None:
            self._bar.set_postfix_str(", ".join(filter(None, (place, note))), refresh=False)
            self._bar.update(done - self._done)
        elif now - self._last > self._pause and done < self.total:
            rate = (done - self._already) / (now - self._began) if done > self._already else 0.0
            speed = f"{_rate(rate)} {self.unit}s/s, {format_seconds((self.total - done) / rate)} left" if rate else ""
            share = 100 * done / self.total
            words = (f"{share:.0f}%", place.replace("/", " of "), note, speed)
            say(", ".join(filter(None, words)))
            self._last, self._pause = now, min(2 * self._pause, _LONGEST_SILENCE_S)
        self._done = done

    @property
    def live(self) -> bool:
        """Whether it is a bar on a terminal."""
        return self._bar is not None

    def close(self) -> None:
        """Leave the terminal's line."""
        if self._bar is not None:
            self._bar.close()


def _rate(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 10 else f"{rate:.2g}"


def say(text: str) -> None:
    """A line, or lines, to the person watching."""
    tqdm.write("\n".join(map(printable, text.split("\n"))), file=sys.stderr)
    sys.stderr.flush()


def format_seconds(seconds: float) -> str:
    """A duration as people write it."""
    if seconds < 99:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60:02d} min"
