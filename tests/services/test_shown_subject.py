"""What a tab of a browser shows when it opens."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from studio.core.jobs import SWEEP
from studio.services.browser_tabs import find_shown_subject
from studio.services.visitor import Visitor
from studio.storage.jobs import Jobs

ANN = Visitor("ann", is_guest=True)
HERE, THERE = replace(ANN, tab="here"), replace(ANN, tab="there")


@pytest.fixture
def jobs(tmp_path: Path) -> Iterator[Jobs]:
    table = Jobs(tmp_path / "jobs.sqlite")
    yield table
    table.close()


def run(jobs: Jobs, sweep: str, visitor: Visitor, *, end: bool = True) -> None:
    id = jobs.submit(SWEEP.name, {"sweep": sweep}, owner=visitor.id, tab=visitor.tab)
    if end:
        jobs.cancel(id)


def shown(jobs: Jobs, candidates: str, visitor: Visitor) -> str:
    return find_shown_subject(jobs, SWEEP, "sweep", list(candidates), visitor)


def test_a_tab_shows_what_it_runs_else_what_it_ran_last(jobs: Jobs) -> None:
    run(jobs, "a", HERE, end=False)
    run(jobs, "b", HERE)
    run(jobs, "c", THERE)
    assert shown(jobs, "cba", HERE) == "a"
    assert shown(jobs, "cba", THERE) == "c"
    assert shown(jobs, "cb", HERE) == "b"  # a was deleted


def test_a_tab_without_one_takes_what_is_no_other_tabs(jobs: Jobs) -> None:
    run(jobs, "c", THERE, end=False)
    assert shown(jobs, "cba", HERE) == "b"
    assert shown(jobs, "c", HERE) == ""
    assert shown(jobs, "", HERE) == ""


def test_another_visitors_tab_of_the_same_name_is_another(jobs: Jobs) -> None:
    run(jobs, "a", replace(HERE, id="bob"))
    assert shown(jobs, "ba", HERE) == "b"
