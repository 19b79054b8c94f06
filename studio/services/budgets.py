"""What guests may use of this machine, and the one place that counts it while the page is open.

Knows: each limit, what a guest is told who meets one. Does not know: HTTP, gradio; how the jobs of
a guest are counted (storage/jobs.py) and the files (storage/uploads.py).

The owner is never limited.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

from studio.errors import Busy, NotAllowed
from studio.services.visitor import Visitor
from studio.settings import Settings
from studio.storage.jobs import GuestLimits

BYTES_PER_MB = 2**20
# What all guests together may use where no setting says it: so many times what one may.
ALL_GUESTS_REQUESTS_FACTOR = 10
ALL_GUESTS_SESSIONS_FACTOR = 16
ALL_GUESTS_EVENTS_FACTOR = 4
# A guest who did nothing for a while may ask for so many seconds' worth at once: a page that opens
# for the first time loads some 150 files, a gallery 60 thumbnails.
BURST_SECONDS = 30.0
OWNER_SESSIONS = 64
# A page that was closed is forgotten after so long; a browser that lost its network comes back.
CLOSED_SESSION_SECONDS = 60.0
STREAMS_PER_SESSION = 3  # a heartbeat, the queue's, and one that is about to end
# Handlers that run at once outside the queue, such as polls, and requests that are answered at
# once: more wait for their turn.
GUEST_TURNS = 2
ALL_GUESTS_TURNS = 8
MAX_WAITING_TURNS = 64  # of one guest
GUEST_UPLOADS = 2  # at a time; a browser sends the files of one choice in one
ALL_GUESTS_UPLOADS = 6

TOO_MANY_REQUESTS = "You are sending too many requests; wait a few seconds."
TOO_MANY_EVENTS = "Wait for the answer to your last request."
GUESTS_BUSY = "This studio is busy with its guests; try again in a moment."
NOT_YOUR_SESSION = "That page was opened by another visitor; reload yours."


@dataclass(frozen=True)
class Budgets:
    """What one guest may use, and all guests together.

    Attributes:
        jobs: Open jobs.
        pixels: Of one image that is sent.
        upload_bytes: Of files that are kept.
        requests_per_second: On average.
        sessions: Open pages.
        events: Buttons that are being answered.
    """

    jobs: int
    all_jobs: int
    pixels: int
    upload_bytes: int
    all_upload_bytes: int
    requests_per_second: float
    sessions: int
    events: int

    @classmethod
    def from_settings(cls, settings: Settings) -> Budgets:
        """Return the limits that the owner has set."""
        return cls(
            jobs=settings.guest_jobs,
            all_jobs=settings.all_guests_jobs,
            pixels=settings.guest_pixels,
            upload_bytes=settings.guest_upload_mb * BYTES_PER_MB,
            all_upload_bytes=settings.all_guests_upload_mb * BYTES_PER_MB,
            requests_per_second=settings.guest_requests_per_second,
            sessions=settings.guest_sessions,
            events=settings.guest_events,
        )

    def job_limits(self, visitor: Visitor) -> GuestLimits | None:
        """Return how many jobs a visitor may have open; None is any number."""
        return GuestLimits(self.jobs, self.all_jobs) if visitor.is_guest else None


class Guests:
    """What the guests of an open page use at this moment. One for the process."""

    def __init__(self, budgets: Budgets) -> None:
        self.budgets = budgets
        self.requests = RequestRate(budgets.requests_per_second)
        # A program's call that waits for a job is a session of its own.
        self.sessions = Sessions(budgets.sessions + budgets.jobs)
        streams = STREAMS_PER_SESSION * budgets.sessions
        self.streams = Shares(streams, ALL_GUESTS_SESSIONS_FACTOR * streams)
        self.events = Shares(budgets.events, ALL_GUESTS_EVENTS_FACTOR * budgets.events)
        self.waiting_calls = Shares(budgets.jobs, budgets.all_jobs)
        self.uploads = Shares(GUEST_UPLOADS, ALL_GUESTS_UPLOADS)
        self.turns = Turns()
        self.request_turns = Turns()


class Shares:
    """Things of which each guest may hold a few at a time, and all guests together some more."""

    def __init__(self, own_limit: int, all_limit: int) -> None:
        self.own_limit = own_limit
        self.all_limit = all_limit
        self._counts: dict[str, int] = {}
        self._lock = threading.Lock()

    @contextmanager
    def hold(self, visitor: Visitor) -> Iterator[None]:
        """Hold one while the block runs. Raises what `acquire` raises."""
        self.acquire(visitor)
        try:
            yield
        finally:
            self.release(visitor)

    def acquire(self, visitor: Visitor) -> None:
        """Take one. Raises Busy where the guest, or all guests, hold as many as they may."""
        if not visitor.is_guest:
            return
        with self._lock:
            count = self._counts.get(visitor.id, 0)
            if count >= self.own_limit:
                raise Busy(TOO_MANY_EVENTS)
            if sum(self._counts.values()) >= self.all_limit:
                raise Busy(GUESTS_BUSY)
            self._counts[visitor.id] = count + 1

    def release(self, visitor: Visitor) -> None:
        """Give one back."""
        if not visitor.is_guest:
            return
        with self._lock:
            count = self._counts.pop(visitor.id, 0) - 1
            if count > 0:
                self._counts[visitor.id] = count


class RequestRate:
    """A bucket for each guest that fills with so many requests a second, and one for all guests."""

    def __init__(
        self, requests_per_second: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._rate = requests_per_second
        self._clock = clock
        # By guest: how many requests may come at once, and when that was so.
        self._buckets: dict[str, tuple[float, float]] = {}
        self._next_sweep = 0.0

    def count_request(self, visitor: Visitor) -> None:
        """Count a request. Raises Busy where a guest, or all guests, send too many."""
        if not visitor.is_guest:
            return
        now = self._clock()
        if now >= self._next_sweep:
            self._forget_idle_guests(now)
        own = self._fill(visitor.id, self._rate, now)
        if own < 1:
            raise Busy(TOO_MANY_REQUESTS)
        everybody = self._fill("", ALL_GUESTS_REQUESTS_FACTOR * self._rate, now)
        if everybody < 1:
            raise Busy(GUESTS_BUSY)
        self._buckets[visitor.id] = (own - 1, now)
        self._buckets[""] = (everybody - 1, now)

    def _fill(self, key: str, rate: float, now: float) -> float:
        size = rate * BURST_SECONDS
        count, then = self._buckets.get(key, (size, now))
        return min(size, count + (now - then) * rate)

    def _forget_idle_guests(self, now: float) -> None:
        """Forget whose bucket is full again by now."""
        self._next_sweep = now + BURST_SECONDS
        for key, (_, then) in list(self._buckets.items()):
            if now - then > BURST_SECONDS:
                del self._buckets[key]


@dataclass
class _Session:
    """An open page; its party is a guest's id, or empty for the owner."""

    party: str
    num_heartbeats: int = 0
    last_used: float = 0.0
    was_closed: bool = False


