"""Headers that tell a browser what an answer may do.

Knows: nosniff, frames, referrers, the content policy of the page and of files. Does not know: who
asks; what is in a file.
"""

from __future__ import annotations

import secrets
from pathlib import PurePosixPath

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from studio.services.urls import FILE_ROUTE
from studio.settings import Settings

NONCE_KEY = "studio.nonce"  # where an ASGI scope has what the page's own scripts are marked with
# Nothing of another host. Scripts are the studio's files and those that the page's HTML marks;
# gradio makes functions of the `js=` of events, which 'unsafe-eval' is for.
PAGE_POLICY = (
    "default-src 'self'; script-src 'self' 'nonce-{nonce}' 'unsafe-eval'; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; "
    "media-src 'self' data: blob:; connect-src 'self' data: blob:; worker-src 'self' blob:; "
    "frame-src 'self' blob:; object-src 'none'; base-uri 'self'; form-action 'self'; "
    "frame-ancestors {ancestors}"
)
# A file that is opened by itself runs nothing and loads nothing.
FILE_POLICY = (
    "default-src 'none'; img-src 'self' data:; style-src 'unsafe-inline'; sandbox; "
    "frame-ancestors {ancestors}"
)
# The viewer of a sweep is the studio's own page: its script and pictures are in it, and it keeps
# verdicts in the browser. It asks nobody for anything.
VIEWER_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src data: blob:; form-action 'none'; base-uri 'none'; frame-ancestors {ancestors}"
)
VIEWER_NAME = "viewer.html"


class SecurityHeadersMiddleware:
    """ASGI middleware that adds the headers to every answer."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app = app
        self.sweeps_folder = settings.sweeps.resolve()
        self.ancestors = " ".join(["'self'", *settings.allow_embedding])

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        nonce = secrets.token_urlsafe(16)
        scope[NONCE_KEY] = nonce

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = self._add_headers(scope, message["headers"], nonce)
            await send(message)

        await self.app(scope, receive, send_with_headers)

    def _add_headers(
        self, scope: Scope, headers: list[tuple[bytes, bytes]], nonce: str
    ) -> list[tuple[bytes, bytes]]:
        content_type = dict(headers).get(b"content-type", b"")
        added = {
            b"x-content-type-options": b"nosniff",
            b"referrer-policy": b"same-origin",
            b"cross-origin-resource-policy": b"same-origin",
            b"content-security-policy": self._choose_policy(scope)
            .format(nonce=nonce, ancestors=self.ancestors)
            .encode(),
        }
        if content_type.startswith(b"text/event-stream"):
            # nginx would hold events back until it has a few kB of them
            added |= {b"x-accel-buffering": b"no", b"cache-control": b"no-cache, no-transform"}
        kept = [pair for pair in headers if pair[0].lower() not in added]
        return [*kept, *added.items()]

    def _choose_policy(self, scope: Scope) -> str:
        file = FILE_ROUTE.search(scope["path"])
        if not file:
            return PAGE_POLICY
        path = PurePosixPath(file[1])
        is_viewer = path.name == VIEWER_NAME and path.is_relative_to(self.sweeps_folder.as_posix())
        return VIEWER_POLICY if is_viewer and ".." not in path.parts else FILE_POLICY
