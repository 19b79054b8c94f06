"""What the owner notices of guests who misbehave: the time to the answer of a button, with two of them and without."""

from __future__ import annotations

import argparse
import asyncio
import collections
import contextlib
import os
import statistics
import time
from dataclasses import dataclass, field
from typing import Any

import httpx
import psutil

from tests.bench.page import served

API = "/gradio_api"
CLIENTS = 20  # the owner, guests who behave, and those two in whose place others misbehave
MISBEHAVING = 2
TURNS = 3  # of each, so that what else the machine does is in both
POLL_SECONDS = 0.5
PRESS_SECONDS = 1.0  # between two of the owner's
HOLD_SECONDS = 60.0  # a client gives up
FLOODS = 6  # tasks of each kind of a guest who misbehaves
JOB = {"prompt": "a boat", "steps": 20, "seed": 5}
UPLOAD = b"\x89PNG\r\n\x1a\n" + os.urandom(3_000_000)


@dataclass
class Round:
    """What was measured with or without those who misbehave."""

    address: str = ""
    end: float = 0.0
    config: dict[str, Any] = field(default_factory=dict)
    presses: list[float] = field(default_factory=list)
    unanswered: int = 0
    answers: collections.Counter[str] = field(default_factory=collections.Counter)

    def is_over(self) -> bool:
        return time.monotonic() > self.end

    def index_of(self, event: str) -> int:
        """The function behind an event of the list of jobs."""
        part = next(
            one["id"]
            for one in self.config["components"]
            if one["props"].get("elem_id") == "queue-list"
        )
        return next(
            one["id"]
            for one in self.config["dependencies"]
            if [part, event] in map(list, one["targets"])
        )


def guests(flags: argparse.Namespace) -> None:
    """Print the 95th percentile of the owner's button with and without, in turns on one page, and what guests were told."""
    rows = {"all behave": Round(), "two misbehave": Round()}
    with served("studio", flags.device) as (process, address, _):
        for _ in range(TURNS):
            for number, done in enumerate(rows.values()):
                asyncio.run(_measure(done, address, flags.seconds / TURNS, number * MISBEHAVING))
        megabytes = psutil.Process(process).memory_info().rss / 1e6
    for name, done in rows.items():
        print(
            f"guests: {name:14s} {len(done.presses)} presses, median {statistics.median(done.presses) * 1000:.0f} ms, "
            f"p95 {_p95(done) * 1000:.0f} ms, unanswered {done.unanswered}; {dict(done.answers)}"
        )
    behave, misbehave = rows.values()
    print(
        f"  ratio of p95 {_p95(misbehave) / _p95(behave):.2f} (goal ≤ 1.5); page {megabytes:.0f} MB"
    )


def _p95(done: Round) -> float:
    return sorted(done.presses)[int(0.95 * (len(done.presses) - 1))]


async def _measure(done: Round, address: str, seconds: float, num_misbehaving: int) -> None:
    done.address = address
    async with _client(done, 0) as owner:
        done.config = (await owner.get("/config")).json()
        await _press(owner, done, "warm")
        done.end = time.monotonic() + seconds
        behaving = [_behave(done, number) for number in range(1, CLIENTS - num_misbehaving)]
        floods = [_misbehave(done, CLIENTS - number) for number in range(1, num_misbehaving + 1)]
        await asyncio.gather(_own(owner, done), *behaving, *floods)


def _client(done: Round, number: int) -> httpx.AsyncClient:
    """A visitor; number 0 is the owner."""
    port = done.address.rstrip("/").rsplit(":", 1)[1]
    host = f"192.168.7.{number}" if number else "127.0.0.1"
    return httpx.AsyncClient(
        base_url=done.address.rstrip("/"),
        headers={"host": f"{host}:{port}"},
        timeout=HOLD_SECONDS,
        limits=httpx.Limits(max_connections=200),
        trust_env=False,
    )


async def _own(owner: httpx.AsyncClient, done: Round) -> None:
    """Press the button again and again, as a person does; the page polls meanwhile."""
    polls = asyncio.create_task(_poll(owner, done, "owner"))
    while not done.is_over():
        began = time.monotonic()
        try:
            await _press(owner, done, f"owner{len(done.presses)}")
        except (httpx.HTTPError, AssertionError):
            done.unanswered += 1
        done.presses.append(time.monotonic() - began)
        await asyncio.sleep(PRESS_SECONDS / 2)
    polls.cancel()


async def _press(client: httpx.AsyncClient, done: Round, session: str) -> None:
    """A cheap event through the queue, until it is answered."""
    body = {"data": [0], "fn_index": done.index_of("click"), "session_hash": session}
    body["event_data"] = {"action": "page", "target": "0"}
    joined = await client.post(f"{API}/queue/join", json=body)
    assert joined.status_code == 200, joined.text
    async with client.stream("GET", f"{API}/queue/data?session_hash={session}") as lines:
        async for line in lines.aiter_lines():
            if "process_completed" in line:
                return
    raise AssertionError("the stream ended")


async def _poll(client: httpx.AsyncClient, done: Round, session: str) -> None:
    body = {"data": [None, 0], "fn_index": done.index_of("submit"), "session_hash": session}
    while not done.is_over():
        answer = await client.post(f"{API}/run/predict", json=body)
        done.answers[f"poll {answer.status_code}"] += 1
        await asyncio.sleep(POLL_SECONDS)


async def _behave(done: Round, number: int) -> None:
    """A guest who looks at the queue, and has a picture made now and then."""
    async with _client(done, number) as client:
        with contextlib.suppress(httpx.HTTPError):
            await client.get("/")
            polls = asyncio.create_task(_poll(client, done, f"guest{number}-{time.monotonic_ns()}"))
            while not done.is_over():
                answer = await client.post(
                    f"{API}/call/generate", json={"data": list(JOB.values())[:1]}
                )
                done.answers[f"job {answer.status_code}"] += 1
                await asyncio.sleep(10)
            await polls


async def _misbehave(done: Round, number: int) -> None:
    """A guest who asks for everything at once: jobs, sessions, waiting calls, uploads, files."""

    async def flood(client: httpx.AsyncClient, kind: str, task: int) -> None:
        count = 0
        while not done.is_over():
            count += 1
            session = f"flood{number}-{task}-{count}-{time.monotonic_ns()}"
            with contextlib.suppress(httpx.HTTPError):
                answer = await ask(client, kind, session)
                done.answers[f"{kind} {answer.status_code}"] += 1

    async def ask(client: httpx.AsyncClient, kind: str, session: str) -> httpx.Response:
        if kind == "call":
            return await client.post(f"{API}/call/generate", json={"data": ["a boat"]})
        if kind == "upload":
            return await client.post(f"{API}/upload", files={"files": (f"{session}.png", UPLOAD)})
        if kind == "press":
            body = {"data": [0], "fn_index": done.index_of("click"), "session_hash": session}
            return await client.post(f"{API}/queue/join", json=body)
        if kind == "session":
            body = {"data": [None, 0], "fn_index": done.index_of("submit"), "session_hash": session}
            return await client.post(f"{API}/run/predict", json=body)
        return await client.get("/theme.css")

    async with _client(done, number) as client:
        kinds = ("call", "upload", "press", "session", "file")
        with contextlib.suppress(httpx.HTTPError):
            await client.get("/")
            await asyncio.gather(
                *(flood(client, kind, task) for kind in kinds for task in range(FLOODS))
            )
