"""The folder is the rule: no import runs from a floor to one it must not know."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent / "studio"
HEAVY = {"torch", "diffusers", "transformers", "peft", "compel", "accelerate", "torchvision"}
MAY_USE = {
    "ui": {"ui", "store", "spec"},
    "engine": {"engine", "store", "spec"},
    "store": {"store", "spec"},
    "spec": {"spec"},
}
FILES = sorted(ROOT.rglob("*.py"))


def imports(tree: ast.AST) -> list[str]:
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are absolute"
            found += [f"{node.module}.{alias.name}" for alias in node.names]
    return found


def floor(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[0] == "studio" and parts[1] in MAY_USE else ""


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_run_the_right_way(path: Path) -> None:
    tree = ast.parse(path.read_text("utf-8"))
    here = floor(".".join(("studio", *path.relative_to(ROOT).with_suffix("").parts)))
    assert ast.get_docstring(tree), "a module says what it knows"
    for name in imports(tree):
        top, there = name.split(".")[0], floor(name)
        assert top not in HEAVY or here == "engine", f"{name} outside engine/"
        assert top != "gradio" or here == "ui", f"{name} outside ui/"
        assert not (here and there) or there in MAY_USE[here], f"{here} must not use {name}"
