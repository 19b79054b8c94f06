"""`studio doctor`: what this machine has, what is missing, what the studio was not tested with.

Knows: versions of what is installed and of what was tested. Does not know: gradio; torch is asked
only in a child process.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import subprocess
import sys
from importlib import metadata
from typing import Any

import psutil
from packaging.requirements import Requirement

from studio import __version__
from studio.cli.runner import load_settings, print_json
from studio.settings import Settings
from studio.storage.home import Home
from studio.storage.models.library import Unusable

DISTRIBUTION = "picture-studio"
_DEVICE_SCRIPT = """
import json
from studio.engine.models import devices

device = devices.resolve()
print(json.dumps({
    "there": devices.list_available_devices(),
    "chosen": device.title,
    "dtype": device.dtype_name,
    "memory": device.get_memory(),
}))
"""


def run(arguments: argparse.Namespace) -> None:
    """Print what this machine has."""
    diagnostics = collect_diagnostics(load_settings(arguments))
    if arguments.json:
        print_json(diagnostics)
    else:
        print(format_diagnostics(diagnostics))


def collect_diagnostics(settings: Settings) -> dict[str, Any]:
    """Return Python, packages, devices, memory, disk, models, and what is missing or untested."""
    requirements = read_tested_requirements()
    versions = {item.name: _read_installed_version(item.name) for item in requirements}
    models = Home(settings).library.scan_models()
    return {
        "studio": __version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        "home": str(settings.home),
        "versions": versions,
        "devices": _query_devices(),
        "memory": psutil.virtual_memory().total,
        "disk_free": shutil.disk_usage(settings.home).free,
        "missing": [name for name, version in versions.items() if version is None],
        "untested": outside_tested_range(requirements, versions),
        "models": {
            model.name: model.problem if isinstance(model, Unusable) else model.family
            for model in models
        },
    }


def format_diagnostics(diagnostics: dict[str, Any]) -> str:
    """Return the same as lines for a person."""
    devices = diagnostics["devices"]
    device = devices.get("problem")
    if not device:
        available = ", ".join(devices["there"])
        device = f"{devices['chosen']} in {devices['dtype']} (there: {available})"
    missing = "nothing"
    if diagnostics["missing"]:
        missing = f"{', '.join(diagnostics['missing'])} (pip install them)"
    disk_gib = diagnostics["disk_free"] / 2**30
    lines = [
        f"studio    {diagnostics['studio']}",
        f"python    {diagnostics['python']} on {diagnostics['system']}",
        f"device    {device}",
        f"memory    {diagnostics['memory'] / 2**30:.1f} GiB",
        f"disk      {disk_gib:.1f} GiB free at {diagnostics['home']}",
    ]
    for name, version in diagnostics["versions"].items():
        lines.append(f"{name:<20}{version or 'MISSING'}")
    lines += [f"model     {name}: {status}" for name, status in diagnostics["models"].items()]
    lines += [f"untested  {sentence}" for sentence in diagnostics["untested"]]
    lines.append(f"missing   {missing}")
    return "\n".join(lines)


def read_tested_requirements() -> list[Requirement]:
    """Return the installed studio's requirements with the tested versions, without extras."""
    parsed = [Requirement(line) for line in metadata.requires(DISTRIBUTION) or ()]
    return [item for item in parsed if item.marker is None or "extra" not in str(item.marker)]


def outside_tested_range(
    requirements: list[Requirement], versions: dict[str, str | None]
) -> list[str]:
    """Return a sentence for every installed package of an untested version."""
    sentences = []
    for item in requirements:
        version = versions[item.name]
        if version and not item.specifier.contains(version, prereleases=True):
            tested = f"{item.name}{item.specifier}"
            sentences.append(
                f"{item.name} {version} is installed; this studio was tested with {tested}. "
                f"Run: pip install '{tested}'"
            )
    return sentences


def _read_installed_version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _query_devices() -> dict[str, Any]:
    """Ask torch in a child process: a broken one is then a line, not the end of this command."""
    child = subprocess.run(
        [sys.executable, "-c", _DEVICE_SCRIPT],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if child.returncode:
        error_lines = child.stderr.strip().splitlines()
        return {"problem": error_lines[-1] if error_lines else "torch cannot be imported"}
    return dict(json.loads(child.stdout.strip().splitlines()[-1]))
