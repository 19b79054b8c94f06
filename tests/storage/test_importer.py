"""What people bring: archives and pictures of every kind of malice, the gallery, other datasets. Nothing hostile comes in."""

from __future__ import annotations

import io
import json
import os
import stat
import struct
import zipfile
import zlib
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from PIL import Image

from studio.core.captions.edits import parse_edit
from studio.core.captions.provenance import Source, Writer
from studio.core.generation.request import ResolvedRequest
from studio.errors import BadFile, DatasetError, NotAllowed, StudioError
from studio.settings import Settings, load
from studio.storage.datasets import archives, history, importer
from studio.storage.datasets.dataset import DatasetStore
from studio.storage.datasets.training_set import TrainingSets
from studio.storage.gallery import Gallery
from support.datasets import held, picture, said
from support.examples import examples
from support.limits import count_calls
from support.sentences import check_sentence, refused


def png(colour: int = 0, size: tuple[int, int] = (80, 64)) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", size, (colour, 80, 120)).save(out, "PNG")
    return out.getvalue()


def packed(
    path: Path, *files: tuple[str | zipfile.ZipInfo, bytes], packing: int = zipfile.ZIP_DEFLATED
) -> Path:
    with zipfile.ZipFile(path, "w", packing) as out:
        for name, data in files:
            out.writestr(name, data)
    return path


def brought(
    settings: Settings, archive: Path, name: str = "new"
) -> tuple[importer.ImportResult, dict[str, str]]:
    albums = DatasetStore(settings)
    taken = albums.import_files(name, [(archive, archive.name)])
    return taken, said(albums.open(name)) if name in albums.names() else {}


@pytest.mark.parametrize(
    ("names", "keys"),
    [
        (["a.png", "a.txt"], {"a.png": "A"}),
        (["top/a.png", "top/a.txt", "top/b.jpg.png"], {"a.png": "A", "b.jpg.png": ""}),
        (
            ["x/10_moon/a.png", "x/10_moon/a.txt", "x/3_sun/a.png"],
            {"10_moon/a.png": "A", "3_sun/a.png": ""},
        ),
        (["10_moon/a.png", "10_moon/a.txt"], {"10_moon/a.png": "A"}),
        (["10_moon/a.png", "loose/b.png"], {"10_moon/a.png": "", "1_/b.png": ""}),
        (["x/a.png", "y/a.png", "y/a.txt"], {"a.png": "", "a-2.png": "A"}),
        (["A.png", "a.png", "a.txt"], {"A.png": "", "a-2.png": "A"}),
        (["a.png", "__MACOSX/._a.png", ".DS_Store", "sub/.hidden/b.png"], {"a.png": ""}),
        (["a\\b\\c.png"], {"c.png": ""}),
    ],
)
def test_where_things_go(
    settings: Settings, tmp_path: Path, names: list[str], keys: dict[str, str]
) -> None:
    files = [(name, b"A\n" if name.endswith("txt") else png(k)) for k, name in enumerate(names)]
    taken, found = brought(settings, packed(tmp_path / "s.zip", *files))
    assert found == keys
    assert not taken.skipped
    assert taken.num_images == len(keys)


def test_metadata_in_an_archive(settings: Settings, tmp_path: Path) -> None:
    rows = "\n".join(
        json.dumps({"file_name": f"train/{k}.png", "text": f"number {k}"}) for k in range(3)
    )
    archive = packed(
        tmp_path / "s.zip",
        ("set/metadata.jsonl", rows.encode()),
        *((f"set/train/{k}.png", png(k)) for k in range(3)),
    )
    taken, found = brought(settings, archive)
    assert found == {f"train/{k}.png": f"number {k}" for k in range(3)}
    assert not taken.skipped
    again = DatasetStore(settings).import_files("new", [(archive, "s.zip")])
    assert (
        "set/metadata.jsonl",
        "already exists; put its captions beside the images.",
    ) in again.skipped


