"""The one way to another machine: names, addresses, TLS, and sockets that hear a stop.

Knows: which addresses may be connected to, how a connection is made to exactly the address that was
checked. Does not know: HTTP (safe_http.py); what is fetched.

A page that was asked to fetch something could be led to machines that only this one can reach: by
an address in the link, by a redirect, by a name that leads elsewhere at the second look. So a name
is looked up once a connection, only public addresses of the answer are used, and that very address
is connected to.
"""

from __future__ import annotations

import http.client
import io
import ipaddress
import socket
import ssl
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import certifi

from studio.errors import DownloadError

CONNECT_SECONDS = 15.0
SILENCE_SECONDS = 30.0  # without a byte, after which a connection is given up
LOOK_SECONDS = 0.25  # between two looks for a stop while nothing comes
BUFFER_BYTES = 2**20
# Global to Python's `ipaddress` in part, though they only wrap an address of the IPv4 network.
_REFUSED_NETWORKS = (
    ipaddress.ip_network("64:ff9b::/96"),  # NAT64
    ipaddress.ip_network("2002::/16"),  # 6to4
    ipaddress.ip_network("2001::/32"),  # Teredo
    ipaddress.ip_network("::/96"),  # IPv4-compatible
    ipaddress.ip_network("192.0.0.0/24"),  # of protocols, not of machines
)
Endpoint = tuple[str, int]  # an address and a port


class LostConnection(DownloadError):
    """The connection failed or fell silent; another try may do."""

    may_pass = True


def resolve_name(host: str, port: int) -> list[Endpoint]:
    """Return the addresses behind a name. Raises OSError."""
    answers = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys((str(answer[4][0]), port) for answer in answers))


def is_public_address(text: str) -> bool:
    """Return whether an address is one of the public internet, and of one machine there."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return False
    if any(address in network for network in _REFUSED_NETWORKS):
        return False
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        return False
    return address.is_global and not (
        address.is_multicast or address.is_reserved or address.is_unspecified
    )


def create_tls_context() -> ssl.SSLContext:
    """Return what checks certificates: against the system's authorities and Mozilla's."""
    context = ssl.create_default_context()
    context.load_verify_locations(certifi.where())
    return context


@dataclass(frozen=True)
class Network:
    """What leads to other machines; tests put in their own.

    Attributes:
        resolve: A host and a port → where to connect to.
        is_allowed: Whether an address may be connected to.
        create_context: Makes what checks certificates.
        pause: Waits some seconds between two tries.
        silence_seconds: After how long without a byte a connection is given up.
    """

    resolve: Callable[[str, int], Sequence[Endpoint]] = resolve_name
    is_allowed: Callable[[str], bool] = is_public_address
    create_context: Callable[[], ssl.SSLContext] = create_tls_context
    pause: Callable[[float], None] = time.sleep
    silence_seconds: float = SILENCE_SECONDS

    def find_endpoints(self, host: str, port: int) -> list[Endpoint]:
        """Look a name up once; return where it may be connected to.

        Raises:
            LostConnection: It could not be looked up.
            DownloadError: It leads to no public address.
        """
        try:
            endpoints = list(self.resolve(host, port))
        except (OSError, UnicodeError):
            raise LostConnection(
                f"{host} could not be found. Is this machine online, and is the name correct?"
            ) from None
        allowed = [endpoint for endpoint in endpoints if self.is_allowed(endpoint[0])]
        if not allowed:
            raise DownloadError(
                f"{host} leads to an address in a private network; nothing is downloaded from "
                "there."
            )
        return allowed


def open_network() -> Network:
    """Return the network of this machine."""
    return Network()


class PinnedConnection(http.client.HTTPSConnection):
    """HTTPS to an address that was checked, under the name that was asked for."""

    def __init__(
        self,
        host: str,
        port: int,
        network: Network,
        context: ssl.SSLContext,
        check_stop: Callable[[], None],
    ) -> None:
        super().__init__(host, port, context=context, timeout=CONNECT_SECONDS)
        self._network, self._tls_context, self._check_stop = network, context, check_stop

    def connect(self) -> None:
        """Connect to the first address that answers. Raises DownloadError."""
        endpoints = self._network.find_endpoints(self.host, self.port)
        error: OSError | None = None
        for endpoint in endpoints:
            self._check_stop()
            try:
                plain = socket.create_connection(endpoint, CONNECT_SECONDS)
            except OSError as connect_error:
                error = connect_error
                continue
            try:
                wrapped = self._tls_context.wrap_socket(plain, server_hostname=self.host)
            except ssl.SSLCertVerificationError as tls_error:
                plain.close()
                raise DownloadError(
                    f"{self.host} could not prove that it is {self.host} "
                    f"({tls_error.verify_message}); nothing was fetched."
                ) from None
            except OSError as tls_error:
                plain.close()
                error = tls_error
                continue
            self.sock = _WatchedSocket(wrapped, self._network.silence_seconds, self._check_stop)
            return
        raise LostConnection(
            f"{self.host} does not answer ({_describe(error)}). Try again later."
        ) from None


def _describe(error: OSError | None) -> str:
    if isinstance(error, TimeoutError):
        return "timed out"
    return str(error.strerror or type(error).__name__) if error else "no address"


class _WatchedSocket:
    """The part of a socket that http.client uses; its reading hears a stop within a moment."""

    def __init__(
        self, sock: ssl.SSLSocket, silence_seconds: float, check_stop: Callable[[], None]
    ) -> None:
        self._sock, self._check_stop = sock, check_stop
        self._silence_seconds = silence_seconds
        self._has_reader = False

    def sendall(self, data: Any) -> None:
        self._sock.settimeout(self._silence_seconds)
        self._sock.sendall(data)

    def makefile(self, _mode: str) -> io.BufferedReader:
        raw = _WatchedReader(self._sock, self._silence_seconds, self._check_stop)
        self._has_reader = True
        return io.BufferedReader(raw, BUFFER_BYTES)

    def close(self) -> None:
        """Close the socket, unless an answer is being read, which then closes it."""
        if not self._has_reader:
            self._sock.close()


class _WatchedReader(io.RawIOBase):
    """Reads from a socket; looks for a stop, and for how long nothing came."""

    def __init__(
        self, sock: ssl.SSLSocket, silence_seconds: float, check_stop: Callable[[], None]
    ) -> None:
        self._sock, self._check_stop = sock, check_stop
        self._silence_seconds = silence_seconds

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        end = time.monotonic() + self._silence_seconds
        self._sock.settimeout(LOOK_SECONDS)
        while True:
            self._check_stop()
            try:
                return self._sock.recv_into(buffer)
            except TimeoutError:
                if time.monotonic() > end:
                    raise LostConnection(
                        f"No data has arrived for {self._silence_seconds:g} s."
                    ) from None

    def close(self) -> None:
        if not self.closed:
            self._sock.close()
        super().close()
