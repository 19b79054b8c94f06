"""Pictures handed on: every setting comes back from every kind of file, and nothing goes along that is not to."""

from __future__ import annotations

import io
import json
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from studio.core.base import validate
from studio.core.generation.carried import CarriedTexts, CarryOptions, Making, build_texts
from studio.core.generation.export_spec import ExportSpec
from studio.core.generation.infotext import format_infotext
from studio.core.generation.request import GenerationRequest, ResolvedRequest
from studio.core.generation.upscaling import UpscaleRecord
from studio.core.generation.used_files import UsedFile, UsedFiles
from studio.errors import BadPicture, InvalidSpec
from studio.imaging.encode import SUFFIXES, ImageFormat, encode_image
from studio.settings import Settings, load
from studio.storage.gallery import Gallery, GeneratedImage, read_image_settings
from studio.storage.picture_exports import ExportedFile, export_image, zip_files
from studio.storage.picture_options import PictureOptions
from support.recipe_files import FILES as FILES_OF_PROGRAMS
from support.request_fields import IMAGE_TASK_VALUES, OTHER_VALUES
from support.sentences import check_sentence, refused

FORMATS: tuple[ImageFormat, ...] = get_args(ImageFormat)
FILES = UsedFiles(files=(UsedFile(kind="model", name="p", file_name="p.ckpt", sha256="7" * 64),))
REQUEST = ResolvedRequest(
    prompt="größe 🚤 <b>", negative_prompt="fog", width=64, height=64, seed=7, scheduler="Euler"
)
Save = Callable[..., GeneratedImage]
USER_COMMENT = 0x9286


@pytest.fixture
def gallery(settings: Settings) -> Iterator[Gallery]:
    gallery = Gallery(settings)
    yield gallery
    gallery.close()


def save(gallery: Gallery, request: ResolvedRequest = REQUEST, **more: Any) -> GeneratedImage:
    gradient = np.linspace(0, 255, 64 * 64 * 3).reshape(64, 64, 3).astype(np.uint8)
    return gallery.save(
        Image.fromarray(gradient),
        request,
        digest=request.digest({}),
        content_hashes={"dtype": "float32"},
        seconds=1.25,
        owner="ann-7c1e",
        used_files=FILES,
        **more,
    )


def write(exported: ExportedFile, folder: Path) -> Path:
    path = folder / exported.name
    path.write_bytes(exported.data)
    return path


def make_request(name: str) -> ResolvedRequest:
    needed, value = IMAGE_TASK_VALUES.get(name) or ({}, OTHER_VALUES[name])
    request = validate(GenerationRequest, {**needed, name: value})
    return request.resolve(64, 7, (64, 64)).split()[0]


@pytest.mark.parametrize("image_format", FORMATS)
def test_every_field_comes_back_from_every_kind_of_file(
    image_format: ImageFormat, tmp_path: Path
) -> None:
    pixels = Image.new("RGB", (16, 16), "red")
    path = tmp_path / f"a{SUFFIXES[image_format]}"
    for name in {*OTHER_VALUES, *IMAGE_TASK_VALUES}:
        request = make_request(name)
        metadata = {"request": request.model_dump(mode="json"), "digest": "1", "contents": {}}
        texts = build_texts(Making(request, FILES, metadata=metadata), CarryOptions())
        encoded = encode_image(pixels, texts, image_format, quality=80)
        assert not encoded.notes
        path.write_bytes(encoded.data)
        imported = read_image_settings(path)
        assert imported.program == "studio"
        assert validate(ResolvedRequest, imported.values) == request, name
        assert imported.text == format_infotext(request, FILES)


@pytest.mark.parametrize("image_format", FORMATS)
def test_a_picture_of_the_gallery(
    image_format: ImageFormat, gallery: Gallery, settings: Settings, tmp_path: Path
) -> None:
    image = save(gallery)
    exported = export_image(gallery, image.path, ExportSpec(format=image_format, quality=95))
    assert exported.name == image.path.stem + SUFFIXES[image_format]
    path = write(exported, tmp_path)
    with Image.open(path) as opened:
        assert opened.format == image_format.upper()
        error = np.asarray(opened.convert("RGB"), int) - np.asarray(Image.open(image.path), int)
    assert np.abs(error).mean() < (1e-9 if image_format == "PNG" else 6)
    assert read_image_settings(path).values == REQUEST.model_dump(mode="json")
    for secret in (b"ann-7c1e", str(settings.home).encode(), b"/"):
        assert secret not in exported.data or secret == b"/"
    assert b"digitalsourcetype/trainedAlgorithmicMedia" in exported.data


