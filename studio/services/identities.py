"""Who a browser is: names that the studio gives out and signs, so that nobody invents one.

Knows: the visitor's cookie, old and new; how many are given out an hour. Does not know: who is
owner and who guest (services/visitor.py); passwords (services/logins.py); HTTP.

A cookie is `<id>.<signature>`. Studios before this one gave unsigned ones, whose id is their hash:
such a one is signed anew when it comes from the owner's machine, or when something in the home is
its own; else anybody could be anybody by thinking of a cookie.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import time
from collections import deque
from collections.abc import Callable
from http.cookies import CookieError, SimpleCookie

from studio.errors import TooSoon
from studio.services.connection import group_address
from studio.services.visitor import Visitor
from studio.storage.home import Home

COOKIE_NAME = "studio-visitor"
ID_CHARS = 16
MAX_OLD_COOKIE_CHARS = 200
MAX_ADDRESSES = 10_000
NEW_VISITORS_FACTOR = 4  # of all addresses together, against one
HOUR_SECONDS = 3600
_SIGNED = re.compile(rf"([0-9a-f]{{{ID_CHARS}}})\.([0-9a-f]{{64}})")


class Identities:
    """The identities of one home's visitors."""

    def __init__(self, home: Home, clock: Callable[[], float] = time.monotonic) -> None:
        self._home = home
        self._secret = home.secret
        self._limit = NewVisitorLimit(home.settings.new_visitors, clock)

    def sign(self, visitor_id: str) -> str:
        """Return the cookie of an id."""
        signature = hmac.new(self._secret, f"visitor {visitor_id}".encode(), hashlib.sha256)
        return f"{visitor_id}.{signature.hexdigest()}"

    def issue(self, address: str, *, is_guest: bool) -> str:
        """Return the cookie of somebody new.

        Raises TooSoon for a guest where too many have come within the hour.
        """
        if is_guest:
            self._limit.take(address)
        return self.sign(secrets.token_hex(ID_CHARS // 2))

    def read_cookie(self, cookie: str, *, is_guest: bool) -> str:
        """Return the id behind a visitor's cookie; empty where it is none that holds here."""
        if self.is_signed(cookie):
            return cookie[:ID_CHARS]
        # One of another studio on this machine, whose cookies this one sees: signed there.
        if not cookie or _SIGNED.fullmatch(cookie):
            return "" if is_guest else cookie[:ID_CHARS]
        visitor_id = _hash(cookie)
        if is_guest and (
            len(cookie) > MAX_OLD_COOKIE_CHARS or not self._owns_something(visitor_id)
        ):
            return ""
        return visitor_id

    def is_signed(self, cookie: str) -> bool:
        """Return whether a cookie is one that this home has given out."""
        signed = _SIGNED.fullmatch(cookie)
        return signed is not None and hmac.compare_digest(self.sign(signed[1]), cookie)

    def _owns_something(self, visitor_id: str) -> bool:
        return bool(
            self._home.jobs.list_recent(1, visitor_id)
            or self._home.gallery.search(owner=visitor_id, limit=1)
            or self._home.gallery.bin.count(visitor_id)
            or self._home.sweeps.list_sweeps(visitor_id, 1)
        )


def name_guest(login_name: str) -> Visitor:
    """Return the guest of a login of their own, the same on every machine."""
    return Visitor(_hash(f"login {login_name}"), is_guest=True)


def name_program(address: str, *, is_guest: bool) -> Visitor:
    """Return who a request without a cookie is.

    The owner's programs are called api; guests', where none has to log in, by their address.
    """
    if not is_guest:
        return Visitor("api", is_guest=False)
    return Visitor(f"api-{_hash(f'{address} None')}", is_guest=True)


def parse_cookie(header: str, name: str = COOKIE_NAME) -> str:
    """Return a cookie in a Cookie header; empty where there is none."""
    try:
        morsel = SimpleCookie(header).get(name)
    except CookieError:
        return ""
    return morsel.value if morsel else ""


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:ID_CHARS]


class NewVisitorLimit:
    """How many new guests there may be an hour, from one address and from all."""

    def __init__(self, per_address: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_address = per_address
        self._clock = clock
        self._of_all: deque[float] = deque()
        self._by_address: dict[str, deque[float]] = {}

    def take(self, address: str) -> None:
        """Count a new guest. Raises TooSoon where that is one too many."""
        now = self._clock()
        key = group_address(address)
        own = self._by_address.pop(key, None) or deque()
        self._by_address[key] = own
        if len(self._by_address) > MAX_ADDRESSES:
            del self._by_address[next(iter(self._by_address))]
        for times, limit in (
            (own, self._per_address),
            (self._of_all, self._per_address * NEW_VISITORS_FACTOR),
        ):
            while times and now - times[0] > HOUR_SECONDS:
                times.popleft()
            if len(times) >= limit:
                seconds = HOUR_SECONDS - (now - times[0])
                raise TooSoon(
                    "Too many new visitors within an hour. Try again in "
                    f"{max(1, round(seconds / 60))} minutes, in the browser you used before, or "
                    "with a login of your own.",
                    seconds,
                )
        own.append(now)
        self._of_all.append(now)
