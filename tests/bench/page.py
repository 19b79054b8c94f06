"""The page against a hello-world gradio app: from its start to the first answer, in Chromium until it has settled, and idle."""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from typing import Any

import psutil

HELLO = (
    "import sys, gradio as gr; page = gr.Interface(lambda name: 'Hello ' + name, 'text', 'text'); "
    "page.launch(server_port=int(sys.argv[1]), quiet=True)"
)
QUIET = """() => new Promise(done => { let last = performance.now(), calm = 0; const look = () => { const now = performance.now();
  calm = now - last < 60 ? calm + 1 : 0; last = now; calm > 20 ? done() : setTimeout(look, 20); }; look(); })"""
READY = "document.querySelector('#estimate')?.innerText"
TYPED = "a rather long name"
IDLE = 10.0  # seconds for which nobody asks for anything


def page(flags: argparse.Namespace) -> None:
    """Print seconds to the first answer, then to a page that has settled, what a typed letter costs among sixty fields, and what
    the page's process takes while nobody looks at it."""
    up: dict[str, list[float]] = {"hello": [], "studio": []}
    settled: dict[str, list[float]] = {"hello": [], "studio": []}
    idle: dict[str, list[float]] = {"hello": [], "studio": []}
    letters: list[float] = []
    for _ in range(max(3, flags.runs // 2)):
        for name in up:
            with served(name, flags.device) as (process, address, took):
                up[name].append(took)
                if chromium := find_chromium():
                    time.sleep(8)  # a worker that starts would be in the way
                    seconds, letter = _looked_at(chromium, address, name == "studio")
                    settled[name].append(seconds)
                    letters += letter
                time.sleep(2)
                idle[name].append(psutil.Process(process).cpu_percent(IDLE))
    print("page: seconds from start to the first answer; until it has settled in Chromium")
    for name, taken in (
        *up.items(),
        *((f"{name}, browser", taken) for name, taken in settled.items() if taken),
    ):
        print(
            f"  {name:16s} median {statistics.median(taken):.2f} s ({min(taken):.2f} … {max(taken):.2f}, {len(taken)} runs)"
        )
    print(
        f"  ratio {statistics.median(up['studio']) / statistics.median(up['hello']):.2f} (goal ≤ 1.3)"
    )
    print(
        f"  idle: {statistics.median(idle['studio']):.1f} % of a core; hello {statistics.median(idle['hello']):.1f} %"
    )
    if letters:
        print(
            f"  a letter typed in the Training tab keeps the page busy for {statistics.median(letters):.0f} ms"
        )


@contextlib.contextmanager
def served(name: str, device: str, checkout: str = "") -> Iterator[tuple[int, str, float]]:
    """Open a page in a process of its own: its number, its address, and the seconds until it answered.

    `checkout`: a folder with another version of the studio, which is opened instead.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
        line = (
            [sys.executable, "-c", HELLO, str(port)]
            if name == "hello"
            else [
                sys.executable,
                "-m",
                "studio",
                "--port",
                str(port),
                "--home",
                home,
                "--device",
                device,
            ]
        )
        place = {"cwd": checkout, "env": os.environ | {"PYTHONPATH": checkout}} if checkout else {}
        began = time.perf_counter()
        process = subprocess.Popen(
            line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **place
        )
        try:
            while True:
                if process.poll() is not None:
                    raise SystemExit(f"{' '.join(line)} ended with {process.returncode}")
                try:
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5).read()
                    break
                except OSError:
                    time.sleep(0.02)
            yield process.pid, f"http://127.0.0.1:{port}/", time.perf_counter() - began
        finally:
            process.terminate()
            process.wait()


def _looked_at(chromium: str, address: str, ours: bool) -> tuple[float, list[float]]:
    """Seconds until nothing moves any more, and milliseconds of a typed letter."""
    with opened_browser(chromium) as browser:
        view = browser.new_page()
        began = time.perf_counter()
        settle(view, address, ours)
        took, letters = time.perf_counter() - began, []
        if ours:
            view.get_by_role("tab", name="Training", exact=True).click()
            wait_until(view, "document.querySelector('#tab-training')?.inert === false")
            view.evaluate(QUIET)
            meter = open_meter(view)
            box = view.locator("#training-name").locator("input, textarea").first
            box.click()
            before = read_meters(meter)["TaskDuration"]
            box.press_sequentially(TYPED, delay=80)
            view.wait_for_timeout(1500)
            spent = read_meters(meter)["TaskDuration"] - before
            letters = [spent / len(TYPED) * 1000]
    return took, letters


@contextlib.contextmanager
def opened_browser(chromium: str) -> Iterator[Any]:
    """A Chromium for as long as it is looked through."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", "--disable-gpu"]
        )
        yield browser
        browser.close()


def settle(view: Any, address: str, ours: bool) -> None:
    """Open a page, and wait until it can be used and nothing moves any more."""
    view.goto(address)
    view.wait_for_selector("button.primary")
    if ours:
        wait_until(view, READY)
    view.evaluate(QUIET)


def open_meter(view: Any) -> Any:
    """What Chromium counts for a page from now on."""
    meter = view.context.new_cdp_session(view)
    meter.send("Performance.enable")
    return meter


def read_meters(meter: Any) -> dict[str, float]:
    """Chromium's figures by their names; of times, the seconds so far."""
    metrics = meter.send("Performance.getMetrics")["metrics"]
    return {metric["name"]: float(metric["value"]) for metric in metrics}


def wait_until(view: Any, expression: str) -> None:
    """Wait for JavaScript to be true; the page's own rules forbid Playwright's `wait_for_function`."""
    for _ in range(600):
        if view.evaluate(f"Boolean({expression})"):
            return
        view.wait_for_timeout(100)
    raise SystemExit(f"never true: {expression}")


def find_chromium() -> str | None:
    """Return where Chromium is, if it is here."""
    return next(
        (
            found
            for name in ("chromium-headless-shell", "chromium", "google-chrome")
            if (found := shutil.which(name))
        ),
        None,
    )
