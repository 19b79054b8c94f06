"""Settings of a picture on the web: who may have it fetched, and from where.

Knows: that only the owner may, which sites need a word first. Does not know: how a site is asked
(storage/downloads), what is done with the settings.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from studio.core.generation.recipes.recipe import Recipe
from studio.errors import BadFile, DownloadError, quote
from studio.services.visitor import Visitor
from studio.storage.downloads.picture_links import read_linked_settings
from studio.storage.downloads.safe_http import SafeClient
from studio.storage.downloads.site_rules import is_known_host

MAX_LINK_CHARS = 4000
TRIES = 2  # somebody waits for the answer


def fetch_settings(link: str, visitor: Visitor, *, is_trusted: bool = False) -> Recipe:
    """Return the settings in the picture at an address.

    Args:
        link: An https address.
        visitor: Who asks.
        is_trusted: Whether they said that they trust the site.

    Raises:
        NotAllowed: A guest asks.
        BadFile: It is no https address.
        DownloadError: The site is not known and not trusted, or does not give it.
        BadPicture: What comes carries no settings.
    """
    visitor.require_owner("Fetching an image by its address")
    link = link.strip()
    try:
        parts = urlsplit(link)
        host = parts.hostname or ""
        is_address = parts.scheme == "https" and "." in host and parts.username is None
    except ValueError:
        is_address = False
    if not is_address or len(link) > MAX_LINK_CHARS or any(char.isspace() for char in link):
        raise BadFile(f"Link: must be the https address of an image (you entered {quote(link)}).")
    if not (is_trusted or is_known_host(host)):
        raise DownloadError(
            f"The studio does not know the site {host}. Select “I trust this site” if you do, then "
            "fetch it again."
        )
    return read_linked_settings(SafeClient(max_tries=TRIES), link, is_confirmed=is_trusted)
