"""The access control of a page without the page: behind it stands an app that says who came in."""

from __future__ import annotations

import json
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.testclient import TestClient

from studio.services.logins import Login, Logins
from studio.services.visitor import visitor_from_scope
from studio.storage.home import Home
from studio.ui.middleware import build_middleware

PAGE = '<!doctype html><html><head><meta charset="utf-8"><script>let a</script></head></html>'


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


class FrontDoor:
    """A page's access control on a home; `ask` knocks from some address."""

    def __init__(self, home: Home, logins: tuple[Login, ...] = ()) -> None:
        self.home = home
        self.clock = Clock()
        self.logins = Logins(logins, home.login_sessions, home.secret, self.clock)
        self.app = Starlette(
            routes=[
                Route("/", self._page),
                Route("/{path:path}", self._answer, methods=["GET", "POST"]),
            ],
            middleware=build_middleware(home, self.logins),
        )

    def visit(
        self, address: str = "127.0.0.1", host: str = "127.0.0.1:7860", **headers: str
    ) -> TestClient:
        """Return a browser at an address that asks for a host; `x_y` is the header X-Y."""
        client = TestClient(
            self.app, "http://studio", client=(address, 5000), follow_redirects=False
        )
        client.headers.clear()
        client.headers["host"] = host
        client.headers.update({name.replace("_", "-"): text for name, text in headers.items()})
        return client

    def _page(self, request: Request) -> Response:
        return HTMLResponse(PAGE)

    def _answer(self, request: Request) -> Response:
        if request.url.path.endswith("queue/data"):
            return Response(b"data: {}\n\n", media_type="text/event-stream")
        visitor = visitor_from_scope(request.scope)
        return JSONResponse(
            {
                "id": visitor.id,
                "is_guest": visitor.is_guest,
                "root": request.headers.get("x-gradio-server"),
                "told": [name for name in request.headers if name.startswith("x-forwarded")],
                "path": request.url.path,
            }
        )


def who(response: Any) -> dict[str, Any]:
    """Return whom the app behind the door saw."""
    assert response.status_code == 200, response.text
    return dict(json.loads(response.text))
