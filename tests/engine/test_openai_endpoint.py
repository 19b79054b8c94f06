"""Endpoints: what is sent to a local server that speaks as OpenAI's, what is tried again, and that no answer is asked for twice."""

from __future__ import annotations

import base64
import io
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from studio.engine.captioning import openai_endpoint
from studio.engine.captioning.job import caption_dataset
from studio.engine.context import WorkerContext
from studio.errors import Cancelled, StudioError
from studio.settings import load
from studio.storage.jobs import Progress
from support.sentences import refused
from support.served import need_port

Answer = tuple[int, dict[str, str], bytes]
SECRET = "sk-very-secret"


def said(words: Any) -> Answer:
    return (
        200,
        {},
        json.dumps({"choices": [{"message": {"role": "assistant", "content": words}}]}).encode(),
    )


class Server:
    """Answers as `behave(colour, nth time of this picture)` says; None hangs up. Remembers all that came."""

    def __init__(self) -> None:
        self.came: list[dict[str, Any]] = []
        self.behave: Callable[[int, int], Answer | None] = lambda colour, time: said(
            f'"picture {colour}"'
        )
        self.times: Counter[int] = Counter()
        self._lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                url = body["messages"][0]["content"][1]["image_url"]["url"]
                image = Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2])))
                colour = round(image.convert("RGB").getpixel((0, 0))[0] / 20)
                with outer._lock:
                    outer.times[colour] += 1
                    nth = outer.times[colour]
                    outer.came.append(
                        {
                            "path": self.path,
                            "key": self.headers["authorization"],
                            "body": body,
                            "image": image,
                            "colour": colour,
                        }
                    )
                answer = outer.behave(colour, nth)
                if answer is None:
                    self.close_connection = True
                    return
                status, headers, data = answer
                self.send_response(status)
                for name, value in {**headers, "content-length": str(len(data))}.items():
                    self.send_header(name, value)
                self.end_headers()
                with suppress(OSError):  # who asked has gone
                    self.wfile.write(data)

            def do_GET(self) -> None:
                outer.came.append({"path": self.path})
                self.send_response(200)
                self.end_headers()

            def log_message(self, *words: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self._server.server_port}/v1"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def server() -> Iterator[Server]:
    need_port()
    made = Server()
    yield made
    made.close()


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WorkerContext]:
    """Six pictures, each of one shade; waiting takes no time."""
    monkeypatch.setenv(openai_endpoint.API_KEY_VARIABLE, SECRET)
    monkeypatch.setattr(openai_endpoint, "RETRY_DELAY_SECONDS", 0.01)
    folder = tmp_path / "home" / "datasets" / "shades"
    folder.mkdir(parents=True)
    for k in range(6):
        Image.new("RGB", (2000, 80) if k == 5 else (80, 80), (20 * k, 0, 0)).save(
            folder / f"{k}.png"
        )
    bench = WorkerContext.open(
        load(
            home=tmp_path / "home", device="cpu", precision="float32", keep_free=0, preview_every=0
        )
    )
    yield bench
    bench.home.gallery.close()


def caption(
    bench: WorkerContext,
    server: Server,
    report: Callable[[Progress], None] = lambda told: None,
    **spec: Any,
) -> dict[str, Any]:
    asked = {
        "dataset": "shades",
        "captioner": "endpoint",
        "address": server.address,
        "model": "seer",
    }
    return caption_dataset(bench, {**asked, **spec}, report)


def texts(bench: WorkerContext) -> dict[str, str]:
    return {
        path.stem: path.read_text().strip()
        for path in sorted((bench.settings.home / "datasets" / "shades").glob("*.txt"))
    }


