"""The access control in front of the page: its hosts, who asks, whose files are read.

Knows: the order of the questions, whose an image file, a sweep's sheet, a training's sample or LoRA
is, who brought an image that is worked on. Does not know: how a request came
(services/connection.py); who gives out identities (services/identities.py); passwords
(services/logins.py); what is on the page.
"""

from __future__ import annotations

import errno
import ipaddress
import math
import socket
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse, RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from studio.errors import BadPicture, Busy, StudioError, TooSoon, quote
from studio.services.connection import (
    PUBLIC_ADDRESS_HEADERS,
    SHARE_DOMAIN,
    Connection,
    is_allowed_name,
    is_local,
    is_same_origin,
    read_connection,
    read_headers,
)
from studio.services.identities import (
    COOKIE_NAME,
    Identities,
    name_guest,
    name_program,
    parse_cookie,
)
from studio.services.logins import Logins
from studio.services.urls import FILE_ROUTE
from studio.services.visitor import MAX_TAB_CHARS, TAB_HEADER, VISITOR_KEY, Visitor, is_owner
from studio.settings import Settings
from studio.storage.home import Home
from studio.ui.cookies import build_cookie
from studio.ui.gradio_styles import StyleBundle
from studio.ui.hidden_paths import HiddenPathsMiddleware, reveal_address
from studio.ui.login import LoginDesk, Session
from studio.ui.page_html import LOGIN_NAME_KEY, PageHtmlMiddleware
from studio.ui.security_headers import SecurityHeadersMiddleware

SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
CONNECTION_KEY = "studio.connection"  # where an ASGI scope has how the request came


