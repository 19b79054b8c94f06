"""The line under Generate: it says while somebody types what Generate would refuse, and how long the prompts are."""

from __future__ import annotations

import html
import json
import re
import time
from collections.abc import Iterator
from typing import Any

import gradio as gr
import pytest

from studio.core.generation.request import GenerationRequest
from studio.services.submission import Services
from studio.services.visitor import Visitor
from studio.settings import load
from studio.storage.home import Home
from studio.ui.errors import MOST_ERROR_SECONDS
from studio.ui.tabs.txt2img import Txt2Img
from support.unopened_page import unopened_page
from support.visitors import ANN, OWNER


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Txt2Img]:
    settings = load(home=tmp_path_factory.mktemp("home"), device="cpu")
    wildcards = settings.home / "wildcards"
    wildcards.mkdir(parents=True, exist_ok=True)
    (wildcards / "season.txt").write_text("spring\nwinter\n")
    home = Home(settings)
    home.gallery.sync()
    with unopened_page():
        yield Txt2Img(Services(home))
    home.close()


def page(tab: Txt2Img, **values: Any) -> dict[Any, Any]:
    """What a browser sends of a form with these values."""
    default = GenerationRequest()
    form = {tab.form[name]: getattr(default, name) for name in tab.form.components}
    form |= {tab.form["width"]: 64, tab.form["height"]: 64}
    return form | {tab.form[name]: value for name, value in values.items()}


def read_line(shown: str) -> tuple[str, dict[str, str], dict[str, str]]:
    """Return the line's words, the sentences beside fields, and the lengths of prompts."""
    attributes = dict(re.findall(r'data-([a-z]+)="([^"]*)"', shown))
    placed = json.loads(html.unescape(attributes["faults"]))["faults"]
    tokens = json.loads(html.unescape(attributes.get("tokens", "[]")))
    words = html.unescape(re.sub(r"<[^>]+>", "", shown)).strip()
    return words, {element: text for element, _, text in placed}, dict(tokens)


def check(tab: Txt2Img, by: Any, visitor: Visitor = OWNER, **values: Any) -> Any:
    return read_line(tab.update_estimate(page(tab, **values), by(visitor))[tab.estimate])


# What Generate refuses, and the field beside which that stands (none for what is no field's alone).
REFUSED: list[tuple[dict[str, Any], str]] = [
    (
        {"prompt": "a cat AND a dog", "negative_prompt": "x <lora:moon:1>"},
        "txt2img-negative-prompt",
    ),
    ({"prompt": "a dog <lora:nothere:0.5>"}, ""),
    ({"prompt": "a __seasons__ day"}, "txt2img-prompt"),
    ({"prompt": "embedding:nothere"}, "txt2img-prompt"),
    ({"width": 505}, "txt2img-width"),
    ({"height": 99999}, "txt2img-height"),
    ({"seed": 2**40}, "txt2img-seed"),
    ({"seed": "much"}, "txt2img-seed"),
    ({"scheduler": "Euler a", "noise_schedule": "Karras"}, "txt2img-noise-schedule"),
    ({"steps": 0}, "txt2img-steps"),
    ({"model": "nothere"}, ""),
    ({"vae": "nothere"}, ""),
]


@pytest.mark.parametrize(("values", "element"), REFUSED, ids=[str(values) for values, _ in REFUSED])
def test_what_generate_refuses_is_said_before(
    tab: Txt2Img, by: Any, values: dict[str, Any], element: str
) -> None:
    with pytest.raises(gr.Error) as caught:
        tab.submit(page(tab, **values), by(OWNER))
    words, placed, _ = check(tab, by, **values)
    assert words.splitlines()[0] == html.unescape(caught.value.message)
    assert list(placed) == ([element] if element else [])
    # What stands beside a field needs no toast; what does not has one, that leaves.
    assert caught.value.visible is not bool(element)
    assert 0 < caught.value.duration <= MOST_ERROR_SECONDS


def test_all_wrong_fields_are_marked_and_the_line_is_one_sentence(tab: Txt2Img, by: Any) -> None:
    words, placed, _ = check(tab, by, width=505, seed=-7, steps=1000)
    assert set(placed) == {"txt2img-width", "txt2img-seed", "txt2img-steps"}
    assert words.endswith("And 2 more.")
    assert placed["txt2img-width"].startswith("Must be a multiple of 8")


def test_a_mended_form_says_how_long_it_takes(tab: Txt2Img, by: Any) -> None:
    words, placed, _ = check(tab, by, prompt="a cat AND a dog, a __season__ day")
    assert "20 steps" in words
    assert not placed


def test_a_refusal_goes_to_its_field_and_busy_does_not(tab: Txt2Img, by: Any) -> None:
    shown = tab.explain_refusal(page(tab, width=505), by(OWNER))
    assert "data-refusal=" in shown
    assert shown != tab.explain_refusal(page(tab, width=505), by(OWNER))  # each is a new one
    assert "data-refusal=" not in tab.update_estimate(page(tab, width=505), by(OWNER))[tab.estimate]
    assert tab.explain_refusal(page(tab), by(OWNER)) == gr.skip()


def test_guests_are_told_their_limits(tab: Txt2Img, by: Any) -> None:
    limit = GenerationRequest.model_fields["steps"].json_schema_extra["guest_max"]  # type: ignore[index]
    assert not check(tab, by, ANN, steps=limit)[1]
    assert set(check(tab, by, ANN, steps=limit + 1)[1]) == {"txt2img-steps"}


def test_prompts_are_counted(tab: Txt2Img, by: Any) -> None:
    from transformers import CLIPTokenizer

    from support.models import POCKET

    stock = CLIPTokenizer.from_pretrained(POCKET / "tokenizer")
    text = "a photo of a red ball on a beach"
    length = len(stock(text).input_ids) - 2
    for prompt in (text, f"({text}:1.2)", f"{text}<lora:moon:0.5>"):
        tokens = check(tab, by, prompt=prompt, negative_prompt="")[2]
        assert tokens == {
            "txt2img-prompt": f"{length} / 75",
            "txt2img-negative-prompt": "0 / 75",
        }
    long = check(tab, by, prompt=" ".join([text] * 9))[2]["txt2img-prompt"]
    assert long == f"{9 * length} / {75 * -(-9 * length // 75)}"
    assert (
        check(tab, by, prompt=f"{text} BREAK {text}")[2]["txt2img-prompt"] == f"{75 + length} / 150"
    )
    assert check(tab, by, prompt=f"[{text}:a:0.5]")[2]["txt2img-prompt"] == f"{length} / 75"


def test_the_check_is_quick(tab: Txt2Img, by: Any) -> None:
    values = page(tab, prompt="a photo of a (red:1.2) ball, on a beach " * 12, num_images=100)
    seconds = []
    for number in range(9):
        values[tab.form["negative_prompt"]] = f"nothing {number}"
        start = time.process_time()
        tab.update_estimate(values, by(OWNER))
        seconds.append(time.process_time() - start)
    assert sorted(seconds)[4] < 0.030, seconds
