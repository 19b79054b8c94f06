"""What guests are not told: where on this machine anything lies.

Knows: that gradio names files by their paths, in addresses and in JSON; that errors name them too.
Does not know: which files a guest may read (ui/middleware.py).

For guests the home is called `HOME_NAME`: in all text that goes out to them, and turned back in
the addresses and file values that come in. So it holds for every component and every sentence.
"""

from __future__ import annotations

import html
import json
import re
import urllib.parse
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from studio.services.urls import FILE_ROUTE
from studio.services.visitor import visitor_from_scope
from studio.settings import Settings

HOME_NAME = "/studio-home"
TEXT_TYPES = ("application/json", "text/html", "text/event-stream", "text/plain")
# A path begins and ends where a word does; so a home at /data changes no "and/data" that is typed.
# (In JSON a letter may be the end of an escape.)
_NO_WORD_BEFORE = rb"(?:(?<![\w.~%-])|(?<=\\[nrt])|(?<=\\u[0-9a-fA-F]{4}))"
_NO_WORD_AFTER = rb"(?![\w-])"


class HiddenPathsMiddleware:
    """ASGI middleware that hides paths in the answers to guests."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app = app
        spellings = map(re.escape, (path.encode() for path in _list_spellings(str(settings.home))))
        self._home = re.compile(
            _NO_WORD_BEFORE + b"(?:" + b"|".join(spellings) + b")" + _NO_WORD_AFTER
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not visitor_from_scope(scope).is_guest:
            await self.app(scope, receive, send)
            return
        # A file goes out as it lies on the disk.
        is_file = FILE_ROUTE.search(scope["path"]) is not None
        await self.app(scope, receive, _HidingSend(send, self._hide, only_errors=is_file))

    def _hide(self, body: bytes) -> bytes:
        return self._home.sub(HOME_NAME.encode(), body)


class RevealedFilesMiddleware:
    """ASGI middleware that turns the names of files in guests' JSON back; behind all limits."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app = app
        self.home = str(settings.home)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and visitor_from_scope(scope).is_guest:
            content_type = Headers(scope=scope).get("content-type", "")
            if content_type.startswith("application/json"):
                receive = await self._reveal_body(receive)
        await self.app(scope, receive, send)

    async def _reveal_body(self, receive: Receive) -> Receive:
        """Read a whole JSON body and turn the names of its files back."""
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] != "http.request":
                return _replay(message, receive)
            body += message.get("body", b"")
            more = message.get("more_body", False)
        with suppress(ValueError, RecursionError):  # it is refused as it is
            body = json.dumps(self._reveal_files(json.loads(body))).encode()
        return _replay({"type": "http.request", "body": body, "more_body": False}, receive)

    def _reveal_files(self, value: Any) -> Any:
        """Return a JSON value with the paths of its files, and of nothing else, turned back.

        What somebody types stays as it is: it may end in a picture's metadata.
        """
        if isinstance(value, list):
            return [self._reveal_files(item) for item in value]
        if not isinstance(value, dict):
            return value
        revealed = {key: self._reveal_files(item) for key, item in value.items()}
        path = revealed.get("path")
        if isinstance(path, str) and path.startswith(f"{HOME_NAME}/"):
            revealed["path"] = self.home + path.removeprefix(HOME_NAME)
        return revealed


class _HidingSend:
    """Sends a response on with other bytes; one of known length as a whole, a stream by pieces."""

    def __init__(self, send: Send, hide: Callable[[bytes], bytes], *, only_errors: bool) -> None:
        self._send = send
        self._hide = hide
        self._only_errors = only_errors
        self._start: Message | None = None
        self._body = b""
        self._is_stream = False
        self._is_text = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            content_type = Headers(raw=message["headers"]).get("content-type", "")
            is_hidden = message["status"] >= 400 or not self._only_errors
            self._is_text = is_hidden and content_type.startswith(TEXT_TYPES)
            self._is_stream = self._is_text and content_type.startswith("text/event-stream")
            if self._is_text and not self._is_stream:
                self._start = message
                return
            await self._send(message)
        elif message["type"] != "http.response.body" or not self._is_text:
            await self._send(message)
        elif self._is_stream:  # gradio sends an event as one piece
            await self._send({**message, "body": self._hide(message.get("body", b""))})
        else:
            self._body += message.get("body", b"")
            if not message.get("more_body", False):
                await self._send_whole()

    async def _send_whole(self) -> None:
        assert self._start
        body = self._hide(self._body)
        headers = MutableHeaders(raw=list(self._start["headers"]))
        headers["content-length"] = str(len(body))
        await self._send({**self._start, "headers": headers.raw})
        await self._send({"type": "http.response.body", "body": body, "more_body": False})


def reveal_address(scope: Scope, settings: Settings) -> None:
    """Turn the name of a file in a request's address back, in place."""
    path = scope["path"].replace(HOME_NAME, str(settings.home))
    if path != scope["path"]:
        scope["path"] = path
        scope["raw_path"] = urllib.parse.quote(path).encode()


def _list_spellings(path: str) -> list[str]:
    """Return how a path is written in text, JSON, JSON in JSON, HTML and addresses."""
    as_json = json.dumps(path)[1:-1]
    spellings = [
        json.dumps(as_json)[1:-1],
        as_json,
        json.dumps(path, ensure_ascii=False)[1:-1],
        html.escape(path),
        urllib.parse.quote(path),
        urllib.parse.quote(path, safe=""),
        path,
    ]
    return list(dict.fromkeys(spellings))


def _replay(message: Message, receive: Receive) -> Receive:
    """Return a `receive` that gives this message first."""
    pending = [message]

    async def receive_replayed() -> Message:
        return pending.pop() if pending else await receive()

    return receive_replayed
