"""Recipes of many programs out of real files: each container with what programs write into it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from studio.storage.gallery import read_image_settings, read_text_settings
from support.comfyui_graphs import BASIC, DRAWN, dump
from support.recipe_files import FILES, wrap_xmp
from support.recipe_texts import DRAW_THINGS, FOOOCUS, SWARM

USER_COMMENT, EXIF_IFD, MODEL, MAKE = 0x9286, 0x8769, 0x0110, 0x010F
SIZE = (64, 48)


def picture(mode: str = "RGB") -> Image.Image:
    return Image.new(mode, SIZE, "navy")


def comment(text: str) -> bytes:
    """EXIF with a user comment in UTF-16, as piexif's helper and .NET write it."""
    exif = Image.Exif()
    exif.get_ifd(EXIF_IFD)[USER_COMMENT] = b"UNICODE\0" + text.encode("utf-16-be")
    return exif.tobytes()


@pytest.mark.parametrize("name", [name for name, file in FILES.items() if file.metadata.chunks])
def test_png_chunks(tmp_path: Path, name: str) -> None:
    file = FILES[name]
    info = PngInfo()
    for key, text in file.metadata.chunks.items():
        info.add_itxt(key, text) if not text.isascii() else info.add_text(key, text)
    picture().save(tmp_path / "a.png", pnginfo=info)
    recipe = read_image_settings(tmp_path / "a.png")
    assert recipe.program == file.program
    assert {key: recipe.values[key] for key in file.values if key not in ("width", "height")} == {
        key: value for key, value in file.values.items() if key not in ("width", "height")
    }


@pytest.mark.parametrize("suffix", [".jpg", ".webp", ".avif"])
@pytest.mark.parametrize(("program", "data"), [("SwarmUI", SWARM), ("Fooocus", FOOOCUS)])
def test_user_comments(tmp_path: Path, suffix: str, program: str, data: dict[str, object]) -> None:
    path = tmp_path / f"a{suffix}"
    picture().save(path, exif=comment(json.dumps(data)))
    assert read_image_settings(path).program == program


def test_comfyui_in_webp(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[MODEL] = f"prompt:{dump(BASIC)}"
    exif[MAKE] = f"workflow:{dump(DRAWN)}"
    picture().save(tmp_path / "a.webp", exif=exif)
    recipe = read_image_settings(tmp_path / "a.webp")
    assert (recipe.program, recipe.values["seed"]) == ("ComfyUI", 8566257)


def test_draw_things_in_xmp(tmp_path: Path) -> None:
    xmp = wrap_xmp(xmp_CreatorTool="Draw Things", exif_UserComment=json.dumps(DRAW_THINGS))
    info = PngInfo()
    info.add_itxt("XML:com.adobe.xmp", xmp)
    picture().save(tmp_path / "a.png", pnginfo=info)
    picture().save(tmp_path / "a.jpg", xmp=xmp.encode())
    for name in ("a.png", "a.jpg"):
        assert read_image_settings(tmp_path / name).program == "Draw Things"


def test_novelai_hidden_in_alpha(tmp_path: Path) -> None:
    """By the lowest bits of the alpha channel, column by column: mark, length in bits, text."""
    text = FILES["NovelAI hidden"].metadata.hidden.encode()
    data = b"stealth_pnginfo" + (len(text) * 8).to_bytes(4, "big") + text
    bits = np.unpackbits(np.frombuffer(data, np.uint8))
    alpha = np.full(SIZE[0] * SIZE[1] * 4, 254, np.uint8)
    alpha[: bits.size] |= bits
    side = int(np.ceil(np.sqrt(alpha.size)))
    alpha = np.pad(alpha, (0, side * side - alpha.size), constant_values=254)
    pixels = np.zeros((side, side, 4), np.uint8)
    pixels[..., 3] = alpha.reshape(side, side).T
    Image.fromarray(pixels).save(tmp_path / "a.png")
    recipe = read_image_settings(tmp_path / "a.png")
    assert (recipe.program, recipe.values["seed"]) == ("NovelAI", 2253955223)


def test_a_graph_beside_a_picture(tmp_path: Path) -> None:
    picture().save(tmp_path / "a.png")
    (tmp_path / "a.json").write_text(dump(DRAWN), "utf-8")
    assert read_image_settings(tmp_path / "a.png", with_sidecars=True).program == "ComfyUI"


@pytest.mark.parametrize("text", [dump(BASIC), dump(DRAWN), json.dumps(BASIC, indent=2)])
def test_a_graph_that_is_pasted(text: str) -> None:
    assert read_text_settings(text).values["prompt"] == "a red boat"
