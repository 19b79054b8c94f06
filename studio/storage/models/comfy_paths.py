"""ComfyUI's extra_model_paths.yaml: the folders that it names.

Knows: sections with a base path, values of several lines, `~` and variables; that such a file can
come from anywhere. Does not know: what lies in the folders; ComfyUI's own.

Source: extra_model_paths.yaml.example of ComfyUI.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import yaml

from studio.errors import BadFile
from studio.storage import odd_files

FILE_NAMES = ("extra_model_paths.yaml", "extra_model_paths.yml")
MAX_YAML_BYTES = 64 * 2**10
MAX_PATHS = 200
MAX_DEPTH = 6
MAX_BRACKETS = 100  # real lists have none; 5,000 take a second to read
# Kinds in such a file that hold programs and settings.
NO_WEIGHTS = ("custom_nodes", "configs")


class _PlainLoader(yaml.SafeLoader):  # type: ignore[misc]
    """Reads plain values, a few levels deep, without aliases: those can stand for gigabytes."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent) or self.depth >= MAX_DEPTH:
            raise yaml.YAMLError("it is not a list of folders")
        self.depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1


def list_paths(file: Path) -> list[Path]:
    """Return the folders that a file names, whether they are there or not.

    Args:
        file: The YAML file; relative paths begin where it lies.

    Raises:
        BadFile: It cannot be read, or is no such file.
    """
    try:
        text = odd_files.read_file(file, MAX_YAML_BYTES).decode("utf-8-sig")
        if text.count("[") + text.count("{") > MAX_BRACKETS:
            raise ValueError("it is not a list of folders")
        sections = yaml.load(text, _PlainLoader)  # a SafeLoader
    except OSError as error:
        raise BadFile(f"{file.name} cannot be read ({error.strerror or error}).") from None
    except (ValueError, RecursionError, yaml.YAMLError):
        raise BadFile(f"{file.name} is not readable YAML; fix it in an editor.") from None
    if not isinstance(sections, dict):
        raise BadFile(f"{file.name} has no section with a base_path; fix it in an editor.")
    paths: dict[Path, None] = {}
    for section in sections.values():
        if not isinstance(section, dict):
            continue
        base_path = file.parent / _expand(section.get("base_path"))
        for kind, value in section.items():
            if kind in ("base_path", "is_default", *NO_WEIGHTS) or not isinstance(value, str):
                continue
            for line in value.splitlines():
                if line.strip() and "\0" not in line and len(paths) < MAX_PATHS:
                    paths[Path(os.path.normpath(base_path / _expand(line)))] = None
    return list(paths)


def _expand(value: object) -> str:
    if not isinstance(value, str) or "\0" in value:
        return ""
    return os.path.expandvars(os.path.expanduser(value.strip()))
