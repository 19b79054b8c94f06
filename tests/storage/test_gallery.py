"""Pictures that were made: saved with their request inside, found again, the index rebuilt from the files alone."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from studio.core.generation import infotext
from studio.core.generation.request import ResolvedRequest
from studio.core.generation.used_files import UsedFile, UsedFiles
from studio.errors import BadPicture
from studio.settings import Settings, load
from studio.storage.gallery import (
    THUMBNAIL_SIDE_PX,
    Gallery,
    GeneratedImage,
    estimate_unet_work,
    read_image_settings,
)
from support.sentences import refused

REQUEST = ResolvedRequest(
    prompt="a red boat, größe 100%", negative_prompt="fog", width=128, height=192, seed=7
)
CONTENTS = {"model": "6ce0161689b3853acaa03779ec93eafe", "dtype": "float32"}
MODEL_FILE = UsedFile(kind="model", name="pocket", file_name="p.ckpt", sha256="7" * 64)
FILES = UsedFiles(files=(MODEL_FILE,), overrides=(("zero_snr", "True"),))
Save = Callable[..., GeneratedImage]


@pytest.fixture
def gallery(settings: Settings) -> Iterator[Gallery]:
    gallery = Gallery(settings)
    yield gallery
    gallery.close()


@pytest.fixture
def save(gallery: Gallery) -> Save:
    def save(owner: str = "ann", colour: str = "red", **changes: Any) -> GeneratedImage:
        request = REQUEST.model_copy(update=changes)
        return gallery.save(
            Image.new("RGB", (128, 192), colour),
            request,
            digest=request.digest(CONTENTS),
            content_hashes=CONTENTS,
            seconds=1.25,
            owner=owner,
            used_files=FILES,
        )

    return save


def png(path: Path, **texts: str) -> Path:
    info = PngInfo()
    for name, text in texts.items():
        info.add_itxt(name, text)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (16, 16), "blue").save(path, pnginfo=info)
    return path


@pytest.mark.smoke
def test_saved_and_found(gallery: Gallery, save: Save, settings: Settings) -> None:
    picture = save()
    assert gallery.get(picture.path) == picture == gallery.get(str(picture.path))
    assert gallery.find_by_digest(picture.digest) == picture
    assert (picture.request, picture.content_hashes, picture.seconds, picture.owner) == (
        REQUEST,
        CONTENTS,
        1.25,
        "ann",
    )
    assert picture.path.is_relative_to(settings.outputs)
    assert picture.thumbnail.is_relative_to(settings.thumbs)
    assert Image.open(picture.path).convert("RGB").getcolors() == [(128 * 192, (255, 0, 0))]
    assert gallery.get(settings.outputs / "none.png") is None
    assert gallery.find_by_digest("0" * 64) is None


def test_the_file_tells_all(save: Save) -> None:
    picture = save()
    text = Image.open(picture.path).info
    assert text["parameters"] == infotext.format_infotext(REQUEST, FILES)
    assert f"Model hash: {'7' * 10}," in text["parameters"]
    assert "digitalsourcetype/trainedAlgorithmicMedia" in text["XML:com.adobe.xmp"]
    said = json.loads(text["studio"])
    assert said == {
        "request": REQUEST.model_dump(mode="json"),
        "digest": picture.digest,
        "contents": CONTENTS,
        "seconds": 1.25,
        "owner": "ann",
        "created": picture.created,
        "used_files": FILES.model_dump(mode="json"),
    }
    assert read_image_settings(picture.path).program == "studio"
    assert read_image_settings(picture.path).values == REQUEST.model_dump(mode="json")


def test_two_pictures_never_share_a_name(gallery: Gallery, save: Save) -> None:
    paths = [save(colour=colour).path for colour in ("red", "green", "blue")]
    assert len(set(paths)) == 3 == gallery.count()
    assert [Image.open(path).getpixel((0, 0)) for path in paths] == [
        (255, 0, 0),
        (0, 128, 0),
        (0, 0, 255),
    ]


def test_thumbnails(gallery: Gallery, settings: Settings) -> None:
    large = gallery.save(
        Image.new("RGB", (1024, 512), "red"),
        REQUEST,
        digest="d" * 64,
        content_hashes=CONTENTS,
        seconds=1.0,
        owner="ann",
    )
    with Image.open(large.thumbnail) as thumb:
        assert thumb.size == (THUMBNAIL_SIDE_PX, THUMBNAIL_SIDE_PX // 2)
        assert thumb.format == "WEBP"
    small = gallery.save(
        Image.new("RGB", (64, 96), "red"),
        REQUEST,
        digest="e" * 64,
        content_hashes=CONTENTS,
        seconds=1.0,
        owner="ann",
    )
    assert Image.open(small.thumbnail).size == (64, 96)  # none is blown up


def test_the_index_lies_outside_what_the_page_serves(
    gallery: Gallery, save: Save, settings: Settings
) -> None:
    save()
    assert (settings.home / "gallery.sqlite").is_file()
    served = [
        path
        for folder in (settings.outputs, settings.thumbs)
        for path in folder.rglob("*")
        if path.is_file()
    ]
    assert sorted(path.suffix for path in served) == [".png", ".webp"]


def test_search(gallery: Gallery, save: Save) -> None:
    boat, cat = save().path, save(prompt="a cat_1", seed=99, scheduler="Euler").path
    other = save(owner="bob", prompt="a boat", model="pocket-2").path
    expected = {
        "": {boat, cat, other},
        "boat": {boat, other},
        "BOAT": {boat, other},
        "red boat": {boat},
        "boat red": {boat},
        "cat 99": {cat},
        "euler": {cat},
        "pocket-2": {other},
        "100%": {boat},
        "%": {boat},
        "_": {cat},
        "größe": {boat},
        "\\": set(),
        "'": set(),
        "fog": {boat, cat, other},
        "boat cat": set(),
    }
    assert {
        words: {picture.path for picture in gallery.search(words)} for words in expected
    } == expected
    assert {words: gallery.count(words) for words in expected} == {
        words: len(paths) for words, paths in expected.items()
    }


def test_newest_first_and_page_by_page(gallery: Gallery, save: Save) -> None:
    made = [save(seed=seed).path for seed in range(5)]
    assert [picture.path for picture in gallery.search()] == made[::-1]
    assert [
        picture.path
        for offset in (0, 2, 4, 6)
        for picture in gallery.search(limit=2, offset=offset)
    ] == made[::-1]


def test_each_sees_their_own(gallery: Gallery, save: Save) -> None:
    ann, bob, nobody = save("ann"), save("bob"), save("")
    for owner, picture in (("ann", ann), ("bob", bob), ("", nobody)):
        assert [seen.path for seen in gallery.search(owner=owner)] == [picture.path]
        assert gallery.count(owner=owner) == 1
        assert gallery.search("boat", owner)[0].path == picture.path
    assert gallery.search(owner="an") == []
    assert gallery.count() == 3


def test_the_index_is_rebuilt_from_the_files(
    gallery: Gallery, save: Save, settings: Settings
) -> None:
    made = [save(), save("bob", seed=8), save("", prompt='say "no",\nSteps: 3')]
    before = {picture.path: picture for picture in gallery.search()}
    thumbs = [picture.thumbnail.read_bytes() for picture in made]
    gallery.close()
    for path in settings.home.glob("gallery.sqlite*"):
        path.unlink()
    for picture in made:
        picture.thumbnail.unlink()
    again = Gallery(settings)
    assert again.search() == []
    assert again.sync() == (3, 0)
    assert {picture.path: picture for picture in again.search()} == before
    assert [picture.thumbnail.read_bytes() for picture in made] == thumbs
    made[0].path.unlink()
    assert again.sync() == (0, 1)
    assert {picture.path for picture in again.search()} == {
        made[1].path,
        made[2].path,
    }
    assert again.sync() == (0, 0)
    again.close()


def test_outputs_on_another_disk(tmp_path: Path) -> None:
    """A link to a larger disk: the index speaks of one path for each picture, however it was found."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "outputs").symlink_to(tmp_path / "disk")
    settings = load(home=tmp_path / "home")
    gallery = Gallery(settings)
    picture = gallery.save(
        Image.new("RGB", (64, 64)),
        REQUEST,
        digest="d" * 64,
        content_hashes=CONTENTS,
        seconds=1.0,
        owner="ann",
    )
    assert gallery.sync() == (0, 0)
    assert gallery.get(picture.path) == picture
    gallery.bin.put([picture.id])
    assert gallery.bin.empty() == 1
    assert gallery.count() == 0
    assert not picture.path.exists()
    gallery.close()


