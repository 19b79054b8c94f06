"""What is used of gradio that is not public, so that one test says when a new version breaks it.

Knows: the attributes' names; how the queue of a page, its sessions and the files that it hands out
are kept within what guests may use. Does not know: how much that is (services/budgets.py); any
component or tab.
"""

from __future__ import annotations

import asyncio
import hashlib
import inspect
import time
import uuid
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from copy import copy
from typing import Any

import fastapi
import gradio as gr
from gradio.block_function import BlockFunction
from gradio.components.api_component import Api
from gradio.data_classes import PredictBodyInternal
from gradio.exceptions import InvalidPathError
from gradio.queueing import Event, Queue
from gradio.route_utils import get_fn
from gradio.routes import App, file_upload_statuses
from gradio.state_holder import SessionState, StateHolder
from gradio.utils import run_coro_in_background, set_task_name
from starlette.routing import Route

from studio.errors import BadFile, Busy, NotAllowed
from studio.services.budgets import (
    ALL_GUESTS_EVENTS_FACTOR,
    GUESTS_BUSY,
    TOO_MANY_EVENTS,
    Budgets,
    Guests,
)
from studio.services.visitor import Visitor, visitor_from_scope
from studio.settings import Settings
from studio.storage.uploads import Uploads
from studio.ui.errors import report_errors
from studio.ui.events import visitor_from_request
from studio.ui.gradio_script import build_script
from studio.ui.gradio_styles import StyleBundle
from studio.ui.page_building import make_no_app

# Events that run at once, and threads of handlers. Any number but gradio's 40 gives handlers
# threads of their own, so that no file that is sent has to wait for them.
PAGE_SLOTS = 48
OWNER_SLOTS = 16  # of these, which guests' events never take
MAX_SESSION_HASH_CHARS = 64
UPLOAD_PROGRESS_SECONDS = 30.0
MAX_RECORDED_EVENTS = 100  # gradio makes a table of all of them after each event


