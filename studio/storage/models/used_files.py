"""The files behind a request, with the hashes by which other programs know them.

Knows: where the library has a model, its VAE, LoRAs and embeddings. Does not know: how many digits
of which hash are shown where (core/generation/used_files.py), torch.

A hash is computed once and remembered until the file changes; gigabytes take a while, so this is
for the worker.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from studio.core.generation.request import GenerationRequest
from studio.core.generation.used_files import NO_FILES, UsedFile, UsedFiles, UsedKind
from studio.errors import StudioError
from studio.storage.models.library import Library
from studio.storage.models.model_configs import list_chosen_files
from studio.storage.models.model_info import ModelInfo
from studio.storage.models.peft_config import list_files
from studio.storage.odd_files import make_printable

_EMBEDDING_KEY = "embedding "  # begins the keys of content hashes that are embeddings'


def list_used_files(
    library: Library, request: GenerationRequest, content_hashes: Mapping[str, str]
) -> UsedFiles:
    """Return the files of a request.

    A file that has gone meanwhile is left out: the image is there all the same.

    Args:
        library: Where they are.
        request: The request.
        content_hashes: What its digest is made over; of the embeddings these are the files' own.
    """
    files: list[UsedFile] = []
    model: ModelInfo | None = None
    with library.shelf.look_once():
        with suppress(StudioError, OSError):
            model = library.get_model(request.model)
            if model.is_file:
                digest = library.get_own_hash(model)
                files.append(_describe("model", request.model, model.path, digest))
        vae = _find_vae(library, request, model)
        if vae:
            with suppress(StudioError, OSError):
                files.append(_describe("vae", request.vae, vae, library.get_file_hash(vae)))
        for use in request.with_inline_loras().loras:
            with suppress(StudioError, OSError):
                files.append(_describe_lora(library, use.name))
    files += [
        UsedFile(kind="embedding", name=key.removeprefix(_EMBEDDING_KEY), sha256=digest)
        for key, digest in content_hashes.items()
        if key.startswith(_EMBEDDING_KEY)
    ]
    if not files and not model:
        return NO_FILES
    if not model:
        return UsedFiles(files=tuple(files))
    return UsedFiles(files=tuple(files), overrides=model.overrides, family=model.family)


def _find_vae(library: Library, request: GenerationRequest, model: ModelInfo | None) -> Path | None:
    """Return the file of an autoencoder that is not the model's own; None where there is none."""
    if request.vae:
        with suppress(StudioError):
            return library.shelf.get_file("vae", request.vae).path
        return None
    return list_chosen_files(model).get("vae") if model else None


def _describe(kind: UsedKind, name: str, path: Path, digest: str) -> UsedFile:
    return UsedFile(kind=kind, name=name, file_name=make_printable(path.name), sha256=digest)


def _describe_lora(library: Library, name: str) -> UsedFile:
    info = library.get_lora(name)
    used = _describe("lora", name, info.path, "")
    if len(list_files(info.path)) == 1:  # peft's config beside it counts too, and has no hash
        used = used.model_copy(update={"sha256": library.get_content_hash(info)})
    return used.model_copy(update={"tensors_sha256": library.get_tensors_hash(info.path)})
