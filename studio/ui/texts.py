"""Every text that a person reads, in one go: `python -m studio.ui.texts`.

Knows: where texts stand: in the components of the page, in the package's own files. Does not know:
what any of them means, or when it is shown.
"""

from __future__ import annotations

import ast
import re
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator
from html import unescape
from pathlib import Path

from gradio.blocks import Block
from gradio.layouts import Tab as TabBlock

from studio.services.submission import Services
from studio.settings import load
from studio.storage.home import Home

PACKAGE = Path(__file__).parents[1]
TITLE_PAGE = "Around the tabs"
# What a component says, by the attribute that holds it.
COMPONENT_TEXTS = ("label", "info", "placeholder", "value")
VALUE_COMPONENTS = ("button", "html", "markdown", "downloadbutton", "uploadbutton")
READ_ATTRIBUTES = ("title", "aria-label", "placeholder", "alt", "data-tip")
_ATTRIBUTE = re.compile(rf"""\b(?:{"|".join(READ_ATTRIBUTES)})=(?:"([^"]*)"|'([^']*)')""")
_UNREAD_ELEMENT = re.compile(r"<(script|style|svg)\b.*?</\1>", re.DOTALL)
_TAG = re.compile(r"<[^<>]*>")
_JINJA_BLOCK = re.compile(r"\{[%#].*?[%#]\}", re.DOTALL)
_JINJA_VALUE = re.compile(r"\{\{\s*(.*?)\s*\}\}", re.DOTALL)
_JINJA_STRING = re.compile(r'"([^"{}]*)"')
_JS_COMMENT = re.compile(r"/\*.*?\*/|(?<![:\"'`])//[^\n]*", re.DOTALL)
_JS_STRING = re.compile(r'"((?:[^"\\\n]|\\.)*)"|\'((?:[^\'\\\n]|\\.)*)\'|`((?:[^`\\]|\\.)*)`')
# Two words in a row with a blank between them, the second perhaps filled in; code for machines is
# told by its signs.
_WORDS = re.compile(r"(?:\ba|[^\W\d_]{2,})(?:'s)?[,:;.…]? (?:[^\W\d_]|\{)|^[A-Z][a-z]+[.…:]?$")
_CODE = re.compile(
    r"^\s*(SELECT|INSERT|UPDATE|DELETE|CREATE|ALTER|DROP|PRAGMA|WITH|ATTACH|BEGIN|VACUUM)\b[^.]*$"
    r"|=>|===|\);|\bvar\(|^[.#\[]|::|^:[a-z]|\bfunction\b|\breturn\b.*;\s*(?:\}|$)"
    r"|\bFROM [a-z]|\bWHERE \w+ ?="
)
Texts = dict[str, list[str]]


def list_page_texts() -> Texts:
    """Return what stands on the page when it is opened for the first time, by tab."""
    from studio.ui.app import build_page  # dear, and only needed here

    with tempfile.TemporaryDirectory() as folder:
        home = Home(load(home=Path(folder) / "home", device="cpu"))
        page = build_page(Services(home))
        texts: dict[str, list[str]] = defaultdict(list)
        for block in page.blocks.values():
            texts[_find_tab_title(block)] += _list_block_texts(block)
        home.gallery.close()
    return {title: _drop_repeats(lines) for title, lines in texts.items()}


def list_source_texts() -> Texts:
    """Return what the package's own files can say, by file; `{…}` stands for what is filled in."""
    texts: Texts = {}
    for path in sorted(PACKAGE.rglob("*")):
        readers = {".py": _list_python_texts, ".html": _list_template_texts, ".js": _list_js_texts}
        if path.suffix in readers:
            lines = _drop_repeats(readers[path.suffix](path.read_text("utf-8")))
            if lines:
                texts[path.relative_to(PACKAGE).as_posix()] = lines
    return texts


def _find_tab_title(block: Block) -> str:
    parent: Block | None = block
    while parent is not None:
        if isinstance(parent, TabBlock):
            return str(parent.label)
        parent = parent.parent
    return TITLE_PAGE


def _list_block_texts(block: Block) -> Iterator[str]:
    for attribute in COMPONENT_TEXTS:
        if attribute == "value" and block.get_block_name() not in VALUE_COMPONENTS:
            continue
        text = getattr(block, attribute, None)
        if isinstance(text, str):
            yield from list_html_texts(text)
    for choice in getattr(block, "choices", None) or ():
        yield str(choice[0] if isinstance(choice, tuple | list) else choice)


def list_html_texts(html: str) -> list[str]:
    """Return what a person reads in HTML: its words, and what its attributes say aloud."""
    html = _UNREAD_ELEMENT.sub("", html)
    attributes = [first or second for first, second in _ATTRIBUTE.findall(html)]
    lines = [*_TAG.sub("\n", html).splitlines(), *attributes]
    return [text for line in lines if (text := " ".join(unescape(line).split()))]


def _list_python_texts(source: str) -> Iterator[str]:
    tree = ast.parse(source)
    unread = {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    for node in ast.walk(tree):
        if id(node) in unread:
            continue
        if isinstance(node, ast.JoinedStr):
            unread |= {id(part) for part in node.values}
            text = "".join(_write_part(part) for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            text = node.value
        else:
            continue
        if reads_like_text(text):
            yield " ".join(text.split())


def _write_part(part: ast.expr) -> str:
    if isinstance(part, ast.Constant):
        return str(part.value)
    assert isinstance(part, ast.FormattedValue)
    return f"{{{ast.unparse(part.value)}}}"


def _list_template_texts(source: str) -> Iterator[str]:
    said = [
        string for part in _JINJA_VALUE.findall(source) for string in _JINJA_STRING.findall(part)
    ]
    yield from filter(reads_like_text, said)
    source = _JINJA_VALUE.sub(r"{\1}", _JINJA_BLOCK.sub("", source))
    for text in list_html_texts(source):
        if re.search(r"[^\W\d_]{2}", re.sub(r"\{[^}]*\}", "", text)) and not _CODE.search(text):
            yield text


def _list_js_texts(source: str) -> Iterator[str]:
    for strings in _JS_STRING.findall(_JS_COMMENT.sub("", source)):
        for text in list_html_texts("".join(strings).replace("${", "{")):
            if reads_like_text(text):
                yield text


def reads_like_text(text: str) -> bool:
    """Return whether a string is likely words for people, and no code."""
    return bool(_WORDS.search(text)) and not _CODE.search(text)


def _drop_repeats(lines: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(lines))


def main() -> None:
    """Print all texts: the page's by tab, then those of each file."""
    for heading, groups in (
        ("The page", list_page_texts()),
        ("What the files can say", list_source_texts()),
    ):
        print(f"\n# {heading}")
        for title, lines in groups.items():
            print(f"\n## {title}")
            for line in lines:
                print(f"  {line}")


if __name__ == "__main__":
    main()
