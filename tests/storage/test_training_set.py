"""A folder of pictures with captions: every layout is read, everything that cannot be used is named, nothing leaves the folder."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from PIL import Image

from studio.errors import DatasetError
from studio.imaging import decode
from studio.settings import Settings, shipped
from studio.storage.datasets import image_index
from studio.storage.datasets.image_index import ImageIndex
from studio.storage.datasets.layout import parse_concept_folder
from studio.storage.datasets.training_set import TrainingImage, TrainingSets, read_training_set
from support.examples import examples
from support.sentences import check_sentence, refused


def picture(path: Path, size: tuple[int, int] = (80, 64), colour: int = 0, **more: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (colour, 80, 120)).save(path, **more)
    return path


def captions(folder: Path, **more: Any) -> dict[str, str]:
    return {
        item.path.relative_to(folder).as_posix(): item.caption
        for item in read_training_set(folder, **more).images
    }


def reasons(folder: Path) -> dict[str, str]:
    return dict(read_training_set(folder).broken)


def test_shipped_sets(settings: Settings) -> None:
    shelf = TrainingSets(settings)
    assert shelf.names() == ["moon", "mysks"]
    for name, count in (("moon", 24), ("mysks", 15)):
        found = shelf.load_training_set(name)
        assert len(found.images) == found.images_per_epoch == count
        assert found.layout == "sidecar"
        assert found.name == name
        assert not found.broken
        assert not found.notes
        assert all(
            item.caption and (item.width, item.height, item.repeats) == (128, 128, 1)
            for item in found.images
        )
        first = found.images[0]
        assert first.content_hash == hashlib.sha256(first.path.read_bytes()).hexdigest()
        assert first.caption == first.path.with_suffix(".txt").read_text().strip()
    tags = shelf.load_training_set("moon").tag_frequency()
    assert list(tags) == ["moon"]
    assert sum(tags["moon"].values()) == 24


def test_the_home_hides_a_shipped_set_and_unknown_ones_name_the_nearest(settings: Settings) -> None:
    picture(settings.home / "datasets" / "moon" / "mine.png")
    picture(settings.home / "datasets" / ".hidden" / "x.png")
    shelf = TrainingSets(settings)
    assert shelf.names() == ["moon", "mysks"]
    assert len(shelf.load_training_set("moon").images) == 1
    for name in ("mon", "../../etc", "/etc", ""):
        with refused(DatasetError):
            shelf.load_training_set(name)
    with refused(DatasetError) as caught:
        shelf.load_training_set("mon")
    assert "moon" in str(caught.value)


def test_sidecars(tmp_path: Path) -> None:
    """.txt before .caption, endings in any case, the first line, a mark of byte order, none at all."""
    for k, name in enumerate(("a.png", "b.PNG", "c.jpg", "d.webp", "e.bmp", "f.jpeg", "g.png")):
        picture(tmp_path / name, colour=k)
    (tmp_path / "a.txt").write_text(" a boat, red \nsecond line\n")
    (tmp_path / "a.caption").write_text("not this")
    (tmp_path / "b.CAPTION").write_text("loud")
    (tmp_path / "c.TXT").write_bytes("\ufeffmoře\r\nx".encode())
    (tmp_path / "d.txt").write_text("čaj", "utf-16")
    (tmp_path / "e.txt").write_text("")
    (tmp_path / "notes.txt").write_text("belongs to no picture")
    (tmp_path / ".DS_Store.png").write_bytes(b"x")
    assert captions(tmp_path) == {
        "a.png": "a boat, red",
        "b.PNG": "loud",
        "c.jpg": "moře",
        "d.webp": "čaj",
        "e.bmp": "",
        "f.jpeg": "",
        "g.png": "",
    }
    found = read_training_set(tmp_path)
    assert found.notes == ("3 of 7 images have no caption, such as e.bmp.",)
    assert not found.broken
    assert found.tag_frequency() == {
        tmp_path.name: {"a boat": 1, "red": 1, "loud": 1, "moře": 1, "čaj": 1}
    }


@pytest.mark.parametrize("ending", ["jsonl", "csv"])
def test_metadata(tmp_path: Path, ending: str) -> None:
    """Captions and pictures of subfolders; what it does not describe keeps its own caption."""
    for k, name in enumerate(("a.png", "b.png", "train/c.png", "d.png", "train/unnamed.png")):
        picture(tmp_path / name, colour=k)
    (tmp_path / "b.txt").write_text("from its file")
    (tmp_path / "d.txt").write_text("hidden by metadata")
    told = [("a.png", 'said "so", twice'), ("train/c.png", "deep"), ("d.png", "")]
    if ending == "jsonl":
        rows = [json.dumps({"file_name": name, "text": text}) for name, text in told]
    else:
        rows = [
            "file_name,text",
            *(f'{name},"{text.replace(chr(34), chr(34) * 2)}"' for name, text in told),
        ]
    (tmp_path / f"metadata.{ending}").write_text("\n".join(rows) + "\n")
    assert read_training_set(tmp_path).layout == "metadata"
    assert not read_training_set(tmp_path).broken
    assert captions(tmp_path) == {
        "a.png": 'said "so", twice',
        "b.png": "from its file",
        "d.png": "",
        "train/c.png": "deep",
    }


def test_hostile_metadata(tmp_path: Path) -> None:
    picture(tmp_path / "set" / "a.png")
    picture(tmp_path / "secret.png")
    lines = [
        "[1]",
        "{",
        "{}",
        '{"file_name": 3}',
        '{"file_name": ""}',
        '{"file_name": "a\\u0000.png"}',
        "[" * 100_000,
        '{"file_name": "../secret.png"}',
        f'{{"file_name": "{tmp_path}/secret.png"}}',
        '{"file_name": "C:\\\\x.png"}',
        '{"file_name": "gone.png"}',
        '{"file_name": "%s.png"}' % ("x" * 5000),
        '{"file_name": "a.txt"}',
        '{"file_name": "a.png", "text": "\\ud800"}',
        '{"file_name": "a.png", "text": "a\\u0007"}',
        '{"file_name": "a.png", "caption": "good"}',
        '{"file_name": "a.png", "text": "better"}',
    ]
    (tmp_path / "set" / "metadata.jsonl").write_text("\n".join(lines))
    found = read_training_set(tmp_path / "set")
    assert [(item.path.name, item.caption) for item in found.images] == [("a.png", "better")]
    assert [reason.split(":")[0] for _, reason in found.broken] == [
        f"line {k + 1}" for k in range(len(lines) - 2)
    ]
    assert all(file == "metadata.jsonl" and len(reason) < 300 for file, reason in found.broken)
    assert "a.png appears twice in metadata.jsonl; its last caption is used." in found.notes
    for bad in (b"\xff\xfe\x00", b"\x80abc", b"file_name\n" + b"x" * 200_000):
        (tmp_path / "set" / "metadata.jsonl").unlink(missing_ok=True)
        (tmp_path / "set" / "metadata.csv").write_bytes(bad)
        assert "metadata.csv" in reasons(tmp_path / "set")


def test_kohyas_folders_from_above_and_from_within(tmp_path: Path) -> None:
    img = tmp_path / "img"
    for k, name in enumerate(
        (
            "10_moon rock/a.png",
            "10_moon rock/b.png",
            "3_/c.png",
            "7/d.png",
            "plain/e.png",
            "f.png",
            "0_none/g.png",
            "-2_less/h.png",
            "99999999_more/i.png",
        )
    ):
        picture(img / name, colour=k)
    (img / "10_moon rock" / "b.txt").write_text("its own")
    found = read_training_set(img)
    assert found.layout == "kohya"
    assert [
        (item.path.name, item.repeats, item.concept, item.caption) for item in found.images
    ] == [
        ("a.png", 10, "moon rock", "moon rock"),
        ("b.png", 10, "moon rock", "its own"),
        ("c.png", 3, "", ""),
        ("d.png", 7, "", ""),
    ]
    assert found.images_per_epoch == 30
    assert {name for name, _ in found.broken} == {"0_none", "-2_less", "99999999_more"}
    for name, reason in sorted(found.broken):
        check_sentence(f"{name}: {reason}")
    check_sentence(found.notes[0])
    within = read_training_set(img / "10_moon rock")
    assert within.layout == "kohya"
    assert within.images_per_epoch == 20
    assert within.images[0].caption == "moon rock"
    check_sentence(within.notes[0])
    assert read_training_set(img / "plain").layout == "sidecar"
    assert read_training_set(img / "7").images_per_epoch == 1


@pytest.mark.parametrize(
    ("name", "meaning"),
    [
        ("10_moon", (10, "moon")),
        ("10_a_b", (10, "a_b")),
        ("10_", (10, "")),
        ("10", (10, "")),
        ("+5_x", (5, "x")),
        (" 4_x", (4, "x")),
        ("0_x", (0, "x")),
        ("moon_10", None),
        ("_x", None),
        ("", None),
        ("3d_x", None),
        ("1.5_x", None),
        ("ten_x", None),
        ("9" * 5000 + "_x", None),
    ],
)
def test_names_of_concepts(name: str, meaning: tuple[int, str] | None) -> None:
    assert parse_concept_folder(name) == meaning


@given(st.text("0123456789_+- .abcč١", max_size=12))
def test_any_name_of_a_folder(name: str) -> None:
    found = parse_concept_folder(name)
    assert found is None or (name.endswith(found[1]) and int(name.split("_")[0]) == found[0])


def test_broken_pictures_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = picture(tmp_path / "good.png", (300, 300)).read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[:-40])
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "text.jpg").write_text("no picture")
    (tmp_path / "folder.png").mkdir()
    picture(tmp_path / "tiny.png", (63, 200))
    picture(tmp_path / "moving.gif")
    monkeypatch.setattr(decode, "MAX_FILE_BYTES", 5000)
    (tmp_path / "huge.png").write_bytes(b"\0" * 6000)
    monkeypatch.setattr(decode, "MAX_PIXELS", 100_000)
    picture(tmp_path / "wide.png", (400, 300))
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.png")
    found = read_training_set(tmp_path)
    assert [item.path.name for item in found.images] == ["good.png"]
    told = dict(found.broken)
    assert (told.pop("pipe.png", None) is not None) == hasattr(os, "mkfifo")
    assert told.keys() == {
        "cut.png",
        "empty.png",
        "text.jpg",
        "tiny.png",
        "moving.gif",
        "huge.png",
        "wide.png",
        "folder.png",
    }
    for name in ("tiny.png", "cut.png", "moving.gif", "wide.png"):
        check_sentence(f"{name}: {told[name]}")
    assert all(reason.endswith(".") and "Traceback" not in reason for reason in told.values())


def test_upright_size(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    picture(tmp_path / "turned.jpg", (200, 100), exif=exif)
    item = read_training_set(tmp_path).images[0]
    assert (item.width, item.height) == (100, 200)


def test_links_that_lead_out(tmp_path: Path) -> None:
    outside, inside = tmp_path / "outside", tmp_path / "inside"
    picture(outside / "a.png")
    (outside / "secret.txt").write_text("root:x:0:0")
    picture(inside / "good.png")
    picture(inside / "told.png", colour=9)
    (inside / "told.txt").symlink_to(outside / "secret.txt")
    (inside / "a.png").symlink_to(outside / "a.png")
    (inside / "loop.png").symlink_to(inside / "loop.png")
    (inside / "own.png").symlink_to(inside / "good.png")
    (inside / "nowhere.png").symlink_to(inside / "gone.png")
    found = read_training_set(inside)
    assert [item.path.name for item in found.images] == ["good.png", "own.png"]
    check_sentence(found.notes[-1])
    told = dict(found.broken)
    assert told.keys() == {"a.png", "loop.png", "nowhere.png", "told.png"}
    check_sentence(told["a.png"])
    check_sentence(told["told.png"])
    assert "root:" not in str(found)
    (inside / "metadata.jsonl").symlink_to(outside / "secret.txt")
    check_sentence(reasons(inside)["metadata.jsonl"])
    (tmp_path / "linked").symlink_to(inside)  # the folder itself is its owner's choice
    assert len(read_training_set(tmp_path / "linked").images) == 2
    picture(tmp_path / "img" / "1_here" / "x.png")
    (tmp_path / "img" / "5_away").symlink_to(outside)
    assert "points outside" in reasons(tmp_path / "img")["5_away"]


@pytest.mark.parametrize(
    "data",
    [
        "čaj".encode("cp1250"),
        b"\x00\x01\x02",
        b"a\x07b",
        b"\xff\xfe\x00",
        b"x" * 70_000,
        b"\xed\xa0\x80",
    ],
)
def test_captions_that_are_no_text(tmp_path: Path, data: bytes) -> None:
    picture(tmp_path / "a.png")
    picture(tmp_path / "b.png", colour=3)
    (tmp_path / "b.txt").write_bytes(data)
    found = read_training_set(tmp_path)
    assert [item.path.name for item in found.images] == ["a.png"]
    assert found.broken[0][0] == "b.png"
    assert found.broken[0][1].startswith("its caption b.txt ")


def test_nothing_to_train_on(tmp_path: Path) -> None:
    with refused(DatasetError):
        read_training_set(tmp_path)
    with refused(DatasetError):
        read_training_set(tmp_path / "gone")
    picture(tmp_path / "img" / "1_x" / "a.png")
    with refused(DatasetError):
        read_training_set(tmp_path)
    (tmp_path / "bad.png").write_bytes(b"x")
    with refused(DatasetError):
        read_training_set(tmp_path)
    picture(tmp_path / "zero" / "0_x" / "a.png")
    with refused(DatasetError):
        read_training_set(tmp_path / "zero")


def test_names_that_cannot_be_shown(tmp_path: Path) -> None:
    name = os.fsdecode(b"\xff<img src=x>.png")
    try:
        picture(tmp_path / name)
    except OSError:
        pytest.skip("this disk takes no such name")
    (tmp_path / os.fsdecode(b"\xfe.png")).write_bytes(b"x")
    found = read_training_set(tmp_path)
    str(found.broken).encode()
    str(found.notes).encode()
    assert len(found.images) == len(found.broken) == 1


def test_a_changed_picture_is_read_anew_and_an_unchanged_one_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, index, calls = picture(tmp_path / "a.png"), ImageIndex(), []
    monkeypatch.setattr(
        image_index,
        "examine_image",
        lambda path, look=image_index.examine_image: calls.append(path) or look(path),
    )
    first = read_training_set(tmp_path, image_index=index)
    assert read_training_set(tmp_path, image_index=index) == first
    assert len(calls) == 1
    picture(path, (90, 70), colour=200)
    os.utime(path, (1, 1))
    second = read_training_set(tmp_path, image_index=index)
    assert len(calls) == 2
    assert second.images[0].width == 90
    assert second.content_hash != first.content_hash


def test_content_is_what_a_training_sees(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    for k in range(3):
        picture(one / f"{k}.png", colour=k)
        picture(other / f"{2 - k}x.png", colour=k)
    assert read_training_set(one).content_hash == read_training_set(other).content_hash
    (other / "1x.txt").write_text("words")
    assert read_training_set(one).content_hash != read_training_set(other).content_hash


CAPTION = st.text('ab, ()čß月\n\r\t\ufeff\u2028"\\', max_size=40)


@hypothesis_settings(max_examples=examples(25))
@given(st.lists(CAPTION, min_size=1, max_size=4))
def test_any_caption_comes_back(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> None:
    folder = tmp_path_factory.mktemp("set")
    for k, text in enumerate(texts):
        picture(folder / f"{k}.png", colour=k)
        (folder / f"{k}.txt").write_bytes(text.encode())
    found: tuple[TrainingImage, ...] = read_training_set(folder).images
    expected = [
        text.removeprefix("\ufeff").replace("\r", "\n").split("\n")[0].strip() for text in texts
    ]
    assert [item.caption for item in found] == expected


def test_shipped_folder_is_there() -> None:
    assert (shipped("assets") / "datasets" / "moon").is_dir()