def link(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info


def test_a_hostile_archive(settings: Settings, tmp_path: Path) -> None:
    """What is good comes in; every other entry is named with its reason; nothing lands anywhere else."""
    device = zipfile.ZipInfo("device.png")
    device.external_attr = (stat.S_IFCHR | 0o666) << 16
    archive = packed(
        tmp_path / "s.zip",
        ("good.png", png(1)),
        ("../../slip.png", png(2)),
        ("/abs.png", png(3)),
        ("C:/drive.png", png(4)),
        ("..\\win.png", png(5)),
        (link("link.png"), b"/etc/passwd"),
        (device, png(6)),
        ("CON.png", png(7)),
        ("a/../../up.png", png(8)),
        ("page.html", b"<script>"),
        ("fake.png", b"<svg onload=alert(1)>"),
        ("cut.png", png(9)[:-60]),
        ("tiny.png", png(1, (8, 8))),
        ("move.gif", b"GIF89a"),
        ("inner.zip", b"PK"),
        ("lone.txt", b"a caption of nothing"),
        ("huge.txt", b"x" * 70_000),
        ("/".join("d" * 25) + "/deep.png", png(10)),
        ("x" * 300 + ".png", png(11)),
        ('"><img src=x onerror=1>.png', png(12)),
        ("čaj měsíc.png", png(13)),
    )
    before = held(tmp_path)
    taken, found = brought(settings, archive)
    for name, reason in taken.skipped:
        check_sentence(f"{name}: {reason}")
    assert "GIF" not in str(found)
    assert len(found) == taken.num_images == 4
    assert {"good.png", "čaj měsíc.png"} <= found.keys()
    assert all("<" not in key and len(key.encode()) < 200 for key in found)
    outside = {name: data for name, data in held(tmp_path).items() if not name.startswith("home/")}
    assert outside == before
    assert all("\n" not in reason and "Traceback" not in reason for _, reason in taken.skipped)


def raw(path: Path, name: bytes, flags: int = 0, method: int = 0, data: bytes = b"") -> Path:
    """A zip of one entry, written by hand: names that zipfile would not write."""
    head = struct.pack(
        "<HHHHHIII", 20, flags, method, 0, 33, zlib.crc32(data), len(data), len(data)
    )
    local = b"PK\3\4" + head + struct.pack("<HH", len(name), 0) + name + data
    central = (
        b"PK\1\2"
        + struct.pack("<H", 20)
        + head
        + struct.pack("<HHHHHII", len(name), 0, 0, 0, 0, 0, 0)
        + name
    )
    path.write_bytes(
        local
        + central
        + b"PK\5\6"
        + struct.pack("<HHHHIIH", 0, 0, 1, 1, len(central), len(local), 0)
    )
    return path


@pytest.mark.parametrize(
    ("name", "flags", "method"),
    [(b"good.png\0.txt", 0, 0), (b"a.png", 1, 0), (b"a.png", 0, 14), (b"a.png", 0, 97)],
    ids=["nul", "password", "lzma", "jpeg"],
)
def test_entries_that_zipfile_would_not_write(
    settings: Settings, tmp_path: Path, name: bytes, flags: int, method: int
) -> None:
    taken, found = brought(settings, raw(tmp_path / "s.zip", name, flags, method, png()))
    assert not found
    check_sentence(taken.skipped[0][1])
    assert "new" not in DatasetStore(settings).names()


@pytest.mark.parametrize(
    ("name", "key"),
    [("čaj.png".encode(), "čaj.png"), (b"\x9f\xa7.png", "ƒº.png"), (b"e\xcc\x81.png", "é.png")],
)
def test_names_in_other_encodings(
    settings: Settings, tmp_path: Path, name: bytes, key: str
) -> None:
    _, found = brought(settings, raw(tmp_path / "s.zip", name, data=png()))
    assert list(found) == [key]


def test_duplicates_in_an_archive(settings: Settings, tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="Duplicate"):
        archive = packed(
            tmp_path / "s.zip",
            ("a.png", png(1)),
            ("a.png", png(2)),
            ("A.png", png(3)),
            ("a.PNG", png(4)),
        )
    taken, found = brought(settings, archive)
    ((name, reason),) = taken.skipped
    assert name == "a.png"
    check_sentence(reason)
    assert len(found) == 3
    assert len({key.casefold() for key in found}) == 3 or "a.PNG" in found
    assert (DatasetStore(settings).open("new").folder / "a.png").read_bytes() == png(1)


def test_bombs(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "RATIO_ALLOWANCE_BYTES", 2**20)
    bomb = packed(tmp_path / "bomb.zip", *((f"{k}.png", bytes(3 * 2**20)) for k in range(8)))
    with refused(BadFile):
        brought(settings, bomb)
    assert "new" not in DatasetStore(settings).names()
    assert not list((settings.home / "datasets").iterdir())
    monkeypatch.setattr(archives, "MAX_ENTRIES", 10)
    with refused(BadFile):
        brought(settings, packed(tmp_path / "many.zip", *((f"{k}.txt", b"") for k in range(11))))
    liar = bytearray((tmp_path / "many.zip").read_bytes())
    at = liar.rfind(b"PK\5\6")
    liar[at + 8 : at + 12] = struct.pack("<HH", 2, 2)  # says that it has two
    (tmp_path / "liar.zip").write_bytes(liar)
    with refused(BadFile):
        brought(settings, tmp_path / "liar.zip")
    monkeypatch.setattr(archives, "MAX_DIRECTORY_BYTES", 100)
    with refused(BadFile):
        brought(settings, tmp_path / "liar.zip")
    monkeypatch.undo()
    monkeypatch.setattr(archives, "MIN_FREE_DISK_BYTES", 2**62)
    with refused(BadFile):
        brought(settings, packed(tmp_path / "s.zip", ("a.png", png())))


def test_a_size_that_is_a_lie(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What counts is what comes out, not what the list says."""
    archive = bytearray(
        packed(tmp_path / "s.zip", ("a.png", bytes(2**20)), ("b.png", png())).read_bytes()
    )
    for mark, offset in ((b"PK\3\4", 22), (b"PK\1\2", 24)):
        at = archive.find(mark)
        archive[at + offset : at + offset + 4] = struct.pack("<I", 100)
    (tmp_path / "s.zip").write_bytes(archive)
    monkeypatch.setattr(archives, "RATIO_ALLOWANCE_BYTES", 2**22)
    taken, found = brought(settings, tmp_path / "s.zip")
    assert list(found) == ["b.png"], taken
    assert [name for name, _ in taken.skipped] == ["a.png"]


def test_an_entry_whose_name_begins_with_a_nul(settings: Settings, tmp_path: Path) -> None:
    """To Python's zipfile it has no name at all, and asking whether it is a folder fails."""
    archive = packed(tmp_path / "s.zip", ("wrong.png", png(1)), ("b.png", png(2)))
    archive.write_bytes(archive.read_bytes().replace(b"wrong.png", b"\0rong.png"))
    taken, found = brought(settings, archive)
    assert list(found) == ["b.png"]
    ((name, reason),) = taken.skipped
    assert name == "\0rong.png"
    check_sentence(reason)


def test_an_entry_without_a_name_is_said() -> None:
    with refused(BadFile):
        archives.safe_member_path("")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"PK",
        b"no zip",
        b"PK\5\6" + bytes(18) + b"x",
        b"PK\5\6" + b"\xff" * 18,
        b"PK\6\7" + b"\xff" * 16 + b"PK\5\6" + b"\xff" * 18,
    ],
)
def test_archives_that_are_none(settings: Settings, tmp_path: Path, data: bytes) -> None:
    (tmp_path / "s.zip").write_bytes(data)
    if data.endswith(b"x"):
        assert not brought(settings, tmp_path / "s.zip")[1]  # an empty archive with a word after it
        return
    with pytest.raises(BadFile):
        brought(settings, tmp_path / "s.zip")
    assert "new" not in DatasetStore(settings).names()


