"""Where the page finds files.

Knows: the route by which files of the home are served. Does not know: who may read them
(ui/middleware.py).
"""

from __future__ import annotations

import urllib.parse
from pathlib import Path


def file_url(path: Path) -> str:
    """Return the address, relative to the page, of a file that is served by its path.

    Relative, so that it holds wherever a proxy shows the page.
    """
    return f"gradio_api/file={urllib.parse.quote(str(path))}"
