"""The files that a recipe names, looked up in the library: by hash and by name.

Knows: what a recipe's values become with what is here, and what is said of the rest. Does not know:
how a recipe is read, what is done with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from studio.core.families.family import Family
from studio.core.families.registry import FAMILIES
from studio.core.generation.lora_use import MAX_LORAS
from studio.core.generation.recipes.clip_skip import describe_counting, translate_clip_skip
from studio.core.generation.recipes.file_names import clean_file_name
from studio.core.generation.recipes.recipe import FileKind, FileReference, Recipe
from studio.errors import StudioError
from studio.storage.models.library import Library
from studio.storage.models.lora_file import LoraInfo

MAX_REFERENCES = 100
MAX_COMPARED = 3000  # files whose known hashes are looked through
KIND_NOUNS: Mapping[FileKind, str] = {
    "model": "model",
    "lora": "LoRA",
    "vae": "VAE",
    "embedding": "embedding",
    "upscaler": "upscaler",
}
# What becomes of a setting whose file is not here.
_CONSEQUENCES: Mapping[FileKind, str] = {
    "model": "the selected one is kept",
    "vae": "the selected one is kept",
    "lora": "it is left out",
    "upscaler": "Lanczos is used",
}
_FIELDS: Mapping[FileKind, str] = {"model": "model", "vae": "vae", "upscaler": "hires_upscaler"}


@dataclass(frozen=True)
class FileMatch:
    """A file that a recipe names, and what it is here.

    Attributes:
        reference: As the recipe names it.
        name: Its name in the library; empty where it is not here.
        note: What is to be said of it; empty if nothing.
    """

    reference: FileReference
    name: str = ""
    note: str = ""


@dataclass(frozen=True)
class _LibraryFile:
    name: str
    path: Path | None


def look_up_files(
    library: Library, recipe: Recipe, model_name: str = ""
) -> tuple[Recipe, list[FileMatch]]:
    """Return a recipe whose values name files of the library, with a note on each that is not here.

    Hashes that are known are looked through; a file of the right name is read through, where it is
    small, to see whether it is the same.

    Args:
        library: What is here.
        recipe: What was read.
        model_name: The model that paints where the recipe's is not here; empty where none is
            chosen.
    """
    with library.shelf.look_once():
        finder = _Finder(library)
        matches = [finder.find(reference) for reference in _list_references(recipe)]
    values = _apply_matches(recipe.values, matches)
    notes = [match.note for match in matches if match.note]
    notes += library.embeddings.compare_hashes(recipe.embedding_hashes)
    looked_up = replace(recipe, values=values, notes=[*recipe.notes, *notes])
    return _translate_clip_skip(library, looked_up, model_name), matches


def _translate_clip_skip(library: Library, recipe: Recipe, model_name: str) -> Recipe:
    """Return a recipe whose Clip skip counts as here, by the model that will paint."""
    if recipe.clip_skip is None or "clip_skip" not in recipe.values:
        return recipe
    family = _find_family(library, str(recipe.values.get("model") or model_name))
    values = dict(recipe.values)
    if family is None:
        note = describe_counting(recipe.clip_skip)
    else:
        values["clip_skip"], note = translate_clip_skip(recipe.clip_skip, family)
    notes = [*recipe.notes, *filter(None, [note])]
    return replace(recipe, values=values, notes=notes, clip_skip=None)


def _find_family(library: Library, model_name: str) -> Family | None:
    if not model_name:
        return None
    try:
        return FAMILIES[library.get_model(model_name).family]
    except StudioError:
        return None


def _list_references(recipe: Recipe) -> list[FileReference]:
    """Return the files of a recipe, those too that only its values name; no embeddings."""
    files = [file for file in recipe.files if file.kind != "embedding"]
    kinds = {file.kind for file in files}
    for kind, field_name in _FIELDS.items():
        name = recipe.values.get(field_name)
        if kind not in kinds and isinstance(name, str) and name:
            files.append(FileReference(kind, name))
    known = {file.name.casefold() for file in files if file.kind == "lora"}
    for use in _list_uses(recipe.values):
        if clean_file_name(use["name"]).casefold() not in known:
            files.append(FileReference("lora", use["name"]))
    return files[:MAX_REFERENCES]


def _list_uses(values: Mapping[str, Any]) -> list[dict[str, Any]]:
    uses = values.get("loras", ())
    if not isinstance(uses, list | tuple):
        return []
    return [dict(use) for use in uses if isinstance(use, dict) and isinstance(use["name"], str)]


def _apply_matches(values: Mapping[str, Any], matches: Iterable[FileMatch]) -> dict[str, Any]:
    """Return values with the library's names; what is not here is left out."""
    applied = dict(values)
    uses: dict[str, list[dict[str, Any]]] = {}
    for use in _list_uses(values):
        uses.setdefault(clean_file_name(use["name"]).casefold(), []).append(use)
    has_loras = bool(uses)
    loras: dict[str, dict[str, Any]] = {}
    for match in matches:
        reference = match.reference
        if reference.kind == "lora":
            unet, text_encoder = reference.weights
            written = {"unet": unet, "text_encoder": text_encoder}
            same_name = uses.get(clean_file_name(reference.name).casefold())
            use = same_name.pop(0) if same_name else written
            if match.name:
                loras.setdefault(match.name, {**use, "name": match.name})
            continue
        field_name = _FIELDS[reference.kind]
        if match.name:
            applied[field_name] = match.name
        elif reference.kind == "upscaler":
            applied[field_name] = ""
        else:
            applied.pop(field_name, None)
    if loras or has_loras:
        applied["loras"] = list(loras.values())[:MAX_LORAS]
    return applied


