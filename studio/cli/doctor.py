"""`studio doctor`: what this machine has, what is missing, what lies about in the home.

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
from collections.abc import Mapping
from importlib import metadata
from typing import Any, get_args

import psutil
from packaging.requirements import Requirement

from studio import __version__
from studio.cli.runner import load_settings, print_json
from studio.core.generation.memory_policy import MemoryState, choose_plan
from studio.core.generation.request import GenerationRequest
from studio.errors import Busy, InvalidSpec
from studio.settings import Settings
from studio.storage.cleanup import find_leftovers, remove_leftovers
from studio.storage.home import Home
from studio.storage.leftovers import LeftoverKind
from studio.storage.locks import Lock
from studio.storage.models.library import ModelInfo, Unusable
from studio.storage.models.model_bytes import measure_request

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
    "dtype_bytes": device.dtype.itemsize,
    "vae_dtype_bytes": device.vae_dtype.itemsize,
    "shares_memory": device.shares_memory,
    "stores_fp8": device.stores_fp8,
}))
"""


def run(arguments: argparse.Namespace) -> None:
    """Print what this machine has, or what lies about in the home."""
    settings = load_settings(arguments)
    if arguments.yes and not arguments.clean:
        raise InvalidSpec(["--yes: only works together with --clean."])
    if arguments.clean:
        report = clean_home(settings, remove=arguments.yes)
        print(json.dumps(report) if arguments.json else format_cleaning(report))
        return
    diagnostics = collect_diagnostics(settings)
    if arguments.json:
        print_json(diagnostics)
    else:
        print(format_diagnostics(diagnostics))


def collect_diagnostics(settings: Settings) -> dict[str, Any]:
    """Return Python, packages, devices, memory, disk, models, and what is missing or untested."""
    requirements = read_tested_requirements()
    versions = {item.name: _read_installed_version(item.name) for item in requirements}
    home = Home(settings)
    models = home.library.scan_models()
    devices = _query_devices()
    return {
        "studio": __version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        "home": str(settings.home),
        "versions": versions,
        "devices": devices,
        "memory": psutil.virtual_memory().total,
        "disk_free": shutil.disk_usage(settings.home).free,
        "missing": [name for name, version in versions.items() if version is None],
        "untested": outside_tested_range(requirements, versions),
        "notices": [
            *home.notices,
            *home.runs.list_problems(),
            *home.prompt_files.list_faults(),
        ],
        "models": {
            model.name: model.problem if isinstance(model, Unusable) else model.family
            for model in models
        },
        "plans": {
            model.name: describe_plan(model, devices, settings)
            for model in models
            if isinstance(model, ModelInfo) and "problem" not in devices
        },
    }


def describe_plan(model: ModelInfo, devices: Mapping[str, Any], settings: Settings) -> str:
    """Return in words how a model would lie in the memory that is free now, at its own size.

    Args:
        model: The model.
        devices: What was asked of torch.
        settings: How sparing to be, and what to keep free.
    """
    request = GenerationRequest(model=model.name).resolve(model.native_size, 0)
    sizes = measure_request(
        model,
        [request],
        dtype_bytes=devices["dtype_bytes"],
        vae_dtype_bytes=devices["vae_dtype_bytes"],
    )
    state = MemoryState(
        free=int(devices["memory"][1] - settings.keep_free * 2**30),
        host_free=psutil.virtual_memory().available,
        is_shared=devices["shares_memory"],
        stores_fp8=devices["stores_fp8"],
    )
    plan = choose_plan(sizes, state, settings.memory)
    return plan.title if plan else "does not fit into the free memory"


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
    plans = diagnostics["plans"]
    for name, status in diagnostics["models"].items():
        words = [status, plans[name]] if name in plans else [status]
        lines.append(f"model     {name}: {', '.join(words)}")
    lines += [f"notice    {sentence}" for sentence in diagnostics["notices"]]
    lines += [f"untested  {sentence}" for sentence in diagnostics["untested"]]
    lines.append(f"missing   {missing}")
    return "\n".join(lines)


def clean_home(settings: Settings, remove: bool) -> dict[str, Any]:
    """Find what lies about in a home, and remove it if that is asked for.

    Args:
        settings: Whose home.
        remove: Whether it is removed; else it is only counted.

    Returns:
        By kind the files and bytes, whether they were removed, and the paths that could not be.

    Raises:
        Busy: A studio is open on this home, so that nothing may be removed.
    """
    lock = Lock(settings.home, "studio")
    if remove and not lock.acquire(timeout_seconds=1.0):
        raise Busy(f"A studio is open on {settings.home}; close it first, then clean up.")
    home = Home(settings)
    try:
        found = find_leftovers(home)
        remaining = remove_leftovers(home, found) if remove else []
    finally:
        home.close()
        lock.close()
    kinds = {
        kind: {
            "files": sum(leftover.kind == kind for leftover in found),
            "bytes": sum(leftover.size_bytes for leftover in found if leftover.kind == kind),
        }
        for kind in get_args(LeftoverKind)
    }
    return {
        "home": str(settings.home),
        "removed": remove,
        "kinds": kinds,
        "remaining": [str(leftover.path) for leftover in remaining],
    }


def format_cleaning(report: dict[str, Any]) -> str:
    """Return the same as lines for a person: a table by kind, and what to do."""
    lines = [f"{'kind':<18}{'files':>8}{'MB':>12}"]
    totals = [0, 0]
    for kind, counts in report["kinds"].items():
        lines.append(f"{kind:<18}{counts['files']:>8,}{counts['bytes'] / 1e6:>12,.1f}")
        totals[0] += counts["files"]
        totals[1] += counts["bytes"]
    lines.append(f"{'together':<18}{totals[0]:>8,}{totals[1] / 1e6:>12,.1f}")
    if not report["removed"]:
        lines.append("Nothing was removed; `studio doctor --clean --yes` removes this.")
    lines += [f"could not be removed: {path}" for path in report["remaining"]]
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
