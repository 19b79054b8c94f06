"""Which upscalers there are: two formulas, the embedded network, and files of the shelf.

Knows: names, content hashes, which one suits a picture.
Does not know: torch; how an image is enlarged (engine/upscaling).
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from pathlib import Path

from studio.core.catalog import DEFAULT_MODEL
from studio.core.generation.request import GenerationRequest
from studio.core.generation.upscaler_names import (
    INTERPOLATIONS,
    LANCZOS,
    POCKET_UPSCALER,
    normalize_upscaler_name,
)
from studio.errors import ModelNotFound, list_alternatives, quote
from studio.settings import shipped
from studio.storage.content_hashes import ContentHashes
from studio.storage.models.shelf import Shelf
from studio.storage.odd_files import explain_odd_file


@dataclass(frozen=True)
class UpscalerFile:
    """An upscaler that can be used.

    Attributes:
        name: What it is called.
        path: Its safetensors file; None for a formula.
        content_hash: The sha256 of the file; the name of a formula.
    """

    name: str
    path: Path | None
    content_hash: str


class Upscalers:
    """The upscalers of a home. Every call looks at the disk."""

    def __init__(self, shelf: Shelf, hashes: ContentHashes) -> None:
        self._shelf = shelf
        self._hashes = hashes
        self._embedded = (
            shipped("assets") / "pocket" / "upscaler" / f"{POCKET_UPSCALER}.safetensors"
        )

    def list_names(self) -> list[str]:
        """List the names: formulas, the embedded network, then the files that can be used."""
        files = [
            file.name for file in self._shelf.list_files("upscaler") if not file.model_file.problem
        ]
        names = [*INTERPOLATIONS, POCKET_UPSCALER, *files]
        return list(dict.fromkeys(names))

    def get(self, name: str) -> UpscalerFile:
        """Look up an upscaler.

        Args:
            name: Its name, or A1111's title for it; where nothing is called exactly so, upper and
                lower case, blanks, - and _ count as the same.

        Raises:
            ModelNotFound: There is none; the message names close matches.
            BadFile: It cannot be used; the message says why.
        """
        name = normalize_upscaler_name(name)
        if name in INTERPOLATIONS:
            return UpscalerFile(name, None, name)
        names = [file.name for file in self._shelf.list_files("upscaler")]
        if name not in names:
            name = _match_name(name, [*names, POCKET_UPSCALER]) or name
        if name == POCKET_UPSCALER and name not in names:
            return self._describe(name, self._embedded)
        try:
            file = self._shelf.get_file("upscaler", name)
        except ModelNotFound:
            all_names = [*INTERPOLATIONS, POCKET_UPSCALER, *names]
            matches = difflib.get_close_matches(name, all_names, 3, 0.4)
            raise ModelNotFound(
                f"There is no upscaler {quote(name)} in the library; there is "
                f"{list_alternatives(matches, all_names)}."
            ) from None
        return self._describe(file.name, file.path, file.model_file.weights_path)

    def choose_default(self, request: GenerationRequest | None) -> str:
        """Return the upscaler that suits an image.

        The embedded one is made for the embedded model's pictures, and for no others: those get
        the first file there is, else Lanczos.

        Args:
            request: What the image was made with, if that is known.
        """
        if request and request.model == DEFAULT_MODEL:
            return POCKET_UPSCALER
        names = self.list_names()
        return next(
            (name for name in names if name not in (*INTERPOLATIONS, POCKET_UPSCALER)), LANCZOS
        )

    def _describe(self, name: str, path: Path, weights_path: Path | None = None) -> UpscalerFile:
        with explain_odd_file(path):
            content_hash = self._hashes.get_hash(path, [path], path.parent)
        return UpscalerFile(name, weights_path or path, content_hash)


def _match_name(name: str, names: list[str]) -> str | None:
    """Return the one name that is written otherwise, with or without its folders."""
    for fold in (_fold, lambda text: _fold(text.rpartition("/")[2])):
        matches = [entry for entry in names if fold(entry) == fold(name)]
        if len(matches) == 1:
            return matches[0]
    return None


def _fold(name: str) -> str:
    return re.sub(r"[\s_\-]+", "", name).casefold()
