"""How a request reached the studio: from which address, under which name, through which proxy.

Knows: Host, Origin and the headers that proxies add; which proxies are believed. Does not know: who
is owner and who guest (services/visitor.py), what is refused (ui/middleware.py).

Anybody can write X-Forwarded-For into a request: what it says is taken only from a proxy that the
settings name. That it is there at all is believed of everybody, for it makes nobody more.
"""

from __future__ import annotations

import ipaddress
import re
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from studio.settings import Settings, parse_proxies

# Any of them says that somebody else passes the request on.
FORWARDED_HEADERS = (
    "x-forwarded-for",
    "forwarded",
    "x-real-ip",
    "via",
    "x-forwarded-host",
    "x-forwarded-proto",
)
# What gradio would take its own address from, whoever sent it.
PUBLIC_ADDRESS_HEADERS = ("x-forwarded-host", "x-forwarded-proto", "x-gradio-server")
SHARE_DOMAIN = ".gradio.live"
DEFAULT_PORTS = {"http": 80, "https": 443}
_FORWARDED_PAIR = re.compile(r'(?:^|[;,\s])(for|host|proto)="?([^";,]+)"?', re.IGNORECASE)


@dataclass(frozen=True)
class Connection:
    """One request's way here.

    Attributes:
        address: Who asks: the nearest address that is no named proxy's.
        host: The name, with its port, that the browser asked for.
        scheme: `https` or `http`, as the browser sees it.
        root_path: The path under which the page lies for the browser, as `/studio`, or empty.
        is_forwarded: Whether a proxy or a tunnel passed it on.
    """

    address: str
    host: str
    scheme: str
    root_path: str
    is_forwarded: bool

    @property
    def host_name(self) -> str:
        """The name without the port; empty for what is none."""
        return parse_host(self.host)

    @property
    def is_encrypted(self) -> bool:
        """Whether the browser speaks https, so that cookies may be kept to it."""
        return self.scheme == "https"

    @property
    def root_url(self) -> str:
        """The page's address, without a slash at its end."""
        return f"{self.scheme}://{self.host}{self.root_path}"


def read_headers(scope: Mapping[str, Any]) -> dict[str, str]:
    """Return a request's headers by lower-case name, the first of several of one name."""
    return {
        name.decode("latin-1").lower(): value.decode("latin-1")
        for name, value in reversed(scope.get("headers", ()))
    }


def read_connection(scope: Mapping[str, Any], settings: Settings) -> Connection:
    """Return how an ASGI request came here."""
    headers = read_headers(scope)
    peer = _normalise_address((scope.get("client") or ("", 0))[0])
    host = headers.get("host", "")
    address, scheme, root_path = peer, str(scope.get("scheme", "http")), settings.root_path
    if _is_proxy(peer, settings):
        said = _read_forwarded(headers)
        address = _find_address([*said.get("for", "").split(","), peer], settings)
        host = said.get("host") or host
        if said.get("proto") in DEFAULT_PORTS:
            scheme = said["proto"]
        root_path = root_path or _read_prefix(headers)
    elif settings.share and parse_host(host).endswith(SHARE_DOMAIN):
        scheme = "https"
    is_forwarded = (
        any(name in headers for name in FORWARDED_HEADERS)
        # What browsers no longer speak, and nginx does to whom it passes requests on.
        or scope.get("http_version", "1.1") == "1.0"
    )
    return Connection(address, host, scheme, root_path, is_forwarded)


def is_same_origin(origin: str, connection: Connection, settings: Settings) -> bool:
    """Return whether an Origin header is that of the studio's own page.

    A proxy may hide the name that the browser asked for, so a name that `--allow-host` gives is
    one of the studio's, whatever the Host header says.
    """
    try:
        parts = urllib.parse.urlsplit(origin)
        port = parts.port or DEFAULT_PORTS.get(parts.scheme)
        own = urllib.parse.urlsplit(f"//{connection.host}")
        own_port = own.port or DEFAULT_PORTS.get(parts.scheme)
    except ValueError:
        return False
    if parts.scheme not in DEFAULT_PORTS or not parts.hostname:
        return False
    if (parts.hostname, port) == (own.hostname, own_port):
        return True
    return is_allowed_name(parts.hostname, settings)


def is_allowed_name(name: str, settings: Settings) -> bool:
    """Return whether the settings name a host, or all below a name (`*.example.com`)."""
    return any(
        name == allowed or (allowed.startswith("*.") and name.endswith(allowed[1:]))
        for allowed in settings.allow_hosts
    )


def is_local(name: str) -> bool:
    """Return whether a host name or address is this machine's own."""
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def parse_host(header: str) -> str:
    """Return the host name of a Host header, without the port; empty for what is none."""
    if any(character in header for character in "/?#@\\"):
        return ""
    try:
        return urllib.parse.urlsplit(f"//{header}").hostname or ""
    except ValueError:
        return ""


def group_address(address: str) -> str:
    """Return what counts as one address: of IPv6, where one customer has 2⁶⁴ of them, the /64."""
    try:
        number = ipaddress.ip_address(address)
    except ValueError:
        return address
    if number.version == 4:
        return address
    return str(ipaddress.ip_network((number, 64), strict=False))


def _normalise_address(address: str) -> str:
    try:
        number = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    mapped = getattr(number, "ipv4_mapped", None)
    return str(mapped or number)


def _is_proxy(address: str, settings: Settings) -> bool:
    try:
        number = ipaddress.ip_address(address)
    except ValueError:
        return False
    return any(number in network for network in parse_proxies(settings.trusted_proxies))


def _read_forwarded(headers: Mapping[str, str]) -> dict[str, str]:
    """Return what a believed proxy says: `for` (all addresses), `host` and `proto`."""
    said = {
        "for": headers.get("x-forwarded-for") or headers.get("x-real-ip") or "",
        "host": headers.get("x-forwarded-host", "").split(",")[0].strip(),
        "proto": headers.get("x-forwarded-proto", "").split(",")[0].strip().lower(),
    }
    for key, value in _FORWARDED_PAIR.findall(headers.get("forwarded", "")):
        if key.lower() == "for":
            said["for"] = f"{said['for']},{value}".strip(",")
        else:
            said[key.lower()] = said[key.lower()] or value.lower()
    return said


def _find_address(addresses: list[str], settings: Settings) -> str:
    """Return the last address of a chain that is no named proxy's: what stands before is hearsay.

    The proxy itself stands at the end; where there is nobody else, it is the address.
    """
    chain = [_strip_port(address.strip()) for address in addresses if address.strip()]
    for address in reversed(chain):
        if not _is_proxy(address, settings):
            return address
    return chain[0]


def _strip_port(address: str) -> str:
    """Return an address of X-Forwarded-For without brackets and port."""
    if address.startswith("["):
        address = address[1:].partition("]")[0]
    elif address.count(":") == 1:
        address = address.partition(":")[0]
    return _normalise_address(address)


def _read_prefix(headers: Mapping[str, str]) -> str:
    prefix = headers.get("x-forwarded-prefix", "").split(",")[0].strip().rstrip("/")
    return prefix if re.fullmatch(r"(/[\w.~%@-]+)+", prefix) else ""
