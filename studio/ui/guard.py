"""Who asks, and what they may do: the one place that decides.

Knows: cookies, Host and Origin headers, owner and guest, whose a picture file, a sweep's sheet, a training's sample or LoRA is, who
brought a picture that is worked on.
Does not know: what a job does; how a refusal is shown.

The owner sits at this machine: the connection comes from it and names it (127.0.0.1, localhost). Everybody else, on the
local network or through a public link, is a guest: has to log in, may ask for less, sees and touches only what is theirs.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
import secrets
import socket
import urllib.parse
from collections.abc import Iterable
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.utils import get_upload_folder
from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from studio.core.generation.request import GenerationRequest
from studio.core.sweeps.spec import SweepSpec
from studio.errors import BadFile, BadPicture, Busy, InvalidSpec, NotAllowed
from studio.settings import Settings
from studio.storage.gallery import Gallery
from studio.storage.inputs import Inputs
from studio.storage.jobs import Job
from studio.storage.sweeps import Sweeps
from studio.storage.training.runs import Runs

COOKIE = "studio-visitor"
SAFE = ("GET", "HEAD", "OPTIONS")
PICTURES = ("image", "mask")  # fields of a request that name a file of inputs/
FILES = re.compile(
    "/gradio_api/file[=/](.*)", re.DOTALL
)  # gradio still answers to the old spelling
YEAR = 365 * 24 * 3600


@dataclass(frozen=True)
class Visitor:
    """One browser. `id` is a hash of its cookie: it may stand in tables and files without giving the cookie away."""

    id: str
    guest: bool

    @property
    def sees(self) -> str | None:
        """Whose things this visitor sees: None is everybody's."""
        return self.id if self.guest else None

    def may_touch(self, job: Job) -> None:
        """Raise NotAllowed unless this visitor may cancel, move or retry that job."""
        if self.guest and job.owner != self.id:
            raise NotAllowed(
                f"Job {job.id} is somebody else's; only they and the owner of this studio may change it."
            )

    def must_own(self, what: str) -> None:
        """Raise NotAllowed for a guest."""
        if self.guest:
            raise NotAllowed(
                f"{what}: only the owner of this studio may do that, at the machine itself."
            )

    def must_have(self, inputs: Inputs, asked: GenerationRequest | SweepSpec) -> None:
        """Raise BadPicture for a picture or mask that this guest names and never brought: what came of it would show it to them."""
        base = asked.base if isinstance(asked, SweepSpec) else asked
        axes = asked.axes if isinstance(asked, SweepSpec) else ()
        named = {
            base.image,
            base.mask,
            *(str(value) for axis in axes if axis.field in PICTURES for value in axis.parsed),
        }
        for digest in sorted(named - {""}) if self.guest else ():
            inputs.path(digest, self.sees)


def who(request: gr.Request) -> Visitor:
    """The visitor behind a gradio event."""
    if request.request is None:  # not from HTTP: nobody that could be known
        return Visitor("api", guest=True)
    return visitor(request.request.scope)


def visitor(scope: Scope) -> Visitor:
    """The visitor behind an ASGI request. The owner's programs, which have no cookie, are called api, guests' by address."""
    headers = Headers(scope=scope)
    address = (scope.get("client") or ("", 0))[0]
    forwarded = headers.get(
        "x-forwarded-for", headers.get("forwarded")
    )  # came through somebody's proxy
    guest = (
        forwarded is not None
        or not is_local(address)
        or not is_local(_host(headers.get("host", "")))
    )
    cookie = _cookie(headers.get("cookie", ""))
    code = hashlib.sha256((cookie or f"{address} {forwarded}").encode()).hexdigest()[:16]
    return Visitor(code if cookie else f"api-{code}" if guest else "api", guest)


def uploaded(file: Any) -> tuple[Path, str]:
    """The file that a visitor sent, and the name it had. Raises BadFile for any other: a path is only words of the visitor's.

    (gradio looks only at paths that say they are files, and then also takes those which the page serves.)
    """
    path = file.get("path") if isinstance(file, dict) else None
    try:
        sent = Path(path).resolve() if isinstance(path, str) and path else None
    except (OSError, ValueError):
        sent = None
    if sent is None or not sent.is_relative_to(Path(get_upload_folder()).resolve()):
        raise BadFile("Send a file.")
    return sent, str(file.get("orig_name") or "")


def is_local(name: str) -> bool:
    """Whether a host name or address is this machine's own."""
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def login(settings: Settings) -> tuple[str, str] | None:
    """User and password that visitors have to give; made up where the page is reached from outside. Raises InvalidSpec."""
    if settings.auth:
        user, colon, password = settings.auth.partition(":")
        if not (user and colon and password):
            raise InvalidSpec(["--auth has to be USER:PASSWORD."])
        return user, password
    if settings.share or not is_local(settings.host):
        return "studio", secrets.token_urlsafe(12)
    return None


