"""The access control in front of the page: its hosts, the visitor's cookie, whose files are read.

Knows: Host and Origin headers, whose an image file, a sweep's sheet, a training's sample or LoRA
is, who brought an image that is worked on. Does not know: who is owner and who guest
(services/visitor.py); what is on the page.
"""

from __future__ import annotations

import ipaddress
import secrets
import socket
import urllib.parse
from pathlib import Path
from typing import Any

from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from studio.errors import BadPicture, Busy
from studio.services.urls import FILE_ROUTE
from studio.services.visitor import (
    COOKIE_NAME,
    Visitor,
    is_local,
    parse_cookie,
    parse_host,
    visitor_from_scope,
)
from studio.settings import Settings
from studio.storage.home import Home
from studio.ui.hidden_paths import HiddenPathsMiddleware

SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
COOKIE_MAX_AGE_SECONDS = 365 * 24 * 3600


class AccessMiddleware:
    """ASGI middleware in front of everything: Host, Origin, the visitor's cookie, guests' files."""

    def __init__(self, app: ASGIApp, home: Home) -> None:
        settings = home.settings
        self.app = app
        self.share = settings.share
        self.allowed_hosts = {settings.host}
        self.gallery = home.gallery
        self.sweeps = home.sweeps
        self.runs = home.runs
        self.inputs = home.inputs
        self.image_folders = (settings.outputs.resolve(), settings.thumbs.resolve())
        self.inputs_folder = settings.inputs.resolve()
        self.sweeps_folder = settings.sweeps.resolve()
        self.runs_folder = settings.runs.resolve()
        self.loras_folder = settings.loras.resolve()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        refusal = self._find_refusal(scope, headers)
        if refusal:
            await PlainTextResponse(refusal, 403)(scope, receive, send)
            return
        new_cookie = ""
        if scope["path"] == "/" and not parse_cookie(headers.get("cookie", "")):
            new_cookie = secrets.token_urlsafe(24)

        async def send_with_cookie(message: Message) -> None:
            if new_cookie and message["type"] == "http.response.start":
                header = (
                    f"{COOKIE_NAME}={new_cookie}; Path=/; Max-Age={COOKIE_MAX_AGE_SECONDS}; "
                    "HttpOnly; SameSite=Strict"
                )
                message["headers"] = [*message["headers"], (b"set-cookie", header.encode())]
            await send(message)

        await self.app(scope, receive, send_with_cookie)

    def _find_refusal(self, scope: Scope, headers: Headers) -> str:
        host = headers.get("host", "")
        if not self._is_allowed_host(parse_host(host)):
            return "This studio does not answer to that host name."
        origin = headers.get("origin")
        if (
            scope["method"] not in SAFE_METHODS
            and origin is not None
            and urllib.parse.urlsplit(origin).netloc != host
        ):
            return "This studio takes no requests from other sites' pages."
        file = FILE_ROUTE.search(scope["path"])
        if file and not self._may_read(file[1], visitor_from_scope(scope)):
            return "That file is somebody else's."
        return ""

    def _is_allowed_host(self, host: str) -> bool:
        """Return whether a Host header's name leads here on purpose.

        A hostile name server can rebind a name, but not an address.
        """
        if (
            host in self.allowed_hosts
            or is_local(host)
            or (self.share and host.endswith(".gradio.live"))
        ):
            return True
        try:
            ipaddress.ip_address(host)
        except ValueError:
            return False
        return True

    def _may_read(self, name: str, visitor: Visitor) -> bool:
        if not visitor.is_guest:
            return True
        if "://" in name:  # gradio would fetch it for them
            return False
        try:
            path = Path(name).resolve()
        except (OSError, ValueError):
            return False
        if path in (self.sweeps_folder, self.runs_folder):
            return False
        if path.is_relative_to(self.sweeps_folder):
            sweep = self.sweeps.get(path.relative_to(self.sweeps_folder).parts[0])
            return sweep is not None and sweep.owner == visitor.id
        if path.is_relative_to(self.runs_folder):
            run = self.runs.get(path.relative_to(self.runs_folder).parts[0])
            return run is not None and run.owner == visitor.id
        if path.is_relative_to(self.loras_folder):  # only what this guest has trained
            trained = {
                checkpoint.get("lora")
                for run in self.runs.list_runs(visitor.id)
                for checkpoint in run.result.values()
            }
            return path.relative_to(self.loras_folder).with_suffix("").as_posix() in trained
        if path.is_relative_to(self.inputs_folder):
            return self._has_uploaded(path, visitor)
        for folder in self.image_folders:
            if path.is_relative_to(folder):
                png = self.image_folders[0] / path.relative_to(folder).with_suffix(".png")
                image = self.gallery.get(png)
                return image is not None and image.owner == visitor.id
        return True

    def _has_uploaded(self, path: Path, visitor: Visitor) -> bool:
        try:
            return self.inputs.get_path(path.stem, visitor.id).resolve() == path
        except BadPicture:
            return False


def build_middleware(home: Home) -> list[Any]:
    """Return what gradio's `app_kwargs` take as middleware."""
    return [
        Middleware(HiddenPathsMiddleware, settings=home.settings),
        Middleware(AccessMiddleware, home=home),
    ]


def check_port_free(settings: Settings) -> None:
    """Raise Busy with one sentence if the port is taken; gradio would show a traceback."""
    if not settings.port:
        return
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with socket.socket(family) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((settings.host, settings.port))
        except OSError as error:
            raise Busy(
                f"The page cannot be opened at {settings.host}:{settings.port} "
                f"({error.strerror}); choose another --port, or 0 for any free one."
            ) from None
