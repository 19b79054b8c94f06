"""What an image file says of how it was made: as it stands there, and as a request's fields.

Knows: where programs write it, what a reader of one program returns. Does not know: how files are
opened (imaging/decode.py), any program (the modules beside this, listed in sources.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from studio.core.generation.recipes.clip_skip import ClipSkip

FileKind = Literal["model", "lora", "vae", "embedding", "upscaler"]


@dataclass(frozen=True)
class ImageMetadata:
    """All texts that an image file carries, decoded, not yet understood.

    Attributes:
        chunks: A PNG's text chunks, by keyword.
        user_comment: EXIF's UserComment.
        exif: EXIF's other texts, by tag name ("ImageDescription", "Make", "Software" …).
        xmp: The XMP packet; empty where there is none.
        iptc: The texts of IPTC, by "record:dataset".
        comment: A JPEG's or GIF's comment.
        hidden: What is written into the lowest bits of the pixels (NovelAI, "stealth").
        sidecars: Texts of files of the same name beside it, by ending (".txt", ".json").
        size: Width and height in pixels; None where only a text was given.
    """

    chunks: Mapping[str, str] = field(default_factory=dict)
    user_comment: str = ""
    exif: Mapping[str, str] = field(default_factory=dict)
    xmp: str = ""
    iptc: Mapping[str, str] = field(default_factory=dict)
    comment: str = ""
    hidden: str = ""
    sidecars: Mapping[str, str] = field(default_factory=dict)
    size: tuple[int, int] | None = None


@dataclass(frozen=True)
class FileReference:
    """A file of weights that a recipe names.

    Attributes:
        kind: What it is.
        name: As the program writes it, without folders and endings.
        digest: The beginning of one of its hashes (AutoV1, AutoV2, AutoV3, sha256), lower case.
        weights: In the denoiser and in the text encoder, for a LoRA.
        version: Civitai's number of it, where the program writes that alone.
    """

    kind: FileKind
    name: str
    digest: str = ""
    weights: tuple[float, float] = (1.0, 1.0)
    version: str = ""


@dataclass
class Recipe:
    """What one program's reader understood.

    Attributes:
        program: Who made it, as people call it: "ComfyUI".
        values: Of a request's fields; those that the file does not say are not there. An empty
            prompt is there only if the file says that it is empty.
        files: The files that it names; services look them up in the library.
        notes: A sentence for each thing that is not taken over, or will differ here.
        text: What to show as the file's own words.
        choices: Where the file holds several recipes (samplers of a graph): title and recipe.
        defaults: Fields that the program writes only where they differ from its default: where the
            file says something else of the picture and does not name them, they were at it. What is
            left of the picture before is set to them, and said.
        clip_skip: Where the program counts Clip skip from the text encoder's last layer: the number
            as it wrote it. `values` hold what it is with SD 1.x, until the model is known
            (services/recipe_files.py). None where `values` are right for every model.
    """

    program: str
    values: dict[str, Any] = field(default_factory=dict)
    files: list[FileReference] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    text: str = ""
    choices: list[tuple[str, Recipe]] = field(default_factory=list)
    defaults: Mapping[str, Any] = field(default_factory=dict)
    clip_skip: ClipSkip | None = None

    @property
    def embedding_hashes(self) -> dict[str, str]:
        """The beginning of the file's hash for each embedding of the prompts, by that name."""
        return {file.name: file.digest for file in self.files if file.kind == "embedding"}


class NothingFound(ValueError):
    """No program is recognised in an image: it says nothing of how it was made."""


@dataclass(frozen=True)
class RecipeSource:
    """A program whose files can be recognised.

    Attributes:
        program: Its name for people.
        recognises: Whether a file is its; decides by structure, never raises.
        read: Understands it. Raises ValueError with a sentence where nothing can be.
    """

    program: str
    recognises: Callable[[ImageMetadata], bool]
    read: Callable[[ImageMetadata], Recipe]
