"""Whose folder of models it is, told by what lies in it, and which of its folders are used.

Knows: the layouts of A1111 and Forge, ComfyUI, InvokeAI, SwarmUI, the hub's cache. Does not know:
what is in a file: its header says what it is, wherever it lies.

Sources: the programs' own documentation of where models go; `extra_model_paths.yaml.example`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from studio.errors import BadFile
from studio.storage.models import comfy_paths
from studio.storage.models.hub_cache import is_hub_cache, list_snapshots
from studio.storage.models.roots import Root

# A program's folder has one of the first, and names the second by them.
A1111_MARKS = ("models/Stable-diffusion", "models/Lora", "models/VAE-approx", "models/LyCORIS")
COMFY_MARKS = (
    "models/checkpoints",
    "models/diffusion_models",
    "models/unet",
    "models/text_encoders",
    "models/clip",
    "models/upscale_models",
)
PLAIN_TITLE = "folder of models"  # of no program's
INVOKE_MARKS = ("invokeai.yaml", "databases/invokeai.db")
SWARM_MARKS = ("Models/Stable-Diffusion", "Models/Stable-diffusion", "Models/diffusion_models")


@dataclass(frozen=True)
class Layout:
    """Whose folder it is.

    Attributes:
        title: The program, as a person calls it.
        name: What names of its files begin with, unless somebody chooses another.
        problem: What could not be read of it; the rest is used.
    """

    title: str
    name: str
    problem: str = ""


def detect_layout(folder: Path) -> tuple[Layout, list[Root]]:
    """Return whose folder it is, and the folders of it whose files are used.

    Args:
        folder: A program's folder, its folder of models, or any other; or a ComfyUI's
            `extra_model_paths.yaml`.

    Returns:
        The layout; and roots without a title, but for what one of them adds to it (`org/name`).
    """
    if folder.suffix.lower() in (".yaml", ".yml") and folder.is_file():
        problem, roots = _read_extra_paths([folder])
        return Layout("ComfyUI's list of folders", "comfyui", problem), roots
    if is_hub_cache(folder):
        roots = [
            Root(snapshot, name, is_repository=True) for name, snapshot in list_snapshots(folder)
        ]
        return Layout("Hugging Face cache", "hub"), roots
    if is_hub_cache(folder / "hub"):  # HF_HOME in place of HF_HUB_CACHE
        return detect_layout(folder / "hub")
    # The folder of models itself is a program's too.
    parent = folder.parent
    if _has_any(folder, INVOKE_MARKS) or (
        folder.name == "models" and _has_any(parent, INVOKE_MARKS)
    ):
        models = folder if folder.name == "models" else folder / "models"
        return Layout("InvokeAI", "invokeai"), [Root(models, is_sorted=True)]
    extra_files = [
        folder / name for name in comfy_paths.FILE_NAMES if os.path.isfile(folder / name)
    ]
    for candidate in (folder, parent):
        if folder.name.casefold() != "models" and candidate is parent:
            break
        models = candidate / "models"
        if _has_any(candidate, SWARM_MARKS):
            return Layout("SwarmUI", "swarmui"), [Root(candidate / "Models", is_sorted=True)]
        if _has_any(candidate, A1111_MARKS):
            roots = [Root(models, is_sorted=True)]
            if candidate is folder:
                roots.append(Root(folder / "embeddings"))
            return Layout("A1111 or Forge", "a1111"), roots
        if _has_any(candidate, COMFY_MARKS) or (candidate is folder and extra_files):
            problem, roots = _read_extra_paths(extra_files)
            return Layout("ComfyUI", "comfyui", problem), [Root(models, is_sorted=True), *roots]
    return Layout(PLAIN_TITLE, folder.name), [Root(folder)]


def _read_extra_paths(files: Sequence[Path]) -> tuple[str, list[Root]]:
    """Return what could not be read of ComfyUI's lists, and the folders that they name."""
    roots: list[Root] = []
    for file in files:
        try:
            roots += [Root(path) for path in comfy_paths.list_paths(file)]
        except BadFile as error:
            return str(error), roots
    return "", roots


def _has_any(folder: Path, marks: Sequence[str]) -> bool:
    return any(os.path.exists(folder / mark) for mark in marks)
