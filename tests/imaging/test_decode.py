"""The one way a picture comes in: upright RGB of the right size, or a sentence; nothing is decoded before it is judged."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import threading
import warnings
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageFile
from PIL.Image import Transpose
from PIL.PngImagePlugin import PngInfo

from studio.errors import BadPicture
from studio.imaging import decode
from support.sentences import refused

RED, GREEN, BLUE, GRAY = (255, 0, 0), (0, 255, 0), (0, 0, 255), (100, 100, 100)


def corners() -> Image.Image:
    """48 x 32: red, green, blue and gray quarters, so that every turn is seen."""
    image = Image.new("RGB", (48, 32), GRAY)
    for box, colour in (((0, 0, 24, 16), RED), ((24, 0, 48, 16), GREEN), ((0, 16, 24, 32), BLUE)):
        image.paste(colour, box)
    return image


def saved(image: Image.Image, format: str = "PNG", **more: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, format, **more)
    return out.getvalue()


def png(
    width: int, height: int, depth: int, colour: int, rows: bytes, *chunks: tuple[bytes, bytes]
) -> bytes:
    """A PNG written by hand, for what Pillow does not write."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    every = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in every
    )


def pixel(data: bytes, at: tuple[int, int] = (0, 0), **more: Any) -> tuple[int, ...]:
    image = decode.load_image(data, "it", **more).image
    assert image.mode == "RGB"
    found = image.getpixel(at)
    assert isinstance(found, tuple)
    return found


def refusal(source: Path | bytes) -> str:
    with refused(BadPicture) as caught:
        decode.load_image(source, "it.png")
    assert str(caught.value).startswith("it.png ")
    assert str(caught.value).endswith(".")
    return str(caught.value)


@pytest.mark.smoke
@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize(
    ("orientation", "stored"),
    [
        (1, None),
        (2, Transpose.FLIP_LEFT_RIGHT),
        (3, Transpose.ROTATE_180),
        (4, Transpose.FLIP_TOP_BOTTOM),
        (5, Transpose.TRANSPOSE),
        (6, Transpose.ROTATE_90),
        (7, Transpose.TRANSVERSE),
        (8, Transpose.ROTATE_270),
    ],
)
def test_upright(orientation: int, stored: Transpose | None, format: str) -> None:
    exif = Image.Exif()
    exif[0x112] = orientation
    turned = corners() if stored is None else corners().transpose(stored)
    image = decode.load_image(saved(turned, format, exif=exif, quality=100)).image
    assert (image.mode, image.size) == ("RGB", (48, 32))
    middles = np.asarray(image, int)[8::16, 12::24].reshape(4, 3)
    assert np.abs(middles - [RED, GREEN, BLUE, GRAY]).max() <= 4


@pytest.mark.parametrize(
    ("format", "mode"),
    [
        *((format, mode) for format in decode.ALLOWED_FORMATS for mode in ("1", "L", "P", "RGB")),
        ("JPEG", "CMYK"),
    ],
)
def test_every_format_and_mode_becomes_rgb(format: str, mode: str) -> None:
    source = corners().convert(mode)
    data = saved(
        source.convert("RGB") if mode == "P" and format in ("JPEG", "WEBP") else source, format
    )
    found = np.asarray(decode.load_image(data).image, int)
    assert found.shape == (32, 48, 3)
    assert np.abs(found - np.asarray(source.convert("RGB"), int)).mean() < (
        20 if mode == "1" else 6
    )


