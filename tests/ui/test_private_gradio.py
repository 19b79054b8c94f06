"""What is used of gradio that is not public is still there."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Coroutine
from typing import Any

import fastapi
import gradio as gr
import httpx
import pytest
from gradio.data_classes import PredictBodyInternal
from gradio.queueing import Queue
from gradio.routes import file_upload_statuses
from gradio.state_holder import SessionState, StateHolder

from studio.services.visitor import VISITOR_KEY, Visitor
from studio.ui.events import EVENT_OPTIONS, visitor_from_request
from studio.ui.private_gradio import (
    OWNER_SLOTS,
    PAGE_SLOTS,
    Page,
    PageSession,
    PageStates,
    event_payload,
    forget_upload_progress,
    serve_own_scripts,
    set_queue_poll_seconds,
)
from support.sentences import check_sentence
from support.served import need_port
from support.visitors import ANN

OWNER_ID = "api"  # who has no cookie


def test_the_payload_of_an_event() -> None:
    assert event_payload(gr.EventData(None, {"action": "a"})) == {"action": "a"}
    assert event_payload(gr.EventData(None, None)) == {}


def test_the_queue_of_a_page() -> None:
    page = gr.Blocks()
    page.queue()
    assert isinstance(page._queue.sleep_when_free, float)
    set_queue_poll_seconds(page, 0.25)
    assert page._queue.sleep_when_free == 0.25


def test_an_endpoint_takes_the_defaults_of_what_is_left_out() -> None:
    def add(left: int, right: int = 3) -> int:
        return left + right

    with Page() as page:
        gr.api(add, api_name="add")
    block_fn = next(iter(page.fns.values()))
    values: list[int] = [1]
    page.validate_inputs(block_fn, values)
    assert values == [1, 3]


def test_a_handler_of_the_page_gets_no_defaults() -> None:
    with Page() as page:
        boxes = [gr.Textbox("a"), gr.Textbox("b")]
        gr.Button().click(lambda first, second: None, boxes, None)
    block_fn = next(iter(page.fns.values()))
    with pytest.raises(ValueError, match="enough input values"):
        page.validate_inputs(block_fn, ["only one"])


def test_a_page_with_a_public_link_loads_its_own_scripts() -> None:
    need_port()
    with gr.Blocks() as page:
        gr.Button()
    page.launch(prevent_thread_lock=True, quiet=True, ssr_mode=False)
    try:
        page.share = True  # as gradio leaves it, once the link is there
        foreign = '<script type="module" crossorigin src="https://'
        assert foreign in httpx.get(page.local_url).text
        serve_own_scripts(page)
        assert foreign not in httpx.get(page.local_url).text
    finally:
        page.close()


def test_a_page_that_is_slow_to_answer_is_served(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine the first look at it takes longer than gradio waits for."""
    need_port()
    monkeypatch.setattr("gradio.networking.url_ok", lambda url: False)
    with Page() as page:
        gr.Button()
    page.launch(prevent_thread_lock=True, quiet=True, ssr_mode=False)
    try:
        assert httpx.get(page.local_url).is_success
    finally:
        page.close()


# ---- the queue, its places and sessions ----


