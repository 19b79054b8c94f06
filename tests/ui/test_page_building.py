"""What is spared while a page is built changes nothing of the page."""

from __future__ import annotations

import inspect
from contextlib import suppress
from typing import Any

import gradio as gr
import pytest
from gradio.routes import App

from studio.ui.page_building import make_no_app, remember_signatures
from studio.ui.private_gradio import Page


def build_page() -> Page:
    page = Page()
    page.queue(max_size=8)
    with page:
        text, button = gr.Textbox("a"), gr.Button("b")
        button.click(lambda value: value, text, text, api_name="say")
    return page


def test_no_app_is_made_before_somebody_asks_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    create_app, made = App.create_app, []

    def count(*args: Any, **options: Any) -> App:
        made.append(create_app(*args, **options))
        return made[-1]

    monkeypatch.setattr(App, "create_app", staticmethod(count))
    page = build_page()
    assert made == []
    assert page.app is page.app is made[0]
    assert page.app.get_blocks() is page


def test_gradio_makes_them_as_before_after_a_fault() -> None:
    create_app = App.create_app
    with suppress(KeyError), make_no_app():
        assert App.create_app is not create_app
        raise KeyError
    assert App.create_app is create_app


def test_the_page_is_the_same() -> None:
    def describe(page: Page) -> Any:
        ids = {part["id"]: k for k, part in enumerate(page.config["components"])}
        parts = [part | {"id": ids[part["id"]]} for part in page.config["components"]]
        return parts, [part["api_name"] for part in page.config["dependencies"]]

    plain = build_page()
    with remember_signatures():
        spared = build_page()
    assert describe(plain) == describe(spared)


def test_a_signature_is_read_once() -> None:
    class Unhashable:
        __hash__ = None  # type: ignore[assignment]

        def __call__(self, value: int) -> int:
            return value

    read = inspect.signature
    with remember_signatures():
        assert inspect.signature(build_page) is inspect.signature(build_page)
        assert inspect.getfullargspec(describe := read).args == ["obj"]
        assert list(inspect.signature(Unhashable()).parameters) == ["value"]
        with pytest.raises(TypeError):
            inspect.signature(7)  # type: ignore[arg-type]
    assert inspect.signature is read is describe
