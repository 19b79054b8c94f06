"""HTTPS as downloads need it: known sites, few redirects, no secrets to others, limits on all.

Knows: which sites need no question, redirects, refusals, when another try is worth it.
Does not know: addresses and sockets (network.py); what is done with an answer.
"""

from __future__ import annotations

import email.utils
import http.client
import json
import re
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar
from urllib.parse import quote as quote_url
from urllib.parse import urljoin, urlsplit

from studio import __version__
from studio.errors import DownloadError, SiteRefusal, quote
from studio.storage.downloads.network import (
    LostConnection,
    Network,
    PinnedConnection,
    open_network,
)

MAX_REDIRECTS = 5
MAX_TRIES = 7  # one after the other that bring nothing: about a minute
MAX_PAUSE_SECONDS = 300.0  # that a site may ask for
MAX_ANSWER_BYTES = 16 * 2**20  # of a list of files
MAX_ANSWER_SECONDS = 60.0
PAUSE_STEP_SECONDS = 0.25  # within a pause, between two looks for a stop
LOGIN_PATHS = ("/login", "/signin", "/sign-in")  # where some lead instead of saying 401
PURCHASE_ENDING = "purchase"
REDIRECTS = (301, 302, 303, 307, 308)
PASSING_STATUSES = (408, 429, 500, 502, 503, 504)
# Names of sites, and of their subdomains where one begins with a dot.
HUB_SITES = ("huggingface.co", ".huggingface.co", "hf.co", ".hf.co")
CIVITAI_SITES = ("civitai.com", ".civitai.com", "civitai.red", ".civitai.red")
# Where these two keep their files. Anybody can have a name there, so a link may not begin with one.
STORAGE_SITES = (".r2.cloudflarestorage.com", ".backblazeb2.com")
_HOST = re.compile(r"[a-z0-9_](?:[a-z0-9_.-]*[a-z0-9_])?|[0-9a-f:.]+")  # or an IPv6 address
T = TypeVar("T")


@dataclass(frozen=True)
class Request:
    """What is asked of a site.

    Attributes:
        url: An https address.
        token: A secret for this site alone; it goes to no other that the site may lead to.
        headers: Further headers.
        is_confirmed: Whether sites that need a question may be asked.
        trusted_host: A further site that needs none, such as a mirror of the hub.
    """

    url: str
    token: str = ""
    headers: Mapping[str, str] | None = None
    is_confirmed: bool = False
    trusted_host: str = ""


@dataclass(frozen=True)
class Answer:
    """An answer whose body is still to be read."""

    status: int
    url: str
    response: http.client.HTTPResponse

    @property
    def length(self) -> int | None:
        """How many bytes come, as the site says."""
        text = self.header("content-length")
        is_number = text.isascii() and text.isdecimal() and len(text) < 19
        return int(text) if is_number else None

    @property
    def host(self) -> str:
        """Who answers."""
        return urlsplit(self.url).hostname or ""

    def header(self, name: str) -> str:
        """Return a header; empty if there is none."""
        return self.response.getheader(name, "") or ""


class PassingError(DownloadError):
    """A refusal that may be over soon; `seconds` is how long the site asks to wait."""

    def __init__(self, text: str, seconds: float = 0.0) -> None:
        self.seconds = seconds
        super().__init__(text)