class AccessMiddleware:
    """ASGI middleware in front of everything: who may ask, and what gradio is told of it."""

    def __init__(self, app: ASGIApp, home: Home, logins: Logins) -> None:
        settings = home.settings
        self.app = app
        self.settings = settings
        self.identities = Identities(home)
        self.login_desk = LoginDesk(settings, logins, self.identities)
        self.gallery = home.gallery
        self.sweeps = home.sweeps
        self.runs = home.runs
        self.inputs = home.inputs
        self.image_folders = (settings.outputs.resolve(), settings.thumbs.resolve())
        self.previews_folder = (settings.thumbs / "models").resolve()
        self.inputs_folder = settings.inputs.resolve()
        self.sweeps_folder = settings.sweeps.resolve()
        self.runs_folder = settings.runs.resolve()
        self.loras_folder = settings.loras.resolve()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":  # gradio has no web sockets
            await send({"type": "websocket.close", "code": 1008})
            return
        has_begun = False

        async def send_noted(message: Message) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        try:
            await self._admit(scope, receive, send_noted)
        except StudioError as error:  # such as a table that is damaged while the page is open
            if has_begun:
                raise
            await PlainTextResponse(str(error), 503)(scope, receive, send)

    async def _admit(self, scope: Scope, receive: Receive, send: Send) -> None:
        # 1. Where it comes from.
        connection = read_connection(scope, self.settings)
        headers = read_headers(scope)
        root_path = connection.root_path
        if root_path and scope["path"] == root_path:
            await RedirectResponse(f"{root_path}/", 307)(scope, receive, send)
            return
        if root_path and scope["path"].startswith(f"{root_path}/"):
            scope["path"] = scope["path"][len(root_path) :]
            scope["raw_path"] = scope["path"].encode()
        refusal = self._find_refusal(scope, headers, connection)
        if refusal:
            await PlainTextResponse(refusal, 403)(scope, receive, send)
            return
        # 2. Who it is.
        is_guest = not is_owner(connection, headers.get("origin", ""))
        session = self.login_desk.find_session(headers.get("cookie", ""))
        cookie = parse_cookie(headers.get("cookie", ""))
        needs_login = is_guest and self.login_desk.logins.is_required
        visitor_id = ""
        if session.login or not needs_login:
            visitor_id = self._find_identity(cookie, session, is_guest=is_guest)
        # Of those who have logged in, only whom the studio has counted.
        is_let_in = bool(visitor_id) or not needs_login
        response = await self.login_desk.answer(scope, receive, connection, is_let_in=is_let_in)
        if response:
            await response(scope, receive, send)
            return
        visitor = Visitor(visitor_id, is_guest)
        if not visitor_id:
            visitor = name_program(connection.address, is_guest=is_guest)
        visitor = replace(visitor, tab=headers.get(TAB_HEADER, "")[:MAX_TAB_CHARS])
        # 3. What it may read.
        if is_guest:
            reveal_address(scope, self.settings)
        file = FILE_ROUTE.search(scope["path"])
        if file and not self._may_read(file[1], visitor):
            await PlainTextResponse("That file belongs to somebody else.", 403)(
                scope, receive, send
            )
            return
        # 4. What the page is told.
        try:
            is_personal = session.login is not None and session.login.is_personal
            new_cookie = ""
            if scope["path"] == "/" and not is_personal:
                new_cookie = self._renew_cookie(cookie, visitor_id, connection, is_guest=is_guest)
        except TooSoon as error:
            wait = {"retry-after": str(math.ceil(error.seconds))}
            await PlainTextResponse(str(error), 429, wait)(scope, receive, send)
            return
        scope[CONNECTION_KEY] = connection
        scope[VISITOR_KEY] = visitor
        scope[LOGIN_NAME_KEY] = session.login.name if session.login else ""
        scope["headers"] = self._tell_root_url(scope, headers, connection)

        async def send_with_cookie(message: Message) -> None:
            if new_cookie and message["type"] == "http.response.start":
                header = build_cookie(COOKIE_NAME, new_cookie, connection, self.settings)
                message["headers"] = [*message["headers"], header]
            await send(message)

        await self.app(scope, receive, send_with_cookie)

    def _find_refusal(
        self, scope: Scope, headers: Mapping[str, str], connection: Connection
    ) -> str:
        name = connection.host_name
        if not self._is_allowed_host(name):
            return (
                f"This studio does not answer to the host name {quote(name)}. If that name should "
                "lead here, start it with --allow-host and the name."
            )
        origin = headers.get("origin")
        is_reading = scope["method"] in SAFE_METHODS
        if (
            not is_reading
            and origin is not None
            and not is_same_origin(origin, connection, self.settings)
        ):
            return (
                "This studio accepts no requests from other sites' pages. If the page at "
                f"{quote(origin)} is the studio's own, shown through a proxy, start the studio "
                "with --allow-host and that name."
            )
        if (
            headers.get("sec-fetch-site") in ("cross-site", "same-site")
            and headers.get("sec-fetch-mode") != "navigate"
            and not (origin and is_same_origin(origin, connection, self.settings))
        ):
            return "This studio accepts no requests from other sites' pages."
        return ""

    def _is_allowed_host(self, host: str) -> bool:
        """Return whether a Host header's name leads here on purpose.

        A hostile name server can rebind a name, but not an address.
        """
        if (
            host == self.settings.host
            or is_local(host)
            or is_allowed_name(host, self.settings)
            or (self.settings.share and host.endswith(SHARE_DOMAIN))
        ):
            return True
        try:
            ipaddress.ip_address(host)
        except ValueError:
            return False
        return True

    def _find_identity(self, cookie: str, session: Session, *, is_guest: bool) -> str:
        """Return whom a login of their own or a cookie says; empty where neither says anybody."""
        if is_guest and session.login and session.login.is_personal:
            return name_guest(session.login.name).id
        return self.identities.read_cookie(cookie, is_guest=is_guest)

    def _renew_cookie(
        self, cookie: str, visitor_id: str, connection: Connection, *, is_guest: bool
    ) -> str:
        """Return the cookie to give with the page; empty where the visitor has it.

        Raises TooSoon where too many are new.
        """
        if self.identities.is_signed(cookie):
            return ""
        if not visitor_id:
            return self.identities.issue(connection.address, is_guest=is_guest)
        # One of an older studio is signed; one that another studio signed stays as it is.
        return self.identities.sign(visitor_id) if "." not in cookie else ""

    def _tell_root_url(
        self, scope: Scope, headers: Mapping[str, str], connection: Connection
    ) -> list[tuple[bytes, bytes]]:
        """Return the headers with the page's address as gradio takes it from them.

        The browser knows it best: a proxy may hide name and path, and then only the address of the
        page that asks has them.
        """
        root_url = connection.root_url
        referer = headers.get("referer", "")
        if scope["path"] != "/" and is_same_origin(referer, connection, self.settings):
            root_url = referer.partition("?")[0].partition("#")[0].rpartition("/")[0]
        kept = [
            pair
            for pair in scope["headers"]
            if pair[0].decode("latin-1").lower() not in PUBLIC_ADDRESS_HEADERS
        ]
        return [*kept, (b"x-gradio-server", f"{root_url}/".encode("latin-1"))]

    def _may_read(self, name: str, visitor: Visitor) -> bool:
        if not visitor.is_guest:
            return True
        if "://" in name:  # gradio would fetch it for them
            return False
        try:
            path = Path(name).resolve()
        except (OSError, ValueError):
            return False
        if path.is_dir():
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
        if path.is_relative_to(self.previews_folder):  # of models, which guests see on the page
            return True
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


def build_middleware(
    home: Home, logins: Logins, gradio_styles: StyleBundle | None = None
) -> list[Any]:
    """Return what gradio's `app_kwargs` take as middleware, the outermost first.

    Args:
        home: The stores.
        logins: Who may log in.
        gradio_styles: gradio's style sheets that the page begins with; None leaves them to it.
    """
    return [
        Middleware(SecurityHeadersMiddleware, settings=home.settings),
        Middleware(AccessMiddleware, home=home, logins=logins),
        Middleware(HiddenPathsMiddleware, settings=home.settings),
        Middleware(PageHtmlMiddleware, gradio_styles=gradio_styles),
    ]


def check_port_free(settings: Settings) -> None:
    """Raise Busy with one sentence if the port is taken; gradio would show a traceback."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        with socket.socket(family) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind((settings.host, settings.port))
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        advice = "choose another --port, or 0 for any free one"
        if not isinstance(error, OSError) or error.errno not in (errno.EADDRINUSE, errno.EACCES):
            advice = "choose another --host: 127.0.0.1 for this machine alone, 0.0.0.0 for all"
        raise Busy(
            f"The page cannot be opened at {format_host(settings.host)}:{settings.port} "
            f"({reason}); {advice}."
        ) from None


def format_host(host: str) -> str:
    """Return a host as it stands in an address: IPv6 in brackets."""
    return f"[{host}]" if ":" in host else host
