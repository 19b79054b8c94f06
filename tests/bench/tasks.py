"""Three tasks as a person does them in Chromium: presses, scrolls and seconds, on this page and on another checkout's."""

from __future__ import annotations

import argparse
import time
from typing import Any

from tests.bench.page import find_chromium, opened_browser, served

SAMPLERS = ("Euler", "Heun", "DPM++ 2M", "DDIM")
# Whether an element is in view, in the window and in the panes that scroll.
IN_VIEW = """element => {
  const {left, top, right, bottom} = element.getBoundingClientRect();
  const x = (left + right) / 2, y = (top + bottom) / 2;
  if (top < 0 || bottom > innerHeight || right - left < 1) return false;
  const seen = document.elementFromPoint(x, y);
  return Boolean(seen) && (element.contains(seen) || seen.contains(element));
}"""
DONE = "[data-state=done]"


class Hand:
    """Presses and scrolls as somebody who looks before pressing, and counts both."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self.presses = 0
        self.scrolls = 0

    def bring(self, target: Any) -> Any:
        """Scroll to an element if it is out of view."""
        target.wait_for()
        if not target.evaluate(IN_VIEW):
            self.scrolls += 1
            target.scroll_into_view_if_needed()
        return target

    def press(self, target: Any) -> None:
        self.bring(target).click()
        self.presses += 1

    def write(self, target: Any, text: str) -> None:
        self.press(target)
        target.fill(text)

    def choose(self, field: str, option: str) -> None:
        self.press(self.page.locator(f"{field} input").first)
        self.press(self.page.get_by_role("option", name=option, exact=True).first)


def tasks(flags: argparse.Namespace) -> None:
    """Print what three tasks take: presses, scrolls and seconds, waiting for images included.

    With --against also on another checkout of the studio, in the same run.
    """
    chromium = find_chromium()
    if not chromium:
        raise SystemExit("needs Chromium")
    checkouts = {"studio": ""} | ({"against": flags.against} if flags.against else {})
    taken: dict[str, dict[str, tuple[int, int, float]]] = {}
    for name, checkout in checkouts.items():
        opened = served("studio", flags.device, checkout)
        with opened as (_process, address, _took), opened_browser(chromium) as browser:
            time.sleep(8)  # a worker that starts would be in the way
            page = browser.new_page(viewport={"width": 1280, "height": 800})
            page.set_default_timeout(90_000)
            page.goto(address)
            page.locator("#txt2img-prompt textarea").wait_for()
            page.wait_for_timeout(4000)
            taken[name] = do_tasks(page)
    print(f"tasks at 1280 x 800: presses, scrolls, seconds; {', '.join(checkouts)}")
    for title in taken["studio"]:
        figures = [taken[name][title] for name in checkouts]
        text = "; ".join(f"{presses} {scrolls} {took:5.1f}" for presses, scrolls, took in figures)
        print(f"  {title:56s} {text}")


def do_tasks(page: Any) -> dict[str, tuple[int, int, float]]:
    """Do all three; return presses, scrolls and seconds by title."""
    page.locator("#txt2img-prompt textarea").fill("a photo of a white moon by a lake")
    page.locator("#txt2img-steps input[type=number]").fill("6")
    page.locator("#generate").click()
    page.locator(f"#live {DONE}").wait_for()
    page.wait_for_timeout(1500)
    done = {}
    for title, do in (
        ("another sampler, generate again, see it", change_sampler),
        ("repaint a part: send, paint, prompt, generate, see it", repaint_part),
        ("four samplers at three step counts, keep the best", compare_samplers),
    ):
        hand = Hand(page)
        began = time.perf_counter()
        do(page, hand)
        done[title] = hand.presses, hand.scrolls, time.perf_counter() - began
    return done


def change_sampler(page: Any, hand: Hand) -> None:
    before = page.locator("#result img").first.get_attribute("src")
    hand.choose("#txt2img-scheduler", "Heun")
    hand.press(page.locator("#generate"))
    page.wait_for_selector(f'#result img:not([src="{before}"])')
    hand.bring(page.locator("#result img").first)


def repaint_part(page: Any, hand: Hand) -> None:
    hand.press(page.locator("#send-txt2img-inpaint"))
    canvas = page.locator("#inpaint-easel canvas").first
    page.locator("#inpaint-easel .easel[data-state=there]").wait_for()
    page.wait_for_timeout(700)
    box = hand.bring(canvas).bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x - 20, y)
    page.mouse.down()
    page.mouse.move(x + 20, y, steps=5)
    page.mouse.up()
    hand.presses += 1
    hand.write(page.locator("#inpaint-prompt textarea"), "a photo of a red ball by a lake")
    hand.press(page.locator("#inpaint-generate"))
    page.locator(f"#inpaint-live {DONE}").wait_for()
    hand.bring(page.locator("#inpaint-result img").first)


def compare_samplers(page: Any, hand: Hand) -> None:
    hand.press(page.get_by_role("tab", name="Sweep", exact=True))
    hand.write(page.locator("#sweep-prompt textarea"), "a photo of a white moon by a lake")
    for sampler in SAMPLERS:
        ticks = page.locator("#axis-1-ticks label")
        hand.press(ticks.filter(has=page.get_by_text(sampler, exact=True)).first)
        page.wait_for_timeout(250)
    hand.press(page.locator("#axis-add"))
    hand.choose("#axis-2-field", "Steps")
    values = page.locator("[id=axis-2] textarea:visible, [id=axis-2] input[type=text]:visible").last
    page.wait_for_timeout(700)
    hand.write(values, "4, 8, 12")
    page.keyboard.press("Tab")
    page.wait_for_timeout(700)
    hand.press(page.locator("#sweep-run"))
    page.locator(f".sweep-head{DONE}[data-done='12']").wait_for()
    hand.press(page.locator("#sweep-grid .tile").nth(9))
    hand.press(page.locator(".judging .best:visible").first)