class Page(gr.Blocks):
    """A page that keeps guests within their budgets.

    Its endpoints take the defaults of parameters that a program leaves out: gradio's own client
    sends every parameter; over HTTP a program posts a list, which is shorter when it was written
    before the last parameters came.
    """

    def __init__(
        self, guests: Guests | None = None, uploads: Uploads | None = None, **options: Any
    ) -> None:
        """Make an empty page.

        Args:
            guests: What guests use now.
            uploads: Whose the files are that were sent; None for a page that takes none.
            options: What gr.Blocks takes.
        """
        self.guests = guests or Guests(Budgets.from_settings(Settings()))
        self.uploads = uploads
        self._app: App | None = None
        super().__init__(**options)

    @property
    def app(self) -> App:
        """What answers requests: launch makes it; before, whoever asks for it."""
        if self._app is None:
            self._app = App.create_app(self, mcp_server=False)
        return self._app

    @app.setter
    def app(self, app: App | None) -> None:
        self._app = app

    def __exit__(self, *exception: Any) -> None:
        """End the page's layout, as gr.Blocks does."""
        with make_no_app():
            super().__exit__(*exception)

    def queue(self, *args: Any, **options: Any) -> Page:
        """Set the queue up, as gr.Blocks does, and let guests wait behind the owner."""
        with make_no_app():
            super().queue(*args, **options)
        self._queue = self.event_queue = PageQueue(self, self._queue)
        return self

    def launch(self, **options: Any) -> Any:  # type: ignore[override]
        """Serve the page, as gr.Blocks does; what it keeps of each visit is little and bounded."""
        # Without `_frontend` gradio does not ask for the page itself first: on a busy machine that
        # took longer than the 3 s it grants, and it would refuse to start.
        served = super().launch(**options, max_threads=PAGE_SLOTS, _frontend=False)
        states = PageStates(self)
        states.set_blocks(self)
        self.app.state_holder = states
        return served

    def validate_inputs(self, block_fn: BlockFunction, inputs: list[Any]) -> None:
        """Add the defaults that are missing at the end of an endpoint's values, in place."""
        missing = block_fn.inputs[len(inputs) :]
        inputs.extend(block.value for block in missing if isinstance(block, Api))
        super().validate_inputs(block_fn, inputs)

    async def process_api(
        self, block_fn: BlockFunction | int, inputs: list[Any], *args: Any, **options: Any
    ) -> dict[str, Any]:
        """Call a function of the page for a visitor, within what they may use.

        All ways lead through here: the queue, and POST without it.
        """
        request = options.get("request")
        if not isinstance(request, gr.Request):
            return await super().process_api(block_fn, inputs, *args, **options)
        visitor = visitor_from_request(request)
        fn = self.fns[block_fn] if isinstance(block_fn, int) else block_fn
        async with AsyncExitStack() as held:
            with report_errors(plain_text=fn.api_visibility == "public"):
                self.admit_session(options.get("session_hash"), visitor)
                event_data = getattr(options.get("event_data"), "_data", None)
                self._require_own_files([inputs, event_data], visitor)
                if waits_for_job(fn):
                    held.enter_context(self.guests.waiting_calls.hold(visitor))
                elif not options.get("event_id"):  # those in the queue are counted there
                    await held.enter_async_context(self.guests.turns.take(visitor))
            try:
                output = await super().process_api(fn, inputs, *args, **options)
            except InvalidPathError:
                raise gr.Error("Send a file.", print_exception=False) from None
        if self.uploads and visitor.is_guest:
            paths = list(_find_paths(output.get("data")))
            self.uploads.record_handed_out(paths, visitor.id)
        return output

    def admit_session(self, session_hash: str | None, visitor: Visitor) -> None:
        """Note that a visitor uses a session, and forget what has to give way to it.

        Raises NotAllowed for somebody else's, Busy where the guest has too many.
        """
        if session_hash is None:
            return
        if not isinstance(session_hash, str) or len(session_hash) > MAX_SESSION_HASH_CHARS:
            self.forget_session(session_hash)
            raise NotAllowed("That is no session of a page; reload it.")
        try:
            evicted = self.guests.sessions.use(
                session_hash, visitor, self.event_queue.is_waited_for
            )
        except Busy:
            self.forget_session(session_hash)
            raise
        for name in evicted:
            self.forget_session(name)

    def forget_session(self, session_hash: str) -> None:
        """Delete what is kept of a visit to the page; whoever comes back begins anew."""
        self.state_holder.session_data.pop(session_hash, None)
        self.state_holder.time_last_used.pop(session_hash, None)
        self._queue.pending_messages_per_session.pop(session_hash, None)
        self._queue.pending_event_ids_session.pop(session_hash, None)

    def _require_own_files(self, values: Any, visitor: Visitor) -> None:
        """Raise BadFile for a file that somebody else sent."""
        if self.uploads is None or not visitor.is_guest:
            return
        for path in _find_paths(values):
            if not self.uploads.may_read(path, visitor.id):
                raise BadFile("Send a file.")