def test_what_is_sent_once_each_and_what_comes_of_it(
    bench: WorkerContext, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = caption(
        bench, server, instruction="Name the shade.", tokens=7, trigger="mysks", batch=3
    )
    assert (result["made"], result["failed"]) == (6, [])
    assert server.times == dict.fromkeys(range(6), 1)
    assert texts(bench) == {str(k): f'mysks, "picture {k}"' for k in range(6)}
    for one in server.came:
        body = one["body"]
        assert (one["path"], one["key"]) == ("/v1/chat/completions", f"Bearer {SECRET}")
        assert (body["model"], body["max_tokens"], body["messages"][0]["content"][0]["text"]) == (
            "seer",
            7,
            "Name the shade.",
        )
        assert one["image"].format == "JPEG"
        assert max(one["image"].size) <= 1024
        assert not one["image"].getexif()
    (step,) = bench.home.datasets.open("shades").history()
    assert step.writer.model == f"seer at {server.address}"
    assert step.writer.instruction == "Name the shade."
    written = [
        path
        for path in bench.settings.home.rglob("*")
        if path.is_file() and SECRET.encode() in path.read_bytes()
    ]
    assert not written
    assert SECRET not in json.dumps(result)
    monkeypatch.delenv(openai_endpoint.API_KEY_VARIABLE)
    caption(bench, server, mode="replace")  # asked otherwise: the usual question, no limit, no key
    last = server.came[-1]
    assert last["key"] is None
    assert "max_tokens" not in last["body"]
    assert openai_endpoint.DEFAULT_INSTRUCTION in json.dumps(last["body"])
    caption(bench, server, mode="replace", model="other")
    assert len(server.came) == 18
    caption(bench, server, mode="replace", model="other")
    assert len(server.came) == 18  # all of it was answered before


def test_what_passes_is_tried_again_and_no_answer_is_asked_for_twice(
    bench: WorkerContext, server: Server
) -> None:
    bad: dict[int, list[Answer | None]] = {
        0: [(429, {"retry-after": "0.02"}, b"")],
        1: [(500, {}, b"oops"), (503, {}, b"")],
        2: [None],
        3: [(502, {}, b""), None, (429, {"retry-after": "Wed"}, b"")],
    }
    server.behave = lambda colour, nth: (
        bad.get(colour, [])[nth - 1] if nth <= len(bad.get(colour, [])) else said(f"shade {colour}")
    )
    result = caption(bench, server)
    assert result["made"] == 6
    assert texts(bench) == {str(k): f"shade {k}" for k in range(6)}
    assert server.times == {k: len(bad.get(k, [])) + 1 for k in range(6)}


def test_it_gives_up_in_words_keeps_what_it_has_and_goes_on_later(
    bench: WorkerContext, server: Server
) -> None:
    busy: Answer = (503, {}, b'{"error": {"message": "overloaded"}}')
    server.behave = lambda colour, nth: busy if colour == 3 else said(f"shade {colour}")
    with refused(StudioError):
        caption(bench, server, batch=2)
    assert server.times[3] == 5
    assert set(texts(bench)) >= {"0", "1"}
    server.behave = lambda colour, nth: said(f"shade {colour}")
    asked = dict(server.times)
    assert caption(bench, server, batch=2)["count"] == 6
    assert texts(bench) == {str(k): f"shade {k}" for k in range(6)}
    assert server.times == {**dict.fromkeys(range(6), 1), 3: asked[3] + 1}


@pytest.mark.slow
def test_no_answer_in_time(
    bench: WorkerContext, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openai_endpoint, "RESPONSE_TIMEOUT_SECONDS", 0.3)

    def slow(colour: int, nth: int) -> Answer:
        time.sleep(1.0 if colour == 4 and nth <= 2 else 0)
        return said(f"shade {colour}")

    server.behave = slow
    assert caption(bench, server)["made"] == 6
    assert server.times[4] == 3
    server.close()
    with refused(StudioError):
        caption(bench, server, mode="replace", model="another")


def test_one_that_is_refused_is_named_and_all_refused_is_the_end(
    bench: WorkerContext, server: Server
) -> None:
    odd: dict[int, Answer] = {
        1: (400, {}, b'{"error": {"message": "unsafe"}}'),
        2: said(None),
        3: (200, {}, b"<html>"),
        4: said("  "),
        0: said("shade\u0000 0 \ud800"),
    }
    server.behave = lambda colour, nth: (
        odd.get(colour) or said([{"type": "text", "text": f"shade\n {colour}"}])
    )
    result = caption(bench, server)
    told = {one["file"]: one["error"] for one in result["failed"]}
    assert set(told) == {"1.png", "2.png", "3.png", "4.png"}
    assert "400 (unsafe)" in told["1.png"]
    assert "returned no caption" in told["2.png"]
    assert texts(bench) == {"0": "shade 0", "5": "shade 5"}
    assert server.times == dict.fromkeys(range(6), 1)
    server.behave = lambda colour, nth: (400, {}, b'{"error": "no model seer"}')
    before = len(server.came)
    with refused(StudioError):
        caption(bench, server, mode="replace", instruction="again", batch=3)
    assert len(server.came) - before == 3


def test_what_concerns_all_ends_it_at_once_and_nobody_else_is_asked(
    bench: WorkerContext, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Server()
    monkeypatch.setenv("HTTP_PROXY", other.address)
    monkeypatch.setenv("ALL_PROXY", other.address)
    cases: list[Answer] = [
        (401, {}, json.dumps({"error": {"message": f"Bad key \ud800 {SECRET}"}}).encode()),
        (404, {}, b""),
        (307, {"location": f"{other.address}/chat/completions"}, b""),
        (200, {}, b"x" * 2_000_000),
    ]
    try:
        for answer in cases:
            server.behave = lambda colour, nth, answer=answer: answer  # type: ignore[misc]
            before = len(server.came)
            with refused(StudioError) as told:
                caption(bench, server, batch=2)
            assert len(server.came) - before <= 2
            assert SECRET not in str(told.value)
        assert not other.came
        assert not texts(bench)
    finally:
        other.close()


def test_a_stop_is_heard_at_once_and_an_answer_after_it_is_kept(
    bench: WorkerContext, server: Server
) -> None:
    go = threading.Event()

    def late(colour: int, nth: int) -> Answer:
        go.wait(10)
        return said(f"shade {colour}")

    def stop(progress: Progress) -> None:
        if len(server.came) == 2:
            raise Cancelled

    server.behave = late
    with pytest.raises(Cancelled):
        caption(bench, server, stop, batch=2)
    end = time.monotonic() + 60
    go.set()
    answers = bench.settings.home / "cache" / "captions"
    while (
        len([line for file in answers.glob("*.jsonl") for line in file.read_text().splitlines()])
        < 2
    ):
        assert time.monotonic() < end
        time.sleep(0.02)
    result = caption(bench, server, batch=2)
    assert (result["taken"], result["made"]) == (2, 4)
    assert server.times == dict.fromkeys(range(6), 1)


def test_a_stop_ends_the_waiting_to_try_again(
    bench: WorkerContext, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openai_endpoint, "RETRY_DELAY_SECONDS", 30.0)
    server.behave = lambda colour, nth: (503, {}, b"")

    def stop(progress: Progress) -> None:
        if server.came:
            raise Cancelled

    threads = threading.active_count()
    with pytest.raises(Cancelled):
        caption(bench, server, stop, batch=1)
    end = time.monotonic() + 25  # a try later would come after 30
    while threading.active_count() > threads + 2:  # the server's own may linger
        assert time.monotonic() < end
        time.sleep(0.02)
    assert len(server.came) == 1
