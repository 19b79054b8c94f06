"""The weight of the page in Chromium beside a hello-world gradio page: work until ready, requests, elements; then of each tab."""

from __future__ import annotations

import argparse
import statistics
import time
from collections import defaultdict
from typing import Any

from tests.bench.page import (
    QUIET,
    TYPED,
    find_chromium,
    open_meter,
    opened_browser,
    read_meters,
    served,
    settle,
)

# What Chromium counts for a page: (its name for it, ours).
METERS = (
    ("TaskDuration", "main thread, s"),
    ("ScriptDuration", "of it script, s"),
    ("RecalcStyleDuration", "of it styles, s"),
    ("LayoutDuration", "of it layout, s"),
)


def weight(flags: argparse.Namespace) -> None:
    """Print what the page costs a browser until it is ready, against hello world, and what a tab and a letter cost.

    With --against also of another checkout of the studio, in the same run.
    """
    chromium = find_chromium()
    if not chromium:
        raise SystemExit("needs Chromium")
    checkouts = {"hello": "", "studio": ""} | ({"against": flags.against} if flags.against else {})
    pages: dict[str, dict[str, list[float]]] = {name: defaultdict(list) for name in checkouts}
    tabs: dict[str, dict[str, list[float]]] = {name: defaultdict(list) for name in checkouts}
    for _ in range(flags.runs):
        for name, checkout in checkouts.items():
            opened = served("hello" if name == "hello" else "studio", flags.device, checkout)
            with opened as (_process, address, _took):
                time.sleep(8)  # a worker that starts would be in the way
                for key, value in weigh(chromium, address, name != "hello", tabs[name]).items():
                    pages[name][key].append(value)
    print(f"weight: medians of {flags.runs} runs; {', '.join(checkouts)}; times hello world")
    for key in pages["hello"]:
        values = [statistics.median(figures[key]) for figures in pages.values()]
        ratios = [value / values[0] if values[0] else 0 for value in values[1:]]
        print(f"  {key:24s}" + "".join(f" {value:8.2f}" for value in [*values, *ratios]))
    print("  renderer, s: goal ≤ 2 times; requests: goal ≤ 60")
    print(
        "main thread, ms: the first visit of a tab (goal ≤ 150), a letter of the prompt (goal ≤ 10)"
    )
    for key in tabs["studio"]:
        taken = [statistics.median(tabs[name][key]) for name in checkouts if key in tabs[name]]
        print(f"  {key:24s}" + "".join(f" {value:8.0f}" for value in taken))


def weigh(
    chromium: str, address: str, is_ours: bool, tabs: dict[str, list[float]]
) -> dict[str, float]:
    """Return what a page has cost when it has settled; and of ours, add what its tabs cost."""
    with opened_browser(chromium) as browser:
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        requests: list[str] = []
        sizes: list[float] = []
        page.on("request", lambda request: requests.append(request.url))
        meter = open_meter(page)
        meter.send("Network.enable")
        meter.on("Network.dataReceived", lambda event: sizes.append(event["dataLength"]))
        settle(page, address, is_ours)
        figures = {"renderer, s": read_renderer_seconds(browser)}
        read = read_meters(meter)
        figures |= {ours: read[theirs] for theirs, ours in METERS}
        figures |= {
            "requests": float(len(requests)),
            "received, kB": sum(sizes) / 1000,
            "elements": float(page.evaluate("document.querySelectorAll('*').length")),
        }
        if is_ours:
            weigh_letters(page, meter, tabs)
            weigh_tabs(page, meter, tabs)
    return figures


def press(flags: argparse.Namespace) -> None:
    """Print what a press that fills the training form costs the page, and with gradio's own script."""
    from studio.ui.gradio_script import ASSETS_FOLDER, build_script

    chromium, built = find_chromium(), build_script()
    if not chromium or not built:
        raise SystemExit("needs Chromium, and the gradio whose script is known")
    own = (ASSETS_FOLDER / built[0]).read_text("utf-8")
    scripts = {"looked up": "", "gradio's own": own}
    spent: dict[str, list[float]] = {name: [] for name in scripts}
    with served("studio", flags.device) as (_process, address, _took):
        time.sleep(8)
        for _ in range(flags.runs):
            for name, script in scripts.items():
                spent[name].append(weigh_press(chromium, address, script))
    print(
        f"press: main thread of a press that fills the training form, medians of {flags.runs} runs"
    )
    for name, seconds in spent.items():
        print(f"  {name:16s} {statistics.median(seconds):6.2f} s")


def weigh_press(chromium: str, address: str, script: str) -> float:
    """Return the main thread's seconds; `script` stands in for the core script that is served."""
    with opened_browser(chromium) as browser:
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.set_default_timeout(180_000)
        if script:
            page.route(
                "**/assets/core-*.js",
                lambda route: route.fulfill(body=script, content_type="text/javascript"),
            )
        meter = open_meter(page)
        settle(page, address, True)
        page.get_by_role("tab", name="Training", exact=True).click()
        button = page.get_by_role("button", name="The Moon, in a few minutes")
        button.wait_for()
        page.wait_for_timeout(1500)
        page.evaluate(QUIET)
        before = read_meters(meter)["TaskDuration"]
        button.click()
        page.locator("#train-pictures .dataset").wait_for()
        page.wait_for_timeout(1500)
        page.evaluate(QUIET)
        spent = read_meters(meter)["TaskDuration"] - before
    return spent


def weigh_letters(page: Any, meter: Any, tabs: dict[str, list[float]]) -> None:
    box = page.locator("#txt2img-prompt textarea")
    box.click()
    page.wait_for_timeout(1000)
    before = read_meters(meter)["TaskDuration"]
    box.press_sequentially(TYPED, delay=80)
    page.wait_for_timeout(1500)
    spent = read_meters(meter)["TaskDuration"] - before
    tabs["a letter"].append(spent / len(TYPED) * 1000)


def weigh_tabs(page: Any, meter: Any, tabs: dict[str, list[float]]) -> None:
    from studio.ui.app import TABS  # the first is open already

    for title, _build in [*TABS.values()][1:]:
        button = page.get_by_role("tab", name=title, exact=True)
        if not button.count():
            continue  # an older page has fewer
        before = read_meters(meter)["TaskDuration"]
        button.click()
        page.wait_for_timeout(1500)
        page.evaluate(QUIET)
        tabs[title].append((read_meters(meter)["TaskDuration"] - before) * 1000)


def read_renderer_seconds(browser: Any) -> float:
    """Return the seconds of all threads of the browser's renderers."""
    session = browser.new_browser_cdp_session()
    processes = session.send("SystemInfo.getProcessInfo")["processInfo"]
    return sum(process["cpuTime"] for process in processes if process["type"] == "renderer")