SAID: dict[str, Any] = {
    "request": REQUEST.model_dump(mode="json"),
    "digest": "d" * 64,
    "contents": CONTENTS,
    "seconds": 1.0,
    "owner": "ann",
    "created": 5.0,
}
TAMPERED = {
    "no JSON": "{",
    "a list": "[1]",
    "a number": "7",
    "empty": "",
    "no request": "{}",
    "deep": "[" * 100_000,
    "bad steps": json.dumps(SAID | {"request": SAID["request"] | {"steps": 10**9}}),
    "request a list": '{"request": [1]}',
    "unknown field": json.dumps(SAID | {"request": SAID["request"] | {"rm": "-rf"}}),
    "giant": json.dumps(SAID) + " " * 1_000_000,
}
ODD = {
    **{
        f"without {name}": json.dumps({key: SAID[key] for key in SAID if key != name})
        for name in SAID
        if name != "request"
    },
    **{
        f"{name} {value!r:.12}": json.dumps(SAID | {name: value})
        for name, value in [
            ("digest", {}),
            ("digest", ""),
            ("owner", 5),
            ("owner", None),
            ("contents", []),
            ("contents", {"a": {}}),
            ("seconds", "1 s"),
            ("seconds", float("nan")),
            ("created", float("inf")),
            ("created", float("nan")),
            ("created", 10**400),
            ("created", -1),
        ]
    },
}


