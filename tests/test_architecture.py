"""The folder is the rule: imports run downwards and never in a circle, those for types included."""

from __future__ import annotations

import ast
import functools
import itertools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.smoke
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
MAX_GLANCE_LINES = 40  # of a module that need not say what it does not know
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
FILE_NAME = re.compile(r"(?<![\w./-])[\w-][\w./-]*\.(?:py|js|md)\b")
FOREIGN_FILES = {  # of other repositories, and examples
    "doc/syntax.md",
    "docs/gguf.md",
    "examples/dreambooth/train_dreambooth_lora.py",
    "examples/text_to_image/train_text_to_image_lora.py",
    "loras/moon.md",
    "output_dir/README.md",
}
FILES = sorted(ROOT.rglob("*.py"))


def module_name(path: Path) -> str:
    parts = ("studio", *path.relative_to(ROOT).with_suffix("").parts)
    return ".".join(parts).removesuffix(".__init__")


TREES = {path: ast.parse(path.read_text("utf-8")) for path in FILES}
MODULES = {module_name(path): path for path in FILES}
HTML_TAG = re.compile(r"(?<!\?P)</?[a-z][a-z\d-]*(>| [^<>]*>| \w+=)")


@functools.cache
def imported_names(path: Path) -> list[str]:
    names = []
    for node in ast.walk(TREES[path]):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are absolute"
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return names


def imported_modules(path: Path) -> set[str]:
    """Modules of the studio that a file imports, at its top, in a function or for types alone."""
    modules = set()
    for name in imported_names(path):
        module = name if name in MODULES else name.rpartition(".")[0]
        if module in MODULES:
            modules.add(module)
    return modules - {module_name(path)}