@pytest.mark.parametrize("image_format", FORMATS)
def test_less_than_all(image_format: ImageFormat, gallery: Gallery, tmp_path: Path) -> None:
    image = save(gallery)
    spec = ExportSpec(format=image_format, carry="text", ai_mark="no")
    path = write(export_image(gallery, image.path, spec), tmp_path)
    imported = read_image_settings(path)
    assert imported.text == format_infotext(REQUEST, FILES)
    assert b"digest" not in path.read_bytes()
    assert b"digitalsourcetype" not in path.read_bytes()
    nothing = ExportSpec(format=image_format, carry="nothing", ai_mark="no")
    data = export_image(gallery, image.path, nothing).data
    plain = encode_image(Image.open(image.path), CarriedTexts(), image_format, 90).data
    assert data == plain  # not a byte more than the pixels
    with refused(BadPicture):
        read_image_settings(write(ExportedFile("b.png", data), tmp_path))


def test_exif_as_a1111_writes_it(gallery: Gallery) -> None:
    data = export_image(gallery, save(gallery).path, ExportSpec()).data
    comment = Image.open(io.BytesIO(data)).getexif().get_ifd(0x8769)[USER_COMMENT]
    assert comment == b"UNICODE\0" + format_infotext(REQUEST, FILES).encode("utf-16-be")


def test_what_has_no_room_in_a_jpeg_is_said() -> None:
    noise = "".join(map(chr, np.random.default_rng(0).integers(0x4E00, 0x9FFF, 50_000)))
    pixels = Image.new("RGB", (16, 16))
    encoded = encode_image(
        pixels, CarriedTexts(noise, noise, "trainedAlgorithmicMedia"), "JPEG", 90
    )
    assert len(encoded.notes) == 2
    for note in encoded.notes:
        check_sentence(note)
    assert b"trainedAlgorithmicMedia" in encoded.data
    fitting = encode_image(pixels, CarriedTexts(noise, noise), "WebP", 90)
    assert not fitting.notes
    comment = Image.open(io.BytesIO(fitting.data)).getexif().get_ifd(0x8769)[USER_COMMENT]
    assert comment[8:].decode("utf-16-be") == noise


def test_webp_of_quality_100_keeps_every_pixel(gallery: Gallery) -> None:
    image = save(gallery)
    data = export_image(gallery, image.path, ExportSpec(format="WebP", quality=100)).data
    assert np.array_equal(Image.open(io.BytesIO(data)), Image.open(image.path))


def test_files_that_are_not_the_gallerys(gallery: Gallery, tmp_path: Path) -> None:
    """Our own JSON and A1111's text go along; of a photograph nothing is claimed."""
    own = write(export_image(gallery, save(gallery).path, ExportSpec(format="AVIF")), tmp_path)
    again = write(export_image(gallery, own, ExportSpec(format="WebP")), tmp_path)
    assert read_image_settings(again).values == REQUEST.model_dump(mode="json")
    info = PngInfo()
    info.add_text("parameters", "a cat\nSteps: 20, Sampler: Euler, Seed: 1")
    foreign = tmp_path / "cat.png"
    Image.new("RGB", (16, 16)).save(foreign, pnginfo=info)
    exported = write(export_image(gallery, foreign, ExportSpec()), tmp_path)
    assert read_image_settings(exported).text == "a cat\nSteps: 20, Sampler: Euler, Seed: 1"
    assert b"digitalsourcetype" not in exported.read_bytes()
    bare = export_image(gallery, foreign, ExportSpec(carry="nothing"))
    assert b"Steps" not in bare.data


def save_foreign(folder: Path, **texts: str) -> Path:
    info = PngInfo()
    for keyword, text in texts.items():
        info.add_itxt(keyword, text)
    path = folder / "cat.png"
    Image.new("RGB", (16, 16)).save(path, pnginfo=info)
    return path


@pytest.mark.parametrize("image_format", FORMATS)
def test_nobodys_folders_go_along(
    image_format: ImageFormat, gallery: Gallery, tmp_path: Path
) -> None:
    """The text of another program's picture is A1111's still, without the folders it names."""
    text = (
        "a cat, w/ a hat <lora:/home/jane/ink:0.5>\nSteps: 20, Sampler: Euler, Seed: 1, "
        "Model: C:\\Users\\jane\\O'Brien\\p, Mask file: \\\\nas\\jane\\m.png"
    )
    path = save_foreign(tmp_path, parameters=text)
    exported = export_image(gallery, path, ExportSpec(format=image_format))
    assert not exported.notes
    kept = read_image_settings(write(exported, tmp_path)).text
    assert kept == (
        "a cat, w/ a hat <lora:ink:0.5>\nSteps: 20, Sampler: Euler, Seed: 1, Model: p, "
        "Mask file: m.png"
    )


def test_what_does_not_go_along_is_said(gallery: Gallery, tmp_path: Path) -> None:
    graph = FILES_OF_PROGRAMS["ComfyUI"].metadata.chunks["prompt"]
    text = "a cat\nSteps: 20, Sampler: Euler, Seed: 1"
    notes = export_image(gallery, save_foreign(tmp_path, prompt=graph), ExportSpec()).notes
    for note in notes:
        check_sentence(note)
    assert "ComfyUI" in notes[0]
    both = save_foreign(tmp_path, prompt=graph, parameters=text)
    exported = export_image(gallery, both, ExportSpec())
    check_sentence(exported.notes[0])
    assert read_image_settings(write(exported, tmp_path)).text == text
    assert not export_image(gallery, both, ExportSpec(carry="nothing")).notes  # it was wished
    assert not export_image(gallery, save_foreign(tmp_path), ExportSpec()).notes  # a photograph


