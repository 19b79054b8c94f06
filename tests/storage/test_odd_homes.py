"""A home in which something is not as it should be: what can be opened opens, the rest is one sentence."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from PIL import Image

from studio.core.captions.provenance import Writer
from studio.errors import BadFile, InvalidSpec
from studio.settings import load
from studio.storage.home import Home
from studio.storage.jobs import Jobs
from studio.storage.locks import Lock
from support.sentences import refused

FOLDERS = (
    "outputs",
    "thumbs",
    "inputs",
    "sweeps",
    "runs",
    "models",
    "loras",
    "presets",
    "presets/pictures",
    "presets/sweeps",
    "presets/training",
    "datasets",
    "cache",
    "uploads",
    "empty",
)
FILES = (
    "jobs.sqlite",
    "gallery.sqlite",
    "sweeps.sqlite",
    "captions.sqlite",
    "looks.sqlite",
    "cache/vectors.sqlite",
    "hashes.json",
    "rates.json",
    "studio.lock",
    "captions.lock",
    "worker-cpu.lock",
)


def open_everything(home_folder: Path) -> Home:
    """Open every store, ask each for its list, and take a lock."""
    home = Home(load(home=home_folder, device="cpu"))
    home.jobs.list_open()
    home.gallery.search()
    home.sweeps.list_sweeps()
    home.runs.list_runs()
    home.library.scan_models()
    home.library.list_loras()
    home.transformers_models.list_captioners()
    home.embeddings.get("clip", ["0"])
    for presets in (home.presets, home.sweep_presets, home.training_presets):
        presets.list_names()
    for name in home.datasets.names():
        home.datasets.open(name)
    home.library.get_content_hash(home.library.get_model("pocket"))
    lock = Lock(home_folder, "studio")
    assert lock.acquire()
    lock.close()
    return home


@pytest.mark.parametrize("name", FOLDERS)
def test_a_file_in_the_place_of_a_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text("not a folder")
    with refused(BadFile) as caught:
        load(home=tmp_path, device="cpu")
    assert str(tmp_path / name) in str(caught.value)
    assert (tmp_path / name).read_text() == "not a folder"


@pytest.mark.parametrize("name", FOLDERS)
def test_a_dead_link_in_the_place_of_a_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).symlink_to(tmp_path / "nowhere")
    with pytest.raises(BadFile, match=name):
        load(home=tmp_path, device="cpu")


@pytest.mark.parametrize("name", FILES)
def test_a_folder_in_the_place_of_a_file(tmp_path: Path, name: str) -> None:
    (tmp_path / name / "inner").mkdir(parents=True)
    home = open_everything(tmp_path)
    is_cache = name.endswith(".json")  # which is read as empty, and never written
    is_unused = name == "worker-cpu.lock"
    assert len(home.notices) == (0 if is_cache or is_unused else 1)
    home.close()


def test_a_folder_in_the_place_of_the_settings(tmp_path: Path) -> None:
    (tmp_path / "studio.toml").mkdir()
    with refused(BadFile):
        load(home=tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        "a = " + "[" * 100_000,
        "port = \0",
        'port = "7860" x',
        "x" * 70_000,
        "\ud800",
        "port = " + "9" * 10_000,
    ],
    ids=["tables", "lists", "NUL", "rest", "long", "surrogate", "huge"],
)
def test_settings_that_are_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "studio.toml").write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(BadFile, match=r"studio\.toml cannot be read: .*Fix it or move it away\."):
        load(home=tmp_path)


def test_a_pipe_for_settings_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "studio.toml")
    with refused(BadFile):
        load(home=tmp_path)


def test_many_unknown_settings_are_counted(tmp_path: Path) -> None:
    lines = [f"unknown{number} = 1" for number in range(3000)]
    (tmp_path / "studio.toml").write_text("\n".join(lines))
    with pytest.raises(InvalidSpec) as caught:
        load(home=tmp_path)
    assert len(caught.value.faults) == 3000
    assert str(caught.value).count("\n") == 10
    assert str(caught.value).endswith("… and 2,990 more like these.")


def test_a_home_behind_a_dead_link_is_not_made(tmp_path: Path) -> None:
    """It would lie where the disk is missing, and fill another one."""
    (tmp_path / "home").symlink_to(tmp_path / "disk" / "home")
    with refused(BadFile):
        load(home=tmp_path / "home")
    assert not (tmp_path / "disk").exists()


def test_a_home_that_links_in_a_circle(tmp_path: Path) -> None:
    (tmp_path / "home").symlink_to(tmp_path / "home")
    with refused(BadFile):
        load(home=tmp_path / "home")


@pytest.mark.parametrize("name", ["a\0b", "~nobody-here/x"])
def test_a_home_that_no_system_has(name: str) -> None:
    with refused(BadFile):
        load(home=name)


@pytest.mark.parametrize("name", ["mein Zuhause", "家", "дом ñ 🏠", "a'b\"c", "100%"])
def test_names_of_homes(tmp_path: Path, name: str) -> None:
    open_everything(tmp_path / name).close()


def test_a_home_behind_a_link(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "home").symlink_to(tmp_path / "disk")
    open_everything(tmp_path / "home").close()
    assert (tmp_path / "disk" / "jobs.sqlite").is_file()


def test_a_home_on_another_file_system(tmp_path: Path) -> None:
    memory = Path("/dev/shm")
    if not memory.is_dir() or memory.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("needs another file system at /dev/shm")
    folder = Path(tempfile.mkdtemp(dir=memory))
    try:
        open_everything(folder / "home").close()
    finally:
        shutil.rmtree(folder)


def test_a_lock_that_cannot_be_written_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It used to be taken for another studio that is open."""

    class ReadOnly:
        def execute(self, sql: str) -> None:
            if sql.startswith("BEGIN"):
                error = sqlite3.OperationalError("attempt to write a readonly database")
                error.sqlite_errorcode = sqlite3.SQLITE_READONLY
                raise error

    lock = Lock(tmp_path, "studio")
    monkeypatch.setattr(lock, "_connection", ReadOnly())
    with refused(BadFile):
        lock.acquire()


