"""Every way to write an address to listen on, with a studio that is really opened there."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from support.served import API, Served

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("::1", "[::1]"),
        ("[::1]", "[::1]"),
        ("::", "[::1]"),
        ("0.0.0.0", "127.0.0.1"),
        ("localhost", "localhost"),
        ("127.0.0.2", "127.0.0.2"),
    ],
)
def test_a_studio_listens_where_it_is_told(
    open_studio: Callable[..., Served], tmp_path: Path, host: str, address: str
) -> None:
    if ":" in host:
        try:
            socket.create_server(("::1", 0), family=socket.AF_INET6).close()
        except OSError as error:
            pytest.skip(f"needs IPv6 ({error})")
    studio = open_studio(tmp_path / "home", "--host", host)
    port = studio.url.rsplit(":", 1)[1]
    written = f"[{host.strip('[]')}]" if ":" in host else host
    assert f"The studio is open at http://{written}:{port}" in studio.log.read_text()
    with httpx.Client(base_url=f"http://{address}:{port}", trust_env=False) as owner:
        assert owner.get("/config").status_code == 200
        assert owner.post(f"{API}/run/jobs", json={"data": [5]}).status_code == 200
