"""gradio's style sheets as one: each that the page's components load, in full, and counted as loaded."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import gradio as gr
import httpx
from starlette.applications import Starlette
from starlette.responses import HTMLResponse
from starlette.routing import Route

from studio.ui.gradio_script import ASSETS_FOLDER
from studio.ui.gradio_styles import bundle_styles
from studio.ui.page_html import PageHtmlMiddleware
from studio.ui.private_gradio import serve_styles

PAGE = (ASSETS_FOLDER.parent / "index.html").read_text("utf-8")


def test_all_sheets_of_a_kind_are_there_in_full() -> None:
    bundle = bundle_styles({"gallery"})
    assert bundle
    assert len(bundle.names) == len(set(bundle.names))
    assert f"./assets/{bundle.names[0]}" in PAGE  # the one that a page has from the start
    for name in bundle.names:
        assert (ASSETS_FOLDER / name).read_text("utf-8") in bundle.text
    # What a gallery is shown by, and nothing of what others are.
    assert any(name.startswith("Gallery-") for name in bundle.names)
    plain = bundle_styles({"textbox"})
    assert plain
    assert plain.text != bundle.text
    assert plain.file_name != bundle.file_name
    assert not any(name.startswith("Gallery-") for name in plain.names)


def test_what_gradio_has_not_is_left_to_it(tmp_path: Path) -> None:
    base = bundle_styles(())
    assert base
    assert bundle_styles({"no such kind", "(", "state"}) == base
    assert bundle_styles({"gallery"}, tmp_path) is None
    (tmp_path / "index-a.js").write_text("nothing that is known")
    (tmp_path / "core-a.js").write_text("V={gallery:{")
    assert bundle_styles({"gallery"}, tmp_path) is None


def test_the_page_begins_with_it() -> None:
    bundle = bundle_styles({"textbox"})
    assert bundle

    async def send_page(_request: object) -> HTMLResponse:
        return HTMLResponse(PAGE)

    inner = Starlette(routes=[Route("/", send_page)])

    async def get(app: object, path: str) -> httpx.Response:
        transport = httpx.ASGITransport(app)  # type: ignore[arg-type]
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.get(path)

    changed = asyncio.run(get(PageHtmlMiddleware(inner, bundle), "/")).text
    sheets = re.findall(r'<link rel="stylesheet" (\S+) href="\./assets/([^"]+)">', changed)
    assert sheets == [
        ("crossorigin", bundle.file_name),
        *(('type="text/x-loaded"', name) for name in bundle.names),
    ]
    plain = asyncio.run(get(PageHtmlMiddleware(inner), "/")).text
    assert bundle.file_name not in plain
    assert f'crossorigin href="./assets/{bundle.names[0]}"' in plain
    for page in (changed, plain):  # the script that only a page in another's frame needs
        assert "appendChild(script)" not in page

    with gr.Blocks() as page:
        gr.Textbox()
    page.app = gr.routes.App.create_app(page)
    serve_styles(page, bundle)
    answer = asyncio.run(get(page.app, f"/assets/{bundle.file_name}"))
    assert answer.text == bundle.text
    assert answer.headers["content-type"].startswith("text/css")
