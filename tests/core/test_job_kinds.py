"""The table of job kinds: every entry names a function that is there, and describes its jobs."""

from __future__ import annotations

import pytest

from studio.core.jobs import JOB_KINDS, JobKind, describe_job
from studio.engine.worker import import_object

pytestmark = pytest.mark.smoke

ALL = pytest.mark.parametrize("kind", JOB_KINDS.values(), ids=JOB_KINDS)


@ALL
def test_its_function_can_be_imported(kind: JobKind) -> None:
    assert callable(import_object(kind.function))


@ALL
def test_it_describes_a_spec_and_none(kind: JobKind) -> None:
    assert kind.describe({})
    assert describe_job(kind.name, {"name": "moon", "steps": 3}) == kind.describe(
        {"name": "moon", "steps": 3}
    )


def test_one_of_a_later_studio_is_called_by_its_kind() -> None:
    assert describe_job("telepathy", {}) == "telepathy"


@pytest.mark.parametrize(
    ("kind", "spec", "words"),
    [
        ("generate", {"prompt": "a boat", "num_images": 3}, "a boat × 3"),
        ("generate", {"prompt": "a boat", "count": 2}, "a boat × 2"),
        ("sweep", {"cells": 4, "title": "grid"}, "sweep of 4 cells: grid"),
        ("train", {"name": "moon", "steps": 9}, "training of moon: 9 steps"),
        ("train", {"name": "moon", "steps": None, "epochs": 3}, "training of moon: 3 epochs"),
        ("train", {"name": "moon", "epochs": 1}, "training of moon: 1 epoch"),
        ("clip_search", {"question": "search", "dataset": "d", "words": "w"}, "search in d: w"),
        ("unload", {"models": ["a", "b"]}, "unload: a, b"),
    ],
)
def test_words_of_the_queue(kind: str, spec: dict[str, object], words: str) -> None:
    assert describe_job(kind, spec) == words
