"""A picture's address on the page: what it fills in, what it leaves behind, what is refused in words."""

from __future__ import annotations

import io
from typing import Any

import gradio as gr
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from studio.services.submission import Services
from studio.ui.tabs.txt2img import Txt2Img
from support.sentences import refused
from support.sites import OTHER, Sites
from support.visitors import ANN, OWNER, Asked

PICTURE = f"https://{OTHER}/a/boat.png"
TEXT = "a boat\nSteps: 12, Sampler: Euler, CFG scale: 5, Seed: 7, Size: 64x64, Version: v1.10.1"


def make_png() -> bytes:
    info = PngInfo()
    info.add_itxt("parameters", TEXT)
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "PNG", pnginfo=info)
    return buffer.getvalue()


def test_the_page_fills_its_form(sites: Sites, desk: Services, by: Any) -> None:
    sites.put(PICTURE, make_png())
    with gr.Blocks():
        tab = Txt2Img(desk)
    part = tab.recipe_import
    link = part.picture_link
    values = {component: component.value for component in tab.form.components.values()}

    def take(url: Any, is_trusted: Any, visitor: Any = OWNER) -> dict[Any, Any]:
        asked: Any = Asked(visitor)
        return part.import_link({**values, link.link: url, link.is_trusted: is_trusted}, asked)

    updates = take(PICTURE, True)
    assert (updates[tab.form["prompt"]], updates[tab.form["steps"]]) == ("a boat", 12)
    assert (updates[link.link], updates[link.is_trusted]) == ("", False)
    for url, is_trusted, visitor in (
        *((PICTURE, False, OWNER), (PICTURE, "yes", OWNER), (PICTURE, True, ANN)),
        *(("", True, OWNER), (7, True, OWNER), (None, None, OWNER)),
    ):
        with refused(gr.Error):
            take(url, is_trusted, visitor)
