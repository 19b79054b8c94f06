"""`studio generate` and files: those on the command line become a home's inputs, those that are made are copied out.

Knows: paths, folders, masks from transparency. Does not know: how the command is called, how pictures are made.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from studio.core.base import check
from studio.core.generation.request import GenerationRequest
from studio.errors import BadFile, StudioError
from studio.settings import Settings
from studio.storage import atomic

ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif")
TRANSPARENCY = "transparency"  # in place of a mask's file: the picture's own
ANY = "0" * 64  # stands for a picture while the settings alone are judged


def asked(given: Mapping[str, Any]) -> GenerationRequest:
    """The request behind the flags, with ANY for picture and mask. Raises InvalidSpec with all that is wrong, also for settings
    that would change nothing."""
    standing = {name: ANY for name in ("image", "mask") if given.get(name)}
    request = check(GenerationRequest, {**given, **standing})
    request.check_used(given)
    return request


def each(
    settings: Settings, request: GenerationRequest, image: str = "", mask: str = ""
) -> Iterator[tuple[str, GenerationRequest | StudioError]]:
    """The request for each picture (a file, those of a folder, or an input's sha256), or what is wrong with it, by its name.

    `mask` is a file, "transparency", or an input's sha256. Nothing but the request itself where there is no picture.
    """
    from studio.storage.inputs import Inputs
    from studio.storage.models.library import Library

    library, inputs = Library(settings), Inputs(settings)
    library.model(request.model)
    if not image:
        library.check(request)
        yield "", request
        return
    for path in _files(image):
        name = path.name if isinstance(path, Path) else path[:12]
        try:
            values = {"image": path if isinstance(path, str) else inputs.add(path).sha256}
            if mask == TRANSPARENCY and isinstance(path, Path):
                values["mask"] = inputs.add_transparency(path).sha256
            elif mask:
                values["mask"] = (
                    mask if _known(mask) else inputs.add_mask(Path(mask).expanduser()).sha256
                )
            one = request.model_copy(update=values)
            library.check(one)
            yield name, one
        except StudioError as error:
            yield name, error


def _files(image: str) -> list[Path | str]:
    if _known(image):
        return [image]
    path = Path(image).expanduser()
    if not path.is_dir():
        return [path]
    found: list[Path | str] = sorted(
        file for file in path.iterdir() if file.suffix.lower() in ENDINGS
    )
    if not found:
        raise BadFile(f"{path} has no pictures in it ({', '.join(ENDINGS)}).")
    return found


def _known(name: str) -> bool:
    return bool(re.fullmatch("[0-9a-f]{64}", name)) and not Path(name).exists()


def copied(path: Path, folder: Path) -> Path:
    """A picture's copy in a folder, with a number where its name is taken. Raises BadFile."""
    for number in range(10_000):
        target = folder / (f"{path.stem}-{number}{path.suffix}" if number else path.name)
        try:
            atomic.write(target, path.read_bytes(), replace=False)
        except FileExistsError:
            continue
        except OSError as error:
            raise BadFile(
                f"{folder} cannot be written to: {error.strerror}. The picture is at {path}."
            ) from None
        return target
    raise BadFile(f"{folder} is full of pictures named {path.name}; the new one is at {path}.")
