"""Finding images: what is asked for, as SQL; a page of them, with one entry for a sweep's many.

Knows: the index's columns, paging. Does not know: files, pixels; what an entry looks like.

The rows that match are looked for once a page, which takes less than 0.3 s among 100,000 images.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from studio.storage.database import Database, Row

MAX_CHOICES = 500  # of models, LoRAs and days to filter by
MAX_QUERY_WORDS = 40
Choices = Sequence[tuple[str, int]]  # values, and how many images have each
MAX_KNOWN_CHOICES = 20  # of visitors


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
        # The plus keeps SQLite from the index `narrow`, which would fetch the words of nearly all
        # images in another order than they lie in: three times as long.
        kept = "+binned = 0" if self.query and not self.series else "binned = 0"
        conditions = ["binned > 0" if self.is_binned else kept]
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

    kinds: Choices
    days: Choices
    models: Choices
    loras: Choices


_ENTRY_COLUMNS = """images.id, path, owner, images.created, kind, series, stars, favourite, binned,
    CASE WHEN json_valid(metadata) THEN substr(json_extract(metadata, '$.request.prompt'), 1, 300)
    END AS prompt"""


class ImageSearch:
    """The questions to the index of one gallery."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._choices: dict[tuple[str | None, bool], tuple[int, FilterChoices]] = {}

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
        is_grouped = is_grouped and not (image_filter.is_binned or image_filter.series)
        where, values = image_filter.build_where()
        series = "series" if is_grouped else "''"
        order = "binned" if image_filter.is_binned else "created"
        # What matches is looked for once, however many questions are asked about it. SQLite gives
        # the id of the newest image with max().
        sql = f"""
            WITH matching AS MATERIALIZED (
                SELECT id, {order} AS time, {series} AS series FROM images WHERE {where}
            ), gathered AS MATERIALIZED (
                SELECT id, max(time) AS time, count(*) AS num FROM matching
                WHERE series > '' GROUP BY series
            )
            SELECT id, num, (SELECT count(*) FROM matching) AS num_images,
                (SELECT count(*) FROM matching WHERE series = '')
                + (SELECT count(*) FROM gathered) AS num_entries
            FROM (
                SELECT id, time, 1 AS num FROM matching WHERE series = ''
                UNION ALL SELECT id, time, num FROM gathered
            ) ORDER BY time DESC, id DESC LIMIT ? OFFSET ?"""
        rows = self._database.execute(sql, *values, limit, offset)
        if not rows and offset:  # beyond the last page
            first = self.list_page(image_filter, 0, 1, is_grouped=is_grouped)
            return replace(first, entries=[])
        if not rows:
            return ListedPage([], 0, 0)
        counts = rows[0]
        return ListedPage(
            self._read_entries(rows), int(counts["num_entries"]), int(counts["num_images"])
        )

    def list_ids(self, image_filter: ImageFilter, limit: int) -> list[int]:
        """Return the numbers of all images that are asked for, the newest first."""
        where, values = image_filter.build_where()
        sql = f"SELECT id FROM images WHERE {where} ORDER BY created DESC, id DESC LIMIT ?"
        return [int(row["id"]) for row in self._database.execute(sql, *values, limit)]

    def count(self, image_filter: ImageFilter) -> int:
        """Return how many images there are."""
        where, values = image_filter.build_where()
        sql = f"SELECT count(*) AS num FROM images WHERE {where}"
        return int(self._database.execute(sql, *values)[0]["num"])

    def list_choices(self, owner: str | None, *, is_binned: bool = False) -> FilterChoices:
        """Return what there is to filter by; whose images as in `ImageFilter`."""
        with self._database.lock:
            revision = self._database.revision
            known = self._choices.get((owner, is_binned))
            if known is None or known[0] != revision:
                if len(self._choices) >= MAX_KNOWN_CHOICES:
                    self._choices.clear()
                known = revision, self._list_choices(owner, is_binned=is_binned)
                self._choices[owner, is_binned] = known
            return known[1]

    def _list_choices(self, owner: str | None, *, is_binned: bool) -> FilterChoices:
        # The plus keeps SQLite from the index `narrow`: those of the columns are in their order.
        where = "+binned > 0" if is_binned else "+binned = 0"
        values: list[object] = []
        if owner is not None:
            where += " AND owner = ?"
            values.append(owner)
        lora_where = f"id IN (SELECT id FROM images WHERE {where.replace('+', '')})"
        if owner is None and not is_binned:  # the bin is small
            lora_where = "id NOT IN (SELECT id FROM images WHERE binned > 0)"

        def list_values(table: str, column: str, condition: str, order: str) -> Choices:
            sql = f"""SELECT {column} AS value, count(*) AS num FROM {table}
                      WHERE {condition} AND {column} > '' GROUP BY {column}
                      ORDER BY {order} LIMIT {MAX_CHOICES}"""
            rows = self._database.execute(sql, *values)
            return [(str(row["value"]), int(row["num"])) for row in rows]

        return FilterChoices(
            kinds=list_values("images", "kind", where, "value"),
            days=list_values("images", "day", where, "value DESC"),
            models=list_values("images", "model", where, "num DESC, value"),
            loras=list_values("image_loras", "lora", lora_where, "num DESC, value"),
        )

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
