"""What gradio does again and again while a page is built, done once.

Knows: the functions of gradio and of `inspect` that take a third of the time. Does not know: the
page, its tabs, how it is served.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, wraps
from typing import Any

from gradio.routes import App


@contextmanager
def make_no_app() -> Iterator[None]:
    """Keep gradio from making an app.

    It makes one for the queue and one when the page is complete, half a second each, and serves
    neither: `launch` makes its own.
    """
    create_app = App.create_app
    _put(App, "create_app", staticmethod(lambda *_args, **_options: None))
    try:
        yield
    finally:
        _put(App, "create_app", staticmethod(create_app))


@contextmanager
def remember_signatures() -> Iterator[None]:
    """Read each function's signature once.

    gradio reads those of a component's class for each of a page's thousand components, twice.
    """
    names = ("signature", "getfullargspec")
    originals = {name: getattr(inspect, name) for name in names}
    for name, read in originals.items():
        _put(inspect, name, _remember(read))
    try:
        yield
    finally:
        for name, read in originals.items():
            _put(inspect, name, read)


def _remember(read: Callable[..., Any]) -> Callable[..., Any]:
    remembered = cache(read)

    @wraps(read)
    def read_once(function: Any, *args: Any, **options: Any) -> Any:
        try:
            hash(function)
        except TypeError:
            return read(function, *args, **options)
        return remembered(function, *args, **options)

    return read_once


def _put(owner: object, name: str, value: object) -> None:
    setattr(owner, name, value)
