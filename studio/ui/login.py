"""Logging in and out, in front of the page.

Knows: the login page, the answers that gradio's programs expect of `/login`, the session's cookie.
Does not know: passwords and pauses (services/logins.py); who is owner and who guest.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.types import Message, Receive, Scope

from studio.errors import NotAllowed, StudioError, TooSoon
from studio.services.connection import Connection, is_same_origin, read_headers
from studio.services.identities import COOKIE_NAME, Identities, parse_cookie
from studio.services.logins import Login, Logins
from studio.settings import Settings
from studio.ui.cookies import build_cookie
from studio.ui.security_headers import NONCE_KEY
from studio.ui.views.templates import render_macro

LOGIN_COOKIE = "studio-login"
LOGIN_PATHS = ("/login", "/login/")
LOGOUT_PATHS = ("/logout", "/logout/")
# What anybody gets: an icon, a word to search engines, and what gradio asks itself at its start.
OPEN_PATHS = ("/favicon.ico", "/robots.txt", "/gradio_api/startup-events")
MAX_BODY_BYTES = 16 * 2**10
WRONG_PASSWORD = "Incorrect credentials."  # gradio's word for it, which programs may look for


@dataclass(frozen=True)
class Session:
    """Who is logged in, and by which token; both empty where nobody is."""

    login: Login | None = None
    token: str = ""


class LoginDesk:
    """The routes of the login, and the answer to those who have not logged in."""

    def __init__(self, settings: Settings, logins: Logins, identities: Identities) -> None:
        self.settings = settings
        self.logins = logins
        self.identities = identities

    def find_session(self, cookie_header: str) -> Session:
        """Return the session that a Cookie header names."""
        token = parse_cookie(cookie_header, LOGIN_COOKIE)
        login = self.logins.find_login(token)
        return Session(login, token) if login else Session()

    async def answer(
        self, scope: Scope, receive: Receive, connection: Connection, *, is_let_in: bool
    ) -> Response | None:
        """Return the answer to a request that is the login's affair; None for all others.

        Args:
            scope: The request.
            receive: Its body.
            connection: How it came.
            is_let_in: Whether the visitor has logged in or need not.
        """
        path, method = scope["path"], scope["method"]
        if path in LOGIN_PATHS:
            if method == "POST":
                return await self._log_in(scope, receive, connection)
            return _redirect() if is_let_in else self._render_page(scope, connection)
        if path in LOGOUT_PATHS:
            return await self._log_out(scope, connection)
        if is_let_in or path in OPEN_PATHS:
            return None
        if path == "/" and method in ("GET", "HEAD"):
            return self._render_page(scope, connection)
        return JSONResponse({"detail": "Not authenticated", "error": "Log in first."}, 401)

    async def _log_in(self, scope: Scope, receive: Receive, connection: Connection) -> Response:
        if not self.logins.is_required:
            return _redirect()
        is_browser = _is_browser(scope)
        name, password = await _read_credentials(scope, receive)
        headers = []
        try:
            token = await run_in_threadpool(self.logins.log_in, name, password, connection.address)
            headers.append(build_cookie(LOGIN_COOKIE, token, connection, self.settings))
            login = self.logins.find_login(token)
            cookie = parse_cookie(read_headers(scope).get("cookie", ""))
            known = self.identities.read_cookie(cookie, is_guest=True)
            if not known and login and not login.is_personal:
                cookie = self.identities.issue(connection.address, is_guest=True)
                headers.append(build_cookie(COOKIE_NAME, cookie, connection, self.settings))
        except TooSoon as error:
            response = self._refuse(scope, connection, str(error), 429)
            response.headers["retry-after"] = str(math.ceil(error.seconds))
            return response
        except NotAllowed as error:
            sentence = str(error) if is_browser else WRONG_PASSWORD
            return self._refuse(scope, connection, sentence, 400)
        except StudioError as error:
            return self._refuse(scope, connection, str(error), 503)
        response = _redirect() if is_browser else JSONResponse({"success": True})
        response.raw_headers.extend(headers)
        return response

    async def _log_out(self, scope: Scope, connection: Connection) -> Response:
        if scope["method"] != "POST":
            return PlainTextResponse(
                "Press Log out on the page; opening this address does not log you out.",
                405,
                {"allow": "POST"},
            )
        headers = read_headers(scope)
        origin = headers.get("origin", "")
        is_own = is_same_origin(origin, connection, self.settings) if origin else False
        if not is_own and (origin or headers.get("sec-fetch-site") != "same-origin"):
            return PlainTextResponse("Only the studio's own page can log you out.", 403)
        session = self.find_session(headers.get("cookie", ""))
        if session.token:
            await run_in_threadpool(self.logins.sessions.remove, session.token)
        response = _redirect() if _is_browser(scope) else JSONResponse({"success": True})
        response.raw_headers.append(build_cookie(LOGIN_COOKIE, "", connection, self.settings))
        return response

    def _refuse(self, scope: Scope, connection: Connection, sentence: str, status: int) -> Response:
        if _is_browser(scope):
            return self._render_page(scope, connection, sentence, status)
        return JSONResponse({"detail": sentence, "error": sentence}, status)

    def _render_page(
        self, scope: Scope, connection: Connection, sentence: str = "", status: int = 401
    ) -> Response:
        page = render_macro(
            "login.html",
            "page",
            sentence=sentence,
            root_path=connection.root_path,
            nonce=scope.get(NONCE_KEY, ""),
        )
        return HTMLResponse(page, status, {"cache-control": "no-store"})


def _redirect() -> Response:
    """Go to the page, whose address is relative: only a proxy may know the path it lies under."""
    return Response(status_code=303, headers={"location": "./", "cache-control": "no-store"})


def _is_browser(scope: Scope) -> bool:
    return "text/html" in read_headers(scope).get("accept", "")


async def _read_credentials(scope: Scope, receive: Receive) -> tuple[str, str]:
    """Return name and password of a form or of JSON; empty for what is neither, or too long."""
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if len(body) > MAX_BODY_BYTES or message["type"] == "http.disconnect":
            return "", ""
        if not message.get("more_body"):
            break

    async def replay() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    values: Any
    try:
        if "json" in read_headers(scope).get("content-type", ""):
            values = json.loads(body)
        else:
            values = await Request(scope, replay).form(max_files=0, max_fields=10)
        name, password = values.get("username", ""), values.get("password", "")
    except (ValueError, RecursionError, AttributeError, AssertionError, HTTPException):
        return "", ""
    if isinstance(name, str) and isinstance(password, str):
        return name, password
    return "", ""
