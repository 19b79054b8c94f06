"""A studio to look at in a real browser, and the hands that use it."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import psutil
from playwright.sync_api import Locator, Page, expect

CHROMIUM = next(
    (
        found
        for name in ("chromium-headless-shell", "chromium", "google-chrome")
        if (found := shutil.which(name))
    ),
    None,
)
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
SHOTS = os.environ.get(
    "STUDIO_SHOTS"
)  # a folder: the tests leave screenshots there for whoever wants to look
HOSTILE = "<img src=x onerror=document.title='pwned'>"
expect.set_options(timeout=30_000)


class Studio:
    """A studio as a user starts it, on a home of its own."""

    def __init__(self, home: Path) -> None:
        self.home = home
        with socket.socket() as trial:
            trial.bind(("127.0.0.1", 0))
            self.port = trial.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/"
        self.start()

    def start(self) -> None:
        words = ["--home", str(self.home), "--device", "cpu", "--port", str(self.port)]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "studio", *words], stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout
        assert self.url.rstrip("/") in self.process.stdout.readline()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def workers(self) -> list[psutil.Process]:
        lines = [
            (process, process.info["cmdline"] or []) for process in psutil.process_iter(["cmdline"])
        ]
        return [
            process
            for process, line in lines
            if "studio.engine.worker" in line and str(self.home) in line
        ]

    def end(self) -> None:
        self.kill()
        for worker in self.workers():
            worker.kill()


class Traffic:
    """How many bytes a page receives, answers that stream included."""

    def __init__(self, page: Page) -> None:
        self.num_bytes = 0
        session = page.context.new_cdp_session(page)
        session.on("Network.dataReceived", self._add)
        session.send("Network.enable")

    def _add(self, event: dict[str, Any]) -> None:
        self.num_bytes += event["dataLength"]

    def take(self) -> int:
        """Return the bytes since the last call."""
        num_bytes, self.num_bytes = self.num_bytes, 0
        return num_bytes


def shot(page: Page, name: str) -> None:
    if SHOTS:
        page.evaluate("scrollTo(0, 0)")
        page.wait_for_timeout(700)
        page.screenshot(path=Path(SHOTS) / f"{name}.png")


def put(page: Page, **fields: object) -> None:
    for name, value in fields.items():
        box = (
            page.locator(f"#txt2img-{name.replace('_', '-')}")
            .locator("textarea, input[type=number]")
            .first
        )
        box.fill(str(value))
        box.blur()


def ask(page: Page, **fields: object) -> None:
    put(page, **fields)
    page.locator("#generate").click()


def state(page: Page, name: str) -> None:
    expect(page.locator(f"#live [data-state={name}]")).to_be_visible(timeout=60_000)


def shown(page: Page) -> bytes:
    """The bytes of the picture that the page shows."""
    image = page.locator("#result img").first
    expect(image).to_be_visible()
    return page.request.get(str(image.evaluate("one => one.src"))).body()


def go(page: Page, tab: str = "Sweep") -> None:
    expect(page.get_by_role("tab", name="txt2img", exact=True)).to_be_visible(timeout=120_000)
    button = page.get_by_role("tab", name=tab, exact=True)
    if button.is_visible():
        button.click()
    else:
        page.locator("#tabs .overflow-menu button").first.click()
        page.locator("#tabs .overflow-dropdown").get_by_text(tab, exact=True).click()


def done(page: Page, cells: int, said: str = "done") -> None:
    expect(page.locator(f".sweep-head[data-state={said}][data-done='{cells}']")).to_be_visible(
        timeout=90_000
    )


def body(page: Page, image: Locator) -> bytes:
    expect(image).to_be_visible()
    return page.request.get(str(image.evaluate("one => one.src"))).body()


def place(image: Locator) -> Path:
    """The file that an image's address names."""
    return Path(unquote(urlsplit(str(image.get_attribute("src"))).path).split("file=", 1)[1])


def fill_training(page: Page, **fields: object) -> None:
    """Fill fields of the form, those in the accordion too."""
    for name, value in fields.items():
        box = page.locator(f"#training-{name.replace('_', '-')}").locator("textarea, input").first
        if not box.is_visible():
            page.locator("#train-rest > button").click()
        box.fill(str(value))
        box.blur()


def run_is(page: Page, *states: str) -> None:
    expect(page.locator("#run-head .run-head")).to_have_attribute(
        "data-state", re.compile("|".join(states)), timeout=240_000
    )


def fill(page: Page, element: str, text: str) -> None:
    box = page.locator(f"#{element}").locator("textarea, input").first
    box.fill(text)
    box.blur()


def opened(page: Page, name: str) -> None:
    go(page, "Captions")
    page.locator("#caption-dataset input").click()
    page.get_by_role("option", name=name, exact=True).click()
    expect(page.locator("#album-found .album-found")).to_be_visible()