def test_transparent_places_show_the_background_not_what_hides_below() -> None:
    palette = Image.new("P", (16, 16), 0)
    palette.putpalette([255, 0, 0, 0, 0, 255])
    palette.paste(1, (8, 0, 16, 16))
    clear = Image.new("RGBA", (16, 16), (*RED, 0))
    hidden = [
        saved(clear),
        saved(Image.new("LA", (16, 16), (0, 0))),
        saved(palette, transparency=0),
        saved(palette, "GIF", transparency=0),
        saved(clear, "WEBP", lossless=True, exact=True),
        saved(Image.new("RGB", (16, 16), RED), transparency=RED),
        saved(Image.new("L", (16, 16), 7), transparency=7),
    ]
    for data in hidden:
        assert pixel(data) == (255, 255, 255)
        assert pixel(data, background=(1, 2, 3)) == (1, 2, 3)
        assert "transparent" in decode.load_image(data, "it").notes[0]
    assert pixel(saved(palette, transparency=0), (12, 4)) == BLUE
    assert pixel(saved(Image.new("RGBA", (16, 16), (*RED, 128)))) == (255, 127, 127)
    opaque = decode.load_image(saved(Image.new("RGBA", (16, 16), (*RED, 255))))
    assert opaque.notes == ()
    assert opaque.image.getpixel((0, 0)) == RED


def test_sixteen_bits_are_scaled_not_clipped() -> None:
    values = np.linspace(0, 65535, 64 * 64).round().astype(">u2").reshape(64, 64)
    rows = b"".join(b"\0" + row.tobytes() for row in values)
    found = np.asarray(decode.load_image(png(64, 64, 16, 0, rows)).image, int)
    assert np.abs(found - (values.astype(float) / 257)[..., None]).max() <= 1
    assert len(np.unique(found)) == 256
    colour = b"".join(
        b"\0" + b"".join(struct.pack(">HHH", 65535, 32768, 0) for _ in range(8)) for _ in range(8)
    )
    assert pixel(png(8, 8, 16, 2, colour)) == (255, 128, 0)
    faint = b"".join(b"\0" + struct.pack(">HH", 0, 0) * 8 for _ in range(8))
    assert pixel(png(8, 8, 16, 4, faint)) == (255, 255, 255)


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG"])
def test_of_an_animation_the_first_frame(format: str) -> None:
    frames = [Image.new("RGB", (16, 16), colour) for colour in (RED, GREEN, BLUE)]
    loaded = decode.load_image(
        saved(frames[0], format, save_all=True, append_images=frames[1:], lossless=True), "it"
    )
    assert loaded.image.getpixel((3, 3)) == RED
    assert loaded.notes == ("it is animated; only its first frame is used.",)
    assert decode.load_image(saved(frames[0], format)).notes == ()