@hypothesis_settings(max_examples=examples(60))
@given(st.data())
def test_damaged_archives_say_so_and_nothing_else(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Bytes of a good archive changed, cut out or put in: taken in part, refused in words, never anything else."""
    home = tmp_path_factory.mktemp("damaged")
    good = packed(
        home / "s.zip", ("10_x/a.png", png(1)), ("10_x/a.txt", b"words"), ("b.png", png(2))
    ).read_bytes()
    broken = bytearray(good)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(broken) - 1))
        broken[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=4))
    (home / "s.zip").write_bytes(broken)
    try:
        taken, found = brought(load(home=home / "home", device="cpu"), home / "s.zip")
    except StudioError:
        return
    assert taken.num_images == len(found)
    assert not [
        path
        for path in home.rglob("*")
        if path.is_file() and home / "home" not in path.parents and path.name != "s.zip"
    ]


NAME = st.lists(st.text("abČ._- 1/\\", min_size=1, max_size=8), min_size=1, max_size=3).map(
    "/".join
)


@hypothesis_settings(max_examples=examples(200))
@given(
    st.lists(st.tuples(NAME, st.sampled_from([".png", ".txt", ".PNG", ".jpg"])), max_size=8),
    st.sampled_from(["", ".", "3_sun"]),
)
def test_places_stay_inside_and_apart(names: list[tuple[str, str]], shape: str) -> None:
    paths = set()
    for stem, end in names:
        try:
            judged = archives.safe_member_path(stem + end)
        except BadFile:
            continue
        if judged is not None and judged.suffix in (".png", ".txt", ".PNG", ".jpg"):
            paths.add(judged)
    used = {"a": 1, "3_sun/a": 1}
    made = importer.plan_target_paths(sorted(paths), used, shape)
    assert made.keys() == paths
    for path in made.values():
        assert not path.is_absolute()
        assert ".." not in path.parts
        assert not path.name.startswith(".")
    assert len(set(made.values())) == len(made)
    for one in paths:
        for other in paths:
            same = one.with_suffix("") == other.with_suffix("")
            assert same == (
                made[one].with_suffix("").as_posix().casefold()
                == made[other].with_suffix("").as_posix().casefold()
            )


def test_files_one_by_one(settings: Settings, tmp_path: Path) -> None:
    """As a browser uploads them: names of temporary files, the owner's beside them; more come later."""
    albums = DatasetStore(settings)
    files = []
    for k, (name, data) in enumerate(
        (("a.png", png(1)), ("a.txt", b"first"), ("../b.png", png(2)), ("notes.pdf", b"x"))
    ):
        (tmp_path / str(k)).write_bytes(data)
        files.append((tmp_path / str(k), name))
    taken = albums.import_files("mine", files, Source(author="Jan", licence="CC0"))
    assert (taken.num_images, taken.num_captions) == (2, 1)
    ((name, reason),) = taken.skipped
    assert name == "notes.pdf"
    check_sentence(reason)
    album = albums.open("mine")
    assert said(album) == {"a.png": "first", "b.png": ""}
    assert album.read_sources()["a.png"].author == "Jan"
    (tmp_path / "more").write_bytes(b"second")
    assert albums.import_files("mine", [(tmp_path / "more", "b.txt")]).num_captions == 1
    assert (
        albums.import_files("mine", [(tmp_path / "more", "b.txt")])
        .skipped[0][1]
        .startswith("belongs to no image, or")
    )
    assert albums.import_files("mine", [files[0]]).num_images == 1
    album.refresh()
    assert said(album) == {"a.png": "first", "a-2.png": "", "b.png": "second"}
    for _ in range(3):
        album.undo()
    assert not album.images
    assert not album.read_sources()
    album.redo()
    assert said(album) == {"a.png": "first", "b.png": ""}


def test_what_joins_a_dataset_takes_its_shape(settings: Settings, tmp_path: Path) -> None:
    albums = DatasetStore(settings)
    flat, kohya = (
        packed(tmp_path / "f.zip", ("x.png", png(1))),
        packed(tmp_path / "k.zip", ("5_sun/y.png", png(2))),
    )
    albums.import_files("flat", [(flat, "f.zip")])
    albums.import_files("flat", [(kohya, "k.zip")])
    assert said(albums.open("flat")).keys() == {"x.png", "y.png"}
    albums.import_files("kohya", [(kohya, "k.zip")])
    albums.import_files("kohya", [(flat, "f.zip")])
    assert said(albums.open("kohya")).keys() == {"5_sun/y.png", "5_sun/x.png"}


def test_names_of_datasets(settings: Settings, tmp_path: Path) -> None:
    albums = DatasetStore(settings)
    (tmp_path / "a").write_bytes(png())
    for name in ("", "..", "CON", "///"):
        with pytest.raises(BadFile):
            albums.import_files(name, [(tmp_path / "a", "a.png")])
    albums.import_files("../../out", [(tmp_path / "a", "a.png")])
    assert not (tmp_path / "out").exists()
    assert next(settings.home.rglob("a.png")).parent.parent.name == "datasets"
    with refused(NotAllowed):
        albums.import_files("moon", [(tmp_path / "a", "a.png")])
    copy = albums.copy("moon", "my moon")
    assert len(copy.images) == 24
    assert not copy.is_shipped
    assert copy.write_captions({copy.images[0].key: "x"}, Writer()).num_changes == 1
    with refused(DatasetError):
        albums.copy("moon", "my moon")


def test_from_the_gallery(settings: Settings) -> None:
    gallery = Gallery(settings)
    made = [
        gallery.save(
            Image.new("RGB", (128, 128), (k, 9, 9)),
            ResolvedRequest(
                prompt=f"a red boat {k}", model="pocket", width=128, height=128, seed=k
            ),
            digest=f"digest{k}",
            content_hashes={"model": "pocket"},
            seconds=1.0,
            owner="owner",
        )
        for k in range(3)
    ]
    albums = DatasetStore(settings)
    taken = albums.import_generated("grown", made[:2])
    assert (taken.num_images, taken.num_captions, taken.skipped) == (2, 2, [])
    album = albums.open("grown")
    assert sorted(said(album).values()) == ["a red boat 0", "a red boat 1"]
    assert all(
        source.generated and "digest" in source.note for source in album.read_sources().values()
    )
    assert len(album.read_sources()) == 2
    assert {str(one[-1].writer) for one in album.read_credits().values()} == {
        "the prompt it was made from"
    }
    albums.import_generated("grown", [made[0], made[2]], use_prompts=False)
    album.refresh()
    assert len(album.images) == 4
    assert album.build_card()["generated"] == 4
    assert len(TrainingSets(settings).load_training_set("grown").images) == 4
    album.undo()
    album.undo()
    assert not album.images
    gallery.close()


def test_killed_while_taking_in(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the step is stored nothing has come in, after it everything has; what was left aside goes."""
    archive = packed(tmp_path / "s.zip", *((f"{k}.png", png(k)) for k in range(4)))
    dead = settings.home / "datasets" / "new" / ".incoming-999999999-abcd"
    dead.mkdir(parents=True)
    (dead / "0").write_bytes(b"x" * 100)
    with monkeypatch.context() as patch:
        patch.setattr(
            history.Journal, "_apply_step", lambda *_, **__: (_ for _ in ()).throw(SystemExit())
        )
        with pytest.raises(SystemExit):
            brought(settings, archive)
    assert not dead.exists()
    assert len(DatasetStore(settings).open("new").images) == 4


def test_stopped_while_taking_in(settings: Settings, tmp_path: Path) -> None:
    seen = []

    def stop(what: str, done: int, of: int) -> None:
        seen.append((what, done, of))
        if what == importer.DECODING:
            raise KeyboardInterrupt

    albums = DatasetStore(settings)
    with pytest.raises(KeyboardInterrupt):
        albums.import_files(
            "new", [(packed(tmp_path / "s.zip", ("a.png", png())), "s.zip")], report=stop
        )
    assert seen == [(importer.UNPACKING, 0, 1), (importer.DECODING, 0, 1)]
    assert "new" not in albums.names()


def test_many_of_one_name_take_few_steps(settings: Settings, tmp_path: Path) -> None:
    """Thousands of entries, all called alike, are planned without a look at each for each."""
    names = [PurePosixPath(f"{k}/a.png") for k in range(3_000)] + [
        PurePosixPath(f"{k}/metadata.jsonl") for k in range(3_000)
    ]
    with count_calls() as count:
        made = importer.plan_target_paths(names, {})
    assert count.calls < 200 * len(names)
    assert len(set(made.values())) == 3_001
    archive = packed(
        tmp_path / "s.zip", *((f"{k}/metadata.jsonl", b"") for k in range(300)), ("a.png", png())
    )
    assert len(brought(settings, archive)[0].skipped) == 299


def test_card_and_export(settings: Settings, tmp_path: Path) -> None:
    albums = DatasetStore(settings)
    for k, name in enumerate(("10_moon/a.png", "10_moon/b.png", "3_sun/a.png", "3_sun/c.png")):
        picture(settings.home / "datasets" / "sky" / name, colour=k)
    (settings.home / "datasets" / "sky" / "3_sun" / "a.txt").write_text("brought | <b>along</b>\n")
    (settings.home / "datasets" / "sky" / "3_sun" / "bad.png").write_bytes(b"x")
    album = albums.open("sky")
    album.write_captions(
        {"10_moon/a.png": "a moon"},
        Writer(by="model", model="pocket", instruction="say what it is"),
    )
    album.apply(parse_edit({"kind": "dress", "trigger": "mysks"}), keys=["10_moon/a.png"])
    album.apply(
        parse_edit({"kind": "set_source", "licence": "CC BY 4.0", "author": "Jan"}),
        keys=["10_moon/a.png"],
    )
    (album.folder / "3_sun" / "c.txt").write_text("from elsewhere")
    album.refresh()
    about = album.build_card()
    assert (about["pictures"], about["captioned"], about["repeats"]) == (
        4,
        3,
        {"10_moon": 10, "3_sun": 3},
    )
    first = about["files"][0]
    assert [one["what"] for one in first["written"]] == [
        "pocket (say what it is): Caption of 10_moon/a.png",
        "trigger 'mysks'",
    ]
    assert first["written"][0]["model"] == "pocket"
    assert first["written"][1]["by"] == "model"  # its word is put before what the captioner wrote
    assert len(first["sha256"]) == 64
    assert first["licence"] == "CC BY 4.0"
    assert about["licences"] == {"": 3, "CC BY 4.0": 1}
    out = album.export(tmp_path / "sky.zip")
    with zipfile.ZipFile(out) as zipped:
        assert zipped.testzip() is None
        assert set(zipped.namelist()) == {
            "10_moon/a.png",
            "10_moon/a.txt",
            "10_moon/b.png",
            "3_sun/a.png",
            "3_sun/a.txt",
            "3_sun/c.png",
            "3_sun/c.txt",
            "metadata.jsonl",
            "README.md",
            "card.json",
        }
        rows = [json.loads(line) for line in zipped.read("metadata.jsonl").decode().splitlines()]
        assert rows[0] == {"file_name": "10_moon/a.png", "text": "mysks, a moon"}
        assert len(rows) == 4
        text = zipped.read("README.md").decode()
        assert "<b>" not in text
        assert "brought \\| &lt;b&gt;" in text
        assert "**not stated**: 3" in text
        assert json.loads(zipped.read("card.json"))["files"][0] == first
    again = albums.import_files("back", [(out, "sky.zip")])
    assert sorted(name for name, _ in again.skipped) == ["README.md", "card.json", "metadata.jsonl"]
    back = albums.open("back")
    assert said(back) | {"3_sun/bad.png": ""} == said(album)
    assert back.count_images().repeats == about["repeats"]
    album.write_captions({"3_sun/a.png": ""}, Writer())
    album.write_captions({"3_sun/a.png": "anew"}, Writer(by="model", model="blip"))
    assert [str(one.writer) for one in album.read_credits()["3_sun/a.png"]] == ["blip"]


def test_export_of_one_folder_names_it(settings: Settings, tmp_path: Path) -> None:
    for k, name in enumerate(("a.png", "train/a.png", "train/A.png")):
        picture(tmp_path / "m" / name, colour=k)
    rows = [
        json.dumps({"file_name": name, "text": name})
        for name in ("a.png", "train/a.png", "train/A.png")
    ]
    (tmp_path / "m" / "metadata.jsonl").write_text("\n".join(rows))
    out = DatasetStore(settings).open(tmp_path / "m").export(tmp_path / "m.zip")
    with zipfile.ZipFile(out) as zipped:
        names = [name for name in zipped.namelist() if name.endswith(".png")]
    assert sorted(names) == ["1_m/a.png", "1_m/train-A.png", "1_m/train-a-2.png"]
    assert PurePosixPath(names[0]).parts[0] == "1_m"
    assert os.path.getsize(out) > 0
