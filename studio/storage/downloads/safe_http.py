"""HTTPS as downloads need it: known sites, few redirects, no secrets to others, limits on all.

Knows: redirects, refusals, when another try is worth it. Does not know: which sites may be asked
(site_rules.py); addresses and sockets (network.py); what is done with an answer.
"""

from __future__ import annotations

import email.utils
import http.client
import json
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar
from urllib.parse import quote as quote_url
from urllib.parse import urljoin, urlsplit

from studio import __version__
from studio.errors import DownloadError, SiteRefusal
from studio.storage.downloads.network import (
    LostConnection,
    Network,
    PinnedConnection,
    open_network,
)
from studio.storage.downloads.site_rules import (
    BROWSER_ADVICE,
    Request,
    check_page,
    check_site,
    encode_host,
)

MAX_REDIRECTS = 5
MAX_TRIES = 7  # one after the other that bring nothing: about a minute
MAX_PAUSE_SECONDS = 300.0  # that a site may ask for
MAX_ANSWER_BYTES = 16 * 2**20  # of a list of files
MAX_ANSWER_SECONDS = 60.0
PAUSE_STEP_SECONDS = 0.25  # within a pause, between two looks for a stop
REDIRECTS = (301, 302, 303, 307, 308)
PASSING_STATUSES = (408, 429, 500, 502, 503, 504)
T = TypeVar("T")


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

    may_pass = True

    def __init__(self, text: str, seconds: float = 0.0) -> None:
        self.seconds = seconds
        super().__init__(text)


class StrayAnswer(DownloadError):
    """An answer that is not the site's own, or came too slowly: not to be asked for at once."""

    may_pass = True


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
            check_page(url, request)
        raise DownloadError(
            f"{urlsplit(request.url).hostname} redirects more than {MAX_REDIRECTS} times; nothing "
            "was downloaded."
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
                raise LostConnection(f"{host} closed the connection without an answer.") from None
            raise DownloadError(
                f"{host} gave an unreadable answer ({type(error).__name__})."
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
                too_much = StrayAnswer(
                    f"{answer.host} answers with more data, or more slowly, than any file "
                    "list would."
                )
                body = read_body(
                    answer,
                    max_bytes=MAX_ANSWER_BYTES,
                    end=end,
                    too_large=too_much,
                    too_slow=too_much,
                )
                try:
                    return json.loads(body)
                except (ValueError, RecursionError):
                    raise StrayAnswer(
                        f"{answer.host} did not answer with a file list. Is there a login page "
                        "between this machine and the internet?"
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
            f"{host} sent it compressed although that was not requested; nothing was downloaded."
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
        raise PassingError(f"{host} has a problem of its own ({status}). Try again later.", seconds)
    reasons = {
        401: f"{host} requires a login (401). {BROWSER_ADVICE}",
        403: f"{host} denies access (403). {BROWSER_ADVICE}",
        404: f"{host} has nothing at that address (404). Is the link complete and correct?",
        410: f"{host} no longer has it (410). Look for it elsewhere.",
    }
    sentence = reasons.get(
        status, f"{host} answered with {status} instead of a file. Is the link correct?"
    )
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


def read_body(
    answer: Answer,
    *,
    max_bytes: int,
    end: float,
    too_large: DownloadError,
    too_slow: DownloadError,
) -> bytes:
    """Read a whole answer into memory.

    Args:
        answer: What is open.
        max_bytes: The most that it may be.
        end: When it has to be there, by `time.monotonic`.
        too_large: What to raise where it is more.
        too_slow: What to raise where it is not.

    Raises:
        LostConnection: It broke off.
    """
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
        if len(body) > max_bytes:
            raise too_large
        if time.monotonic() > end:
            raise too_slow
    if answer.length is not None and len(body) != answer.length:
        raise LostConnection(f"{answer.host} closed the connection in the middle of its answer.")
    return bytes(body)
