"""The Queue tab: a page at a time, whatever waits."""

from __future__ import annotations

from pathlib import Path

import pytest

from studio.services.submission import Services
from studio.settings import load
from studio.storage.home import Home
from studio.ui.tabs.queue import JOBS_PER_PAGE, QueueTab
from support.unopened_page import unopened_page
from support.visitors import OWNER, Asked, pressed

MAX_HTML_BYTES = 300_000


@pytest.fixture
def tab(tmp_path: Path) -> QueueTab:
    with unopened_page():
        return QueueTab(Services(Home(load(home=tmp_path))))


@pytest.mark.slow
def test_four_thousand_jobs_are_paged(tab: QueueTab, by: type[Asked]) -> None:
    jobs = tab.services.home.jobs
    with jobs._database.transaction():
        ids = [jobs.submit("generate", {"prompt": "x" * 2000}) for _ in range(4000)]
    for id in ids[:100]:
        jobs.cancel(id)
    page = tab.render(OWNER)
    assert f'data-job="{ids[100]}"' in page[tab.rows]  # the next in line
    assert f"Page 1 of {-(-4000 // JOBS_PER_PAGE)}" in page[tab.rows]
    assert page[tab.rows].count("data-job=") == JOBS_PER_PAGE
    assert len(page[tab.rows].encode()) < MAX_HTML_BYTES
    shown: list[str] = []
    number = 0
    while True:
        html = page[tab.rows]
        shown += [part.split('"')[0] for part in html.split('data-job="')[1:]]
        if f'data-target="{number + 1}">' not in html:
            break
        number += 1
        page = tab.handle_action(0, pressed("page", str(number)), by(OWNER))
        assert page[tab.page] == number
    ended = list(reversed(ids[:100]))
    assert shown == [str(id) for id in ids[100:] + ended]


@pytest.mark.parametrize("target", ["", "-1", "1e9", "9" * 30, "999999", "<b>"])
def test_a_page_that_is_not_there_is_the_nearest(
    tab: QueueTab, by: type[Asked], target: str
) -> None:
    job_id = tab.services.home.jobs.submit("generate", {})
    page = tab.handle_action(0, pressed("page", target), by(OWNER))
    assert f'data-job="{job_id}"' in page[tab.rows]
    assert page[tab.page] == 0


def test_a_poll_answers_only_when_something_has_changed(tab: QueueTab, by: type[Asked]) -> None:
    jobs = tab.services.home.jobs
    jobs.submit("generate", {})
    first = tab.poll({tab.shown_revision: None, tab.page: 0}, by(OWNER))
    again = tab.poll({tab.shown_revision: first[tab.shown_revision], tab.page: 0}, by(OWNER))
    assert tab.rows in first
    assert tab.rows not in again
