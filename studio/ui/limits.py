"""What a guest may ask of the page's server: how often, how much at once, which files.

Knows: gradio's routes, bodies and streams as ASGI has them. Does not know: how much a guest may
(services/budgets.py); who is a guest (services/visitor.py); what a function of the page does.
"""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import urllib.parse
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from starlette.datastructures import Headers
from starlette.formparsers import MultiPartException
from starlette.middleware import Middleware
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from studio.errors import BadFile, Busy, DiskError, NotAllowed, StudioError
from studio.services.budgets import BYTES_PER_MB, Guests
from studio.services.submission import Services
from studio.services.visitor import Visitor, visitor_from_scope
from studio.storage.atomic import find_disk_error
from studio.storage.uploads import Uploads, check_kind
from studio.ui.private_gradio import Page, forget_upload_progress

# What a route is for; a proxy may have put a path before it.
ROUTE = re.compile(
    r"/gradio_api/(upload_progress|upload|heartbeat|queue/data|call|run|api|file|component_server"
    r"|deep_link|dev/reload)"
    r"(?:[/=](.*))?$",
    re.DOTALL,
)
# gradio offers these for what the page does not have. One opens sessions, one writes them to disk,
# one never ends.
CLOSED_ROUTES = ("component_server", "deep_link", "dev/reload")
# Their functions take turns themselves, and those that wait for a job hold none.
FUNCTION_ROUTES = ("run", "api")
# A request that takes a turn gives it back after so long, a body comes at least so quickly: who
# only waits holds up nobody.
TURN_SECONDS = 60.0
BODY_SECONDS = 20.0
MIN_BODY_BYTES_PER_SECOND = 20_000
STREAM_ROUTES = ("heartbeat", "queue/data", "call", "upload_progress")
MAX_BODY_BYTES = 32 * BYTES_PER_MB  # of a guest's event: a drawing on the largest picture has 23
MAX_GUEST_UPLOAD_BYTES = 64 * BYTES_PER_MB
# What an owner's upload leaves free on the disk, and how often that is looked at.
RESERVED_DISK_BYTES = 2 * 10**9
DISK_CHECK_BYTES = 64 * BYTES_PER_MB
SMALL_BODY_BYTES = 1 * BYTES_PER_MB  # of which any number may come at once
# A refusal takes so long, that who floods has to hold on too.
REFUSAL_SECONDS = 2.0
# Of one guest's upload: what it costs the page to take it in is spread out.
UPLOAD_BYTES_PER_SECOND = 10 * BYTES_PER_MB
RETRY_AFTER_SECONDS = 5
STATUSES = {Busy: 429, NotAllowed: 403, DiskError: 507, BadFile: 413}
TOO_SLOW = "The upload was too slow; send it again."


