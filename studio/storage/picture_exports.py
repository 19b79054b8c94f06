"""Pictures as files to hand on: another format, another quality, more or less of their making.

Knows: what the gallery knows of a picture, what a file itself says. Does not know: who may have
which picture (services/), how a format holds texts (imaging/encode.py).

The owner's id, which the gallery's own files carry, is not handed on.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from studio.core.base import validate_stored
from studio.core.generation.carried import CarriedTexts, CarryOptions, Making, build_texts
from studio.core.generation.comfyui_writer import build_graph
from studio.core.generation.export_spec import ExportFormat, ExportSpec
from studio.core.generation.recipes.a1111 import A1111
from studio.core.generation.recipes.foreign import clean_recipe
from studio.errors import BadPicture, InvalidSpec
from studio.imaging import decode
from studio.imaging.content_credentials import find_content_credentials
from studio.imaging.encode import SUFFIXES, encode_image
from studio.imaging.image_metadata import read_image_metadata
from studio.storage.gallery import (
    Gallery,
    GeneratedImage,
    PngMetadata,
    parse_studio_chunk,
    read_image_settings,
)
from studio.storage.odd_files import explain_odd_file


@dataclass(frozen=True)
class ExportedFile:
    """A file to hand on.

    Attributes:
        name: Its name, without a folder.
        data: Its bytes.
        notes: A sentence for each thing that it does not hold.
    """

    name: str
    data: bytes
    notes: tuple[str, ...] = ()


def export_image(gallery: Gallery, path: Path, spec: ExportSpec) -> ExportedFile:
    """Return a picture as a file.

    Args:
        gallery: It knows more of its own pictures than their files may say.
        path: A picture of the gallery, or any other.
        spec: What the file is like.

    Raises:
        BadPicture: It cannot be read, or nothing is known of it that a graph could be made of.
        InvalidSpec: ComfyUI's own nodes cannot do what made it.
    """
    image = gallery.get(path.resolve())
    foreign: tuple[CarriedTexts, tuple[str, ...]] = CarriedTexts(), ()
    if image is None and spec.format != "ComfyUI":
        foreign = _keep_text(path, spec.choose_options(gallery.options.load()))
    with decode.take_turn_for(path):
        return _export_image(gallery, path, spec, image, foreign)


def _export_image(
    gallery: Gallery,
    path: Path,
    spec: ExportSpec,
    image: GeneratedImage | None,
    foreign: tuple[CarriedTexts, tuple[str, ...]],
) -> ExportedFile:
    loaded = decode.load_image(path)
    with explain_odd_file(path):
        making = describe_image(image) if image else read_making(loaded.text_chunks)
    if spec.format == "ComfyUI":
        return _export_graph(path, making)
    check_writable(spec.format)
    options = spec.choose_options(gallery.options.load())
    texts, notes = foreign
    if making:
        texts, notes = build_texts(making, options), ()
    encoded = encode_image(loaded.image, texts, spec.format, spec.quality)
    name = path.stem + SUFFIXES[spec.format]
    return ExportedFile(name, encoded.data, (*notes, *encoded.notes))


def check_writable(image_format: ExportFormat) -> None:
    """Raise InvalidSpec for a format that this machine's Pillow was built without."""
    if image_format == "AVIF" and not decode.HAS_AVIF:
        raise InvalidSpec(
            ["Format: the Pillow on this machine was built without AVIF; choose WebP."]
        )


def zip_files(files: Iterable[ExportedFile]) -> bytes:
    """Return files as a zip, those of one name with a number."""
    buffer = io.BytesIO()
    taken: set[str] = set()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:  # they are compressed already
        for file in files:
            path = Path(file.name)
            name, number = file.name, 0
            while name in taken:
                number += 1
                name = f"{path.stem}-{number}{path.suffix}"
            taken.add(name)
            archive.writestr(name, file.data)
    return buffer.getvalue()


def describe_image(image: GeneratedImage) -> Making:
    """Return how a picture of the gallery came to be."""
    metadata: dict[str, Any] = {
        "request": image.request.model_dump(mode="json"),
        "digest": image.digest,
        "contents": dict(image.content_hashes),
        "seconds": image.seconds,
        "owner": "",
        "created": image.created,
        "used_files": image.used_files.model_dump(mode="json"),
    }
    if image.upscale:
        metadata["upscale"] = image.upscale.model_dump(mode="json")
    return Making(image.request, image.used_files, image.upscale, metadata)


def read_making(text_chunks: Mapping[str, str]) -> Making | None:
    """Return how a file says that it came to be; None where it does not say it in our own words."""
    try:
        stored = validate_stored(PngMetadata, parse_studio_chunk(text_chunks))
    except (BadPicture, InvalidSpec):
        return None
    metadata = stored.model_dump(mode="json", exclude_none=True) | {"owner": ""}
    metadata["request"] = stored.request.model_dump(mode="json")
    return Making(stored.request, stored.used_files, stored.upscale, metadata)


def _keep_text(path: Path, options: CarryOptions) -> tuple[CarriedTexts, tuple[str, ...]]:
    """Return what goes along of another program's picture, and what is to be said of it.

    A1111's text does, wherever it stands, without folders; all else would need that program.
    """
    notes = []
    writer = find_content_credentials(path)
    if writer is not None:
        by = f", written by {writer}," if writer else ""
        notes.append(
            f"{path.name} carries content credentials (C2PA){by} that are only valid for that "
            "file: they are not in the new one."
        )
    if options.carry == "nothing":
        return CarriedTexts(), tuple(notes)
    try:
        recipe = read_image_settings(path)
    except BadPicture:
        return CarriedTexts(), tuple(notes)
    metadata = read_image_metadata(path)
    text = ""
    if A1111.recognises(metadata):
        with suppress(ValueError):
            text = clean_recipe(A1111.read(metadata)).text
    kept = "only A1111's text of its settings is" if text else "none of its settings are"
    if recipe.text != text:
        notes.append(
            f"{path.name} was made with {recipe.program}: {kept} in the new file; keep the old one."
        )
    return CarriedTexts(parameters=text), tuple(notes)


def _export_graph(path: Path, making: Making | None) -> ExportedFile:
    if making is None or (making.upscale and not making.upscale.has_settings):
        raise BadPicture(f"{path.name} has no settings from this studio, so there is no workflow.")
    graph = build_graph(making.request, making.used_files)
    notes = list(graph.notes)
    if making.upscale:
        notes.append("The image was enlarged afterwards; the workflow ends before that.")
    data = json.dumps(graph.nodes, indent=1).encode()
    return ExportedFile(f"{path.stem}-comfyui.json", data, tuple(notes))
