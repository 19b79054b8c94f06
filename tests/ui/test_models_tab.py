"""The Models tab without a browser: what lies in the wrong folder is moved by a click of the owner's."""

from __future__ import annotations

import html
from typing import Any

import gradio as gr
import pytest

from studio.services.submission import Services
from studio.ui.tabs.models import ModelsTab
from support.sentences import refused
from support.visitors import ANN, HOSTILE, OWNER, Asked, pressed
from support.weights import CROSS, SDXL, WHOLE, kohya_lora, write_weights


@pytest.fixture
def tab(desk: Services, by: Any) -> ModelsTab:
    with gr.Blocks():
        return ModelsTab(desk)


def click(tab: ModelsTab, what: str, subject: str, visitor: Any = OWNER) -> Any:
    asked: Any = Asked(visitor)
    return tab.handle_action(pressed(what, subject), asked)


def test_one_click_moves_a_file(tab: ModelsTab, desk: Services) -> None:
    settings = desk.home.settings
    write_weights(settings.models / "moon.safetensors", kohya_lora(CROSS))
    before = tab.render_models(OWNER)
    assert 'data-action="move" data-target="models/moon.safetensors"' in before
    assert "Move to loras/" in before
    updates = click(tab, "move", "models/moon.safetensors")
    assert (settings.loras / "moon.safetensors").is_file()
    assert "moon" not in updates[tab.model_cards]
    assert 'data-lora="moon"' in updates[tab.lora_cards]
    assert "Move to" not in updates[tab.lora_cards]


def test_a_checkpoint_goes_from_the_loras_to_the_models(tab: ModelsTab, desk: Services) -> None:
    write_weights(desk.home.settings.loras / "big.safetensors", SDXL | WHOLE)
    assert "Move to models/" in tab.render_loras(OWNER)
    updates = click(tab, "move", "loras/big.safetensors")
    assert "big" in updates[tab.model_cards]
    assert "Move to" not in updates[tab.model_cards]
    assert "big" not in updates[tab.lora_cards]


@pytest.mark.parametrize("loaded_bytes", [0, 5 * 10**6])
def test_a_model_that_waits_beside_the_card_is_in_memory(
    tab: ModelsTab, desk: Services, loaded_bytes: int
) -> None:
    """Also where none of it lies on the device; it can be taken out."""
    assert "in memory" not in tab.render_models(OWNER)
    row = {"key": "a", "name": "pocket", "bytes": loaded_bytes, "lent": False}
    desk.home.jobs.set_worker_status("cpu", {"state": "ready", "loaded": [row]})
    shown = tab.render_models(OWNER)
    assert ("in memory · " in shown) == bool(loaded_bytes)
    assert "in memory" in shown
    assert "Take out of memory" in shown


def test_a_guest_reads_it_and_may_not(tab: ModelsTab, desk: Services) -> None:
    path = write_weights(desk.home.settings.models / "moon.safetensors", kohya_lora(CROSS))
    shown = tab.render_models(ANN)
    assert "it belongs in loras/" in shown
    assert "data-action" not in shown
    with refused(gr.Error):
        click(tab, "move", "models/moon.safetensors", ANN)
    with refused(gr.Error):
        click(tab, "unload", "pocket", ANN)
    assert path.is_file()


def test_a_taken_name_is_said_and_stays(tab: ModelsTab, desk: Services) -> None:
    path = write_weights(desk.home.settings.models / "moon.safetensors", kohya_lora(CROSS))
    write_weights(desk.home.settings.loras / "moon.safetensors", kohya_lora(CROSS, rank=8))
    with refused(gr.Error):
        click(tab, "move", "models/moon.safetensors")
    assert path.is_file()


@pytest.mark.parametrize("subject", ["", "../../etc/passwd", "models", HOSTILE, "\ud800", None])
def test_nonsense_moves_nothing(tab: ModelsTab, subject: Any) -> None:
    with pytest.raises(gr.Error) as caught:
        click(tab, "move", subject)
    assert "<script" not in caught.value.message


def test_a_hostile_name_is_only_text(tab: ModelsTab, desk: Services) -> None:
    name = "<img src=x onerror=alert(1)>\"'&.safetensors"
    write_weights(desk.home.settings.models / name, kohya_lora(CROSS))
    shown = tab.render_models(OWNER)
    assert "<img" not in shown
    assert html.escape(name, quote=False).replace('"', "&#34;").replace("'", "&#39;") in shown
    click(tab, "move", f"models/{name}")
    assert (desk.home.settings.loras / name).is_file()


def test_broken_files_do_not_break_the_tab(tab: ModelsTab, desk: Services) -> None:
    for folder in (desk.home.settings.models, desk.home.settings.loras):
        (folder / "empty.safetensors").write_bytes(b"")
        (folder / "cut.gguf").write_bytes(b"GGUF\3\0\0\0")
        (folder / "page.ckpt").write_bytes(b"<!doctype html>")
    updates = tab.on_open(OWNER)
    for cards in (tab.model_cards, tab.lora_cards):
        assert "empty" in updates[cards]
        assert "GGUF file that was cut off" in updates[cards]
        assert "web page" in updates[cards]