class LimitsMiddleware:
    """ASGI middleware that holds guests to their budgets; the owner passes."""

    def __init__(self, app: ASGIApp, page: Page, guests: Guests, uploads: Uploads) -> None:
        self.app = app
        self.page = page
        self.guests = guests
        self.uploads = uploads
        self.bodies: set[_Body] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        match = ROUTE.search(scope["path"])
        route, rest = (match[1], match[2] or "") if match else ("", "")
        if route in CLOSED_ROUTES:
            await PlainTextResponse("The studio cannot use that.", 404)(scope, receive, send)
            return
        visitor = visitor_from_scope(scope)
        body = _Body(self, visitor, receive, send)
        try:
            self.guests.requests.count_request(visitor)
            if route == "file":
                self._require_own_file(rest, visitor)
            async with self._hold(scope, route, rest, visitor):
                await self._answer(scope, route, visitor, body)
        except StudioError as error:
            body.refusal = error
        except TimeoutError:
            body.refusal = body.refusal or Busy(TOO_SLOW)
        except Exception as error:
            body.refusal = body.refusal or find_disk_error(error)
            if body.refusal is None:
                raise
        finally:
            self.bodies.discard(body)
        if body.refusal and not body.has_answered:
            await self._refuse(scope, route, body)

    async def _answer(self, scope: Scope, route: str, visitor: Visitor, body: _Body) -> None:
        is_post = scope["method"] == "POST"
        if route == "upload" and is_post:
            body.is_upload = True
            if visitor.is_guest:
                kept = await asyncio.to_thread(self.uploads.count_kept_bytes, visitor.id)
                body.own_bytes, body.all_bytes = kept
                self.bodies.add(body)
            await self.app(scope, body.receive, body.keep)
            await self._pass_upload(visitor, body)
        elif is_post and visitor.is_guest:
            body.limit = MAX_BODY_BYTES
            await self.app(scope, body.receive, body.send)
        else:
            await self.app(scope, body.original_receive, body.send)

    @asynccontextmanager
    async def _hold(
        self, scope: Scope, route: str, rest: str, visitor: Visitor
    ) -> AsyncIterator[None]:
        """Hold what a request takes up while it is answered. Raises Busy and NotAllowed."""
        upload_id = _read_query(scope, "upload_id")
        session_hash = rest if route == "heartbeat" else _read_query(scope, "session_hash")
        async with AsyncExitStack() as held:
            is_post = scope["method"] == "POST"
            if is_post and (route == "upload" or _is_large(scope)):
                held.enter_context(self.guests.uploads.hold(visitor))
            elif not is_post and route in STREAM_ROUTES:
                held.enter_context(self.guests.streams.hold(visitor))
            elif route not in FUNCTION_ROUTES and route != "file" and visitor.is_guest:
                await held.enter_async_context(self.guests.request_turns.take(visitor))
                await held.enter_async_context(asyncio.timeout(TURN_SECONDS))
            if route == "heartbeat" and session_hash:
                self.page.admit_session(session_hash, visitor)
                self.guests.sessions.count_heartbeat(session_hash, +1)
                held.callback(self.guests.sessions.count_heartbeat, session_hash, -1)
            elif session_hash:
                self.guests.sessions.require(session_hash, visitor)
            if upload_id:
                held.callback(forget_upload_progress, upload_id)
            yield

    async def _pass_upload(self, visitor: Visitor, body: _Body) -> None:
        """Note whose the sent files are, refuse those of no use, and pass gradio's answer on."""
        if body.refusal:
            return
        if body.status == 200:
            paths = [Path(path) for path in json.loads(body.kept_answer)]
            await asyncio.to_thread(self._take_files, paths, visitor)
            for other in self.bodies - {body}:
                other.count_kept(body)
        await body.pass_on()

    def _take_files(self, paths: list[Path], visitor: Visitor) -> None:
        """Record uploaded files; where a guest has no use for one, delete all and raise BadFile."""
        party = visitor.id if visitor.is_guest else ""
        try:
            if visitor.is_guest:
                for path in paths:
                    check_kind(path)
        except BadFile:
            for path in paths:
                self.uploads.delete_unknown(path)
            raise
        for path in paths:
            self.uploads.record(path, party)

    def _require_own_file(self, path: str, visitor: Visitor) -> None:
        if visitor.is_guest and not self.uploads.may_read(path, visitor.id):
            raise NotAllowed("That file belongs to somebody else.")

    async def _refuse(self, scope: Scope, route: str, body: _Body) -> None:
        """Answer with one sentence, as those read it that ask by this route."""
        error = body.refusal
        if isinstance(error, Busy):
            await asyncio.sleep(REFUSAL_SECONDS)
        status = next((code for kind, code in STATUSES.items() if isinstance(error, kind)), 400)
        headers = {"retry-after": str(RETRY_AFTER_SECONDS)} if status == 429 else None
        sentence = str(error)
        response: Response = PlainTextResponse(sentence, status, headers)
        if scope["method"] == "POST" and route != "upload":
            response = JSONResponse({"detail": sentence, "error": sentence}, status, headers)
        await response(scope, body.original_receive, body.original_send)