class SafeClient:
    """Asks sites. One for a download; not for two threads at once."""

    def __init__(
        self,
        network: Network | None = None,
        check_stop: Callable[[], None] = lambda: None,
        max_tries: int = MAX_TRIES,
    ) -> None:
        """Make a client.

        Args:
            network: What leads to other machines; None is this machine's.
            check_stop: Is called at least four times a second; what it raises ends all.
            max_tries: How often something is tried that brings nothing.
        """
        self.network = network or open_network()
        self.check_stop = check_stop
        self._max_tries = max_tries

    @cached_property
    def _tls_context(self) -> ssl.SSLContext:
        return self.network.create_context()

    @contextmanager
    def open(self, request: Request) -> Iterator[Answer]:
        """Ask, and follow redirects; the connection is closed after the block.

        Raises:
            PassingError, LostConnection: Another try may do.
            SiteRefusal: The site says no.
            DownloadError: A site that is not asked, or too many redirects.
        """
        url, is_first = request.url, True
        for _ in range(MAX_REDIRECTS + 1):
            check_site(url, request, is_first=is_first)
            connection, response = self._ask(url, request)
            try:
                answer = Answer(response.status, url, response)
                if response.status not in REDIRECTS:
                    _check_status(answer)
                    yield answer
                    return
                location = answer.header("location")
            finally:
                response.close()
                connection.close()
            url, is_first = _join(url, location), False
            _check_page(url, request)
        raise DownloadError(
            f"{urlsplit(request.url).hostname} leads from one address to the next more than "
            f"{MAX_REDIRECTS} times; nothing was fetched."
        )

    def _ask(
        self, url: str, request: Request
    ) -> tuple[http.client.HTTPSConnection, http.client.HTTPResponse]:
        parts = urlsplit(url)
        host = encode_host(parts.hostname or "")
        headers = {
            "Accept-Encoding": "identity",  # a few bytes cannot become gigabytes here
            "User-Agent": f"picture-studio/{__version__}",
            "Connection": "close",
            **(request.headers or {}),
        }
        if request.token and host == encode_host(urlsplit(request.url).hostname or ""):
            headers["Authorization"] = f"Bearer {request.token}"
        target = quote_url(parts.path or "/", safe="/%!$&'()*+,;=:@~")
        if parts.query:
            target += "?" + quote_url(parts.query, safe="/%!$&'()*+,;=:@~?[]")
        connection = PinnedConnection(
            host, parts.port or 443, self.network, self._tls_context, self.check_stop
        )
        try:
            connection.request("GET", target, headers=headers)
            return connection, connection.getresponse()
        except DownloadError:
            connection.close()
            raise
        except http.client.HTTPException as error:
            connection.close()
            if isinstance(error, http.client.RemoteDisconnected | http.client.BadStatusLine):
                raise LostConnection(f"{host} hung up without an answer.") from None
            raise DownloadError(
                f"{host} answers in a way that cannot be read ({type(error).__name__})."
            ) from None
        except OSError as error:
            connection.close()
            reason = error.strerror or type(error).__name__
            raise LostConnection(f"The connection to {host} broke ({reason}).") from None
        except BaseException:
            connection.close()
            raise

    def get_json(self, request: Request) -> Any:
        """Return an answer that is JSON, after some tries. Raises DownloadError."""

        def ask() -> Any:
            end = time.monotonic() + MAX_ANSWER_SECONDS
            with self.open(request) as answer:
                body = _read_small(answer, end)
                try:
                    return json.loads(body)
                except (ValueError, RecursionError):
                    raise DownloadError(
                        f"{answer.host} answered with something that is no list of files. Is "
                        "there a login page between this machine and the internet?"
                    ) from None

        return self.retry(ask)

    def retry(self, action: Callable[[], T], measure: Callable[[], int] = lambda: 0) -> T:
        """Do something until it succeeds, with growing pauses.

        Args:
            action: What is done.
            measure: What of it there is so far: while that grows, it is not given up.

        Raises what the action raises, after so many tries that brought nothing.
        """
        num_tries = 0
        while True:
            before = measure()
            try:
                return action()
            except (PassingError, LostConnection) as error:
                num_tries = 1 if measure() > before else num_tries + 1
                seconds = error.seconds if isinstance(error, PassingError) else 0.0
                if num_tries >= self._max_tries or seconds > MAX_PAUSE_SECONDS:
                    raise
            self._pause(seconds or 2.0 ** (num_tries - 1))

    def _pause(self, seconds: float) -> None:
        while seconds > 0:
            self.check_stop()
            self.network.pause(min(PAUSE_STEP_SECONDS, seconds))
            seconds -= PAUSE_STEP_SECONDS


def is_known_host(host: str) -> bool:
    """Return whether a link to a site needs no question."""
    return _matches(host, HUB_SITES + CIVITAI_SITES)


def encode_host(host: str) -> str:
    """Return a site's name as it travels; raise DownloadError for what is no name."""
    try:
        encoded = host.rstrip(".").encode("idna").decode("ascii").lower()
    except UnicodeError:
        encoded = ""
    if not _HOST.fullmatch(encoded):
        raise DownloadError(f"{quote(host)} is no name of a site.")
    return encoded


