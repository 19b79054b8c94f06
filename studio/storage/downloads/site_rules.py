"""Which sites are asked: those that need no question, and where each may lead.

Knows: names of sites, redirects that are not followed, pages that stand in place of a file.
Does not know: addresses and sockets (network.py); how a site is asked (safe_http.py).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from studio.errors import DownloadError, SiteRefusal, quote

BROWSER_ADVICE = "If you can get it in your browser, download it there and add the file."
PURCHASE_ENDING = "purchase"
LOGIN_PATHS = ("/login", "/signin", "/sign-in")  # where some lead instead of saying 401
# Names of sites, and of their subdomains where one begins with a dot.
HUB_SITES = ("huggingface.co", ".huggingface.co", "hf.co", ".hf.co")
CIVITAI_SITES = ("civitai.com", ".civitai.com", "civitai.red", ".civitai.red")
# Where these two keep their files. Anybody can have a name there, so a link may not begin with one.
STORAGE_SITES = (".r2.cloudflarestorage.com", ".backblazeb2.com")
_HOST = re.compile(r"[a-z0-9_](?:[a-z0-9_.-]*[a-z0-9_])?|[0-9a-f:.]+")  # or an IPv6 address


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
        raise DownloadError(f"{quote(host)} is not the name of a site.")
    return encoded


def check_site(url: str, request: Request, *, is_first: bool) -> None:
    """Raise DownloadError for an address that may not be asked."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or 443
    except ValueError:
        raise DownloadError("A site redirects to something that is not an address.") from None
    if parts.scheme != "https" or not host or parts.username is not None:
        origin = urlsplit(request.url).hostname
        raise DownloadError(
            f"{origin} leads to an address without https; nothing is downloaded from there."
        )
    host = encode_host(host)
    if request.is_confirmed or (request.trusted_host and host == request.trusted_host):
        return
    sites = HUB_SITES + CIVITAI_SITES + (() if is_first else STORAGE_SITES)
    if not _matches(host, sites) or port != 443:
        if is_first:
            raise DownloadError(
                f"The file comes from {host}, a site the studio does not know. If you trust it, "
                "say so and start again."
            )
        raise DownloadError(
            f"{urlsplit(request.url).hostname} sends it from {host}, a site the studio does not "
            "know; nothing was downloaded. If that is right, use `studio get LINK --yes`."
        )


def _matches(host: str, sites: tuple[str, ...]) -> bool:
    return any(host.endswith(site) if site.startswith(".") else host == site for site in sites)


def check_page(url: str, request: Request) -> None:
    """Raise SiteRefusal where a redirect leads to a page for people that asks for something."""
    host, path = urlsplit(request.url).hostname, urlsplit(url).path.rstrip("/")
    if path in LOGIN_PATHS:
        raise SiteRefusal(
            f"{host} requires a login (it leads to a login page). {BROWSER_ADVICE}", 401
        )
    if path.endswith(PURCHASE_ENDING):
        raise SiteRefusal(f"{host} sells it (it leads to a page to buy it). {BROWSER_ADVICE}", 403)
