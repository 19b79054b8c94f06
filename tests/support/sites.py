"""Sites on this machine that answer like the hub, Civitai and anybody: real TLS, real sockets, every kind of bad answer.

Their names are real ones; a resolver leads them here, and one certificate that the client trusts is for all of them.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from studio.storage.downloads.network import Network, is_public_address
from support.weights import CROSS, Shapes, kohya_lora, write_weights

HUB, STORAGE, CIVITAI, CIVITAI_STORAGE = (
    "huggingface.co",
    "cas-bridge.xethub.hf.co",
    "civitai.com",
    "files.r2.cloudflarestorage.com",
)
OTHER, ELSEWHERE = "models.example.org", "cdn.example.net"
HOSTS = (HUB, STORAGE, CIVITAI, CIVITAI_STORAGE, OTHER, ELSEWHERE, "big.xethub.hf.co")
Act = Callable[["Asked"], None]


class Asked(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"
    sites: Sites

    def do_GET(self) -> None:
        host = self.headers.get("Host", "").partition(":")[0]
        path = urlsplit(self.path).path
        self.sites.log.append(Call(host, self.path, dict(self.headers.items())))
        act = self.sites.acts.get((host, path))
        self.close_connection = True
        try:
            if act:
                act(self)
            else:
                self.answer(404, b"nothing")
        except OSError:
            pass  # the client hung up

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        """Answer as one should."""
        self.start(status, **({"Content_Length": str(len(body))} | headers))
        self.wfile.write(body)

    def start(self, status: int, **headers: str) -> None:
        """Send the head of an answer."""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        pass


@dataclass(frozen=True)
class Call:
    """A request that came."""

    host: str
    path: str
    headers: dict[str, str]


@dataclass
class Sites:
    """What the sites answer, and who asked."""

    port: int
    certificate: Path
    acts: dict[tuple[str, str], Act] = field(default_factory=dict)
    log: list[Call] = field(default_factory=list)
    names: dict[str, list[str]] = field(default_factory=dict)
    pauses: list[float] = field(default_factory=list)
    silence_seconds: float = 2.0

    def reset(self) -> None:
        for store in (self.acts, self.log, self.names, self.pauses):
            store.clear()
        self.silence_seconds = 2.0

    @property
    def network(self) -> Network:
        """A network on which these sites are all that there is."""

        def resolve(host: str, port: int) -> list[tuple[str, int]]:
            if host in self.names:
                return [(address, self.port) for address in self.names[host]]
            if host in HOSTS:
                return [("127.0.0.1", self.port)]
            raise OSError("no such name")

        def create_context() -> ssl.SSLContext:
            return ssl.create_default_context(cafile=str(self.certificate))

        return Network(
            resolve=resolve,
            is_allowed=lambda address: address == "127.0.0.1" or is_public_address(address),
            create_context=create_context,
            pause=self.pauses.append,
            silence_seconds=self.silence_seconds,
        )

    def on(self, url: str, act: Act) -> str:
        """Say what happens at an address; return it."""
        parts = urlsplit(url)
        self.acts[parts.hostname or "", parts.path] = act
        return url

    def put(self, url: str, data: bytes, *, etag: str = "", cut: int = 0, rate: float = 0) -> str:
        """Serve a file with ranges.

        Args:
            url: Its address.
            data: What is in it.
            etag: Its mark; by default made of its content.
            cut: After so many bytes of one answer the connection ends.
            rate: Bytes a second at most.
        """
        mark = etag or f'"{hashlib.md5(data).hexdigest()}"'
        return self.on(url, lambda asked: serve(asked, data, mark, cut, rate))

    def redirect(self, url: str, target: str, status: int = 302) -> str:
        """Lead from one address to another."""
        return self.on(url, lambda asked: asked.answer(status, Location=target))

    def calls_of(self, host: str) -> list[Call]:
        return [call for call in self.log if call.host == host]


def serve(asked: Asked, data: bytes, mark: str, cut: int = 0, rate: float = 0) -> None:
    """Answer with a file or the rest of it."""
    start = 0
    wanted = re.fullmatch(r"bytes=(\d+)-", asked.headers.get("Range", ""))
    if wanted and asked.headers.get("If-Range") == mark:
        start = int(wanted[1])
    headers = {"Content-Length": str(len(data) - start), "ETag": mark}
    if start:
        headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
    asked.start(206 if start else 200, **headers)
    rest = data[start : start + cut] if cut else data[start:]
    if not rate:
        asked.wfile.write(rest)
        return
    step = max(1, int(rate / 20))
    stopped = threading.Event()
    for begin in range(0, len(rest), step):
        asked.wfile.write(rest[begin : begin + step])
        stopped.wait(step / rate)


@contextmanager
def open_sites(folder: Path) -> Iterator[Sites]:
    """Open the sites; they are closed after the block."""
    certificate, key = folder / "sites.pem", folder / "sites.key"
    names = ",".join(f"DNS:{host}" for host in HOSTS)
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    command += ["-nodes", "-days", "2", "-subj", "/CN=sites", "-addext", f"subjectAltName={names}"]
    subprocess.run(
        [*command, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)

    class Handler(Asked):
        timeout = 20

        def setup(self) -> None:
            self.request = context.wrap_socket(self.request, server_side=True)
            super().setup()

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: Any, client_address: Any) -> None:
            pass  # a client that hangs up, or trusts nobody

    server = Server(("127.0.0.1", 0), Handler)
    sites = Sites(server.server_address[1], certificate)
    Handler.sites = sites
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield sites
    server.shutdown()
    server.server_close()


# ---- weights ------------------------------------------------------------------------------------


def make_weights(folder: Path, shapes: Shapes | None = None, dtype: str = "F16") -> bytes:
    """The bytes of a file of weights, by default of a LoRA of SD 1.x."""
    path = write_weights(folder / "made.safetensors", shapes or kohya_lora(CROSS), dtype)
    data = path.read_bytes()
    path.unlink()
    return data


def make_large_lora(folder: Path, rank: int = 1024) -> bytes:
    """A LoRA of some megabytes."""
    return make_weights(folder, kohya_lora(CROSS, rank=rank))


# ---- the hub ------------------------------------------------------------------------------------


def add_repository(
    sites: Sites,
    name: str,
    files: dict[str, bytes],
    *,
    licence: str = "openrail",
    gated: bool = False,
    commit: str = "c0ffee" + "0" * 34,
    rate: float = 0,
) -> str:
    """A repository on the hub: its list, and its files, the large ones in a storage elsewhere."""
    siblings = []
    for path, data in files.items():
        entry: dict[str, Any] = {"rfilename": path, "size": len(data)}
        url = f"https://{HUB}/{name}/resolve/{commit}/{path}"
        if path.endswith(".safetensors"):
            sha256 = hashlib.sha256(data).hexdigest()
            entry["lfs"] = {"sha256": sha256, "size": len(data), "pointerSize": 130}
            stored = f"https://{STORAGE}/xet/{sha256}"
            sites.put(stored, data, rate=rate)
            sites.redirect(url, f"{stored}?signature=abc")
        else:
            sites.put(url, data)
        siblings.append(entry)
    info = {
        "id": name,
        "sha": commit,
        "gated": "auto" if gated else False,
        "cardData": {"license": licence},
        "siblings": siblings,
    }
    body = json.dumps(info).encode()
    for path in (f"/api/models/{name}", f"/api/models/{name}/revision/{commit}"):
        sites.on(f"https://{HUB}{path}", lambda asked: asked.answer(200, body))
    return name


# ---- Civitai ------------------------------------------------------------------------------------


def add_version(
    sites: Sites,
    data: bytes,
    *,
    version: int = 34,
    model: int = 12,
    file: dict[str, Any] | None = None,
    **more: Any,
) -> str:
    """A version of a model on Civitai with one file; return its page."""
    entry = {
        "name": "moonStyle_v2.safetensors",
        "type": "Model",
        "primary": True,
        "sizeKB": round(len(data) / 1024, 1),
        "hashes": {"SHA256": hashlib.sha256(data).hexdigest().upper()},
        "metadata": {"fp": "fp16", "size": "pruned", "format": "SafeTensor"},
        "downloadUrl": f"https://{CIVITAI}/api/download/models/{version}",
    } | (file or {})
    said = {
        "id": version,
        "modelId": model,
        "name": "v2.0",
        "baseModel": "SD 1.5",
        "trainedWords": ["moonlight", "silver"],
        "model": {"name": "Moon style", "type": "Checkpoint"},
        "availability": "Public",
        "files": [entry],
        "images": [{"url": "https://image.civitai.com/1.jpeg"}],
    } | more
    about = {
        "id": model,
        "name": "Moon style",
        "allowCommercialUse": ["Image"],
        "allowNoCredit": False,
        "modelVersions": [{"id": version}],
    }
    pages = {f"model-versions/{version}": said, f"models/{model}": about}
    for path, values in pages.items():
        body = json.dumps(values).encode()
        sites.on(
            f"https://{CIVITAI}/api/v1/{path}", lambda asked, body=body: asked.answer(200, body)
        )
    stored = f"https://{CIVITAI_STORAGE}/bucket/moon"
    sites.put(stored, data)
    sites.redirect(f"https://{CIVITAI}/api/download/models/{version}", f"{stored}?X-Amz=1", 307)
    return f"https://{CIVITAI}/models/{model}/moon-style?modelVersionId={version}"


# ---- processes ----------------------------------------------------------------------------------


def lead_processes_here(sites: Sites, monkeypatch: Any) -> None:
    """Have the processes that the test starts from now on see these sites and no others."""
    folder = Path(__file__).with_name("local_network")
    paths = [str(folder), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))
    monkeypatch.setenv("STUDIO_TEST_SITES", f"{sites.port},{sites.certificate}")


class Gate:
    """Serves a file of which the second half comes only when `open` was called."""

    def __init__(self, sites: Sites, url: str, data: bytes) -> None:
        sites.silence_seconds = 60.0  # the gate may stay closed for longer than a site is silent
        self.open_event = threading.Event()
        self.was_reached = threading.Event()
        mark = f'"{hashlib.md5(data).hexdigest()}"'

        def act(asked: Asked) -> None:
            if "Range" in asked.headers or self.open_event.is_set():
                return serve(asked, data, mark)
            half = len(data) // 2
            asked.start(200, Content_Length=str(len(data)), ETag=mark)
            asked.wfile.write(data[:half])
            self.was_reached.set()
            self.open_event.wait(60)
            asked.wfile.write(data[half:])
            return None

        sites.on(url, act)

    def open(self) -> None:
        self.open_event.set()
