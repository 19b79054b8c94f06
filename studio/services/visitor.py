"""Who asks, and what they may do: the one place that decides.

Knows: cookies, addresses and Host headers, owner and guest. Does not know: what a job does; how a
refusal is shown; gradio.

The owner sits at this machine: the connection comes from it and names it (127.0.0.1, localhost).
Everybody else, on the local network or through a public link, is a guest: has to log in, may ask
for less, sees and touches only what is theirs.
"""

from __future__ import annotations

import hashlib
import ipaddress
import secrets
import urllib.parse
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from typing import Any

from studio.core.generation.request import GenerationRequest
from studio.core.sweeps.spec import SweepSpec
from studio.errors import InvalidSpec, NotAllowed
from studio.settings import Settings
from studio.storage.inputs import Inputs
from studio.storage.jobs import Job

COOKIE_NAME = "studio-visitor"
TAB_HEADER = "x-studio-tab"  # ui/static/browser_tab.js sends it
MAX_TAB_CHARS = 32
IMAGE_FIELDS = ("image", "mask")  # fields of a request that name a file of inputs/


@dataclass(frozen=True)
class Visitor:
    """One browser.

    `id` is a hash of its cookie: tables and files may hold it without giving the cookie away. `tab`
    says which of its tabs asks, in the tab's own words; it opens nothing that `id` does not.
    """

    id: str
    is_guest: bool
    tab: str = ""

    @property
    def owner_filter(self) -> str | None:
        """Whose things this visitor sees; None is everybody's."""
        return self.id if self.is_guest else None

    def may_see(self, owner: str) -> bool:
        """Return whether this visitor may see what somebody made."""
        return self.owner_filter in (None, owner)

    def require_job_access(self, job: Job) -> None:
        """Raise NotAllowed unless this visitor may cancel, move or retry that job."""
        if not self.may_see(job.owner):
            raise NotAllowed(
                f"Job {job.id} is somebody else's; only they and the owner of this studio may "
                "change it."
            )

    def require_owner(self, action: str) -> None:
        """Raise NotAllowed for a guest."""
        if self.is_guest:
            raise NotAllowed(
                f"{action}: only the owner of this studio may do that, at the machine itself."
            )

    def require_inputs(self, inputs: Inputs, spec: GenerationRequest | SweepSpec) -> None:
        """Raise BadPicture for an image or mask that this guest names and never brought.

        What came of it would show it to them.
        """
        if not self.is_guest:
            return
        if isinstance(spec, SweepSpec):
            names = {spec.base.image, spec.base.mask}
            for axis in spec.axes:
                if axis.field in IMAGE_FIELDS:
                    names.update(str(value) for value in axis.parsed_values)
        else:
            names = {spec.image, spec.mask}
        for sha256 in sorted(names - {""}):
            inputs.get_path(sha256, self.owner_filter)


def visitor_from_scope(scope: Mapping[str, Any]) -> Visitor:
    """Return the visitor behind an ASGI request.

    The owner's programs, which have no cookie, are called api, guests' by their address.
    """
    headers = {
        name.decode("latin-1").lower(): value.decode("latin-1")
        for name, value in reversed(scope.get("headers", ()))
    }
    address = (scope.get("client") or ("", 0))[0]
    # Set where it came through somebody's proxy.
    forwarded = headers.get("x-forwarded-for", headers.get("forwarded"))
    is_guest = (
        forwarded is not None
        or not is_local(address)
        or not is_local(parse_host(headers.get("host", "")))
    )
    cookie = parse_cookie(headers.get("cookie", ""))
    code = hashlib.sha256((cookie or f"{address} {forwarded}").encode()).hexdigest()[:16]
    tab = headers.get(TAB_HEADER, "")[:MAX_TAB_CHARS]
    if cookie:
        return Visitor(code, is_guest, tab)
    return Visitor(f"api-{code}" if is_guest else "api", is_guest, tab)


def is_local(name: str) -> bool:
    """Return whether a host name or address is this machine's own."""
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def choose_login(settings: Settings) -> tuple[str, str] | None:
    """Return the user and password that visitors have to give.

    None where everybody sits at this machine.

    They are made up where the page is reached from outside. Raises InvalidSpec for a setting that
    is no login.
    """
    if settings.auth:
        user, colon, password = settings.auth.partition(":")
        if not (user and colon and password):
            raise InvalidSpec(["--auth has to be USER:PASSWORD."])
        return user, password
    if settings.share or not is_local(settings.host):
        return "studio", secrets.token_urlsafe(12)
    return None


def mark_visible_jobs(jobs: Iterable[Job], visitor: Visitor) -> list[tuple[Job, bool]]:
    """Return jobs, each with whether this visitor may know what it is about."""
    return [(job, visitor.may_see(job.owner)) for job in jobs]


def parse_host(header: str) -> str:
    """Return the host name of a Host header, without the port; empty for what is none."""
    try:
        return urllib.parse.urlsplit(f"//{header}").hostname or ""
    except ValueError:
        return ""


def parse_cookie(header: str) -> str:
    """Return the visitor's cookie in a Cookie header; empty where there is none."""
    try:
        morsel = SimpleCookie(header).get(COOKIE_NAME)
    except CookieError:
        return ""
    return morsel.value if morsel else ""