class _Finder:
    """Files of one library at one look."""

    def __init__(self, library: Library) -> None:
        self._library = library
        self._hashes = library.file_hashes
        self._files: dict[FileKind, list[_LibraryFile]] = {}

    def find(self, reference: FileReference) -> FileMatch:
        """Return what a file is here: the one of its hash, else that of its name."""
        noun = KIND_NOUNS[reference.kind]
        named = self._find_by_name(reference) if reference.name else None
        is_same = None
        if named and named.path and reference.digest:
            is_same = self._hashes.has_digest(named.path, reference.digest, compute=True)
        if named and is_same is not False:
            return FileMatch(reference, named.name)
        same = self._find_by_hash(reference)
        if same:
            spelling = f"{reference.name} of that image" if reference.name else "of that image"
            return FileMatch(
                reference, same.name, f"The {noun} {spelling} is called {same.name} here."
            )
        if named:
            note = f"The {noun} {named.name} here is not the file the image was made with; "
            return FileMatch(reference, named.name, f"{note}it will look different.")
        return FileMatch(
            reference, "", f"{_describe(reference)} is not here; {_CONSEQUENCES[reference.kind]}."
        )

    def _find_by_name(self, reference: FileReference) -> _LibraryFile | None:
        library, name = self._library, reference.name
        try:
            match reference.kind:
                case "model":
                    model = library.get_model(name)
                    return _LibraryFile(model.name, model.path)
                case "lora":
                    lora = library.get_lora(name)
                    return _LibraryFile(lora.name, lora.path)
                case "upscaler":
                    upscaler = library.upscalers.get(name)
                    return _LibraryFile(upscaler.name, upscaler.path)
                case kind:
                    file = library.shelf.get_file(kind, name)
                    return _LibraryFile(file.name, file.path)
        except StudioError:
            return None

    def _find_by_hash(self, reference: FileReference) -> _LibraryFile | None:
        if not reference.digest and not reference.version:
            return None
        for file in self._list_files(reference.kind)[:MAX_COMPARED]:
            if file.path and (
                self._hashes.has_version(file.path, reference.version)
                or self._hashes.has_digest(file.path, reference.digest)
            ):
                return file
        return None

    def _list_files(self, kind: FileKind) -> list[_LibraryFile]:
        if kind not in self._files:
            self._files[kind] = self._scan_files(kind)
        return self._files[kind]

    def _scan_files(self, kind: FileKind) -> list[_LibraryFile]:
        if kind == "model":
            models = self._library.list_models()
            return [_LibraryFile(model.name, model.path) for model in models if model.is_file]
        if kind == "lora":
            return [
                _LibraryFile(lora.name, lora.path)
                for lora in self._library.list_loras()
                if isinstance(lora, LoraInfo)
            ]
        files = self._library.shelf.list_files(kind)
        return [_LibraryFile(file.name, file.path) for file in files if not file.model_file.problem]


def _describe(reference: FileReference) -> str:
    """Return a file as a sentence begins with it: by its name, else by its hash or version."""
    noun = KIND_NOUNS[reference.kind]
    if reference.name and reference.digest:
        return f"The {noun} {reference.name} (hash {reference.digest[:12]})"
    if reference.name:
        return f"The {noun} {reference.name}"
    if reference.digest:
        return f"The {noun} with the hash {reference.digest[:12]}"
    return f"The {noun} that Civitai calls version {reference.version}"
