"""Ctrl + C and SIGTERM end a command at every moment, also where a library catches everything."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from studio.cli import signals
from studio.cli.signals import Interrupted, hear_signals

ENDING = [(signal.SIGINT, 130), (signal.SIGTERM, 143)]
SWALLOW = """
import sys, time
from studio.cli import signals
signals.GRACE_SECONDS = 0.2
with signals.hear_signals():
    while True:
        try:
            print("here", flush=True)
            time.sleep(60)
        except BaseException:
            pass
"""
MOMENTS = [
    0.05,
    0.3,
    0.8,
    1.5,
    3.0,
    5.0,
    8.0,
    12.0,
]  # seconds after the start; a page opens after about 5


@pytest.mark.parametrize(("number", "status"), ENDING)
def test_a_signal_that_is_swallowed_ends_the_process_all_the_same(
    number: signal.Signals, status: int
) -> None:
    process = subprocess.Popen([sys.executable, "-c", SWALLOW], stdout=subprocess.PIPE)
    assert process.stdout
    assert process.stdout.readline() == b"here\n"
    process.send_signal(number)
    assert process.stdout.readline() == b"here\n"  # it goes on
    assert process.wait(10) == status
    process.stdout.close()


@pytest.mark.parametrize(("number", "status"), ENDING)
def test_a_signal_that_is_heard_says_which(
    number: signal.Signals, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signals.threading, "Timer", NoTimer)
    before = [signal.getsignal(one) for one, _ in ENDING]
    with pytest.raises(Interrupted) as caught, hear_signals():
        signal.raise_signal(number)
    assert caught.value.exit_status == status
    assert [signal.getsignal(one) for one, _ in ENDING] == before


class NoTimer:
    """In place of the one that would end the tests."""

    daemon = False

    def __init__(self, *_values: object) -> None:
        pass

    def start(self) -> None:
        """Never ring."""


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_page_ends_whenever_it_is_asked_to(tmp_path: Path, number: signal.Signals) -> None:
    """From the first moment, in which Python itself starts, to an open page."""
    command = [sys.executable, "-m", "studio", "--port", "0", "--device", "cpu", "--home"]
    late = {}
    for moment in MOMENTS:
        with open(tmp_path / "log.txt", "wb") as log:
            process = subprocess.Popen(
                [*command, str(tmp_path / f"home-{moment}")], stdout=log, stderr=log
            )
            time.sleep(moment)
            process.send_signal(number)
            began = time.monotonic()
            status = process.wait(60)
        # Before its first line a process ends as the system has it, by the signal itself, or as
        # Python has it where it still looks for its packages.
        text = (tmp_path / "log.txt").read_text()
        is_python_alone = status == 1 and text.startswith("Fatal Python error: init_import_site")
        assert is_python_alone or status in (128 + number, -number), (moment, text)
        seconds = time.monotonic() - began
        if seconds > signals.GRACE_SECONDS + 3:  # of a busy machine
            late[moment] = seconds
    assert not late