def test_content_credentials_do_not_go_along(gallery: Gallery, tmp_path: Path) -> None:
    path = save_foreign(tmp_path)
    data = path.read_bytes()
    manifest = b"jumbc2pa\x6fclaim_generator\x63Cam"
    body = b"caBX" + manifest
    chunk = struct.pack(">I", len(manifest)) + body + struct.pack(">I", zlib.crc32(body))
    path.write_bytes(data[:33] + chunk + data[33:])
    exported = export_image(gallery, path, ExportSpec(format="PNG"))
    check_sentence(*exported.notes)
    assert "Cam" in exported.notes[0]
    assert b"c2pa" not in exported.data


def test_a_graph(gallery: Gallery, tmp_path: Path) -> None:
    exported = export_image(gallery, save(gallery).path, ExportSpec(format="ComfyUI"))
    assert exported.name.endswith("-comfyui.json")
    nodes = json.loads(exported.data)
    assert nodes["1"]["inputs"] == {"ckpt_name": "p.ckpt"}
    record = UpscaleRecord(image="a" * 64, upscaler="Lanczos", scale=2, has_settings=False)
    unknown = save(gallery, upscale=record)
    photo = tmp_path / "photo.png"
    Image.new("RGB", (16, 16)).save(photo)
    with pytest.raises(BadPicture, match="has no settings from this studio"):
        export_image(gallery, unknown.path, ExportSpec(format="ComfyUI"))
    with refused(BadPicture):
        export_image(gallery, photo, ExportSpec(format="ComfyUI"))
    masked = make_request("mask")
    with refused(InvalidSpec):
        export_image(gallery, save(gallery, masked).path, ExportSpec(format="ComfyUI"))


def test_a_zip(gallery: Gallery) -> None:
    spec = ExportSpec(format="WebP")
    files = [export_image(gallery, save(gallery).path, spec) for _ in range(2)]
    data = zip_files([*files, files[0]])
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        names = archive.namelist()
        assert archive.read(names[0]) == archive.read(names[2]) == files[0].data
    assert names[:2] == [file.name for file in files]
    assert len(set(names)) == 3


def test_names_of_formats_in_any_case() -> None:
    assert [validate(ExportSpec, {"format": name}).format for name in ("jpg", "WEBP", "avif")] == [
        *("JPEG", "WebP", "AVIF")
    ]
    for values in ({"format": "tiff"}, {"quality": 0}, {"carry": "some"}):
        with refused(InvalidSpec):
            validate(ExportSpec, values)


# ---- what new pictures carry ----------------------------------------------------------------------------------------


def test_the_owners_choice_holds_for_new_pictures(gallery: Gallery) -> None:
    assert gallery.options.load() == CarryOptions()
    gallery.options.save(CarryOptions(carry="nothing", ai_mark=False))
    image = save(gallery)
    assert Image.open(image.path).info == {}
    assert gallery.get(image.path) == image  # the gallery knows all the same
    assert (image.request, image.used_files) == (REQUEST, FILES)
    everything = export_image(gallery, image.path, ExportSpec(format="PNG", carry="everything"))
    assert b"Steps: 20" in everything.data
    bare = export_image(gallery, image.path, ExportSpec(format="PNG"))
    assert b"Steps: 20" not in bare.data
    gallery.options.save(CarryOptions(comfyui_graph=True))
    graph = Image.open(save(gallery).path).info["prompt"]
    assert json.loads(graph)["1"]["class_type"] == "CheckpointLoaderSimple"


def test_a_flag_comes_before_the_choice(settings: Settings) -> None:
    PictureOptions(settings).save(CarryOptions(carry="nothing", comfyui_graph=True))
    fixed = PictureOptions(load(home=settings.home, pictures_carry="text", mark_ai="no"))
    assert fixed.load() == CarryOptions(carry="text", ai_mark=False, comfyui_graph=True)
    assert fixed.fixed_fields == {"carry", "ai_mark"}
    fixed.save(CarryOptions(carry="everything"))  # keeps what it cannot choose
    assert PictureOptions(settings).load() == CarryOptions(carry="nothing")
    with refused(InvalidSpec):
        load(home=settings.home, pictures_carry="some")


@pytest.mark.parametrize("text", ["", "[]", '{"carry": 7}', '{"what": 1}', "\0" * 100])
def test_a_damaged_choice_is_the_default(settings: Settings, text: str) -> None:
    (settings.home / "pictures.json").write_text(text)
    assert PictureOptions(settings).load() == CarryOptions()
