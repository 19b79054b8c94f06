"""What guests may use at a time: counted by guest and over all of them, and never the owner's."""

from __future__ import annotations

import asyncio

import pytest

from studio.errors import Busy, NotAllowed
from studio.services import budgets
from studio.services.budgets import Budgets, Guests, RequestRate, Sessions, Shares, Turns
from studio.services.submission import Services
from studio.services.visitor import Visitor
from studio.settings import Settings, load
from support.sentences import refused
from support.visitors import ANN, BOB, OWNER

OTHERS = [Visitor(f"guest {number}", is_guest=True) for number in range(200)]


class Clock:
    """Time that stands still until a test moves it."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


def test_limits_are_settings(settings: Settings) -> None:
    chosen = load(home=settings.home, guest_jobs=3, guest_upload_mb=2, guest_megapixels=1.5)
    limits = Budgets.from_settings(chosen)
    assert (limits.jobs, limits.upload_bytes, limits.pixels) == (3, 2 * 2**20, 1_500_000)
    assert limits.all_jobs == Budgets.from_settings(settings).all_jobs


def test_a_share_is_held_and_given_back() -> None:
    shares = Shares(own_limit=2, all_limit=3)
    shares.acquire(ANN)
    with shares.hold(ANN), refused(Busy):
        shares.acquire(ANN)
    shares.acquire(ANN)
    shares.acquire(BOB)
    with refused(Busy):
        shares.acquire(BOB)
    for _ in range(100):
        shares.acquire(OWNER)
    shares.release(ANN)
    shares.acquire(BOB)


def test_a_guest_who_clicks_about_meets_no_limit_and_one_who_floods_does(
    settings: Settings,
) -> None:
    clock = Clock()
    rate = RequestRate(Budgets.from_settings(settings).requests_per_second, clock)
    for files in (150, 30, 30):  # three pages one after the other; the browser has kept the files
        for _ in range(files):
            rate.count_request(ANN)
        clock.seconds += 5
    for _ in range(300):  # they poll, and at last two galleries of 60 thumbnails are looked at
        for _ in range(8):
            rate.count_request(ANN)
        clock.seconds += 1
    for _ in range(120):
        rate.count_request(ANN)
    for _ in range(300):
        rate.count_request(BOB)
    with refused(Busy):
        rate.count_request(BOB)
    rate.count_request(ANN)
    for _ in range(10_000):
        rate.count_request(OWNER)
    clock.seconds += 1
    for _ in range(10):
        rate.count_request(BOB)
    with pytest.raises(Busy):
        rate.count_request(BOB)


def test_all_guests_together_have_a_rate_and_who_left_is_forgotten() -> None:
    clock = Clock()
    rate = RequestRate(5, clock)
    with refused(Busy):
        for guest in OTHERS:
            for _ in range(50):
                rate.count_request(guest)
    assert len(rate._buckets) > 20
    clock.seconds += 70
    rate.count_request(ANN)
    assert set(rate._buckets) == {"", "ann"}


def test_sessions_of_guests_make_room_for_those_of_guests_alone() -> None:
    sessions = Sessions(own_limit=2)
    for number in range(budgets.OWNER_SESSIONS):
        assert sessions.use(f"mine {number}", OWNER) == []
    assert [sessions.use(f"a{number}", ANN) for number in (1, 2)] == [[], []]
    sessions.use("a1", ANN)
    assert sessions.use("a3", ANN) == ["a2"]
    assert sessions.use("a4", ANN, is_busy=lambda name: name == "a1") == ["a3"]
    with refused(Busy):
        sessions.use("a5", ANN, is_busy=lambda _: True)
    for guest in OTHERS:
        gone = sessions.use(f"page of {guest.id}", guest)
        assert all("guest" in name or name.startswith("a") for name in gone)
    limit = budgets.OWNER_SESSIONS + budgets.ALL_GUESTS_SESSIONS_FACTOR * 2
    assert len(sessions) == limit
    assert sessions.use("mine too", OWNER) == ["mine 0"]
    assert sessions.use("my program's", OWNER, is_busy=lambda _: True) == []  # never refused


def test_a_session_is_its_openers() -> None:
    sessions = Sessions(own_limit=2)
    sessions.use("mine", OWNER)
    sessions.use("mine", Visitor("api", is_guest=False))  # a program of the owner's
    with refused(NotAllowed):
        sessions.use("mine", ANN)
    with refused(NotAllowed):
        sessions.require("mine", BOB)
    sessions.require("unknown", BOB)


def test_a_closed_page_is_forgotten_unless_it_comes_back() -> None:
    clock = Clock()
    sessions = Sessions(own_limit=4, clock=clock)
    for name in ("open", "closed", "back", "program"):
        sessions.use(name, ANN)
    for name in ("open", "closed", "back"):
        sessions.count_heartbeat(name, +1)
    for name in ("closed", "back"):
        sessions.count_heartbeat(name, -1)
    clock.seconds += budgets.CLOSED_SESSION_SECONDS - 1
    assert sessions.forget_closed() == []
    sessions.count_heartbeat("back", +1)
    clock.seconds += 2
    assert sessions.forget_closed() == ["closed"]
    assert len(sessions) == 3


def test_handlers_of_guests_take_turns_and_the_owners_do_not_wait() -> None:
    running: list[str] = []
    most = 0

    async def handle(turns: Turns, visitor: Visitor) -> None:
        nonlocal most
        async with turns.take(visitor):
            running.append(visitor.id)
            most = max(most, len(running))
            assert running.count(visitor.id) <= budgets.GUEST_TURNS or visitor == OWNER
            await asyncio.sleep(0.001)
            running.remove(visitor.id)

    async def flood() -> None:
        turns = Turns()
        calls = [handle(turns, guest) for guest in OTHERS[:20] for _ in range(6)]
        await asyncio.gather(*calls)
        assert most == budgets.ALL_GUESTS_TURNS
        assert turns._own == {}
        await asyncio.gather(*(handle(turns, OWNER) for _ in range(20)))
        assert most >= 20
        with refused(Busy):
            await asyncio.gather(*(handle(turns, ANN) for _ in range(200)))

    asyncio.run(flood())


def test_again_is_counted_as_a_new_job_is(desk: Services) -> None:
    limits = desk.guests.budgets.job_limits(ANN)
    assert limits
    ended = desk.home.jobs.submit("generate", {}, owner=ANN.id, guest_limits=limits)
    desk.home.jobs.cancel(ended)
    job = desk.home.jobs.get(ended)
    assert job
    for _ in range(limits.own_jobs):
        assert desk.retry_job(job, ANN)
    with refused(Busy):
        desk.retry_job(job, ANN)
    assert len(desk.home.jobs.list_open()) == limits.own_jobs
    assert desk.retry_job(job, OWNER)
    with refused(NotAllowed):
        desk.retry_job(job, BOB)


def test_a_training_that_is_open_is_not_begun_again(desk: Services) -> None:
    ended = desk.home.jobs.submit("train", {"run": "a"}, owner=OWNER.id)
    desk.home.jobs.cancel(ended)
    job = desk.home.jobs.get(ended)
    assert job
    assert desk.retry_job(job, OWNER)
    with refused(Busy):
        desk.retry_job(job, OWNER)


def test_the_counters_of_a_page(settings: Settings) -> None:
    guests = Guests(Budgets.from_settings(settings))
    assert guests.streams.own_limit >= 2 * guests.budgets.sessions
    assert guests.waiting_calls.own_limit == guests.budgets.jobs
