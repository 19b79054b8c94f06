"""The HTML of the page on its way out: the studio's own styles and scripts, and who is logged in.

Knows: gradio's HTML as far as its head goes. Does not know: what a script does or a style sheet
says (static/); who may ask (ui/middleware.py).
"""

from __future__ import annotations

import re
from pathlib import Path

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from studio.ui.gradio_styles import StyleBundle
from studio.ui.security_headers import NONCE_KEY
from studio.ui.views.templates import render_macro

LOGIN_NAME_KEY = "studio.login"  # where an ASGI scope has the name of who is logged in
STATIC_FOLDER = Path(__file__).with_name("static")
FIRST_SCRIPT = STATIC_FOLDER / "connection.js"  # before anything of gradio's
# Once the page is read, and before gradio's own.
MODULE_SCRIPTS = (
    STATIC_FOLDER / "browser_tab.js",
    STATIC_FOLDER / "tabs.js",  # before those that go to a tab
    STATIC_FOLDER / "name_lists.js",
    STATIC_FOLDER / "numbers.js",  # before shortcuts.js, which tells gradio what it mended
    STATIC_FOLDER / "prompt_keys.js",  # before prompt_words.js, which takes the arrow keys
    STATIC_FOLDER / "prompt_words.js",  # before shortcuts.js, which holds typed text back
    STATIC_FOLDER / "shortcuts.js",
    STATIC_FOLDER / "tips.js",
    STATIC_FOLDER / "field_faults.js",
    STATIC_FOLDER / "look.js",
    STATIC_FOLDER / "form_memory.js",
    STATIC_FOLDER / "forever.js",
    STATIC_FOLDER / "palette.js",
    STATIC_FOLDER / "image_menu.js",
    STATIC_FOLDER / "incoming.js",
)
# In the head, not as gradio's `css_paths`: its page would parse each rule, write it down twice and
# leave out all that is newer than @media.
STYLES = (
    STATIC_FOLDER / "tokens.css",
    STATIC_FOLDER / "frame.css",
    STATIC_FOLDER / "toasts.css",
    STATIC_FOLDER / "habits.css",
)
INNER_STYLES = (
    STATIC_FOLDER / "style.css",
    STATIC_FOLDER / "gallery.css",
    STATIC_FOLDER / "notices.css",
)
# What outweighs the rules that gradio's components bring along later.
INNER_SCOPE = ".gradio-container.gradio-container .contain"
_SCRIPT_TAG = re.compile(rb"<script(?=[\s>])")
_HEAD_TAG = re.compile(rb"<head[^>]*>")
# Of gradio's own head: addresses of other hosts, and one that is not relative to the page.
_FOREIGN_META = re.compile(rb'<meta\b[^>]*\bcontent="https?://[^>]*>')
# The first of gradio's sheets, and the script that a page in a frame of another is resized by.
_FIRST_SHEET = re.compile(rb'<link rel="stylesheet"[^>]*href="\./assets/index-[^">]*\.css">')
_FRAME_SCRIPT = re.compile(rb"document\.head\.appendChild\(script\);(?=\s*\}\)\(\);)")
_ROOT_LINK = re.compile(rb'(<link\b[^>]*\bhref=")/(?!/)')


class PageHtmlMiddleware:
    """ASGI middleware that changes the HTML of `/` and nothing else."""

    def __init__(self, app: ASGIApp, gradio_styles: StyleBundle | None = None) -> None:
        self.app = app
        self.gradio_links = b""
        if gradio_styles:
            links = render_macro("page.html", "style_links", bundle=gradio_styles)
            self.gradio_links = links.encode()
        self.first_script = FIRST_SCRIPT.read_text("utf-8")
        self.module_scripts = [path.read_text("utf-8") for path in MODULE_SCRIPTS]
        self.styles = [path.read_text("utf-8") for path in STYLES]
        inner = "\n".join(path.read_text("utf-8") for path in INNER_STYLES)
        self.styles.append(f"{INNER_SCOPE} {{\n{inner}}}")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != "/" or scope["method"] != "GET":
            await self.app(scope, receive, send)
            return
        start: Message = {}
        body = b""

        async def send_changed(message: Message) -> None:
            nonlocal start, body
            if message["type"] == "http.response.start":
                start = message
                return
            body += message.get("body", b"")
            if message.get("more_body"):
                return
            headers = MutableHeaders(raw=list(start["headers"]))
            if headers.get("content-type", "").startswith("text/html"):
                body = self._change(body, scope)
                headers["content-length"] = str(len(body))
                headers["cache-control"] = "private, no-cache"
            await send({**start, "headers": headers.raw})
            await send({"type": "http.response.body", "body": body})

        await self.app(scope, receive, send_changed)

    def _change(self, page: bytes, scope: Scope) -> bytes:
        nonce = scope.get(NONCE_KEY, "")
        page = _FOREIGN_META.sub(b"", page)
        page = _ROOT_LINK.sub(rb"\1./", page)
        page = _FRAME_SCRIPT.sub(b"", page)
        if self.gradio_links:
            page = _FIRST_SHEET.sub(lambda _sheet: self.gradio_links, page, count=1)
        mark = f' nonce="{nonce}"'.encode()
        page = _SCRIPT_TAG.sub(lambda tag: tag[0] + mark, page)
        head = render_macro(
            "page.html",
            "head",
            nonce=nonce,
            login_name=scope.get(LOGIN_NAME_KEY, ""),
            first_script=self.first_script,
            styles=self.styles,
            module_scripts=self.module_scripts,
        )
        return _HEAD_TAG.sub(lambda tag: tag[0] + head.encode(), page, count=1)
