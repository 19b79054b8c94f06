"""Where the page finds files.

Knows: the route by which files of the home are served. Does not know: who may read them
(ui/middleware.py).
"""

from __future__ import annotations

import re
import urllib.parse
from pathlib import Path

# The route by which gradio serves files; it still answers to the old spelling.
FILE_ROUTE = re.compile("/gradio_api/file[=/](.*)", re.DOTALL)


def file_url(path: Path) -> str:
    """Return the address, relative to the page, of a file that is served by its path.

    Relative, so that it holds wherever a proxy shows the page.
    """
    return f"gradio_api/file={urllib.parse.quote(str(path))}"