class Guard:
    """ASGI middleware in front of everything: Host, Origin, the visitor's cookie, guests' files."""

    def __init__(
        self, app: ASGIApp, settings: Settings, gallery: Gallery, sweeps: Sweeps, runs: Runs
    ) -> None:
        self.app = app
        self.share = settings.share
        self.hosts = {settings.host}
        self.gallery, self.sweeps, self.runs = gallery, sweeps, runs
        self.served = (settings.outputs.resolve(), settings.thumbs.resolve())
        self.inputs, self.brought = Inputs(settings), settings.inputs.resolve()
        self.sheets = settings.sweeps.resolve()
        self.trainings, self.loras = settings.runs.resolve(), settings.loras.resolve()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        refusal = self._refusal(scope, headers)
        if refusal:
            await PlainTextResponse(refusal, 403)(scope, receive, send)
            return
        fresh = (
            None
            if _cookie(headers.get("cookie", "")) or scope["path"] != "/"
            else secrets.token_urlsafe(24)
        )

        async def with_cookie(message: Message) -> None:
            if fresh and message["type"] == "http.response.start":
                written = f"{COOKIE}={fresh}; Path=/; Max-Age={YEAR}; HttpOnly; SameSite=Strict"
                message["headers"] = [*message["headers"], (b"set-cookie", written.encode())]
            await send(message)

        await self.app(scope, receive, with_cookie)

    def _refusal(self, scope: Scope, headers: Headers) -> str:
        host = headers.get("host", "")
        if not self._known(_host(host)):
            return "This studio does not answer to that host name."
        origin = headers.get("origin")
        if (
            scope["method"] not in SAFE
            and origin is not None
            and urllib.parse.urlsplit(origin).netloc != host
        ):
            return "This studio takes no requests from other sites' pages."
        file = FILES.search(scope["path"])
        if file and not self._may_read(file[1], visitor(scope)):
            return "That file is somebody else's."
        return ""

    def _known(self, name: str) -> bool:
        """Names that lead here on purpose. An address cannot be rebound by a hostile name server, a name can."""
        if name in self.hosts or is_local(name) or (self.share and name.endswith(".gradio.live")):
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True

    def _may_read(self, name: str, asks: Visitor) -> bool:
        if not asks.guest:
            return True
        if "://" in name:  # gradio would fetch it for them
            return False
        try:
            path = Path(name).resolve()
        except (OSError, ValueError):
            return False
        if path.is_relative_to(self.sheets):
            sweep = (
                self.sweeps.get(path.relative_to(self.sheets).parts[0])
                if path != self.sheets
                else None
            )
            return sweep is not None and sweep.owner == asks.id
        if path.is_relative_to(self.trainings):
            run = (
                self.runs.get(path.relative_to(self.trainings).parts[0])
                if path != self.trainings
                else None
            )
            return run is not None and run.owner == asks.id
        if path.is_relative_to(
            self.loras
        ):  # the owner's collection, and what this guest has trained
            made = {
                known.get("lora")
                for run in self.runs.listing(asks.id)
                for known in run.result.values()
            }
            return path.relative_to(self.loras).with_suffix("").as_posix() in made
        if path.is_relative_to(self.brought):
            return self._has_brought(path, asks)
        for folder in self.served:
            if path.is_relative_to(folder):
                picture = self.gallery.get(
                    self.served[0] / path.relative_to(folder).with_suffix(".png")
                )
                return picture is not None and picture.owner == asks.id
        return True

    def _has_brought(self, path: Path, asks: Visitor) -> bool:
        try:
            return self.inputs.path(path.stem, asks.id).resolve() == path
        except BadPicture:
            return False


def _host(header: str) -> str:
    try:
        return urllib.parse.urlsplit(f"//{header}").hostname or ""
    except ValueError:
        return ""


def _cookie(header: str) -> str:
    try:
        found = SimpleCookie(header).get(COOKIE)
    except CookieError:
        return ""
    return found.value if found else ""


def own(jobs: Iterable[Job], asks: Visitor) -> list[tuple[Job, bool]]:
    """Jobs, each with whether this visitor may know what it is about."""
    return [(job, not asks.guest or job.owner == asks.id) for job in jobs]


def middleware(settings: Settings, gallery: Gallery, sweeps: Sweeps, runs: Runs) -> list[Any]:
    """For gradio's `app_kwargs`."""
    return [Middleware(Guard, settings=settings, gallery=gallery, sweeps=sweeps, runs=runs)]


def free_port(settings: Settings) -> None:
    """Raise Busy with one sentence if the wished port is taken (gradio would say it in a traceback)."""
    if not settings.port:
        return
    with socket.socket(socket.AF_INET6 if ":" in settings.host else socket.AF_INET) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((settings.host, settings.port))
        except OSError as error:
            raise Busy(
                f"The page cannot be opened at {settings.host}:{settings.port} ({error.strerror}); choose another "
                "--port, or 0 for any free one."
            ) from None
