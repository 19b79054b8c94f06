"""A picture by its address, for the settings in it: fetched whole, read, and not kept.

Knows: how large and how slow it may be. Does not know: which sites may be asked (site_rules.py),
who may ask (services/picture_links.py), what is done with the settings.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from studio.core.generation.recipes.recipe import Recipe
from studio.errors import BadPicture, DownloadError
from studio.storage.downloads.safe_http import Answer, SafeClient, read_body
from studio.storage.downloads.site_rules import Request
from studio.storage.gallery import read_image_settings
from studio.storage.odd_files import make_printable

MAX_PICTURE_BYTES = 64 * 2**20
MAX_SECONDS = 60.0  # somebody waits for the answer
MAX_NAME_CHARS = 80


def read_linked_settings(client: SafeClient, url: str, *, is_confirmed: bool = False) -> Recipe:
    """Return the settings in a picture on the web.

    Args:
        client: Who asks.
        url: An https address of a picture, or of its .txt or .json.
        is_confirmed: Whether a person said that they trust the site.

    Raises:
        DownloadError: The site is not asked, refuses, or sends too much.
        BadPicture: What comes is no picture, or carries no settings.
    """
    request = Request(url, is_confirmed=is_confirmed)
    end = time.monotonic() + MAX_SECONDS

    def fetch() -> bytes:
        with client.open(request) as answer:
            return _read_whole(answer, end)

    data = client.retry(fetch)
    if data[:512].lstrip()[:1] == b"<":
        raise BadPicture(
            "That link leads to a page, not an image. Copy the address of the image itself."
        )
    name = make_printable(PurePosixPath(unquote(urlsplit(url).path)).name)[-MAX_NAME_CHARS:]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "picture")
        path.write_bytes(data)
        return read_image_settings(path, name or "The image")


def _read_whole(answer: Answer, end: float) -> bytes:
    """Return the body of an answer. Raises DownloadError."""
    too_large = DownloadError(
        f"{answer.host} sends more than {MAX_PICTURE_BYTES // 2**20} MiB: too large for an image."
    )
    if (answer.length or 0) > MAX_PICTURE_BYTES:
        raise too_large
    too_slow = DownloadError(f"{answer.host} is too slow. Save the image, then drop the file.")
    return read_body(
        answer, max_bytes=MAX_PICTURE_BYTES, end=end, too_large=too_large, too_slow=too_slow
    )