class PageQueue(Queue):
    """gradio's queue with places that guests cannot take.

    The owner's events are served first. An event of an endpoint that waits for a job holds no place
    at all, so that any number of programs may wait.
    """

    def __init__(self, page: Page, queue: Queue) -> None:
        super().__init__(
            live_updates=queue.live_updates,
            concurrency_count=queue.max_thread_count,
            update_intervals=queue.update_intervals,
            max_size=queue.max_size,
            blocks=page,
            default_concurrency_limit=queue.default_concurrency_limit,
        )
        self.page = page
        self.ANALYTICS_MAX_EVENTS = MAX_RECORDED_EVENTS

    async def push(
        self, body: PredictBodyInternal, request: fastapi.Request, username: str | None
    ) -> Any:
        """Take an event in, unless its guest waits for too many already."""
        visitor = visitor_from_scope(request.scope)
        if body.session_hash is None:  # a program's: each call is a session of its own
            body.session_hash = uuid.uuid4().hex
        with refuse_by_status():
            self.page.admit_session(body.session_hash, visitor)
            self._count_event(get_fn(self.blocks, None, body), visitor)
        return await super().push(body, request, username)

    def get_events(self) -> tuple[list[Event], bool, str] | None:
        """Return the event that runs next, and start all those that need no place."""
        queued = [
            event for queue in self.event_queue_per_concurrency_id.values() for event in queue.queue
        ]
        for event in queued:
            if waits_for_job(event.fn):
                self._start_without_slot(event)
        running = [event for events in self.active_jobs if events for event in events]
        num_guests = sum(visitor_of(event).is_guest for event in running)
        guests_may_run = num_guests < len(self.active_jobs) - OWNER_SLOTS
        waiting = [event for event in queued if not waits_for_job(event.fn)]
        waiting.sort(key=lambda event: (visitor_of(event).is_guest, event.enqueue_time))
        for event in waiting:
            queue = self.event_queue_per_concurrency_id[event.concurrency_id]
            limit = queue.concurrency_limit
            if visitor_of(event).is_guest and not guests_may_run:
                break
            if limit is None or queue.current_concurrency < limit:
                queue.queue.remove(event)
                return [event], False, event.concurrency_id
        return None

    async def clean_events(
        self, *, session_hash: str | None = None, event_id: str | None = None
    ) -> None:
        """Forget the events of a visit that has ended, those without a place too."""
        for event in list(self.event_ids_to_events.values()):
            if event.session_hash == session_hash or event._id == event_id:
                event.alive = False
        await super().clean_events(session_hash=session_hash, event_id=event_id)

    def send_message(self, event: Event, event_message: Any) -> None:
        """Send a message to a visit, unless it is over."""
        if event.session_hash in self.pending_messages_per_session:
            super().send_message(event, event_message)

    def compute_analytics_summary(self, records: Any) -> Any:  # noqa: ARG002
        """Return nothing: nobody looks at the table that gradio would make after each event."""
        return self.cached_event_analytics_summary

    def is_waited_for(self, session_hash: str) -> bool:
        """Return whether an event of a session waits or runs."""
        return any(
            event.session_hash == session_hash for event in self.event_ids_to_events.values()
        )

    def _count_event(self, fn: BlockFunction, visitor: Visitor) -> None:
        """Raise Busy where a guest, or all of them, have as many events of this kind as may be."""
        if not visitor.is_guest:
            return
        is_waiting_call = waits_for_job(fn)
        guests = [
            visitor_of(event)
            for event in self.event_ids_to_events.values()
            if waits_for_job(event.fn) == is_waiting_call
        ]
        guests = [guest for guest in guests if guest.is_guest]
        budgets = self.page.guests.budgets
        own_limit, all_limit = budgets.events, ALL_GUESTS_EVENTS_FACTOR * budgets.events
        if is_waiting_call:
            own_limit, all_limit = budgets.jobs, budgets.all_jobs
        if guests.count(visitor) >= own_limit:
            raise Busy(TOO_MANY_EVENTS)
        if len(guests) >= all_limit:
            raise Busy(GUESTS_BUSY)

    def _start_without_slot(self, event: Event) -> None:
        queue = self.event_queue_per_concurrency_id[event.concurrency_id]
        queue.queue.remove(event)
        queue.current_concurrency += 1
        task = run_coro_in_background(self.process_events, [event], False, time.time(), event.fn)
        set_task_name(task, event.session_hash, event.fn._id, event._id, False)
        self._asyncio_tasks.add(task)
        task.add_done_callback(self._asyncio_tasks.discard)


class PageStates(StateHolder):
    """The sessions of a page: small, and gone a while after the page was closed."""

    def __init__(self, page: Page) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.page = page

    def __getitem__(self, session_id: str) -> SessionState:
        if session_id not in self.session_data:
            self.session_data[session_id] = PageSession(self.blocks)
        return super().__getitem__(session_id)

    def delete_all_expired_state(self) -> None:
        """Forget the sessions of closed pages; gradio calls this every second."""
        for session_hash in self.page.guests.sessions.forget_closed():
            self.page.forget_session(session_hash)
        super().delete_all_expired_state()  # type: ignore[no-untyped-call]


