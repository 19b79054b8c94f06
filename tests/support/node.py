"""JavaScript run for a test, by the node that comes with Playwright."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest


def run_node(script: str, given: Any) -> Any:
    """What a script prints as JSON, after it has read `given` from its input as JSON."""
    driver = pytest.importorskip("playwright._impl._driver")
    answer = subprocess.run(
        [driver.compute_driver_executable()[0], "-e", script],
        input=json.dumps(given),
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    return json.loads(answer.stdout)
