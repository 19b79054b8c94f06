"""Work on the images of a dataset ahead of whoever needs it: reading, decoding, resizing.

Knows: threads, order. Does not know: what is done with an image.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

from studio.errors import StudioError

PREFETCH_THREADS = 2  # beside the one that computes

P = TypeVar("P")
T = TypeVar("T")


def prefetch_images(
    images: Iterable[P], prepare: Callable[[P], T], max_pending: int
) -> Generator[tuple[P, T | StudioError], None, None]:
    """Prepare images in threads; yield them in order.

    Close the generator (or exhaust it): nothing is begun any more then.

    Args:
        images: Taken as threads become free.
        prepare: Called in a thread for each image.
        max_pending: At most so many are prepared ahead.

    Yields:
        The image, and what `prepare` returned for it or the StudioError that it raised.
    """

    def prepare_or_error(image: P) -> T | StudioError:
        try:
            return prepare(image)
        except StudioError as error:
            return error

    remaining = iter(images)
    pending: deque[tuple[P, Future[T | StudioError]]] = deque()
    pool = ThreadPoolExecutor(PREFETCH_THREADS)

    def submit(count: int) -> None:
        for image in islice(remaining, count):
            pending.append((image, pool.submit(prepare_or_error, image)))

    try:
        submit(max_pending)
        while pending:
            image, future = pending.popleft()
            yield image, future.result()
            submit(1)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def iter_batches(items: Iterable[T], batch_size: int) -> Iterator[list[T]]:
    """Yield the items in lists of `batch_size`; the last may be shorter."""
    remaining = iter(items)
    while batch := list(islice(remaining, batch_size)):
        yield batch
