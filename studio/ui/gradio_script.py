"""gradio's own script of a page, with what it looks for again and again found once.

Knows: two functions of that script, character by character, and the file that holds them. Does not
know: the page, its tabs; how the file is served (ui/private_gradio.py).

gradio 6 keeps a page's components as a tree, and walks it for each component that an event reads
or changes: a press that fills a form of a hundred fields took 30 s of a page with 1,200 components
(`python -m tests.bench press`). While the page is built, it looks through all events for each
component. Here both are looked up in a map. Of another version of gradio, in which the functions
read otherwise, nothing is changed: the page is the same and slow.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import gradio

log = logging.getLogger(__name__)
ASSETS_FOLDER = Path(gradio.__file__).parent / "templates" / "frontend" / "assets"
SCRIPT_PATTERN = "core-*.js"
# What stands there, and what stands there instead.
FIND_NODE = (
    "function Z(e,t){if(e.id===t)return e;if(e.children)for(let n of e.children)"
    "{let e=Z(n,t);if(e)return e}return null}",
    # The first node of an id, as the walk finds it. A tree laid out again has other children.
    "function Z(e,t){let n=Z.index,r=e.children;if(!n||n.root!==e||n.children!==r)"
    "{n=Z.index={root:e,children:r,nodes:new Map};let t=e=>{n.nodes.has(e.id)||n.nodes.set(e.id,e);"
    "if(e.children)for(let n of e.children)t(n)};t(e)}return n.nodes.get(t)??null}",
)
REPLACE_PART = (
    "a.children=i.children,this.#f(i)}",
    "a.children=i.children,Z.index=null,this.#f(i)}",
)
FIND_EVENTS = (
    "find_attached_events(e,t){let n=t.filter(t=>t.targets.find(([t])=>t===e.id)).map(t=>"
    "{let n=t.targets.find(([t])=>t===e.id);return n?n[1]:null}).filter(Boolean);",
    # Of each event that has a component among its targets, in order, the first name it has there.
    "find_attached_events(e,t){let r=Z.events;if(!r||r.all!==t){r=Z.events={all:t,names:new Map};"
    "for(let e of t){let t=new Set;for(let[n,i]of e.targets)t.has(n)||(t.add(n),"
    "r.names.has(n)||r.names.set(n,[]),r.names.get(n).push(i))}}"
    "let n=(r.names.get(e.id)??[]).filter(Boolean);",
)
CHANGES = (FIND_NODE, REPLACE_PART, FIND_EVENTS)


def build_script(folder: Path = ASSETS_FOLDER) -> tuple[str, str] | None:
    """Return the changed script's file name and text; None if gradio's reads otherwise."""
    for path in sorted(folder.glob(SCRIPT_PATTERN)):
        text = apply_changes(path.read_text("utf-8"), CHANGES)
        if text is not None:
            return path.name, text
    log.info("gradio's script is not the one that is known; the page works, but slowly")
    return None


def apply_changes(text: str, changes: Sequence[tuple[str, str]]) -> str | None:
    """Return a text with each change made; None if one of them does not fit exactly once."""
    for old, new in changes:
        if text.count(old) != 1:
            return None
        text = text.replace(old, new)
    return text
