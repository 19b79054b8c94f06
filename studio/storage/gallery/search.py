"""Finding images: what is asked for, as SQL; a page of them, with one entry for a sweep's many.

Knows: the index's columns, paging. Does not know: files, pixels; what an entry looks like.

A page of 100,000 images takes about 0.1 s: loose images come out of an index in their order, and
only what belongs to a sweep or a report is gathered.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from studio.storage.database import Database, Row

MAX_CHOICES = 500  # of models, LoRAs and days to filter by
MAX_QUERY_WORDS = 40


@dataclass(frozen=True)
class ImageFilter:
    """Which images are asked for; what is empty or 0 lets all through.

    Attributes:
        query: Words that prompts, model, scheduler, seed and LoRAs hold, with blanks between them.
        owner: Whose; None is everybody's.
        kind: One of `IMAGE_KINDS`.
        day: A local day, as 2026-11-27.
        model: A model's name.
        lora: A LoRA's name.
        series: Of which sweep or report, by its id.
        min_stars: How many stars at least.
        is_favourite: Whether only favourites.
        is_binned: Whether those in the bin, in place of those that are not.
    """

    query: str = ""
    owner: str | None = None
    kind: str = ""
    day: str = ""
    model: str = ""
    lora: str = ""
    series: str = ""
    min_stars: int = 0
    is_favourite: bool = False
    is_binned: bool = False

    @property
    def is_narrowed(self) -> bool:
        """Whether anything is asked for but whose images they are and whether they are binned."""
        return replace(self, owner=None, is_binned=False) != ImageFilter()

    def build_where(self) -> tuple[str, list[object]]:
        """Return the condition as SQL, and its values."""
        conditions = ["binned > 0" if self.is_binned else "binned = 0"]
        values: list[object] = []
        for column in ("owner", "kind", "day", "model", "series"):
            value = getattr(self, column)
            if value or (column == "owner" and value is not None):
                conditions.append(f"{column} = ?")
                values.append(value)
        if self.lora:
            conditions.append("id IN (SELECT id FROM image_loras WHERE lora = ?)")
            values.append(self.lora)
        if self.min_stars:
            conditions.append("stars >= ?")
            values.append(self.min_stars)
        if self.is_favourite:
            conditions.append("favourite = 1")
        for word in self.query.split()[:MAX_QUERY_WORDS]:
            escaped = word.replace("\\", r"\\").replace("%", r"\%").replace("_", r"\_")
            conditions.append(r"search_text LIKE ? ESCAPE '\'")
            values.append(f"%{escaped}%")
        return " AND ".join(conditions), values


@dataclass(frozen=True)
class ListedImage:
    """An image, or a sweep's or report's many, as a page lists it.

    Attributes:
        id: The image's number; of many, that of the newest.
        path: Its file.
        owner: Whose it is.
        created: Unix time.
        kind: One of `IMAGE_KINDS`.
        series: The sweep's or run's id; empty for a loose image.
        stars: 0 to 5; 0 is none.
        is_favourite: Whether somebody marked it so.
        binned: Unix time at which it was put into the bin; 0 where it is not there.
        prompt: What it should show, its beginning.
        num_images: How many images the entry stands for.
    """

    id: int
    path: Path
    owner: str
    created: float
    kind: str
    series: str
    stars: int
    is_favourite: bool
    binned: float
    prompt: str
    num_images: int = 1


@dataclass(frozen=True)
class ListedPage:
    """A page of entries, how many entries there are on all pages, and how many images."""

    entries: Sequence[ListedImage]
    num_entries: int
    num_images: int


@dataclass(frozen=True)
class FilterChoices:
    """The values that there are to filter by, each with how many images have it."""

    kinds: Sequence[tuple[str, int]]
    days: Sequence[tuple[str, int]]
    models: Sequence[tuple[str, int]]
    loras: Sequence[tuple[str, int]]


_ENTRY_COLUMNS = """images.id, path, owner, images.created, kind, series, stars, favourite, binned,
    CASE WHEN json_valid(metadata) THEN substr(json_extract(metadata, '$.request.prompt'), 1, 300)
    END AS prompt"""


class ImageSearch:
    """The questions to the index of one gallery."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def list_page(
        self, image_filter: ImageFilter, offset: int, limit: int, *, is_grouped: bool = True
    ) -> ListedPage:
        """Return a page of entries, the newest first; in the bin, the last binned first.

        Args:
            image_filter: Which images.
            offset: How many of the newest entries are skipped.
            limit: How many entries at most.
            is_grouped: Whether the images of a sweep or a report are one entry.
        """
        where, values = image_filter.build_where()
        if image_filter.is_binned or image_filter.series or not is_grouped:
            order = "binned" if image_filter.is_binned else "created"
            sql = f"""SELECT id, 1 AS num FROM images WHERE {where}
                      ORDER BY {order} DESC, id DESC LIMIT ? OFFSET ?"""
            rows = self._database.execute(sql, *values, limit, offset)
            num_images = self.count(image_filter)
            return ListedPage(self._read_entries(rows), num_images, num_images)
        # Loose images come in the order of an index; a series is found by its newest image, whose
        # id SQLite gives with max().
        sql = f"""
            SELECT * FROM (
                SELECT id, created, 1 AS num FROM images WHERE {where} AND series = ''
                ORDER BY created DESC, id DESC LIMIT ?
            ) UNION ALL SELECT * FROM (
                SELECT id, max(created) AS created, count(*) AS num FROM images
                WHERE {where} AND series > '' GROUP BY series
            ) ORDER BY created DESC, id DESC LIMIT ? OFFSET ?"""
        rows = self._database.execute(sql, *values, offset + limit, *values, limit, offset)
        num_loose = self._count(f"{where} AND series = ''", values)
        (gathered,) = self._database.execute(
            f"""SELECT count(*) AS images, count(DISTINCT series) AS series FROM images
                WHERE {where} AND series > ''""",
            *values,
        )
        return ListedPage(
            self._read_entries(rows),
            num_loose + int(gathered["series"]),
            num_loose + int(gathered["images"]),
        )

    def list_ids(self, image_filter: ImageFilter, limit: int) -> list[int]:
        """Return the numbers of all images that are asked for, the newest first."""
        where, values = image_filter.build_where()
        sql = f"SELECT id FROM images WHERE {where} ORDER BY created DESC, id DESC LIMIT ?"
        return [int(row["id"]) for row in self._database.execute(sql, *values, limit)]

    def count(self, image_filter: ImageFilter) -> int:
        """Return how many images there are."""
        return self._count(*image_filter.build_where())

    def list_choices(self, owner: str | None, *, is_binned: bool = False) -> FilterChoices:
        """Return what there is to filter by; whose images as in `ImageFilter`."""
        where, values = ImageFilter(owner=owner, is_binned=is_binned).build_where()

        def list_values(column: str, table: str, order: str) -> list[tuple[str, int]]:
            sql = f"""SELECT {column} AS value, count(*) AS num FROM {table}
                      WHERE {where} AND {column} > '' GROUP BY {column}
                      ORDER BY {order} LIMIT {MAX_CHOICES}"""
            rows = self._database.execute(sql, *values)
            return [(str(row["value"]), int(row["num"])) for row in rows]

        return FilterChoices(
            kinds=list_values("kind", "images", "value"),
            days=list_values("day", "images", "value DESC"),
            models=list_values("model", "images", "num DESC, value"),
            loras=list_values("lora", "image_loras JOIN images USING (id)", "num DESC, value"),
        )

    def _count(self, where: str, values: Sequence[object]) -> int:
        (row,) = self._database.execute(
            f"SELECT count(*) AS num FROM images WHERE {where}", *values
        )
        return int(row["num"])

    def _read_entries(self, rows: Sequence[Row]) -> list[ListedImage]:
        """Return the entries of rows with `id` and `num`, in their order."""
        if not rows:
            return []
        marks = ", ".join("?" * len(rows))
        sql = f"""SELECT {_ENTRY_COLUMNS} FROM images JOIN image_metadata USING (id)
                  WHERE images.id IN ({marks})"""
        images = {row["id"]: row for row in self._database.execute(sql, *(r["id"] for r in rows))}
        entries = []
        for row in rows:
            with suppress(KeyError, TypeError, ValueError):  # a damaged row is left out
                entries.append(_read_entry(images[row["id"]], int(row["num"])))
        return entries


def _read_entry(row: Row, num_images: int) -> ListedImage:
    prompt = row["prompt"]
    return ListedImage(
        id=int(row["id"]),
        path=Path(row["path"]),
        owner=str(row["owner"]),
        created=float(row["created"]),
        kind=str(row["kind"]),
        series=str(row["series"]),
        stars=int(row["stars"]),
        is_favourite=bool(row["favourite"]),
        binned=float(row["binned"]),
        prompt=prompt if isinstance(prompt, str) else "",
        num_images=num_images,
    )
