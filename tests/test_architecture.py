"""The folder is the rule: imports run downwards and never in a circle, those for types included."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent / "studio"
HEAVY = {"torch", "diffusers", "transformers", "peft", "compel", "accelerate", "torchvision"}
MAY_USE = {  # everybody may use errors and settings
    "ui": {"ui", "services", "storage", "imaging", "core"},
    "cli": {"cli", "ui", "services", "storage", "imaging", "core", "engine", "pocket"},
    "services": {"services", "storage", "imaging", "core"},
    "engine": {"engine", "storage", "imaging", "core"},
    "pocket": {"pocket", "engine", "storage", "imaging", "core"},
    "storage": {"storage", "imaging", "core"},
    "imaging": {"imaging", "core"},
    "core": {"core"},
}
FILES = sorted(ROOT.rglob("*.py"))


def module_name(path: Path) -> str:
    parts = ("studio", *path.relative_to(ROOT).with_suffix("").parts)
    return ".".join(parts).removesuffix(".__init__")


MODULES = {module_name(path) for path in FILES}


def imported_names(tree: ast.AST) -> list[str]:
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are absolute"
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return names


def imported_modules(path: Path) -> set[str]:
    """Modules of the studio that a file imports, at its top, in a function or for types alone."""
    modules = set()
    for name in imported_names(ast.parse(path.read_text("utf-8"))):
        module = name if name in MODULES else name.rpartition(".")[0]
        if module in MODULES:
            modules.add(module)
    return modules - {module_name(path)}


def floor_of(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[0] == "studio" and parts[1] in MAY_USE else ""


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_run_downwards(path: Path) -> None:
    tree = ast.parse(path.read_text("utf-8"))
    floor = floor_of(module_name(path))
    for name in imported_names(tree):
        top, target = name.split(".")[0], floor_of(name)
        assert top not in HEAVY or floor in ("engine", "pocket"), f"{name} outside engine/"
        assert top != "gradio" or floor == "ui", f"{name} outside ui/"
        assert not (floor and target) or target in MAY_USE[floor], f"{floor} must not use {name}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_says_what_it_knows(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text("utf-8")))


def test_no_import_runs_in_a_circle() -> None:
    edges = {module_name(path): imported_modules(path) for path in FILES}
    finished: set[str] = set()

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, " -> ".join((*trail[trail.index(module) :], module))
        if module in finished:
            return
        for target in sorted(edges[module]):
            visit(target, (*trail, module))
        finished.add(module)

    for module in sorted(edges):
        visit(module, ())
