"""Embeddings that CLIP models computed, by content, so that none is computed twice.

Knows: one SQLite table of bytes, by model and content. Does not know: what the bytes mean; torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from studio.storage import atomic
from studio.storage.database import Database

MIGRATIONS = (
    """
    CREATE TABLE IF NOT EXISTS vectors (
        by TEXT, content TEXT, data BLOB NOT NULL, PRIMARY KEY (by, content)
    ) WITHOUT ROWID;
    """,
    """
    ALTER TABLE vectors RENAME TO embeddings;
    ALTER TABLE embeddings RENAME COLUMN by TO model_key;
    ALTER TABLE embeddings RENAME COLUMN content TO content_hash;
    """,
)
QUERY_BATCH_SIZE = 500  # rows in one query


class EmbeddingCache:
    """The embeddings of one home. Use it from one thread and close it."""

    def __init__(self, home: Path) -> None:
        """Open the cache; raise BadFile if its file is no such table (it can be deleted)."""
        path = home / "cache" / "vectors.sqlite"
        advice = "Delete it; its contents are recreated automatically."
        atomic.make_folder(path.parent)
        self._database = Database(
            path, MIGRATIONS, advice=advice, rebuildable=True, holds="CLIP's embeddings of images"
        )

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def get(self, model_key: str, content_hashes: Iterable[str]) -> dict[str, bytes]:
        """Return the embeddings that are stored.

        Args:
            model_key: the model that computed them.
            content_hashes: sha256 of what was embedded.
        """
        keys = list(dict.fromkeys(content_hashes))
        embeddings: dict[str, bytes] = {}
        for start in range(0, len(keys), QUERY_BATCH_SIZE):
            batch = keys[start : start + QUERY_BATCH_SIZE]
            placeholders = ", ".join("?" * len(batch))
            sql = f"""SELECT content_hash, data FROM embeddings
                      WHERE model_key = ? AND content_hash IN ({placeholders})"""
            rows = self._database.execute(sql, model_key, *batch)
            embeddings.update((row["content_hash"], row["data"]) for row in rows)
        return embeddings

    def put(self, model_key: str, embeddings: Mapping[str, bytes]) -> None:
        """Store embeddings; after a kill all of them are there, or none.

        Args:
            model_key: the model that computed them.
            embeddings: bytes by sha256 of what was embedded.
        """
        rows = [(model_key, content_hash, data) for content_hash, data in embeddings.items()]
        with self._database.transaction():
            self._database.execute_many("INSERT OR REPLACE INTO embeddings VALUES (?, ?, ?)", rows)
