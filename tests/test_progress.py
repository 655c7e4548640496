"""What a log says about work that resumed."""

import time

import pytest

from hrtemvae_hpc.ranks.progress import Progress


def test_the_rate_counts_from_the_beginning(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    shown = Progress(1000, "window", 10, "tile", done=100, steps_done=1)
    for clock[0], done, note in ((90.0, 100, "70% staged"), (100.0, 100, "99% staged"), (300.0, 500, "")):
        if note:
            shown.begin()
        shown.update(done, done // 100, note)
    assert capsys.readouterr().err.splitlines() == [
        "10%, tile 1 of 10, 70% staged",
        "50%, tile 5 of 10, 2 windows/s, 4 min left",
    ]
