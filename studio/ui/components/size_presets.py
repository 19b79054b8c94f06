"""Sizes to choose from by their shape, and a button that swaps width and height.

Knows: how a size is named, how two fields are swapped without asking the server. Does not know:
which sizes suit a model or an image (tabs/generation.py).
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import gradio as gr

from studio.ui.events import EVENT_OPTIONS

# Width : height; those that people name, and those of screens and prints.
ASPECT_RATIOS = ((1, 1), (5, 4), (4, 3), (3, 2), (16, 10), (16, 9), (2, 1), (21, 9))
EXACT_TOLERANCE = 0.005  # of the ratio, where a size counts as having it
# Reads what stands in the fields, however lately it was typed.
SWAP_JS = """() => [HEIGHT, WIDTH].map(id => {
  const value = document.querySelector(`#${id} input`).value;
  return value === '' ? '' : Number(value);
})"""


def list_size_presets(sizes: Iterable[tuple[int, int]]) -> list[tuple[str, str]]:
    """Return sizes as a dropdown takes them: (label with its shape, value)."""
    return [
        (
            f"{name_aspect_ratio(width, height)} · {width} × {height}",
            f"{width} × {height}",
        )
        for width, height in sizes
    ]


def name_aspect_ratio(width: int, height: int) -> str:
    """Return the usual ratio that is nearest, such as 3:2, marked where it is not quite it."""
    shape = math.log(max(width, height) / min(width, height))
    longer, shorter = min(
        ASPECT_RATIOS, key=lambda ratio: abs(math.log(ratio[0] / ratio[1]) - shape)
    )
    is_exact = abs(math.log(longer / shorter) - shape) <= EXACT_TOLERANCE
    ratio = f"{longer}:{shorter}" if width >= height else f"{shorter}:{longer}"
    return ratio if is_exact else f"≈ {ratio}"


def add_swap_button(elem_id: str) -> gr.Button:
    """Place the button between the two fields."""
    return gr.Button(
        "Swap width and height", size="sm", elem_id=elem_id, elem_classes="icon swap", scale=0
    )


def wire_swap(button: gr.Button, width: gr.Number, height: gr.Number) -> None:
    """Connect the button: the browser swaps what is typed."""
    js = SWAP_JS.replace("HEIGHT", f"'{height.elem_id}'").replace("WIDTH", f"'{width.elem_id}'")
    button.click(None, None, [width, height], js=js, **EVENT_OPTIONS)
