"""A studio that is open, and who visits it without a browser."""

from __future__ import annotations

import functools
import json
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

API = "/gradio_api"


def need_port() -> None:
    """Skip where no port of this machine can be listened on."""
    try:
        socket.create_server(("127.0.0.1", 0)).close()
    except OSError as error:
        pytest.skip(f"needs a port of 127.0.0.1 ({error})")


@dataclass(frozen=True)
class Served:
    """A studio that is open: where, on which home, and everything that its process has said."""

    url: str
    home: Path
    log: Path

    @property
    def host(self) -> str:
        return self.url.removeprefix("http://")


@functools.cache
def read_page_config(url: str) -> dict[str, Any]:
    """What the page is built of: megabytes, the same for everybody, and so asked for once."""
    return dict(httpx.get(f"{url.rstrip('/')}/config", timeout=120, trust_env=False).json())


class Browser(httpx.Client):
    """A visitor at that address: the owner's names this machine, a guest's the network."""

    def __init__(self, studio: Served, host: str = "127.0.0.1", **headers: str) -> None:
        port = studio.url.rsplit(":", 1)[1]
        super().__init__(
            base_url=studio.url,
            headers={"host": f"{host}:{port}", **headers},
            timeout=120,
            trust_env=False,
        )

    def arrive(self) -> Browser:
        """Take the page's cookie without the page, which costs a second of computing."""
        self.options("/")
        return self

    def find_function(self, element: str, event: str) -> int:
        """What the page calls when that happens there."""
        config = read_page_config(str(self.base_url))
        part = next(
            one["id"] for one in config["components"] if one["props"].get("elem_id") == element
        )
        return next(
            int(one["id"])
            for one in config["dependencies"]
            if [part, event] in map(list, one["targets"])
        )

    def ask(self, endpoint: str, *values: Any) -> httpx.Response:
        return self.post(f"{API}/run/{endpoint}", json={"data": values})

    def touch(self, element: str, event: str, values: list[Any], **data: Any) -> httpx.Response:
        """What the page does when somebody clicks there; `data` is the event's own."""
        body = {
            "data": values,
            "fn_index": self.find_function(element, event),
            "session_hash": f"s{id(self)}",
            "event_data": data or None,
        }
        return self.post(f"{API}/run/predict", json=body)

    def through_the_queue(self, endpoint: str, *values: Any) -> dict[str, Any]:
        """The same endpoint by another way, which gradio leaves open for all of them."""
        index = next(
            one["id"]
            for one in read_page_config(str(self.base_url))["dependencies"]
            if one["api_name"] == endpoint
        )
        self.post(
            f"{API}/queue/join",
            json={"data": values, "fn_index": index, "session_hash": f"q{id(self)}"},
        )
        with self.stream("GET", f"{API}/queue/data?session_hash=q{id(self)}") as lines:
            said = (json.loads(line[5:]) for line in lines.iter_lines() if line.startswith("data:"))
            return dict(next(one for one in said if one["msg"] == "process_completed")["output"])