def test_colour_profiles() -> None:
    """A profile in which red and green are swapped: what it calls red is green."""
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    swapped = srgb.replace(b"rXYZ", b"xxxx").replace(b"gXYZ", b"rXYZ").replace(b"xxxx", b"gXYZ")
    square = Image.new("RGB", (16, 16), RED)
    for image in (square, square.convert("RGBA"), square.convert("P")):
        assert pixel(saved(image, icc_profile=srgb)) == pixel(saved(image)) == RED
        red, green, blue = pixel(saved(image, icc_profile=swapped))
        assert green > 250
        assert red < 5
        assert blue < 5
        assert pixel(saved(image, icc_profile=b"no profile")) == RED
    assert (
        pixel(saved(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG", icc_profile=b"odd"))[0]
        > 250
    )


@pytest.mark.smoke
@pytest.mark.parametrize(
    ("width", "height"),
    [(13_000, 13_000), (20_000, 16), (16, 20_000), (65_535, 65_535), (2**31 - 1, 2**31 - 1)],
)
def test_a_bomb_is_refused_before_it_is_decoded(
    width: int, height: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(self: ImageFile.ImageFile) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr(ImageFile.ImageFile, "load", load)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        refusal(png(width, height, 8, 2, b"\0" * 100))


def test_sizes() -> None:
    assert "7 x 9" in refusal(saved(Image.new("RGB", (7, 9))))
    assert decode.load_image(saved(Image.new("RGB", (8, 8)))).image.size == (8, 8)
    assert decode.load_image(saved(Image.new("L", (decode.MAX_SIDE_PX, 8)))).image.size == (
        decode.MAX_SIDE_PX,
        8,
    )


def test_a_file_too_large(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "it.png").write_bytes(saved(corners()))
    monkeypatch.setattr(decode, "MAX_FILE_BYTES", 10)
    refusal(tmp_path / "it.png")
    refusal(saved(corners()))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x89PNG\r\n\x1a\n",
        b"<svg xmlns='http://www.w3.org/2000/svg' width='64' height='64'/>",
        b"<!doctype html><script>x()",
        b"%PDF-1.4",
        b"PK\x03\x04" + b"\0" * 99,
        b"\0" * 1000,
        saved(corners(), "TIFF"),
        saved(corners(), "ICO"),
        saved(corners(), "PPM"),
        saved(corners(), "EPS"),
        saved(corners(), "PCX"),
        b"SIMPLE  =                    T" + b" " * 3000,
    ],
    ids=lambda data: f"{data[:12]!r}",
)
def test_what_is_no_picture_for_us(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "it.png").write_bytes(data)
    assert refusal(data) == refusal(tmp_path / "it.png")


def test_what_is_no_file(tmp_path: Path) -> None:
    refusal(tmp_path / "none.png")
    refusal(tmp_path)
    refusal(tmp_path / "a\0.png")


def test_the_content_counts_not_the_ending(tmp_path: Path) -> None:
    (tmp_path / "really.png").write_bytes(saved(corners(), "JPEG"))
    assert decode.load_image(tmp_path / "really.png").image.size == (48, 32)


NOISE = Image.effect_noise((64, 48), 80).convert("RGB")
WHOLE = {
    **{format: saved(NOISE, format) for format in decode.ALLOWED_FORMATS},
    "moving GIF": saved(
        NOISE, "GIF", save_all=True, append_images=[NOISE.rotate(90), NOISE.rotate(180)]
    ),
    "moving WEBP": saved(NOISE, "WEBP", save_all=True, append_images=[NOISE.rotate(180)]),
}


@pytest.mark.parametrize("kind", WHOLE)
def test_cut_off_anywhere(kind: str) -> None:
    whole = WHOLE[kind]
    num_refused = 0
    for length in range(0, len(whole), len(whole) // 60):
        try:
            assert decode.load_image(whole[:length]).image.size == (
                64,
                48,
            )  # all that matters was there
        except BadPicture as error:
            num_refused += 1
            last = str(error)
    assert num_refused > 20
    assert "damaged or cut off" in last or "not a readable image" in last


@given(
    st.sampled_from(sorted(WHOLE)),
    st.lists(st.tuples(st.integers(0, 500), st.integers(0, 255)), max_size=5),
)
def test_never_anything_but_bad_picture(kind: str, changes: list[tuple[int, int]]) -> None:
    data = bytearray(WHOLE[kind])
    for place, value in changes:
        data[place] = value
    with warnings.catch_warnings(), suppress(BadPicture):
        warnings.simplefilter("ignore")
        assert decode.load_image(bytes(data)).image.mode == "RGB"


def test_settings_texts() -> None:
    info = PngInfo()
    info.add_text("parameters", "plain")
    info.add_text("Title", "a boat", zip=True)
    info.add_itxt("studio", '{"größe": 1}', zip=True)
    text = decode.load_image(saved(corners(), pnginfo=info)).text_chunks
    assert (text["parameters"], text["Title"], text["studio"]) == (
        "plain",
        "a boat",
        '{"größe": 1}',
    )


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"UNICODE\0" + "größe, Steps: 5".encode("utf-16-be"), "größe, Steps: 5"),
        (b"ASCII\0\0\0Steps: 5", "Steps: 5"),
        (b"short", None),
        (b"JIS\0\0\0\0\0\xff\xfe", "��"),
    ],
)
@pytest.mark.parametrize("format", ["JPEG", "WEBP"])
def test_a1111s_text_in_jpeg_and_webp(raw: bytes, text: str | None, format: str) -> None:
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9286] = raw
    assert (
        decode.load_image(saved(corners(), format, exif=exif)).text_chunks.get("parameters") == text
    )


