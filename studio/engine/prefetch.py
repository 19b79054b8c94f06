"""Work on pictures of a dataset that is done ahead of whoever needs it: reading, decoding, resizing.

Knows: threads, order. Does not know: what is done with a picture.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

from studio.errors import StudioError

THREADS = 2  # beside the one that computes

P = TypeVar("P")
T = TypeVar("T")


def ahead(
    pictures: Iterable[P], prepare: Callable[[P], T], most: int
) -> Generator[tuple[P, T | StudioError], None, None]:
    """Each picture with what `prepare` makes of it, in order; at most `most` are waiting. One that cannot be used comes with its
    error. Close it (or go to the end): nothing is begun any more then."""

    def one(picture: P) -> T | StudioError:
        try:
            return prepare(picture)
        except StudioError as error:
            return error

    rest, waiting = iter(pictures), deque[tuple[P, Future[T | StudioError]]]()
    pool = ThreadPoolExecutor(THREADS)
    try:
        waiting.extend((picture, pool.submit(one, picture)) for picture in islice(rest, most))
        while waiting:
            picture, future = waiting.popleft()
            yield picture, future.result()
            waiting.extend(
                (following, pool.submit(one, following)) for following in islice(rest, 1)
            )
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def groups(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """The items in groups of `size`; the last may be smaller."""
    every = iter(items)
    while group := list(islice(every, size)):
        yield group