class Sessions:
    """Whose the open pages are, by the session hashes that their browsers made up.

    What gradio keeps of a page that falls out is for the page's code to delete.
    """

    def __init__(self, own_limit: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._own_limit = own_limit
        self._clock = clock
        self._sessions: dict[str, _Session] = {}  # the one used last is the last
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._sessions)

    def require(self, session_hash: str, visitor: Visitor) -> None:
        """Raise NotAllowed for a session that somebody else opened."""
        session = self._sessions.get(session_hash)
        if session and session.party != _party(visitor):
            raise NotAllowed(NOT_YOUR_SESSION)

    def use(
        self, session_hash: str, visitor: Visitor, is_busy: Callable[[str], bool] = lambda _: False
    ) -> list[str]:
        """Note that a visitor uses a session; return those that have to give way to it.

        Guests' sessions make room for guests' alone. One that is busy stays.

        Raises:
            NotAllowed: Somebody else opened it.
            Busy: It is a new one, and all of this guest's are busy.
        """
        self.require(session_hash, visitor)
        with self._lock:
            session = self._sessions.pop(session_hash, None)
            evicted = [] if session else self._make_room(visitor, is_busy)
            session = session or _Session(_party(visitor))
            session.last_used = self._clock()
            self._sessions[session_hash] = session
        return evicted

    def count_heartbeat(self, session_hash: str, change: int) -> None:
        """Note that a page's heartbeat begins (+1) or ends (-1)."""
        session = self._sessions.get(session_hash)
        if session:
            session.num_heartbeats = max(0, session.num_heartbeats + change)
            session.was_closed = session.num_heartbeats == 0
            session.last_used = self._clock()

    def forget_closed(self) -> list[str]:
        """Forget the pages that were closed a while ago; return them."""
        before = self._clock() - CLOSED_SESSION_SECONDS
        with self._lock:
            closed = [
                name
                for name, session in self._sessions.items()
                if session.was_closed and session.last_used < before
            ]
            for name in closed:
                del self._sessions[name]
        return closed

    def _make_room(self, visitor: Visitor, is_busy: Callable[[str], bool]) -> list[str]:
        by_party: defaultdict[str, list[str]] = defaultdict(list)
        for name, session in self._sessions.items():
            by_party[session.party].append(name)
        party = _party(visitor)
        limit = self._own_limit if visitor.is_guest else OWNER_SESSIONS
        candidates: list[str] = []
        if len(by_party[party]) >= limit:
            candidates = by_party[party]
        elif visitor.is_guest:
            guests = {name: names for name, names in by_party.items() if name}
            if sum(map(len, guests.values())) >= ALL_GUESTS_SESSIONS_FACTOR * self._own_limit:
                candidates = max(guests.values(), key=len)
        # The one that was used longest ago.
        evicted = [name for name in candidates if not is_busy(name)][:1]
        if candidates and not evicted and visitor.is_guest:
            raise Busy(TOO_MANY_EVENTS)
        for name in evicted:
            del self._sessions[name]
        return evicted


def _party(visitor: Visitor) -> str:
    return visitor.id if visitor.is_guest else ""


class Turns:
    """Lets only a few handlers of guests run at once, so that threads are left for the owner's.

    Who has to wait holds no thread. For one event loop.
    """

    def __init__(self) -> None:
        self._all = asyncio.Semaphore(ALL_GUESTS_TURNS)
        self._own: dict[str, asyncio.Semaphore] = {}
        self._waiting: defaultdict[str, int] = defaultdict(int)

    @asynccontextmanager
    async def take(self, visitor: Visitor) -> AsyncIterator[None]:
        """Wait for a turn and hold it. Raises Busy where too many of the guest's wait already."""
        if not visitor.is_guest:
            yield
            return
        if self._waiting[visitor.id] >= MAX_WAITING_TURNS:
            raise Busy(TOO_MANY_REQUESTS)
        own = self._own.setdefault(visitor.id, asyncio.Semaphore(GUEST_TURNS))
        self._waiting[visitor.id] += 1
        try:
            async with own, self._all:
                yield
        finally:
            self._waiting[visitor.id] -= 1
            if not self._waiting[visitor.id]:
                del self._waiting[visitor.id]
                del self._own[visitor.id]
