"""The home that the first version made, unpacked where a test wants it."""

from __future__ import annotations

import sqlite3
import tarfile
from pathlib import Path

ARCHIVE = Path(__file__).with_name("home-of-the-first-version.tar.gz")
OLD_PLACE = "/home/me/studio-home"  # where it stood when it was made
TABLES = {
    "gallery.sqlite": {"pictures": ("path",)},
    "sweeps.sqlite": {"cells": ("path",)},
    "captions.sqlite": {"steps": ("folder",)},
    "looks.sqlite": {"looks": ("folder",)},
}
SWEEP, RUN, LORA, DATASET, PRESET = "cd49fcb5b428", "cfcea45e2b4f", "oldlora", "mine", "mine"


def unpack(folder: Path) -> Path:
    """The home as if it had always stood in `folder`: the paths inside are made to say so."""
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    home = folder / "studio-home"
    for file, tables in TABLES.items():
        with sqlite3.connect(home / file) as database:
            for table, columns in tables.items():
                for column in columns:
                    database.execute(
                        f"UPDATE {table} SET {column} = CASE typeof({column}) WHEN 'blob' "
                        f"THEN CAST(replace(CAST({column} AS TEXT), ?, ?) AS BLOB) "
                        f"ELSE replace({column}, ?, ?) END",
                        (OLD_PLACE, str(home), OLD_PLACE, str(home)),
                    )
        database.close()
    return home