def floor_of(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[0] == "studio" and parts[1] in MAY_USE else ""


IMPORTS = [(module, name) for module, path in MODULES.items() for name in imported_names(path)]


def test_floors_use_only_those_below() -> None:
    assert [
        f"{module} must not use {name}"
        for module, name in IMPORTS
        if (floor := floor_of(module)) and (target := floor_of(name))
        if target not in MAY_USE[floor]
    ] == []


@pytest.mark.parametrize(
    ("libraries", "floors"), [(HEAVY, {"engine", "pocket"}), ({"gradio"}, {"ui"})]
)
def test_a_heavy_library_stays_on_its_floor(libraries: set[str], floors: set[str]) -> None:
    assert [
        f"{module} must not use {name}"
        for module, name in IMPORTS
        if name.split(".")[0] in libraries and floor_of(module) not in floors
    ] == []


def test_a_module_says_what_it_knows() -> None:
    assert [path for path, tree in TREES.items() if not ast.get_docstring(tree)] == []


def test_a_module_says_what_it_knows_and_what_not() -> None:
    """A package's `__init__` and what is read at a glance may say in one line what they are."""
    assert [
        str(path.relative_to(ROOT))
        for path, tree in TREES.items()
        if path.name != "__init__.py"
        and len(path.read_text("utf-8").splitlines()) > MAX_GLANCE_LINES
        and not re.search(r"Knows:.*Does\s+not\s+know", ast.get_docstring(tree) or "", re.DOTALL)
    ] == []


def heads(path: Path) -> Iterator[str]:
    """All docstrings of a Python file; the comment that a script or a style sheet begins with."""
    text = path.read_text("utf-8")
    if path.suffix == ".py":
        for node in ast.walk(TREES.get(path) or ast.parse(text)):
            if isinstance(node, DOCUMENTED):
                yield ast.get_docstring(node) or ""
    else:
        yield "\n".join(
            itertools.takewhile(lambda line: line.startswith(("//", "/*", " *")), text.splitlines())
        )


@pytest.mark.parametrize("folder", ["studio", "tests"])
def test_files_that_a_head_names_exist(folder: str) -> None:
    paths = (path.relative_to(ROOT.parent).parts for path in ROOT.parent.glob("[!.]*/**/*.*"))
    names = {"/".join(parts[k:]) for parts in paths for k in range(len(parts))}
    assert [
        f"{path.relative_to(ROOT.parent)} names {name}"
        for path in sorted((ROOT.parent / folder).rglob("*"))
        if path.suffix in (".py", ".js", ".css")
        for head in heads(path)
        for name in FILE_NAME.findall(head)
        if name not in FOREIGN_FILES and name not in names
    ] == []


Function = ast.FunctionDef | ast.AsyncFunctionDef
CLASSES = {
    node.name: node
    for tree in TREES.values()
    for node in tree.body
    if isinstance(node, ast.ClassDef)
}


def used_names(path: Path) -> set[str]:
    """Names that a file imports or takes of something: whose they are is not looked at."""
    taken = {node.attr for node in ast.walk(TREES[path]) if isinstance(node, ast.Attribute)}
    return taken | {name.rpartition(".")[2] for name in imported_names(path)}


def methods(node: ast.ClassDef) -> Iterator[Function]:
    """Methods of a class that are called: no properties."""
    for method in node.body:
        if isinstance(method, Function) and not any(
            "property" in ast.unparse(decorator) for decorator in method.decorator_list
        ):
            yield method


def inherits_docstring(name: str, node: ast.ClassDef) -> bool:
    """Whether a base in the studio has the method with its docstring."""
    bases = [CLASSES.get(ast.unparse(base).split("[")[0].split(".")[-1]) for base in node.bases]
    return any(
        any(method.name == name and ast.get_docstring(method) for method in methods(base))
        or inherits_docstring(name, base)
        for base in bases
        if base
    )


def test_what_other_packages_call_has_a_docstring() -> None:
    users: dict[str, set[Path]] = {}
    for path in FILES:
        for name in used_names(path):
            users.setdefault(name, set()).add(path.parent)
    bare = []
    for path, tree in TREES.items():
        functions = [(node.name, node) for node in tree.body if isinstance(node, Function)]
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                functions += [
                    (f"{node.name}.{method.name}", method)
                    for method in methods(node)
                    if not inherits_docstring(method.name, node)
                ]
        bare += [
            f"{path.relative_to(ROOT)} {name}"
            for name, function in functions
            if not function.name.startswith("_")
            and not ast.get_docstring(function)
            and users.get(function.name, set()) - {path.parent}
        ]
    assert bare == []


def test_no_import_runs_in_a_circle() -> None:
    edges = {module: imported_modules(path) for module, path in MODULES.items()}
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


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.js")), ids=lambda path: path.name)
def test_scripts_have_lines_of_100_columns(path: Path) -> None:
    lines = enumerate(path.read_text("utf-8").splitlines(), 1)
    assert [number for number, line in lines if len(line) > 100] == []


EVENTS = {
    "blur",
    "change",
    "click",
    "expand",
    "input",
    "load",
    "select",
    "submit",
    "tick",
    "upload",
}


def test_what_comes_from_the_page_comes_by_name() -> None:
    """Several inputs are a set, so that a handler takes them by component and not by position."""
    calls = [
        (path, node, node.args[2 if node.func.attr == "on" else 1 :][:1])
        for path, tree in TREES.items()
        if path.is_relative_to(ROOT / "ui")
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
        if node.func.attr in (*EVENTS, "then", "on")
    ]
    assert len(calls) > 50
    assert [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path, node, inputs in calls
        for given in (*inputs, *(word.value for word in node.keywords if word.arg == "inputs"))
        if isinstance(given, ast.List) and len(given.elts) > 1
    ] == []


def test_html_comes_from_templates() -> None:
    """A value that is put into HTML is escaped there, and nobody has to think of it."""
    assert [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.JoinedStr)
        if HTML_TAG.search(
            "".join(str(part.value) for part in node.values if isinstance(part, ast.Constant))
        )
    ] == []
