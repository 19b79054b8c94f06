"""What a page of the Captions tab shows, as plain values.

Knows: the open dataset, its filter, the page number, search hits and ticks.
Does not know: components, datasets themselves.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


class SearchHit(NamedTuple):
    """An image found by a search, a note about it, and the keys of its worse near-duplicates."""

    key: str
    note: str
    duplicates: tuple[str, ...] = ()


@dataclass(frozen=True)
class BrowserState:
    """What a page shows: the dataset's name, the filter, the page number (from 0), search hits.

    `ticked` holds the keys of ticked images, on whatever page they are.
    """

    name: str = ""
    filter: str = ""
    page: int = 0
    hits: tuple[SearchHit, ...] = ()
    ticked: tuple[str, ...] = ()

    @property
    def duplicates(self) -> list[str]:
        """Keys of all near-duplicates except the best image of each group."""
        return [key for hit in self.hits for key in hit.duplicates]