@pytest.mark.parametrize("written", [*TAMPERED.values(), *ODD.values()], ids=[*TAMPERED, *ODD])
def test_a_tampered_file_is_not_listed_and_stops_nothing(
    written: str, gallery: Gallery, settings: Settings
) -> None:
    png(settings.outputs / "2026-01-01" / "a.png", studio=written)
    png(settings.outputs / "2026-01-01" / "b.png", studio=json.dumps(SAID | {"later": 1}))
    (settings.outputs / "c.png").write_bytes(b"no picture")
    png(settings.outputs / "d.png")
    assert gallery.sync() == (1, 0)
    assert [picture.path.name for picture in gallery.search()] == ["b.png"]


@pytest.mark.parametrize("written", TAMPERED.values(), ids=TAMPERED)
def test_recipe_falls_back_to_a1111s_text(written: str, tmp_path: Path) -> None:
    text = infotext.format_infotext(REQUEST).replace("Version: studio", "Version: v1")
    found = read_image_settings(png(tmp_path / "a.png", studio=written, parameters=text))
    assert (found.program, found.text, found.values["prompt"], found.values["steps"]) == (
        "A1111",
        text,
        REQUEST.prompt,
        20,
    )
    with refused(BadPicture):
        read_image_settings(png(tmp_path / "b.png", studio=written), "mine.png")


def test_recipe_of_a1111_with_notes_and_of_nothing(tmp_path: Path) -> None:
    text = "a cat\nSteps: 5, Sampler: DPM adaptive, CFG scale: 7, Seed: 1, Size: 512x512, Version: v1.10.1"
    found = read_image_settings(png(tmp_path / "a.png", parameters=text))
    assert found.values["seed"] == 1
    assert "DPM adaptive" in found.notes[0]
    for path in (
        png(tmp_path / "b.png"),
        png(tmp_path / "c.png", parameters="just words"),
        tmp_path / "none.png",
    ):
        with refused(BadPicture) as caught:
            read_image_settings(path)
        assert path.name in str(caught.value)


def test_a_giant_text_chunk(tmp_path: Path) -> None:
    """Refused in words: it would take hours to read or gigabytes to hold."""
    for text in ("a" * 5_000_000, "Steps: " * 500_000, "\n" * 2_000_000):
        with refused(BadPicture):
            read_image_settings(png(tmp_path / "a.png", parameters=text, studio=text))


def test_rate_is_of_the_last_picture(gallery: Gallery, save: Save) -> None:
    assert gallery.get_seconds_per_megapixel("pocket") is None
    save()
    assert gallery.get_seconds_per_megapixel("pocket") == pytest.approx(
        1.25 / estimate_unet_work(REQUEST)
    )
    assert gallery.get_seconds_per_megapixel("other") is None
    assert (
        estimate_unet_work(REQUEST)
        == pytest.approx(20 * 2 * 128 * 192 / 1e6)
        == 2 * estimate_unet_work(REQUEST.model_copy(update={"guidance": 1.0}))
    )
