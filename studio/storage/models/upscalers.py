"""Which upscalers there are: two formulas, the embedded network, and files of the shelf.

Knows: names, content hashes, which one suits a picture, that a pickle is read before it is used.
Does not know: torch; how an image is enlarged (engine/upscaling), how a pickle is read.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from studio.core.catalog import DEFAULT_MODEL
from studio.core.generation.request import GenerationRequest
from studio.core.generation.upscaler_names import (
    INTERPOLATIONS,
    LANCZOS,
    POCKET_UPSCALER,
    normalize_upscaler_name,
)
from studio.errors import BadFile, ModelNotFound, StudioError, list_alternatives, quote
from studio.settings import shipped
from studio.storage.content_hashes import ContentHashes
from studio.storage.models.names import select_names
from studio.storage.models.pickles import Pickles
from studio.storage.models.shelf import Shelf
from studio.storage.models.upscaler_header import read_scale
from studio.storage.odd_files import explain_odd_file

MIN_DEFAULT_SCALE = 2  # others clean an image, and leave it as large as it was


@dataclass(frozen=True)
class UpscalerFile:
    """An upscaler that can be used.

    Attributes:
        name: What it is called.
        path: Its safetensors file; the pickle itself while that was not read; None for a formula.
        content_hash: The sha256 of the file; the name of a formula.
        is_unread: Whether it is a pickle that has to be read first.
    """

    name: str
    path: Path | None
    content_hash: str
    is_unread: bool = False


class Upscalers:
    """The upscalers of a home. Every call looks at the disk."""

    def __init__(self, shelf: Shelf, pickles: Pickles, hashes: ContentHashes) -> None:
        self._shelf = shelf
        self._pickles = pickles
        self._hashes = hashes
        self._scales: dict[Path, tuple[tuple[int, int], int]] = {}
        self._embedded = (
            shipped("assets") / "pocket" / "upscaler" / f"{POCKET_UPSCALER}.safetensors"
        )

    def list_names(self) -> list[str]:
        """List the names: formulas, the embedded network, then the files that may be used.

        Pickles that were not read yet are among them.
        """
        files = self._shelf.list_files("upscaler")
        names = [file.name for file in files if not file.model_file.problem]
        listed = {file.path for file in files}
        names += [
            name
            for name, path in self._list_pickles()
            if path not in listed and self._is_readable(path)
        ]
        names.sort(key=str.casefold)
        return list(dict.fromkeys([*INTERPOLATIONS, POCKET_UPSCALER, *names]))

    def read(self, name: str) -> UpscalerFile:
        """Look up an upscaler to use it: a pickle that was not read yet is read now.

        Arguments and errors are those of `get`.

        Raises:
            DiskError: The home does not take what has to be written.
        """
        upscaler = self.get(name)
        if not upscaler.is_unread or upscaler.path is None:
            return upscaler
        result = self._pickles.convert([upscaler.path])[upscaler.path]
        if isinstance(result, str):
            raise BadFile(result)
        return replace(upscaler, path=result, is_unread=False)

    def read_named_pickles(self, requests: Iterable[GenerationRequest]) -> None:
        """Read the pickles that were not read yet and that requests name. Raises as `read` does."""
        for name in dict.fromkeys(request.active_upscaler for request in requests):
            if name:
                self.read(name)

    def read_pickles(self) -> None:
        """Read all pickles that were not read yet, so that one may be chosen; bad ones stay out.

        Raises:
            DiskError: The home does not take what has to be written.
        """
        self._pickles.convert(
            [path for _, path in self._list_pickles() if self._pickles.is_unread(path)]
        )

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
        pickles = self._list_pickles()
        all_names = [*names, POCKET_UPSCALER, *(entry for entry, _ in pickles)]
        if name not in all_names:
            matches = _find_matches(name, list(dict.fromkeys(all_names)))
            if len(matches) > 1:
                raise ModelNotFound(
                    f"Several upscalers are called {quote(name)}: {', '.join(matches[:5])}. Use "
                    "one of these names."
                )
            name = matches[0] if matches else name
        if name == POCKET_UPSCALER and name not in names:
            return self._describe(name, self._embedded)
        for pickle_name, path in pickles:
            if name not in names and name in (pickle_name, path.name):
                return self._describe_pickle(pickle_name, path)
        try:
            file = self._shelf.get_file("upscaler", name)
        except ModelNotFound:
            same = [
                candidate.name
                for candidate in self._shelf.find_candidates(name)
                if candidate.model_file.kind == "upscaler"
            ]
            if len(select_names(name, same)) > 1:
                raise
            all_names = self.list_names()
            matches = difflib.get_close_matches(name, all_names, 3, 0.4)
            raise ModelNotFound(
                f"There is no upscaler {quote(name)} in the library; available: "
                f"{list_alternatives(matches, all_names)}."
            ) from None
        return self._describe(file.name, file.path, file.model_file.weights_path)

    def choose_default(self, request: GenerationRequest | None, scale: float = 0) -> str:
        """Return the upscaler that suits an image.

        The embedded one is made for the embedded model's pictures, and for no others: those get
        a file that is known to enlarge, best by just the factor that is asked for, else Lanczos.

        Args:
            request: What the image was made with, if that is known.
            scale: How many times as large it is to be; 0 for any.
        """
        if request and request.model == DEFAULT_MODEL:
            return POCKET_UPSCALER
        scales = {
            file.name: self._get_scale(file.model_file.weights_path)
            for file in self._shelf.list_files("upscaler")
            if not file.model_file.problem and file.name != POCKET_UPSCALER
        }
        names = [name for name, own_scale in scales.items() if own_scale >= MIN_DEFAULT_SCALE]
        exact = [name for name in names if scales[name] == scale]
        return [*exact, *names, LANCZOS][0]

    def _get_scale(self, path: Path) -> int:
        """Return how many times as large a file makes an image, or 0; a header is read once."""
        try:
            with explain_odd_file(path):
                status = path.stat()
                stamp = (status.st_mtime_ns, status.st_size)
                if self._scales.get(path, (None, 0))[0] != stamp:
                    self._scales[path] = (stamp, read_scale(path))
                return self._scales[path][1]
        except StudioError:
            return 0  # whoever names it hears why

    def _list_pickles(self) -> list[tuple[str, Path]]:
        """List the pickles where upscalers lie, read or not."""
        return [
            (name, path)
            for name, path in self._shelf.list_pickles()
            if self._pickles.is_upscaler(path)
        ]

    def _is_readable(self, path: Path) -> bool:
        return self._pickles.is_unread(path) or not self._pickles.get_problem(path)

    def _describe_pickle(self, name: str, path: Path) -> UpscalerFile:
        converted = self._pickles.get_converted(path)
        if converted is None and not self._pickles.is_unread(path):
            raise BadFile(f"{path.name} {self._pickles.get_problem(path)}.")
        return replace(self._describe(name, path, converted), is_unread=converted is None)

    def _describe(self, name: str, path: Path, weights_path: Path | None = None) -> UpscalerFile:
        with explain_odd_file(path):
            content_hash = self._hashes.get_hash(path, [path], path.parent)
        return UpscalerFile(name, weights_path or path, content_hash)


def _find_matches(name: str, names: list[str]) -> list[str]:
    """Return the names that are written otherwise, else those whose last part is."""
    whole = [entry for entry in names if _fold(entry) == _fold(name)]
    last_part = _fold(name.rpartition("/")[2])
    return whole or [entry for entry in names if _fold(entry.rpartition("/")[2]) == last_part]


def _fold(name: str) -> str:
    return re.sub(r"[\s_\-]+", "", name).casefold()