class PageSession(SessionState):
    """The values of a page's gr.State.

    gradio would keep the description of every component as well, some 1.5 MB, for links into a
    session, which the studio does not have.
    """

    def __init__(self, blocks: gr.Blocks) -> None:
        self.blocks_config = copy(blocks.default_config)
        self.config_values: dict[int, Any] = {}
        self.state_data: dict[int, Any] = {}
        self._state_ttl: dict[int, Any] = {}
        self.is_closed = False
        self.STATE_TTL_WHEN_CLOSED = 3600

    def __setitem__(self, key: int, value: Any) -> None:
        super().__setitem__(key, value)
        self.config_values.clear()

    def _update_config(self, key: int) -> None:
        pass

    def _update_value_in_config(self, key: int, value: Any) -> None:
        pass


def waits_for_job(fn: BlockFunction) -> bool:
    """Return whether a function is an endpoint that answers when its job is done."""
    return fn.api_visibility == "public" and inspect.iscoroutinefunction(fn.fn)


def visitor_of(event: Event) -> Visitor:
    """Return who sent an event."""
    return visitor_from_scope(event.request.scope)


@contextmanager
def refuse_by_status() -> Iterator[None]:
    """Turn a refusal into an answer whose sentence gradio's page and clients show."""
    try:
        yield
    except Busy as error:
        raise fastapi.HTTPException(429, detail=str(error)) from None
    except NotAllowed as error:
        raise fastapi.HTTPException(403, detail=str(error)) from None


def _find_paths(values: Any) -> Iterator[str]:
    """Yield the path of every file that values of components name, however deep."""
    if isinstance(values, dict):
        path = values.get("path")
        if isinstance(path, str):
            yield path
        for value in values.values():
            yield from _find_paths(value)
    elif isinstance(values, list | tuple):
        for value in values:
            yield from _find_paths(value)


def event_payload(event: gr.EventData) -> dict[str, Any]:
    """Return what JavaScript's `trigger` sent along with an event of an HTML block."""
    payload = event._data
    return payload if isinstance(payload, dict) else {}


def set_queue_poll_seconds(page: gr.Blocks, seconds: float) -> None:
    """Set how long the queue of a page waits between two looks for an event."""
    page._queue.sleep_when_free = seconds


def forget_upload_progress(upload_id: str) -> None:
    """Forget how far an upload was, in a while: its page may ask for the end of it still.

    gradio would keep it for ever.
    """

    def forget() -> None:
        file_upload_statuses.stop_tracking(upload_id)
        file_upload_statuses._signals.pop(upload_id, None)

    asyncio.get_running_loop().call_later(UPLOAD_PROGRESS_SECONDS, forget)


def serve_own_scripts(page: gr.Blocks) -> None:
    """Have a page with a public link load its scripts from the studio, not from gradio's server.

    The link itself is there by then; only the choice of the page's template asks again.
    """
    page.share = False


def serve_quick_script(page: gr.Blocks) -> None:
    """Serve gradio's core script with its searches made quick, in place of that file."""
    built = build_script()
    if built is not None:
        name, text = built
        _serve_asset(page, name, text, "text/javascript")


def serve_styles(page: gr.Blocks, bundle: StyleBundle) -> None:
    """Serve gradio's style sheets of a page as one, beside its own files."""
    _serve_asset(page, bundle.file_name, bundle.text, "text/css")


def _serve_asset(page: gr.Blocks, name: str, text: str, media_type: str) -> None:
    version = f'"{hashlib.sha256(text.encode()).hexdigest()[:32]}"'
    headers = {"Cache-Control": "max-age=0, must-revalidate", "ETag": version}

    async def send(request: fastapi.Request) -> fastapi.Response:
        if request.headers.get("if-none-match") == version:
            return fastapi.Response(status_code=304, headers=headers)
        return fastapi.Response(text, media_type=media_type, headers=headers)

    page.app.router.routes.insert(0, Route(f"/assets/{name}", send))