class _Body:
    """What comes in and goes out of one request of a guest's, counted."""

    def __init__(
        self, middleware: LimitsMiddleware, visitor: Visitor, receive: Receive, send: Send
    ) -> None:
        self.middleware = middleware
        self.visitor = visitor
        self.original_receive = receive
        self.original_send = send
        self.is_upload = False
        self.limit: int | None = None
        self.num_bytes = 0
        # What this guest, and all guests, have here already; it grows as other uploads end.
        self.own_bytes = 0
        self.all_bytes = 0
        self.refusal: StudioError | None = None
        self.has_answered = False
        self._next_disk_check = DISK_CHECK_BYTES
        self.status = 0
        self.kept_answer = b""
        self._messages: list[Message] = []
        self._begun = asyncio.get_running_loop().time()
        self._is_complete = False

    async def receive(self) -> Message:
        """Return the next piece, unless it is more than there may be.

        gradio deletes what it has of a form that raises this.
        """
        message = await self._receive_in_time()
        if message["type"] == "http.disconnect" and self.is_upload:  # gradio would leave a part
            raise MultiPartException("The upload broke off.")
        self.num_bytes += len(message.get("body", b""))
        if self.is_upload and self.visitor.is_guest:
            await asyncio.sleep(len(message.get("body", b"")) / UPLOAD_BYTES_PER_SECOND)
        self.refusal = self.refusal or self._find_refusal()
        if self.refusal:
            raise MultiPartException(str(self.refusal))
        return message

    async def _receive_in_time(self) -> Message:
        """Return the next piece of a body. Raises MultiPartException for a guest's that lags."""
        if self._is_complete or not self.visitor.is_guest:
            return await self.original_receive()
        seconds = BODY_SECONDS + self.num_bytes / MIN_BODY_BYTES_PER_SECOND
        try:
            async with asyncio.timeout_at(self._begun + seconds):
                message = await self.original_receive()
        except TimeoutError:
            self.refusal = self.refusal or Busy(TOO_SLOW)
            raise MultiPartException(TOO_SLOW) from None
        self._is_complete = not message.get("more_body", False)
        return message

    async def send(self, message: Message) -> None:
        """Pass an answer on, unless the request is refused."""
        if self.refusal is None:
            self.has_answered = True
            await self.original_send(message)

    async def keep(self, message: Message) -> None:
        """Hold an answer back until `pass_on`."""
        self._messages.append(message)
        if message["type"] == "http.response.start":
            self.status = message["status"]
        else:
            self.kept_answer += message.get("body", b"")

    async def pass_on(self) -> None:
        """Send the answer that was held back."""
        for message in self._messages:
            await self.send(message)

    def count_kept(self, ended: _Body) -> None:
        """Count what another upload has left here."""
        self.all_bytes += ended.num_bytes
        if ended.visitor == self.visitor:
            self.own_bytes += ended.num_bytes

    def _find_refusal(self) -> StudioError | None:
        if not self.visitor.is_guest:
            return self._find_disk_refusal() if self.is_upload else None
        if self.is_upload and self.num_bytes > MAX_GUEST_UPLOAD_BYTES:
            return BadFile(f"That is larger than {MAX_GUEST_UPLOAD_BYTES // BYTES_PER_MB} MiB.")
        if self.limit is not None:
            if self.num_bytes > self.limit:
                return BadFile(f"That is larger than {self.limit // BYTES_PER_MB} MiB.")
            return None
        bodies = self.middleware.bodies
        own_bytes = self.own_bytes
        own_bytes += sum(body.num_bytes for body in bodies if body.visitor == self.visitor)
        all_bytes = self.all_bytes + sum(body.num_bytes for body in bodies)
        budgets = self.middleware.guests.budgets
        if own_bytes > budgets.upload_bytes:
            return BadFile(
                f"A guest may have {budgets.upload_bytes // BYTES_PER_MB} MiB of files here; "
                "uploads are deleted after a day."
            )
        if all_bytes > budgets.all_upload_bytes:
            return BadFile(
                f"All guests together may have {budgets.all_upload_bytes // BYTES_PER_MB} MiB of "
                "files here, which is used up; try again tomorrow."
            )
        return None

    def _find_disk_refusal(self) -> StudioError | None:
        """Return why an owner's upload ends: a full disk would stop everything else too."""
        if self.num_bytes < self._next_disk_check:
            return None
        self._next_disk_check = self.num_bytes + DISK_CHECK_BYTES
        free_bytes = shutil.disk_usage(self.middleware.uploads.folder.parent).free
        if free_bytes >= RESERVED_DISK_BYTES + DISK_CHECK_BYTES:
            return None
        return DiskError(
            f"The disk has only {free_bytes / 1e9:.1f} GB left, too little for that "
            "file; free some space, or use the file in place: paste its path in the Models tab."
        )


def build_limits(page: Page, services: Services) -> list[Any]:
    """Return what gradio's `app_kwargs` take as middleware, behind that of the access control."""
    return [
        Middleware(
            LimitsMiddleware, page=page, guests=services.guests, uploads=services.home.uploads
        )
    ]


def _is_large(scope: Scope) -> bool:
    length = Headers(scope=scope).get("content-length", "")
    return not length.isdecimal() or int(length) > SMALL_BODY_BYTES


def _read_query(scope: Scope, name: str) -> str:
    query = urllib.parse.parse_qs(scope.get("query_string", b"").decode("latin-1"))
    return str(query.get(name, [""])[0])