class Crowd:
    """A page whose endpoint `wait` and whose button end when they are told to, with visitors who ask by its queue."""

    def __init__(self) -> None:
        self.end = asyncio.Event()
        self.pressed: list[str] = []

        async def wait() -> str:
            await self.end.wait()
            return "done"

        async def press(request: gr.Request) -> None:
            self.pressed.append(visitor_from_request(request).id)
            await self.end.wait()

        with Page() as self.page:
            gr.api(wait, api_name="wait", queue=False, concurrency_limit=None)
            gr.Button().click(press, None, None, **EVENT_OPTIONS)
        self.page.queue(max_size=64)
        self.page._queue.max_thread_count = PAGE_SLOTS
        self.wait_index, self.press_index = self.page.fns
        self.page.event_queue.set_server_app(self.page.app)

    async def ask(self, index: int, guest: str = "", session: str | None = None) -> str:
        """An event of a guest's, or of the owner's; its id."""
        scope: dict[str, Any] = {
            "type": "http",
            "client": ("127.0.0.1", 1),
            "headers": [],
            VISITOR_KEY: Visitor(guest or OWNER_ID, is_guest=bool(guest)),
            "path": "/gradio_api/queue/join",
        }
        scope |= {
            "scheme": "http",
            "server": ("127.0.0.1", 80),
            "query_string": b"",
            "method": "POST",
        }
        request = fastapi.Request(scope)
        body = PredictBodyInternal(data=[], fn_index=index, session_hash=session, request=request)
        is_in, event_id, _ = await self.page.event_queue.push(body, request, None)
        assert is_in
        return str(event_id)

    async def flood(self, index: int, num_guests: int, each: int) -> list[str]:
        """The sentences that guests hear who ask too much."""
        refusals = []
        for number in range(num_guests * each):
            try:
                await self.ask(index, f"guest-{number % num_guests}")
            except fastapi.HTTPException as error:
                refusals.append(error.detail if error.status_code == 429 else "")
        return refusals

    def run(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        async def main() -> None:
            self.page.run_startup_events()
            await work()
            self.end.set()
            for _ in range(200):
                if not self.page.event_queue.event_ids_to_events:
                    break
                await asyncio.sleep(0.02)
            assert not self.page.event_queue.event_ids_to_events
            self.page.event_queue.close()

        asyncio.run(main())

    async def until_pressed(self, visitor: str) -> None:
        for _ in range(200):
            if visitor in self.pressed:
                return
            await asyncio.sleep(0.02)
        raise AssertionError(f"{visitor} was not served")


def test_calls_that_wait_take_no_place_of_a_button() -> None:
    crowd = Crowd()

    async def work() -> None:
        for _ in range(PAGE_SLOTS + 20):  # the owner's programs
            await crowd.ask(crowd.wait_index)
            await asyncio.sleep(0)
        await asyncio.sleep(0.1)
        assert not any(crowd.page.event_queue.active_jobs)
        await crowd.ask(crowd.press_index)
        await crowd.until_pressed(OWNER_ID)
        refusals = await crowd.flood(crowd.wait_index, 5, 9)
        limits = crowd.page.guests.budgets
        assert len(refusals) == 45 - limits.all_jobs
        check_sentence(refusals[0])

    crowd.run(work)


def test_guests_never_take_the_last_places() -> None:
    crowd = Crowd()

    async def work() -> None:
        refusals = await crowd.flood(crowd.press_index, 2, 10)
        assert len(refusals) == 4
        check_sentence(refusals[0])
        refusals = await crowd.flood(crowd.press_index, 12, 8)
        check_sentence(refusals[-1])
        await asyncio.sleep(0.2)
        running = [events for events in crowd.page.event_queue.active_jobs if events]
        assert 0 < len(running) <= PAGE_SLOTS - OWNER_SLOTS
        await crowd.ask(crowd.press_index)
        await crowd.until_pressed(OWNER_ID)

    crowd.run(work)


def test_a_session_is_its_openers_and_little_is_kept_of_it() -> None:
    crowd = Crowd()

    async def work() -> None:
        await crowd.ask(crowd.press_index, session="mine")
        with pytest.raises(fastapi.HTTPException) as refused:
            await crowd.ask(crowd.press_index, "ann", session="mine")
        assert refused.value.status_code == 403
        check_sentence(refused.value.detail)
        states = crowd.page.state_holder
        limit = crowd.page.guests.budgets.sessions + crowd.page.guests.budgets.jobs
        crowd.end.set()
        for number in range(limit + 6):
            await crowd.ask(crowd.press_index, "ann", session=f"page {number}")
            await asyncio.sleep(0.05)
        assert "mine" in states
        assert len(states.session_data) <= limit + 1
        assert len(crowd.page.event_queue.pending_messages_per_session) <= limit + 1
        assert len(crowd.page.event_queue.pending_event_ids_session) <= limit + 1

    crowd.run(work)


def test_what_a_session_holds_is_what_gradio_asks_for() -> None:
    with Page() as page:
        state, text = gr.State(3), gr.Textbox("text")
    ours, theirs = PageSession(page), SessionState(page)
    assert vars(ours).keys() == vars(theirs).keys()
    state_id, text_id = state._id, text._id
    for session in (ours, theirs):
        assert session[state_id] == 3
        session[state_id] = 4
        session._update_value_in_config(text_id, "x" * 1000)
        assert (session[state_id], state_id in session) == (4, True)
    assert "x" * 100 not in repr(list(ours.components))
    assert "x" * 100 in repr(list(theirs.components))


def test_a_page_that_was_closed_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("studio.services.budgets.CLOSED_SESSION_SECONDS", -1)
    with Page() as page:
        gr.State(3)
    states = PageStates(page)
    states.set_blocks(page)
    for name in ("closed", "open"):
        page.admit_session(name, ANN)
        assert states[name]
        page.guests.sessions.count_heartbeat(name, +1)
    page.guests.sessions.count_heartbeat("closed", -1)
    states.delete_all_expired_state()
    assert list(states.session_data) == ["open"]


def test_what_gradio_offers_for_its_queue_and_sessions_is_still_there() -> None:
    for owner, names in (
        (Queue, ("push", "get_events", "clean_events", "send_message", "process_events")),
        (StateHolder, ("set_blocks", "__getitem__", "delete_all_expired_state")),
        (SessionState, ("_update_config", "_update_value_in_config", "__setitem__")),
        (gr.Blocks, ("process_api", "launch", "queue", "run_startup_events")),
    ):
        assert [name for name in names if not callable(getattr(owner, name))] == []
    parameters = inspect.signature(gr.Blocks.process_api).parameters
    assert {"request", "session_hash", "event_id", "event_data"} <= parameters.keys()
    assert "max_threads" in inspect.signature(gr.Blocks.launch).parameters


def test_how_far_an_upload_was_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("studio.ui.private_gradio.UPLOAD_PROGRESS_SECONDS", 0.0)

    async def upload() -> None:
        file_upload_statuses.track("a")
        file_upload_statuses.set_done("a")
        forget_upload_progress("a")
        await asyncio.sleep(0.01)

    asyncio.run(upload())
    assert "a" not in file_upload_statuses._statuses
    assert "a" not in file_upload_statuses._signals
