"""What a prompt is completed with: which words go with a model, and that they are only text."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from studio.core.generation.request import GenerationRequest
from studio.services.submission import Services
from studio.storage.models.library import LoraInfo
from studio.ui.components import prompt_words
from studio.ui.tabs.txt2img import Txt2Img
from support.unopened_page import unopened_page
from support.visitors import ANN, HOSTILE, OWNER
from support.weights import CROSS, kohya_lora, write_weights

pytestmark = pytest.mark.smoke


@pytest.fixture
def folder(desk: Services) -> Path:
    folder = desk.home.settings.embeddings
    (folder / "neg").mkdir(parents=True, exist_ok=True)
    vectors = np.ones((2, 128), np.float32)
    for name in ("EasyNegative", "neg/hands", "foo (v2)", HOSTILE.replace("/", "")):
        save_file({"emb_params": vectors}, folder / f"{name}.safetensors")
    sdxl = {"clip_l": np.ones((1, 768), np.float32), "clip_g": np.ones((1, 1280), np.float32)}
    save_file(sdxl, folder / "xl.safetensors")
    (folder / "old.pt").write_bytes(b"\x80\x02.")
    return folder


def list_words(desk: Services) -> list[dict[str, Any]]:
    library = desk.home.library
    loras = [lora for lora in library.list_loras() if isinstance(lora, LoraInfo)]
    return prompt_words.list_words(library, library.get_model("pocket"), loras, 100)


def test_only_what_goes_with_the_model(desk: Services, folder: Path) -> None:
    words = list_words(desk)
    names = [word["name"] for word in words if word["kind"] == "embedding"]
    assert names == sorted(
        [HOSTILE.replace("/", ""), "EasyNegative", "foo (v2)", "hands", "old"], key=str.casefold
    )
    assert {word["about"] for word in words} == {"embedding, 2 vectors", "embedding", "LoRA"}
    assert "<lora:mysks:1>" in [word["text"] for word in words if word["kind"] == "lora"]
    assert not prompt_words.list_words(desk.home.library, None, [], 100)


def test_a_tag_has_the_weight_that_was_noted(desk: Services) -> None:
    path = write_weights(desk.home.settings.loras / "ink.safetensors", kohya_lora(CROSS))
    path.with_suffix(".json").write_text(json.dumps({"preferred weight": 0.8}))
    assert "<lora:ink:0.8>" in [word["text"] for word in list_words(desk)]


@pytest.mark.parametrize(("noted", "weight"), [(0.8, 0.8), (-1.5, -1.5), (0, 1), (9, 1)])
def test_a_row_has_the_weight_that_was_noted(desk: Services, noted: float, weight: float) -> None:
    path = write_weights(desk.home.settings.loras / "ink.safetensors", kohya_lora(CROSS))
    path.with_suffix(".json").write_text(json.dumps({"preferred weight": noted}))
    with unopened_page():
        tab = Txt2Img(desk)
    values = {tab.form["model"]: "pocket", tab.loras.dropdown: "ink", tab.loras.rows: []}
    row = tab.loras.add_lora(values)[tab.loras.rows].value
    assert row == [{"name": "ink", "unet": weight, "text_encoder": weight}]


def test_each_word_is_what_a_prompt_takes(desk: Services, folder: Path) -> None:
    model = desk.home.library.get_model("pocket")
    for word in list_words(desk):
        if word["kind"] != "embedding" or "<" in word["text"]:  # a file name that no prompt reads
            continue
        request = GenerationRequest(prompt=word["text"])
        uses = desk.home.library.index_embeddings(model).resolve([request])
        assert list(uses.by_name) == [word["name"]]


def test_names_are_only_text(desk: Services, folder: Path) -> None:
    page = prompt_words.render_words(list_words(desk))
    assert "<img" not in page
    assert "<script" not in page
    data = re.search(r'class="prompt-words">(.*?)</div>', page)
    assert data
    words = json.loads(html.unescape(data[1]))
    assert HOSTILE.replace("/", "") in [word["name"] for word in words]


@pytest.mark.parametrize("visitor", [OWNER, ANN])
def test_the_tab_gets_them_with_its_loras(desk: Services, folder: Path, visitor: Any) -> None:
    with unopened_page():
        tab = Txt2Img(desk)
    updates = tab.loras.refresh("pocket", visitor)
    assert "EasyNegative" in updates[tab.loras.words]
    assert str(desk.home.settings.home) not in updates[tab.loras.words]
    again = tab.loras.refresh("pocket", visitor, updates[tab.loras.snapshot])
    assert tab.loras.words not in again


def test_the_live_line_refuses_what_is_not_there(desk: Services, folder: Path) -> None:
    with unopened_page():
        tab = Txt2Img(desk)
    values = {part: part.value for part in tab.form.inputs}
    values |= {tab.form["prompt"]: "embedding:nope"}
    assert "there is no embedding" in html.unescape(tab.update_estimate(values)[tab.estimate])
    values |= {tab.form["prompt"]: "embedding:hands"}
    assert "no embedding" not in tab.update_estimate(values)[tab.estimate]
