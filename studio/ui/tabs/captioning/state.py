"""Where a page of the Captions tab is, as plain values.

Knows: what is looked at and meant. Does not know: components, albums.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


class Find(NamedTuple):
    """A picture that a search has found, what is said of it, and those that it is the best of."""

    key: str
    note: str
    others: tuple[str, ...] = ()


@dataclass(frozen=True)
class Place:
    """Where a page is: which dataset, what its filter says, which page, and what a search has found.

    `ticked` are keys of pictures that somebody ticked, on whatever page.
    """

    name: str = ""
    filter: str = ""
    page: int = 0
    found: tuple[Find, ...] = ()
    ticked: tuple[str, ...] = ()

    @property
    def others(self) -> list[str]:
        """All that a search has found but the best of each group."""
        return [key for one in self.found for key in one.others]
