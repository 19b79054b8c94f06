"""Inputs: pictures and masks by content, upright and plain; hostile ones are refused in words."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from studio.core.generation.request import GenerationRequest
from studio.errors import BadFile, BadPicture, InvalidSpec
from studio.settings import Settings, load
from studio.storage.inputs import Inputs
from support.sentences import refused


def bytes_of(image: Image.Image, kind: str = "PNG", **more: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **more)
    return out.getvalue()


@pytest.fixture
def inputs(settings: Settings) -> Inputs:
    return Inputs(settings)


def test_the_same_pixels_are_the_same_file(inputs: Inputs, settings: Settings) -> None:
    image = Image.linear_gradient("L").convert("RGB").crop((0, 0, 90, 60))
    told = PngInfo()
    told.add_text("parameters", "secret words")
    one, other, third = (
        inputs.add(bytes_of(image)),
        inputs.add(bytes_of(image, pnginfo=told)),
        inputs.add(image),
    )
    assert one == other == third
    assert one.size == (90, 60) == inputs.read_size(one.sha256)
    (path,) = settings.inputs.iterdir()
    assert path == inputs.get_path(one.sha256)
    assert hashlib.sha256(path.read_bytes()).hexdigest() == one.sha256 == path.stem
    assert b"secret" not in path.read_bytes()
    assert np.array_equal(np.asarray(inputs.load(one.sha256)), np.asarray(image))


def test_transparency_is_kept_for_those_who_ask(inputs: Inputs) -> None:
    clear = Image.new("RGBA", (16, 16), (255, 0, 0, 0))
    clear.paste((0, 0, 255, 128), (0, 0, 16, 8))
    kept = inputs.add(bytes_of(clear), keeps_transparency=True)
    assert not kept.notes
    loaded = inputs.load(kept.sha256, keeps_transparency=True)
    assert np.array_equal(np.asarray(loaded), np.asarray(clear))
    flat = inputs.add(bytes_of(clear))
    assert flat.sha256 != kept.sha256
    assert np.array_equal(
        np.asarray(inputs.load(kept.sha256)), np.asarray(inputs.load(flat.sha256))
    )
    assert inputs.load(flat.sha256, keeps_transparency=True).mode == "RGB"


def test_upright_and_without_transparency(inputs: Inputs) -> None:
    image = Image.new("RGB", (40, 20), "blue")
    image.paste("red", (0, 0, 10, 20))
    exif = Image.Exif()
    exif[0x112] = 6  # to be turned to the right
    turned = inputs.add(bytes_of(image, "JPEG", exif=exif, quality=95))
    assert turned.size == (20, 40)
    assert inputs.load(turned.sha256).getpixel((10, 3))[0] > 200
    clear = Image.new("RGBA", (16, 16), (255, 0, 0, 0))
    clear.paste((0, 0, 255, 255), (0, 0, 16, 8))
    taken = inputs.add(bytes_of(clear), "clear.png")
    assert inputs.load(taken.sha256).getpixel((3, 12)) == (255, 255, 255)
    assert "transparent" in taken.notes[0]
    mask = inputs.load_mask(inputs.add_transparency(bytes_of(clear)).sha256)
    assert (mask.getpixel((3, 3)), mask.getpixel((3, 12))) == (0, 255)
    drawn = inputs.load_mask(inputs.add_mask(bytes_of(clear)).sha256)
    assert (
        drawn.getpixel((3, 12)) == 0 < drawn.getpixel((3, 3))
    )  # transparent places of a mask are not masked
    palette = bytes_of(Image.new("P", (16, 16)), transparency=0)
    assert inputs.load_mask(inputs.add_transparency(palette).sha256).getextrema() == (255, 255)
    with refused(BadPicture):
        inputs.add_transparency(bytes_of(image), "a.png")


@pytest.mark.parametrize("add", ["add", "add_mask", "add_transparency"])
@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"<svg onload=alert(1)>",
        bytes_of(Image.effect_noise((64, 64), 90))[:2000],
        bytes_of(Image.new("RGB", (4, 64))),
        bytes_of(Image.new("1", (13_000, 13_000))),
        bytes_of(Image.new("1", (17_000, 8))),
        bytes_of(Image.new("RGB", (9, 9)), "TIFF"),
    ],
    ids=["empty", "svg", "cut off", "narrow", "large", "long", "tiff"],
)
def test_hostile_pictures_are_refused(
    inputs: Inputs, settings: Settings, add: str, data: bytes
) -> None:
    with refused(BadPicture):
        getattr(inputs, add)(data, "x.png")
    assert not list(settings.inputs.iterdir())


def test_a_name_is_nothing_but_a_hash(inputs: Inputs, tmp_path: Path) -> None:
    Image.new("RGB", (9, 9)).save(tmp_path / "other.png")
    for name in ("", "../other", "a" * 63, "A" * 64, "0" * 64, "../" + "a" * 61):
        with refused(BadPicture):
            inputs.get_path(name)


def test_a_file_that_was_changed_is_not_taken(inputs: Inputs) -> None:
    kept = inputs.add(Image.new("RGB", (9, 9)))
    inputs.get_path(kept.sha256).write_bytes(bytes_of(Image.new("RGB", (9, 9), "red")))
    with refused(BadPicture):
        inputs.load(kept.sha256)
    inputs.get_path(kept.sha256).write_bytes(b"")
    with refused(BadPicture):
        inputs.read_size(kept.sha256)


def test_a_request_is_checked_against_its_files(inputs: Inputs) -> None:
    one, other = inputs.add(Image.new("RGB", (64, 72))), inputs.add_mask(Image.new("L", (64, 64)))
    inputs.check_request(GenerationRequest(image=one.sha256))
    with refused(InvalidSpec, "Mask"):
        inputs.check_request(GenerationRequest(image=one.sha256, mask=other.sha256))
    with refused(BadPicture):
        inputs.check_request(GenerationRequest(image=one.sha256, mask="0" * 64))
    wide = inputs.add(Image.new("RGB", (16_000, 8)))
    with refused(InvalidSpec, "Extension"):
        inputs.check_request(GenerationRequest(image=wide.sha256, extend_left=512))


def test_a_guest_sends_smaller_pictures_and_not_any_number(tmp_path: Path) -> None:
    settings = load(
        home=tmp_path / "home", guest_megapixels=0.01, guest_upload_mb=1, all_guests_upload_mb=2
    )
    inputs = Inputs(settings)
    big = Image.effect_noise((400, 400), 90).convert("RGB")
    path = tmp_path / "big.png"
    big.save(path)
    for add in (inputs.add, inputs.add_mask):
        with refused(BadPicture):
            add(path, guest_id="ann")
    assert inputs.add(path).size == (400, 400)

    def noise(seed: int) -> Image.Image:
        return Image.fromarray(
            np.random.default_rng(seed).integers(0, 255, (400, 400, 3), np.uint8)
        )

    kept = inputs.add(noise(0), guest_id="ann")
    inputs.add(noise(1), guest_id="ann")
    with refused(BadFile):
        inputs.add(noise(2), guest_id="ann")
    assert inputs.add(noise(0), guest_id="ann") == kept  # it is there already
    for guest in ("bob", "cleo"):
        inputs.add(noise(3), guest_id=guest)
    with refused(BadFile):
        inputs.add(noise(4), guest_id="dora")
    inputs.add(noise(5))  # the owner may