def check_site(url: str, request: Request, *, is_first: bool) -> None:
    """Raise DownloadError for an address that may not be asked."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or 443
    except ValueError:
        raise DownloadError("A site leads to something that is no address.") from None
    if parts.scheme != "https" or not host or parts.username is not None:
        origin = urlsplit(request.url).hostname
        raise DownloadError(
            f"{origin} leads to an address without https, where nothing is fetched from."
        )
    host = encode_host(host)
    if request.is_confirmed or (request.trusted_host and host == request.trusted_host):
        return
    sites = HUB_SITES + CIVITAI_SITES + (() if is_first else STORAGE_SITES)
    if not _matches(host, sites) or port != 443:
        if is_first:
            raise DownloadError(
                f"The file comes from {host}, a site that the studio does not know. If it is "
                "meant, say so and start again."
            )
        raise DownloadError(
            f"{urlsplit(request.url).hostname} sends it from {host}, a site that the studio does "
            "not know; nothing was fetched. If that is right, `studio get LINK --yes` takes it."
        )


def _matches(host: str, sites: tuple[str, ...]) -> bool:
    return any(host.endswith(site) if site.startswith(".") else host == site for site in sites)


def _check_page(url: str, request: Request) -> None:
    """Raise SiteRefusal where a redirect leads to a page for people that asks for something."""
    host, path = urlsplit(request.url).hostname, urlsplit(url).path.rstrip("/")
    if path in LOGIN_PATHS:
        raise SiteRefusal(f"{host} wants to know who asks (it leads to a login page).", 401)
    if path.endswith(PURCHASE_ENDING):
        raise SiteRefusal(f"{host} sells it (it leads to a page to buy it).", 403)


def _join(url: str, location: str) -> str:
    try:
        return urljoin(url, location) if location else ""
    except ValueError:
        return ""


def _check_status(answer: Answer) -> None:
    """Raise what a refusal is; take what answers."""
    status, host = answer.status, answer.host
    if answer.header("content-encoding").lower() not in ("", "identity"):
        raise DownloadError(
            f"{host} sends it packed, though that was not asked for; nothing was fetched."
        )
    if status in (200, 206, 416):
        return
    code = answer.header("x-error-code")
    if status == 429:
        seconds = _parse_retry_after(answer.header("retry-after"))
        when = f" in {seconds:.0f} s" if seconds else " later"
        raise PassingError(f"{host} has been asked too often (429). Try again{when}.", seconds)
    if status in PASSING_STATUSES:
        seconds = _parse_retry_after(answer.header("retry-after"))
        raise PassingError(f"{host} is in trouble itself ({status}). Try again later.", seconds)
    reasons = {
        401: f"{host} wants to know who asks (401).",
        403: f"{host} does not give it to you (403).",
        404: f"{host} has nothing at that address (404).",
        410: f"{host} no longer has it (410).",
    }
    sentence = reasons.get(status, f"{host} answered with {status}, which is no file.")
    raise SiteRefusal(sentence, status, code)


def _parse_retry_after(text: str) -> float:
    """Return the seconds of a Retry-After header, a number or a date; 0 for none."""
    if text.isascii() and text.isdecimal() and len(text) < 9:
        return float(text)
    try:
        moment = email.utils.parsedate_to_datetime(text)
        return max(0.0, moment.timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return 0.0


def _read_small(answer: Answer, end: float) -> bytes:
    """Read a whole answer of a limited size, in a limited time."""
    body = bytearray()
    while True:
        try:
            chunk = answer.response.read1(2**16)
        except (OSError, http.client.HTTPException) as error:
            raise LostConnection(
                f"The connection to {answer.host} broke ({type(error).__name__})."
            ) from None
        if not chunk:
            break
        body += chunk
        if len(body) > MAX_ANSWER_BYTES or time.monotonic() > end:
            raise DownloadError(
                f"{answer.host} answers with more, or more slowly, than any list of files does."
            )
    if answer.length is not None and len(body) != answer.length:
        raise LostConnection(f"{answer.host} hung up in the middle of its answer.")
    return bytes(body)
