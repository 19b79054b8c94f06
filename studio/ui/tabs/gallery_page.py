"""Which page of the gallery somebody looks at, and what the grid is given for it.

Knows: what a browser may ask for, paging, what there is to filter by. Does not know: components,
events; how entries are drawn.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

from studio.errors import StudioError
from studio.services.submission import Services
from studio.services.visitor import Visitor
from studio.storage.gallery import ImageFilter
from studio.storage.gallery.search import ListedImage
from studio.storage.verdicts import MAX_STARS
from studio.ui.components.image_grid import format_choices
from studio.ui.views.gallery import KIND_TITLES, describe_entry
from studio.ui.views.sweep import get_sweep_title

PAGE_SIZE = 48
MAX_TEXT_CHARS = 2_000
MAX_PAGE = 10**7
TEXT_FIELDS = ("query", "kind", "day", "model", "lora", "series")


@dataclass(frozen=True)
class GalleryPage:
    """What somebody looks at: a filter, a sweep or the bin, and which page of it, from 0."""

    query: str = ""
    kind: str = ""
    day: str = ""
    model: str = ""
    lora: str = ""
    series: str = ""
    stars: str = ""
    favourites: bool = False
    bin: bool = False
    page: int = 0

    @classmethod
    def parse(cls, value: Any) -> Self:
        """Return what a browser asks for; what is malformed counts as not asked for."""
        values = value if isinstance(value, Mapping) else {}
        texts = {name: values.get(name) for name in (*TEXT_FIELDS, "stars")}
        page = values.get("page")
        if not isinstance(page, int) or isinstance(page, bool) or not 0 <= page < MAX_PAGE:
            page = 0
        kept = {  # half a character, which JSON may hold, is none that SQLite takes
            name: text[:MAX_TEXT_CHARS].encode("utf-8", "replace").decode()
            for name, text in texts.items()
            if isinstance(text, str)
        }
        return cls(
            **kept,
            favourites=values.get("favourites") is True,
            bin=values.get("bin") is True,
            page=page,
        )

    def build_filter(self, visitor: Visitor) -> ImageFilter:
        """Return which images that are, of those that a visitor sees."""
        has_stars = self.stars.isascii() and self.stars.isdecimal() and len(self.stars) == 1
        return ImageFilter(
            **{name: getattr(self, name) for name in TEXT_FIELDS},
            owner=visitor.owner_filter,
            min_stars=int(self.stars) if has_stars else 0,
            is_favourite=self.favourites,
            is_binned=self.bin,
        )


@dataclass(frozen=True)
class PageContents:
    """What the grid is given, and the files of the images that are listed alone."""

    options: dict[str, Any]
    paths: list[str]


def build_contents(
    services: Services, page: GalleryPage, visitor: Visitor, **more: Any
) -> PageContents:
    """Return a page for the grid; the last one where there are not so many.

    Args:
        services: Of the studio.
        page: What is asked for.
        visitor: Whose images.
        more: Further values for the grid (image_grid.js).
    """
    gallery = services.home.gallery
    image_filter = page.build_filter(visitor)
    listed = gallery.index.list_page(image_filter, page.page * PAGE_SIZE, PAGE_SIZE)
    if page.page and not listed.entries:
        page = replace(page, page=max(0, (listed.num_entries - 1) // PAGE_SIZE))
        listed = gallery.index.list_page(image_filter, page.page * PAGE_SIZE, PAGE_SIZE)
    is_grouped = not (page.bin or page.series)
    entries = []
    for entry in listed.entries:
        is_many = is_grouped and bool(entry.series)
        title = _name_series(services, entry) if is_many else ""
        entries.append(describe_entry(entry, gallery.files, title))
    choices = gallery.index.list_choices(visitor.owner_filter, is_binned=page.bin)
    options = {
        "entries": entries,
        "total": listed.num_entries,
        "images": listed.num_images,
        "offset": page.page * PAGE_SIZE,
        "size": PAGE_SIZE,
        "show": asdict(page),
        "choices": {
            "kind": format_choices(choices.kinds, KIND_TITLES),
            "day": format_choices(choices.days),
            "model": format_choices(choices.models),
            "lora": format_choices(choices.loras),
            "stars": [[str(n), f"{'★' * n} or more"] for n in range(1, MAX_STARS)]
            + [[str(MAX_STARS), "★" * MAX_STARS]],
        },
        "series": _describe_series(services, page, listed.entries),
        "bin": {
            "count": gallery.bin.count(visitor.owner_filter),
            "days": gallery.bin_options.load_days(),
            "fixed": gallery.bin_options.is_fixed,
            "mine": visitor.is_guest,
        },
        "empty": _explain_empty(page, image_filter),
        **more,
    }
    paths = [
        str(entry.path)
        for entry, described in zip(listed.entries, entries, strict=True)
        if not described["series"]
    ]
    return PageContents(options, paths)


def _explain_empty(page: GalleryPage, image_filter: ImageFilter) -> str:
    if page.bin:
        return "The bin is empty." if not image_filter.is_narrowed else "No images match."
    if image_filter.is_narrowed:
        return "No images match."
    return "No images yet. Everything you generate appears here."


def _describe_series(services: Services, page: GalleryPage, entries: Any) -> dict[str, str] | None:
    """Return what stands over the images of one sweep or report; None where none is open."""
    if not page.series or page.bin:
        return None
    title = _name_series(services, entries[0]) if entries else "None of its images are left."
    return {"id": page.series, "title": title}


def _name_series(services: Services, entry: ListedImage) -> str:
    """Return what a sweep's or a report's images are called together."""
    home = services.home
    kind = KIND_TITLES.get(entry.kind, entry.kind)
    if entry.kind == "report":
        try:
            run = home.runs.get(entry.series)
        except StudioError:
            run = None
        return f"{kind}: {run.config.name}" if run else f"{kind} of a deleted training"
    sweep = home.sweeps.get(entry.series)
    return f"{kind}: {get_sweep_title(sweep.spec)}" if sweep else f"{kind}, deleted"


def find_paths(services: Services, image_ids: list[int], visitor: Visitor) -> list[Path]:
    """Return the files of images by their numbers, without those that a visitor may not see."""
    images = [services.home.gallery.get_by_id(image_id) for image_id in image_ids]
    return [image.path for image in images if image and visitor.may_see(image.owner)]
