"""The weight of the page in Chromium beside a hello-world gradio page: work until ready, requests, elements; then of each tab."""

from __future__ import annotations

import argparse
import statistics
import time
from collections import defaultdict
from typing import Any

from tests.bench.page import QUIET, TYPED, find_chromium, served

TABS = (
    "img2img",
    "Inpaint",
    "Upscale",
    "Sweep",
    "Captions",
    "Training",
    "Gallery",
    "Models",
    "Queue",
)
# What Chromium counts for a page: (its name for it, ours).
METERS = (
    ("TaskDuration", "main thread, s"),
    ("ScriptDuration", "of it script, s"),
    ("RecalcStyleDuration", "of it styles, s"),
    ("LayoutDuration", "of it layout, s"),
)
READY = "document.querySelector('#estimate')?.innerText"


def weight(flags: argparse.Namespace) -> None:
    """Print what the page costs a browser until it is ready, against hello world, and what a tab and a letter cost."""
    chromium = find_chromium()
    if not chromium:
        raise SystemExit("needs Chromium")
    pages: dict[str, dict[str, list[float]]] = {
        "hello": defaultdict(list),
        "studio": defaultdict(list),
    }
    tabs: dict[str, list[float]] = defaultdict(list)
    for _ in range(flags.runs):
        for name, figures in pages.items():
            with served(name, flags.device) as (_process, address, _took):
                time.sleep(8)  # a worker that starts would be in the way
                for key, value in weigh(chromium, address, name == "studio", tabs).items():
                    figures[key].append(value)
    print(f"weight: medians of {flags.runs} runs; hello world, studio, ratio")
    for key in pages["hello"]:
        hello, studio = (statistics.median(pages[name][key]) for name in pages)
        print(f"  {key:24s} {hello:8.2f} {studio:8.2f} {studio / hello if hello else 0:6.2f}")
    print("  renderer, s: goal ≤ 2 times; requests: goal ≤ 60")
    print(
        "main thread, ms: the first visit of a tab (goal ≤ 150), a letter of the prompt (goal ≤ 10)"
    )
    for key, taken in tabs.items():
        print(f"  {key:24s} {statistics.median(taken):8.0f}")


def weigh(
    chromium: str, address: str, is_ours: bool, tabs: dict[str, list[float]]
) -> dict[str, float]:
    """Return what a page has cost when it has settled; and of ours, add what its tabs cost."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        requests: list[str] = []
        sizes: list[float] = []
        page.on("request", lambda request: requests.append(request.url))
        meter = page.context.new_cdp_session(page)
        meter.send("Performance.enable")
        meter.send("Network.enable")
        meter.on("Network.dataReceived", lambda event: sizes.append(event["dataLength"]))
        page.goto(address)
        page.wait_for_selector("button.primary")
        if is_ours:
            page.wait_for_function(READY)
        page.evaluate(QUIET)
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
        browser.close()
    return figures


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
    for title in TABS:
        before = read_meters(meter)["TaskDuration"]
        page.get_by_role("tab", name=title, exact=True).click()
        page.wait_for_timeout(1500)
        page.evaluate(QUIET)
        tabs[title].append((read_meters(meter)["TaskDuration"] - before) * 1000)


def read_meters(meter: Any) -> dict[str, float]:
    metrics = meter.send("Performance.getMetrics")["metrics"]
    return {metric["name"]: float(metric["value"]) for metric in metrics}


def read_renderer_seconds(browser: Any) -> float:
    """Return the seconds of all threads of the browser's renderers."""
    session = browser.new_browser_cdp_session()
    processes = session.send("SystemInfo.getProcessInfo")["processInfo"]
    return sum(process["cpuTime"] for process in processes if process["type"] == "renderer")
