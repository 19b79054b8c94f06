"""A real nginx in front of a studio, on a port of this machine."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
CONFIG = """
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 256; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  server {{
    listen 127.0.0.1:{port};
    {locations}
  }}
}}
"""


@contextmanager
def reverse_proxy(folder: Path, upstream: str, locations: str) -> Iterator[int]:
    """Run nginx before a studio; skip where there is none.

    Args:
        folder: For its files.
        upstream: The studio's host and port.
        locations: What stands in nginx's `server` block; `http://studio` there is the
            studio's address.

    Yields:
        The port that it listens on.
    """
    if not NGINX:
        pytest.skip("needs nginx (apt-get install nginx-light)")
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        port = trial.getsockname()[1]
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "nginx.conf"
    config.write_text(
        CONFIG.format(
            folder=folder,
            port=port,
            locations=locations.replace("http://studio", f"http://{upstream}"),
        )
    )
    process = subprocess.Popen(
        [NGINX, "-p", str(folder), "-c", str(config), "-e", str(folder / "error.log")]
    )
    try:
        end = time.monotonic() + 20
        while socket.socket().connect_ex(("127.0.0.1", port)):
            assert process.poll() is None, (folder / "error.log").read_text()
            assert time.monotonic() < end, "nginx does not listen"
            time.sleep(0.05)
        yield port
    finally:
        process.kill()
        process.wait()