READ_ONLY_SCRIPT = """
import sys
from studio.errors import BadFile
from studio.settings import load
from studio.storage.home import Home
home = Home(load(home=sys.argv[1], device="cpu"))
for name in ("jobs", "gallery", "sweeps", "datasets", "training_sets", "embeddings"):
    try:
        getattr(home, name)
    except BadFile as error:
        assert "Give this user permission to read and write it." in str(error), error
print([model.name for model in home.library.scan_models()])
print(len(home.library.get_content_hash(home.library.get_model("pocket"))))
home.runs.list_runs(), home.presets.list_names(), home.library.list_loras()
"""


def test_of_a_home_that_can_only_be_read_what_can_be_opened_opens(tmp_path: Path) -> None:
    mount = f'mount --bind "{tmp_path}" "{tmp_path}" && mount -o remount,ro,bind "{tmp_path}"'
    if (
        shutil.which("unshare") is None
        or subprocess.run(
            ["unshare", "-rm", "sh", "-c", mount], capture_output=True, check=False
        ).returncode
    ):
        pytest.skip("needs unshare and mount")
    open_everything(tmp_path).close()
    shell = f'{mount} && exec "{sys.executable}" -c "$0" "{tmp_path}"'
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", shell, READ_ONLY_SCRIPT],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == "" or "Traceback" not in done.stderr
    assert done.stdout.splitlines() == ["['pocket']", "64"]


@pytest.mark.parametrize("text", ["", "{", "[1]", "null", "7", '{"images": 5, "extra": 1}'])
def test_a_damaged_row_hides_no_other_job(tmp_path: Path, text: str) -> None:
    jobs = Jobs(tmp_path / "jobs.sqlite")
    odd, good = (jobs.submit("generate", {"prompt": "a boat"}, "ann") for _ in range(2))
    sql = "UPDATE jobs SET spec = ?, progress = ?, result = ? WHERE id = ?"
    jobs._database.execute(sql, text, text, text, odd)
    jobs.set_worker_status("cpu", {"state": "ready"})
    jobs._database.execute("UPDATE workers SET status = ?", text)
    assert [job.id for job in jobs.list_open()] == [odd, good]
    assert jobs.list_open()[1].spec == {"prompt": "a boat"}
    assert isinstance(jobs.get_worker_status()["cpu"], dict)
    jobs.close()


@pytest.mark.parametrize("text", ["", "{", "[1]", "null", '{"by": 5}'])
def test_a_damaged_row_of_the_history_hides_no_other(tmp_path: Path, text: str) -> None:
    home = Home(load(home=tmp_path, device="cpu"))
    folder = tmp_path / "datasets" / "moon"
    folder.mkdir(parents=True)
    Image.new("RGB", (64, 64)).save(folder / "a.png")
    dataset = home.datasets.open("moon")
    for caption in ("a boat", "a lake"):
        dataset.write_captions({"a.png": caption}, Writer(by="hand"), mode="replace")
    database = home.datasets._journal._database
    database.execute("UPDATE steps SET writer = ? WHERE id = 1", text)
    encoded = os.fsencode(folder.resolve())
    database.execute("INSERT INTO sources VALUES (?, 'a.png', ?)", encoded, text)
    assert [step.writer.by for step in dataset.history()] == ["hand", "file"]
    assert home.datasets._journal.read_sources(folder.resolve()) == {}
    home.close()
