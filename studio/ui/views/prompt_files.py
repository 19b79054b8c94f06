"""Files of styles and wildcards as HTML: what in them cannot be used.

Knows: how many sentences are listed (templates/prompt_files.html). Does not know: gradio, how the
files are read.
"""

from __future__ import annotations

from collections.abc import Sequence

from studio.ui.views.templates import render_macro

MAX_FAULTS = 30


def render_prompt_file_faults(faults: Sequence[str]) -> str:
    """Render a folded line; empty where nothing is wrong."""
    if not faults:
        return ""
    return render_macro(
        "prompt_files.html",
        "prompt_file_faults",
        faults=list(faults[:MAX_FAULTS]),
        num_more=max(0, len(faults) - MAX_FAULTS),
    )
