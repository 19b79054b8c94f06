"""What tests of the page share."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator

import pytest

from studio.ui import components, tabs
from support.served import Browser, Served
from support.visitors import Asked


@pytest.fixture
def owner(served: Served) -> Iterator[Browser]:
    """The owner's browser on the open studio, with the page's cookie."""
    with Browser(served) as browser:
        yield browser.arrive()


@pytest.fixture
def by(monkeypatch: pytest.MonkeyPatch) -> type[Asked]:
    """`by(ANN)` is a request of hers, in whatever tab it arrives."""
    readers = [
        module
        for package in (components, tabs)
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
        if hasattr(module := importlib.import_module(found.name), "visitor_from_request")
    ]
    assert readers
    for module in readers:
        monkeypatch.setattr(module, "visitor_from_request", lambda request: request.visitor)
    return Asked
