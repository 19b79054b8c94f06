"""A damaged table is set aside, what can be saved or made again is there, and the studio opens and says so."""

from __future__ import annotations

import json
import random
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from studio.core.generation.request import GenerationRequest
from studio.errors import BadFile, Busy, DiskError
from studio.settings import Settings, load
from studio.storage import sqlite_repair
from studio.storage.database import Database
from studio.storage.home import Home
from studio.storage.jobs import Jobs
from support.sentences import check_sentence, refused

NOTES = (
    "CREATE TABLE IF NOT EXISTS notes (id INTEGER PRIMARY KEY, body TEXT NOT NULL);",
    "ALTER TABLE notes RENAME COLUMN body TO text;",
)
NUM_NOTES = 400
PAGE_BYTES = 4096


def garble_header(path: Path) -> None:
    path.write_bytes(b"no database at all, but as long as one" * 200)


def cut(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2 + 100])


def garble_a_page(path: Path) -> None:
    data = bytearray(path.read_bytes())
    middle = len(data) // PAGE_BYTES // 2 * PAGE_BYTES
    data[middle : middle + PAGE_BYTES] = random.Random(1).randbytes(PAGE_BYTES)
    path.write_bytes(data)


def become_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()
    (path / "something").write_text("of somebody's")


def lose_a_table(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        tables = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite%'"
        connection.execute(f"DROP TABLE {connection.execute(tables).fetchall()[0][0]}")
    connection.close()


DAMAGES = [garble_header, cut, garble_a_page, become_a_folder, lose_a_table]


def write_notes(path: Path) -> None:
    database = Database(path, NOTES)
    with database.transaction():
        rows = [(number, f"{number} {'x' * 200}") for number in range(1, NUM_NOTES + 1)]
        database.execute_many("INSERT INTO notes VALUES (?, ?)", rows)
    database.close()


def read_notes(path: Path) -> dict[int, str]:
    database = Database(path, NOTES)
    rows = database.execute("SELECT id, text FROM notes")
    database.close()
    return {row["id"]: row["text"] for row in rows}


def list_aside(folder: Path) -> list[Path]:
    return [path for path in folder.glob("*.damaged-*") if not path.name.endswith(".txt")]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_set_aside_and_begins_anew(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    path = tmp_path / "notes.sqlite"
    write_notes(path)
    damage(path)
    before = path.read_bytes() if path.is_file() else b""
    database = Database(path, NOTES)
    database.execute("INSERT OR REPLACE INTO notes VALUES (?, ?)", 1, "new")
    assert database.execute("SELECT text FROM notes WHERE id = 1")[0]["text"] == "new"
    (aside,) = list_aside(tmp_path)
    assert aside.is_dir() or aside.read_bytes() == before
    assert aside.name in database.notice
    assert sqlite_repair.list_notices(tmp_path) == [database.notice]
    database.close()
    assert Database(path, NOTES).notice == ""  # it is whole now


def test_rows_around_a_damaged_page_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "notes.sqlite"
    write_notes(path)
    garble_a_page(path)
    notes = read_notes(path)
    assert NUM_NOTES - 60 < len(notes) < NUM_NOTES  # some twenty rows are on a page
    assert min(notes) == 1
    assert max(notes) == NUM_NOTES
    assert all(text == f"{number} {'x' * 200}" for number, text in notes.items())


def test_rows_before_the_cut_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "notes.sqlite"
    write_notes(path)
    cut(path)
    notes = read_notes(path)
    assert notes
    assert min(notes) == 1


def test_an_old_damaged_file_keeps_its_rows_and_gets_todays_tables(tmp_path: Path) -> None:
    path = tmp_path / "notes.sqlite"
    old = Database(path, NOTES[:1])
    rows = [(number, "x" * 300) for number in range(NUM_NOTES)]
    old.execute_many("INSERT INTO notes VALUES (?, ?)", rows)
    old.close()
    garble_a_page(path)
    assert len(read_notes(path)) > NUM_NOTES // 2


def test_a_large_file_is_checked_once_a_statement_met_the_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_repair, "MAX_QUICK_CHECK_BYTES", 0)
    path = tmp_path / "notes.sqlite"
    write_notes(path)
    garble_a_page(path)
    database = Database(path, NOTES)
    assert not database.notice
    with pytest.raises(DiskError, match="malformed"):
        database.execute("SELECT sum(length(text)) FROM notes")
    database.close()
    assert Database(path, NOTES).notice
    assert not (tmp_path / "notes.sqlite.check").exists()


def test_the_newest_three_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "notes.sqlite"
    for number in range(5):
        path.write_text(f"{number} is no database " * 20)
        Database(path, NOTES).close()
    kept = sorted(aside.read_text()[0] for aside in list_aside(tmp_path))
    assert kept == ["2", "3", "4"]
    assert len(sqlite_repair.list_notices(tmp_path)) == 3


def test_what_another_process_has_open_is_not_renamed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it writes would be lost."""
    monkeypatch.setattr(sqlite_repair, "WAIT_FOR_OTHERS_SECONDS", 0.0)
    path = tmp_path / "notes.sqlite"
    write_notes(path)
    script = "import sys; file = open(sys.argv[1]); print(1, flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", script, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout
        other.stdout.readline()
        garble_header(path)
        with pytest.raises(Busy, match=str(other.pid)):
            Database(path, NOTES)
        assert list_aside(tmp_path) == []
        other.communicate()
    assert Database(path, NOTES).notice


def test_a_later_studios_index_is_made_anew_and_its_records_are_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes.sqlite"
    Database(path, NOTES).close()
    assert Database(path, NOTES[:1], rebuildable=True).notice


# ---- the tables of a home -----------------------------------------------------------------------


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """A home with an image, a job, a sweep's verdict and a caption's history."""
    settings = load(home=tmp_path / "home", device="cpu")
    home = Home(settings)
    request = GenerationRequest(prompt="a red boat", seed=7).resolve(512, 7)
    for number in range(3):
        home.gallery.save(
            Image.new("RGB", (64, 64), (number, 0, 0)),
            request.model_copy(update={"seed": number}),
            digest=f"{number:064x}",
            content_hashes={"model": "abc"},
            seconds=1.0,
            owner="ann",
        )
    for number in range(40):
        home.jobs.submit("generate", {"prompt": f"{number} {'boat ' * 200}"}, owner="ann")
    folder = settings.home / "datasets" / "moon"
    folder.mkdir(parents=True)
    Image.new("RGB", (64, 64)).save(folder / "a.png")
    home.datasets.open("moon").examine()
    home.embeddings.put("clip", {"0001": b"mine"})
    home.sweeps.list_sweeps()
    home.close()
    return settings


@pytest.mark.parametrize("damage", DAMAGES)
def test_the_gallery_is_made_again_from_its_files(
    settings: Settings, damage: Callable[[Path], None]
) -> None:
    path = settings.home / "gallery.sqlite"
    damage(path)
    home = Home(settings)
    images = home.gallery.search("boat", owner="ann")
    assert sorted(image.request.seed for image in images) == [0, 1, 2]
    assert len(home.notices) == 1
    home.close()


TABLES = ("jobs", "gallery", "sweeps", "captions", "looks", "cache/vectors")


@pytest.mark.parametrize(
    ("damage", "name"),
    [  # quick is every table twice, and every kind of damage
        pytest.param(damage, name, marks=() if (k + n) % 3 == 0 else pytest.mark.slow)
        for k, damage in enumerate(DAMAGES)
        for n, name in enumerate(TABLES)
    ],
)
def test_every_table_of_a_home_opens_whatever_happened_to_it(
    settings: Settings, name: str, damage: Callable[[Path], None]
) -> None:
    damage(settings.home / f"{name}.sqlite")
    home = Home(settings)
    job_id = home.jobs.submit("generate", {"prompt": "new"}, owner="ann")
    assert home.jobs.get(job_id)
    assert len(home.gallery.search()) == 3
    dataset = home.datasets.open("moon")
    dataset.examine()
    assert [image.key for image in dataset.images] == ["a.png"]
    home.embeddings.put("clip", {"0002": b"new"})
    assert home.sweeps.list_sweeps() == []
    assert len(home.notices) == 1
    if damage not in (cut, garble_a_page):  # how much is left depends on SQLite's version
        check_sentence(home.notices[0].partition(" The old one is kept as ")[0])
    home.close()


def test_jobs_around_the_damage_are_still_in_the_queue(settings: Settings) -> None:
    path = settings.home / "jobs.sqlite"
    garble_a_page(path)
    jobs = Jobs(path)
    waiting = jobs.list_open()
    assert 20 <= len(waiting) < 40
    assert all(job.spec["prompt"].startswith(f"{job.id - 1} ") for job in waiting)
    assert json.dumps(waiting[0].spec)
    jobs.close()


def test_a_later_studios_queue_is_refused(settings: Settings) -> None:
    path = settings.home / "jobs.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    with refused(BadFile):
        Jobs(path)
    assert list_aside(settings.home) == []
