"""The Models tab without a browser: found, filtered, turned, starred, moved; guests only look."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
from PIL import Image

from studio.services.submission import Services
from studio.services.visitor import Visitor
from studio.ui.app import build_page, build_theme
from studio.ui.tabs.models import CARDS_PER_PAGE, UNUSABLE, ModelsTab
from support import upscalers
from support.ldm_files import toy_shapes
from support.sentences import refused
from support.unopened_page import unopened_page
from support.visitors import ANN, HOSTILE, OWNER, Asked, pressed
from support.weights import CROSS, SDXL, VAE_FILE, WHOLE, kohya_lora, write_weights


@pytest.fixture
def tab(desk: Services, by: Any) -> ModelsTab:
    with unopened_page():
        return ModelsTab(desk)


def set_filters(tab: ModelsTab, **chosen: Any) -> dict[Any, Any]:
    values = {"search": "", "kind": "", "family": "", "favourites": False, "page": 0} | chosen
    return {getattr(tab, name): value for name, value in values.items()}


def click(tab: ModelsTab, what: str, subject: Any, visitor: Any = OWNER, **chosen: Any) -> Any:
    asked: Any = Asked(visitor)
    return tab.handle_action(set_filters(tab, **chosen), pressed(what, subject), asked)


def shown(tab: ModelsTab, visitor: Visitor = OWNER, **chosen: Any) -> str:
    return str(tab.render(visitor, set_filters(tab, **chosen), chosen.get("page", 0))[tab.cards])


def names(page: str) -> list[str]:
    return re.findall(r'class="card" data-kind="[^"]*" data-name="([^"]*)"', page)


def test_one_click_moves_a_file(tab: ModelsTab, desk: Services) -> None:
    settings = desk.home.settings
    write_weights(settings.models / "ink.safetensors", kohya_lora(CROSS))
    before = shown(tab)
    assert "ink" in names(before)  # it works where it is
    assert 'data-action="move" data-target="models/ink.safetensors"' in before
    after = click(tab, "move", "models/ink.safetensors")[tab.cards]
    assert (settings.loras / "ink.safetensors").is_file()
    assert "ink" in names(after)
    assert "Move to" not in after


def test_what_came_of_a_click_is_one_line(
    tab: ModelsTab, desk: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    toasts: list[str] = []
    monkeypatch.setattr(gr, "Info", lambda text, **_options: toasts.append(text))
    for name in ("ink", "fog"):
        write_weights(desk.home.settings.models / f"{name}.safetensors", kohya_lora(CROSS))
        outcome = click(tab, "move", f"models/{name}.safetensors")[tab.outcome]
        assert f"{name}.safetensors is now in loras/." in outcome
    assert click(tab, "favourite", "lora/ink")[tab.outcome] == ""  # its star shows it
    assert toasts == []


def test_a_checkpoint_goes_from_the_loras_to_the_models(tab: ModelsTab, desk: Services) -> None:
    write_weights(desk.home.settings.loras / "big.safetensors", SDXL | WHOLE)
    assert "Move to models/" in shown(tab)
    after = click(tab, "move", "loras/big.safetensors")[tab.cards]
    assert "big" in after
    assert "Move to" not in after


@pytest.mark.parametrize("folder", ["vae", "embeddings", "upscalers", "text_encoders"])
def test_a_checkpoint_that_works_in_a_wrong_folder_can_go(
    tab: ModelsTab, desk: Services, folder: str
) -> None:
    home = desk.home.settings.home
    write_weights(home / folder / "painter.safetensors", toy_shapes("sd1"))
    write_weights(home / folder / "deep/fog.safetensors", toy_shapes("sd1"))
    before = shown(tab)
    assert {"painter", "deep/fog"} <= set(names(before))
    assert re.findall('data-action="move" data-target="([^"]*)"', before) == [
        f"{folder}/painter.safetensors"
    ]
    after = click(tab, "move", f"{folder}/painter.safetensors")[tab.cards]
    assert "painter" in names(after)
    assert (home / "models/painter.safetensors").is_file()


def test_a_broken_embedding_says_why(tab: ModelsTab, desk: Services) -> None:
    odd = {"clip_l": [2, 768], "clip_g": [3, 1280]}
    write_weights(desk.home.settings.embeddings / "odd.safetensors", odd)
    page = shown(tab)
    assert "odd" not in names(page)
    assert "It has 2 vectors in clip_l but 3 in clip_g." in page


@pytest.mark.parametrize("loaded_bytes", [0, 5 * 10**6])
def test_a_model_that_waits_beside_the_card_is_in_memory(
    tab: ModelsTab, desk: Services, loaded_bytes: int
) -> None:
    """Also where none of it lies on the device; it can be unloaded."""
    assert "in memory" not in shown(tab)
    row = {"key": "a", "name": "pocket", "bytes": loaded_bytes, "lent": False}
    desk.home.jobs.set_worker_status("cpu", {"state": "ready", "loaded": [row]})
    page = shown(tab)
    assert ("in memory · " in page) == bool(loaded_bytes)
    assert "in memory" in page
    assert 'data-action="unload"' in page


def test_a_guest_reads_it_and_may_not(tab: ModelsTab, desk: Services, tmp_path: Path) -> None:
    path = write_weights(desk.home.settings.models / "ink.safetensors", kohya_lora(CROSS))
    write_weights(tmp_path / "private/loras/sun.safetensors", kohya_lora(CROSS))
    desk.home.library.folders.add(str(tmp_path / "private"), "mine")
    page = shown(tab, ANN)
    assert {"ink", "mine/loras/sun"} <= set(names(page))
    assert str(tmp_path) not in page
    assert "private" not in page
    assert set(re.findall('data-action="([^"]*)"', page)) == {"use"}
    for what, subject in (
        ("move", "models/ink.safetensors"),
        ("unload", "pocket"),
        ("favourite", "lora/ink"),
        ("remove-folder", "mine"),
    ):
        with refused(gr.Error):
            click(tab, what, subject, ANN)
    asked: Any = Asked(ANN)
    values = set_filters(tab) | {tab.path: str(tmp_path), tab.folder_name: "", tab.upload: None}
    for handler in (tab.add_path, tab.add_file):
        with refused(gr.Error):
            handler(values, asked)
    assert path.is_file()
    assert len(desk.home.library.folders.list_folders()) == 1


def test_a_taken_name_is_said_and_stays(tab: ModelsTab, desk: Services) -> None:
    path = write_weights(desk.home.settings.models / "moon.safetensors", kohya_lora(CROSS))
    write_weights(desk.home.settings.loras / "moon.safetensors", kohya_lora(CROSS, rank=8))
    with refused(gr.Error):
        click(tab, "move", "models/moon.safetensors")
    assert path.is_file()


@pytest.mark.parametrize("what", ["move", "favourite", "remove-folder"])
@pytest.mark.parametrize("subject", ["", "../../etc/passwd", "models", HOSTILE, "\ud800", None])
def test_nonsense_changes_nothing(tab: ModelsTab, desk: Services, what: str, subject: Any) -> None:
    before = sorted(desk.home.settings.home.glob("*.json"))  # caches come and go
    with pytest.raises(gr.Error) as caught:
        click(tab, what, subject)
    assert "<script" not in caught.value.message
    assert sorted(desk.home.settings.home.glob("*.json")) == before


@pytest.mark.parametrize("page", ["-1", "9" * 30, "x", "", None, "7"])
def test_a_page_that_is_none_is_the_nearest(tab: ModelsTab, page: Any) -> None:
    updates = click(tab, "page", page)
    assert updates[tab.page] == 0
    assert "pocket" in names(updates[tab.cards])


def test_a_hostile_name_is_only_text(tab: ModelsTab, desk: Services) -> None:
    name = "<img src=x onerror=alert(1)>\"'&.safetensors"
    write_weights(desk.home.settings.models / name, VAE_FILE)
    page = shown(tab)
    assert "<img" not in page
    stem = name.removesuffix(".safetensors")
    assert html.escape(stem, quote=False).replace('"', "&#34;").replace("'", "&#39;") in page
    click(tab, "move", f"models/{name}")
    assert (desk.home.settings.vaes / name).is_file()


def test_broken_files_do_not_break_the_tab(tab: ModelsTab, desk: Services) -> None:
    for folder in (desk.home.settings.models, desk.home.settings.loras):
        (folder / "empty.safetensors").write_bytes(b"")
        (folder / "cut.gguf").write_bytes(b"GGUF\3\0\0\0")
        (folder / "page.ckpt").write_bytes(b"<!doctype html>")
    page = tab.on_open(OWNER)[tab.cards]
    assert "Cannot be used" in page
    assert page.count("GGUF file that was cut off") == 2
    assert page.count("web page") == 2
    assert names(shown(tab, kind=UNUSABLE)) == []


def test_search_and_filters(tab: ModelsTab, desk: Services) -> None:
    settings = desk.home.settings
    write_weights(
        settings.loras / "ink.safetensors",
        kohya_lora(CROSS),
        metadata={"modelspec.trigger_phrase": "brush strokes"},
    )
    write_weights(settings.vaes / "anime.safetensors", VAE_FILE)
    assert names(shown(tab, search="BRUSH ink")) == ["ink"]
    assert names(shown(tab, search="brush anime")) == []
    assert names(shown(tab, kind="vae")) == ["anime"]
    assert "ink" in names(shown(tab, family="sd1"))
    assert names(shown(tab, family="sdxl")) == []
    for odd in ("nonsense", HOSTILE, ["x"], None, 3):
        shown(tab, kind=odd, family=odd, search=odd, favourites=odd)


def test_favourites_come_first_and_stay(tab: ModelsTab, desk: Services) -> None:
    write_weights(desk.home.settings.loras / "zebra.safetensors", kohya_lora(CROSS))
    assert names(shown(tab))[0] == "pocket"
    after = click(tab, "favourite", "lora/zebra")[tab.cards]
    assert names(after)[0] == "zebra"
    assert names(shown(tab, favourites=True)) == ["zebra"]
    assert names(shown(tab, ANN))[0] == "zebra"
    click(tab, "favourite", "lora/zebra")
    assert names(shown(tab, favourites=True)) == []


@pytest.mark.parametrize("data", ["{", "[]", '{"favourites": 3}', '{"favourites": [3]}'])
def test_broken_favourites_are_none(tab: ModelsTab, desk: Services, data: str) -> None:
    (desk.home.settings.home / "favourites.json").write_text(data)
    assert names(shown(tab, favourites=True)) == []


def test_a_page_at_a_time(tab: ModelsTab, desk: Services) -> None:
    for number in range(150):
        write_weights(desk.home.settings.vaes / f"x{number:03}.safetensors", VAE_FILE)
    first = shown(tab, kind="vae")
    assert len(names(first)) == CARDS_PER_PAGE
    assert len(first) < 300_000
    last = click(tab, "page", "2", kind="vae")
    assert names(last[tab.cards]) == [f"x{number:03}" for number in range(120, 150)]
    assert last[tab.page] == 2


def test_previews_come_from_the_home_alone(tab: ModelsTab, desk: Services, tmp_path: Path) -> None:
    settings = desk.home.settings
    write_weights(tmp_path / "a/ink.safetensors", kohya_lora(CROSS))
    write_weights(tmp_path / "a/odd.safetensors", kohya_lora(CROSS))
    Image.new("RGB", (900, 600), "red").save(tmp_path / "a/ink.preview.png")
    (tmp_path / "a/odd.preview.png").write_bytes(b"no picture")
    desk.home.library.folders.add(str(tmp_path / "a"))
    shown(tab)
    assert tab.previews._maker
    tab.previews._maker.join(20)
    page = shown(tab)
    (address,) = re.findall(r'<img class="preview" src="([^"]*)"', page)
    path = Path(address.partition("=")[2])
    assert path.is_relative_to(settings.thumbs / "models")
    assert max(Image.open(path).size) <= 320


def test_a_file_goes_where_its_header_says(
    tab: ModelsTab, desk: Services, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uploads = tmp_path / "uploads"
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(uploads))
    asked: Any = Asked(OWNER)

    def send(name: str, **file: Any) -> dict[Any, Any]:
        path = write_weights(uploads / "x" / name, **file)
        value = {"path": str(path), "orig_name": name}
        return tab.add_file(set_filters(tab) | {tab.upload: value}, asked)

    assert "anime" in names(send("anime.safetensors", shapes=VAE_FILE)[tab.cards])
    assert (desk.home.settings.vaes / "anime.safetensors").is_file()
    send("ink.safetensors", shapes=kohya_lora(CROSS))
    assert (desk.home.settings.loras / "ink.safetensors").is_file()
    before = sorted(desk.home.settings.home.rglob("*.safetensors"))
    for name, shapes in (
        ("anime.safetensors", VAE_FILE),  # taken
        ("notes.txt", VAE_FILE),
        ("odd.safetensors", {"x": [1]}),
    ):
        with refused(gr.Error):
            send(name, shapes=shapes)
    assert sorted(desk.home.settings.home.rglob("*.safetensors")) == before
    assert not list(uploads.rglob("*.*"))


def test_short_names_of_families_are_found(tab: ModelsTab, desk: Services) -> None:
    write_weights(desk.home.settings.loras / "ink.safetensors", kohya_lora(CROSS))
    write_weights(desk.home.settings.models / "painter.safetensors", toy_shapes("sdxl"))
    for words in ("SDXL", "sd xl", "Stable Diffusion XL"):
        assert names(shown(tab, search=words)) == ["painter"]
    assert "pocket" in names(shown(tab, search="sd 1.5"))
    assert "painter" not in names(shown(tab, search="sd1.5"))


def test_a_path_is_used_where_it_lies(tab: ModelsTab, desk: Services, tmp_path: Path) -> None:
    asked: Any = Asked(OWNER)
    folder = tmp_path / "files"
    file = write_weights(tmp_path / "Downloads/anime.safetensors", VAE_FILE)
    write_weights(folder / "sun.safetensors", kohya_lora(CROSS))

    def add(path: Any, name: Any = "") -> dict[Any, Any]:
        return tab.add_path(set_filters(tab) | {tab.path: path, tab.folder_name: name}, asked)

    page = add(str(folder), "mine")[tab.cards]
    assert "mine/sun" in names(page)
    assert "anime" in names(add(str(file))[tab.cards])
    assert (desk.home.settings.vaes / "anime.safetensors").readlink() == file
    for path in (str(file), str(folder), "", None, "\0", "/nowhere", HOSTILE):
        with pytest.raises(gr.Error):
            add(path)
    after = click(tab, "remove-folder", "mine")[tab.cards]
    assert "mine/sun" not in names(after)


def test_use_hands_over_what_the_form_has(tab: ModelsTab) -> None:
    def hand_over(**data: Any) -> Any:
        event = pressed("use", data["target"])
        event._data = {"action": "use", **data}
        return tab.hand_over(event, OWNER)

    assert hand_over(kind="model", target="pocket") == ("txt2img", {"model": "pocket"})
    assert hand_over(kind="lora", target="moon") is None  # the page itself does that
    assert tab.hand_over(pressed("move", "x"), OWNER) is None


def test_an_upscaler_opens_its_own_tab_and_the_rest_says_where_it_is_set(
    tab: ModelsTab, desk: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(gr, "Info", lambda text, **_options: said.append(text))

    def use(kind: str, target: str) -> Any:
        event = pressed("use", target)
        event._data = {"action": "use", "kind": kind, "target": target}
        asked: Any = Asked(OWNER)
        tab.handle_action(set_filters(tab) | {tab.page: 0}, event, asked)
        return tab.hand_over(event, OWNER)

    assert use("upscaler", "toy-2x") == ("upscale", {"upscaler": "toy-2x"})
    assert use("model", "pocket")
    assert said == []  # both are seen at once
    assert use("vae", "anime") == ("txt2img", {"vae": "anime"})
    assert use("lora", HOSTILE) is None
    assert said[0] == "anime is set in txt2img, under “Advanced”."
    assert "under “LoRAs”" in said[1]
    assert "<script" not in said[1]


def test_what_is_handed_over_arrives(desk: Services) -> None:
    """Of a whole page: an upscaler on its tab, a dataset on the training's."""
    upscalers.write(desk.home.settings.upscalers / "toy-2x.safetensors", upscalers.compact(2))
    page = build_page(desk)
    asked: Any = Asked(OWNER)

    def go(kind: str, action: str, target: str) -> list[Any]:
        event = pressed(action, target)
        event._data = {"action": action, "kind": kind, "target": target}
        opened = []
        for handler in page.fns.values():
            if getattr(handler.fn, "__qualname__", "").startswith("_wire_handover_buttons"):
                updates = handler.fn(True, event, asked)
                values = {getattr(key, "elem_id", ""): value for key, value in updates.items()}
                opened += [values] if len(values) > 1 else []
        return opened

    (opened,) = go("upscaler", "use", "toy-2x")
    assert opened["upscale-upscaler"].value == "toy-2x"
    assert go("upscaler", "use", "pocket-x4")
    with pytest.raises(gr.Error, match="no longer exists"):
        go("upscaler", "use", HOSTILE)
    handoff = json.dumps({"dataset": "moon", "name": "moon", "trigger": "moon"})
    assert go("", "train", handoff)


def test_grey_text_can_be_read() -> None:
    """WCAG's ratio of contrast, 4.5 : 1, of the theme's quiet text on what it stands on."""
    theme = build_theme()

    def find_colour(name: str, scheme: str) -> list[float]:
        value = f"*{name}"
        while value.startswith("*"):
            name = value[1:]
            value = str(getattr(theme, f"{name}{scheme}", None) or getattr(theme, name))
        digits = {"white": "ffffff", "black": "000000"}.get(value, value.removeprefix("#"))
        return [int(digits[start : start + 2], 16) / 255 for start in (0, 2, 4)]

    def measure_luminance(name: str, scheme: str) -> float:
        red, green, blue = (
            part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4
            for part in find_colour(name, scheme)
        )
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    for scheme in ("", "_dark"):
        for ground in ("body_background_fill", "background_fill_primary"):
            for text in ("body_text_color_subdued", "block_info_text_color"):
                levels = sorted(measure_luminance(name, scheme) for name in (text, ground))
                assert (levels[1] + 0.05) / (levels[0] + 0.05) >= 4.5, (text, ground, scheme)
