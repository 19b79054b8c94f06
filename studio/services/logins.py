"""Logins: who has one, how a wrong password slows down the next.

Knows: `--auth` and `--guest`, made-up passwords, growing pauses. Does not know: HTTP; cookies
(ui/login.py); what a guest may do (services/visitor.py).
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass

from studio.errors import InvalidSpec, NotAllowed, TooSoon
from studio.services.connection import group_address, is_local
from studio.settings import Settings
from studio.storage.logins import LoginSessions

FREE_TRIES = 4  # of one address, before it waits
MAX_PAUSE_SECONDS = 60
# Of all addresses together: a wrong password that many machines try is slowed down too, and who
# knows theirs never waits long because of them.
FREE_TRIES_OF_ALL = 40
MAX_PAUSE_OF_ALL_SECONDS = 5
FORGET_SECONDS = 3600  # after so long without a wrong password the count begins anew
MAX_ADDRESSES = 10_000
MAX_LOGIN_CHARS = 200
SHARED_LOGIN = "studio"  # the name that goes with a made-up password


@dataclass(frozen=True)
class Login:
    """A name with its password.

    `is_personal` if it is one guest's own, `--guest`; behind the one of `--auth` are many.
    """

    name: str
    password: str
    is_personal: bool = False


def choose_logins(settings: Settings) -> tuple[Login, ...]:
    """Return the logins that visitors may give; none where everybody sits at this machine.

    A password is made up where the page is reached from outside and none is set. Raises InvalidSpec
    for a setting that is no login.
    """
    shared = [_parse_login(settings.auth, "--auth must be USER:PASSWORD.")] if settings.auth else []
    guests = [
        Login(*_parse_login(text, f"--guest {number} must be NAME:PASSWORD."), is_personal=True)
        for number, text in enumerate(settings.guests, 1)
    ]
    logins = [Login(*pair) for pair in shared] + guests
    names = [login.name for login in logins]
    if len(set(names)) < len(names):
        raise InvalidSpec(["Each --guest needs a name that no other login has."])
    if not logins and is_reached_from_outside(settings):
        logins.append(Login(SHARED_LOGIN, secrets.token_urlsafe(12)))
    return tuple(logins)


def is_reached_from_outside(settings: Settings) -> bool:
    """Return whether the settings lead anybody here who does not sit at this machine."""
    return (
        settings.share
        or not is_local(settings.host)
        or bool(settings.trusted_proxies)
        or any(not is_local(host) for host in settings.allow_hosts)
    )


def _parse_login(text: str, sentence: str) -> tuple[str, str]:
    name, colon, password = text.partition(":")
    name = name.strip()
    if not (name and colon and password) or max(len(name), len(password)) > MAX_LOGIN_CHARS:
        raise InvalidSpec([sentence])
    return name, password


class Logins:
    """The door: whom it lets in, and for how long somebody who guesses has to wait."""

    def __init__(
        self,
        logins: tuple[Login, ...],
        sessions: LoginSessions,
        secret: bytes,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Keep the logins.

        Args:
            logins: All of them.
            sessions: Who is logged in.
            secret: The home's key: a session is one of a name with its password, so that it ends
                when the password is another.
            clock: Seconds that only grow.
        """
        self.sessions = sessions
        self._logins = {self._mark(login, secret): login for login in logins}
        self._pauses = PasswordPauses(clock)

    @property
    def is_required(self) -> bool:
        """Whether guests have to log in."""
        return bool(self._logins)

    def log_in(self, name: str, password: str, address: str) -> str:
        """Return the token of a new session.

        Raises:
            TooSoon: After wrong passwords, until the pause is over.
            NotAllowed: A wrong name or password.
        """
        self._pauses.require_none(address)
        name = name.strip()
        given = hashlib.sha256(password.encode("utf-8", "surrogatepass")).digest()
        mark = ""
        for key, login in self._logins.items():  # all of them, so that the time says nothing
            is_name = hmac.compare_digest(
                login.name.encode(), name.encode("utf-8", "surrogatepass")
            )
            expected = hashlib.sha256(login.password.encode("utf-8", "surrogatepass")).digest()
            if hmac.compare_digest(given, expected) and is_name:
                mark = key
        if not mark:
            self._pauses.record_failure(address)
            raise NotAllowed("Wrong name or password.")
        self._pauses.record_success(address)
        return self.sessions.add(mark)

    def find_login(self, token: str) -> Login | None:
        """Return the login whose session a token is; None if there is none, or no longer."""
        mark = self.sessions.get(token) if token else None
        return self._logins.get(mark) if mark else None

    @staticmethod
    def _mark(login: Login, secret: bytes) -> str:
        text = f"{len(login.name)} {login.name} {login.password}"
        return hmac.new(secret, text.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()


@dataclass
class _Failures:
    count: int = 0
    last: float = 0.0
    blocked_until: float = 0.0


class PasswordPauses:
    """The pause after wrong passwords: it doubles with each, for an address and for all together.

    What is tried during a pause is not looked at, the right password neither: else there would be
    no pause.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._of_all = _Failures()
        self._by_address: dict[str, _Failures] = {}

    def require_none(self, address: str) -> None:
        """Raise TooSoon while an address, or everybody, has to wait."""
        failures = self._by_address.get(group_address(address))
        until = max(self._of_all.blocked_until, failures.blocked_until if failures else 0.0)
        seconds = until - self._clock()
        if seconds > 0:
            raise TooSoon(
                "Too many wrong passwords. Try again in "
                f"{max(1, round(seconds))} second{'s' if round(seconds) > 1 else ''}.",
                seconds,
            )

    def record_failure(self, address: str) -> None:
        """Count a wrong password."""
        key = group_address(address)
        failures = self._by_address.pop(key, None) or _Failures()
        self._by_address[key] = failures  # at the end: the first is the one not seen for longest
        if len(self._by_address) > MAX_ADDRESSES:
            del self._by_address[next(iter(self._by_address))]
        self._count(failures, FREE_TRIES, MAX_PAUSE_SECONDS)
        self._count(self._of_all, FREE_TRIES_OF_ALL, MAX_PAUSE_OF_ALL_SECONDS)

    def record_success(self, address: str) -> None:
        """Forget the wrong passwords of an address."""
        self._by_address.pop(group_address(address), None)

    def _count(self, failures: _Failures, free_tries: int, max_seconds: float) -> None:
        now = self._clock()
        if now - failures.last > FORGET_SECONDS:
            failures.count = 0
        failures.count += 1
        failures.last = now
        excess = failures.count - free_tries
        if excess >= 0:
            failures.blocked_until = now + min(2.0 ** min(excess, 20), max_seconds)