@pytest.mark.parametrize(
    "chunk",
    [
        (b"zTXt", b"parameters\0\0" + zlib.compress(b"a" * 10**8)),
        (b"iTXt", b"studio\0\1\0\0\0" + zlib.compress(b"a" * 10**8)),
        (b"tEXt", b"parameters\0" + b"a" * (65 * 2**20)),
    ],
    ids=["zTXt", "iTXt", "tEXt"],
)
def test_a_giant_text_is_refused(chunk: tuple[bytes, bytes]) -> None:
    data = png(8, 8, 8, 0, b"\0" * 72, chunk)
    refusal(data)


def test_a_palette_picture_without_its_palette(tmp_path: Path) -> None:
    """Pillow asserts that there is one, where it is asked for transparency."""
    buffer = io.BytesIO()
    Image.new("P", (64, 64)).save(buffer, "PNG")
    data = buffer.getvalue()
    start = data.index(b"PLTE") - 4
    length = int.from_bytes(data[start : start + 4], "big")
    path = tmp_path / "it.png"
    path.write_bytes(data[:start] + data[start + 12 + length :])
    with refused(BadPicture):
        decode.load_alpha_mask(path)
    assert decode.load_image(path).image.size == (64, 64)


@pytest.mark.parametrize(
    "error", [AssertionError, KeyError, TypeError, RecursionError, MemoryError]
)
def test_whatever_pillow_raises_is_a_damaged_picture(
    error: type[Exception], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "it.png"
    Image.new("RGBA", (64, 64)).save(path)

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(Image.Image, "load", fail)
    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", fail)
    for read in (decode.load_image, decode.load_alpha_mask):
        with pytest.raises(BadPicture, match=f"damaged or cut off .{error.__name__}"):
            read(path)


def test_a_guests_picture_is_refused_by_its_header(tmp_path: Path) -> None:
    path = tmp_path / "big.png"
    Image.new("1", (6000, 5000)).save(path)
    path.write_bytes(path.read_bytes()[:200])  # whoever decoded it would find it cut off
    for load in (decode.load_image, decode.load_alpha_mask):
        with refused(BadPicture):
            load(path, max_pixels=24_000_000)
    with pytest.raises(BadPicture, match="cut off"):
        decode.load_image(path, max_pixels=30_000_000)


def test_one_big_picture_is_worked_on_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "big.png"
    Image.new("1", (2100, 2000)).save(path)
    small = tmp_path / "small.png"
    Image.new("1", (64, 64)).save(small)
    inside: list[int] = []
    most = 0

    def work(max_pixels: int | None) -> None:
        nonlocal most
        with decode.take_turn_for(path, max_pixels):
            inside.append(1)
            most = max(most, len(inside))
            decode.load_image(
                path, max_pixels=max_pixels
            )  # whoever has the turn decodes as often as needed
            inside.pop()

    threads = [threading.Thread(target=work, args=(limit,)) for limit in (None, 10**7) * 3]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
    with decode.take_turn_for(path):
        quick = threading.Thread(target=decode.load_image, args=(small,))
        quick.start()
        quick.join(timeout=10)
        assert not quick.is_alive()  # a small one waits for nobody


PEAK_CODE = """
import re, sys, threading
from pathlib import Path
from studio.settings import load
from studio.storage.inputs import Inputs
inputs = Inputs(load(home=sys.argv[1]))
threads = [threading.Thread(target=inputs.add, args=(Path(sys.argv[2]), f"{k}.png")) for k in range(int(sys.argv[3]))]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
"""


@pytest.mark.slow
def test_twelve_big_pictures_at_once_take_no_more_memory_than_one(tmp_path: Path) -> None:
    """Before: 4.1 GB for twelve of 64 million pixels."""
    path = tmp_path / "big.png"
    Image.new("1", (8000, 8000)).save(path)

    def peak_megabytes(count: int) -> float:
        command = [
            sys.executable,
            "-c",
            PEAK_CODE,
            str(tmp_path / f"home{count}"),
            str(path),
            str(count),
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return int(done.stdout) / 1024

    one, twelve = peak_megabytes(1), peak_megabytes(12)
    print(f"one: {one:.0f} MB, twelve at once: {twelve:.0f} MB")
    assert twelve < 1.2 * one
    assert twelve < 1500
