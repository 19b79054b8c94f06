"""How an easel looks: its tools, the place for the picture, what stands there before there is one.

Knows: HTML. Does not know: what the tools do (easel.js); which picture it is (easel.py).
"""

from __future__ import annotations

import html
from pathlib import Path

SCRIPT = Path(__file__).with_name("mask_editor_html.js").read_text("utf-8")
_ICONS = {
    "brush": "M14 4l6 6-9 9H5v-6z M12.5 5.5l6 6",
    "eraser": "M4 15l9-9 7 7-7 7H8z M9 10l7 7",
    "undo": "M8 5L4 9l4 4 M4 9h10a5 5 0 0 1 0 10h-4",
    "redo": "M16 5l4 4-4 4 M20 9H10a5 5 0 0 0 0 10h4",
    "farther": "M5 12h14",
    "nearer": "M5 12h14 M12 5v14",
    "fit": "M4 9V4h5 M20 9V4h-5 M4 15v5h5 M20 15v5h-5",
    "clear": "M5 7h14 M9 7V4h6v3 M7 7l1 13h8l1-13",
    "invert": "M12 4a8 8 0 1 0 0 16z M12 4a8 8 0 0 1 0 16",
}


def template(mode: str) -> str:
    """The whole of it. `mode` is "mask" or "sketch"."""
    mask = mode == "mask"
    paint = (
        ("Paint what is to be made anew", "Take paint away")
        if mask
        else ("Draw", "Take lines away")
    )
    colour = '<input class="easel-colour" type="color" value="#e11d48" aria-label="Colour" title="Colour">'
    tools = "".join(
        (
            f"<span>{_tool('brush', f'{paint[0]} (B)')}{_tool('eraser', f'{paint[1]} (E)')}"
            + (colour.replace("<input", "<input hidden") if mask else colour)
            + "</span>",
            '<span class="stretch"><input class="easel-size" type="range" min="1" max="128" value="32" aria-label="Size of the brush" '
            'title="Size of the brush ([ and ])"></span>',
            f"<span>{_tool('undo', 'Undo (Ctrl + Z)')}{_tool('redo', 'Redo (Ctrl + Shift + Z)')}{_tool('clear', 'Clear all')}</span>",
            f"<span>{_tool('invert', 'Invert: everything else is made anew (I)')}</span>"
            if mask
            else "",
            f"<span>{_tool('farther', 'Smaller (-)')}{_tool('nearer', 'Larger (+)')}{_tool('fit', 'The whole picture (0)')}</span>",
        )
    )
    below = (
        (_word("mask", "Mask from file") + _word("alpha", "Mask from transparency")) if mask else ""
    )
    return (
        f'<div class="easel" data-mode="{mode}" data-state="empty"><div class="easel-tools" role="toolbar" aria-label="Tools">'
        f'{tools}</div><div class="easel-pad"><canvas tabindex="0" role="img" aria-label="{_ABOUT[mode]}"></canvas>'
        f'<div class="easel-empty">{_empty(mask)}</div></div>'
        '<div class="easel-below"><p class="easel-foot" role="status"></p>'
        f"{below}{_word('choose', 'Replace')}{_word('remove', 'Remove')}</div>"
        '<input type="file" accept="image/*" hidden></div>'
    )


_ABOUT = {
    "mask": "The picture; paint over what is to be made anew. B brush, E eraser, square brackets change its size",
    "sketch": "The picture to begin with; you may draw on it. B brush, E eraser, square brackets change its size",
}


def _empty(mask: bool) -> str:
    if mask:
        head, words = (
            "Which picture is to be mended?",
            (
                "Drop or paste one here, choose a file, or press “Send to Inpaint” under "
                "any picture. Then paint over what is to be made anew."
            ),
        )
    else:
        head, words = (
            "Which picture is the beginning?",
            (
                "Drop or paste one here, choose a file, or press “Send to img2img” under "
                "any picture. You may also draw one."
            ),
        )
    return (
        f'<b>{head}</b><p>{words}</p><div class="starts">{_word("choose", "Choose a picture")}'
        + ("" if mask else _word("blank", "Draw on white"))
        + "</div>"
    )


def _tool(act: str, title: str) -> str:
    pressed = ' aria-pressed="false"' if act in ("brush", "eraser", "invert") else ""
    said = html.escape(title)
    return (
        f'<button type="button" data-act="{act}" title="{said}" aria-label="{said}"{pressed}>'
        f'<svg viewBox="0 0 24 24" aria-hidden="true"><path d="{_ICONS[act]}"/></svg></button>'
    )


def _word(act: str, words: str) -> str:
    return f'<button type="button" data-act="{act}">{html.escape(words)}</button>'
