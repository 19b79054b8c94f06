"""What a file is, and what this machine has: the answers of `studio inspect` and `studio doctor`.

Knows: the store's readers, versions of what is installed. Does not know: gradio; torch is asked only in a child process.
"""

from __future__ import annotations

import json
import platform
import shutil
import subprocess
import sys
from collections import Counter
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil
from packaging.requirements import Requirement

from studio import __version__
from studio.errors import BadFile
from studio.settings import Settings
from studio.storage import atomic, gallery
from studio.storage.models import lora_file
from studio.storage.models.library import PICKLES, Library, Unusable, look

DISTRIBUTION = "picture-studio"
LORA_SAYS = (
    "name",
    "family",
    "rank",
    "alpha",
    "layers",
    "networks",
    "bytes",
    "title",
    "base_model",
    "trigger_words",
)
_ASK_TORCH = (
    "import json; from studio.engine.models import devices; d = devices.resolve();"
    "print(json.dumps({'there': devices.there(), 'chosen': d.title, 'dtype': d.dtype_name, 'memory': d.memory()}))"
)


def look_at(path: Path) -> dict[str, Any]:
    """What a picture, model folder, LoRA or other safetensors file is. Raises BadFile and BadPicture."""
    if path.is_dir():
        if not (path / "model_index.json").is_file():
            raise BadFile(f"{path} is no model folder: it has no model_index.json.")
        model = look(path)
        return {
            "kind": "model",
            "name": model.name,
            "family": model.family,
            "prediction": model.prediction,
            "side": model.side,
            "dtype": model.dtype,
            "bytes": model.bytes,
            "inpainting": model.inpainting,
        }
    if not path.is_file():
        raise BadFile(f"There is no file {path}.")
    if path.suffix == ".safetensors":
        header = atomic.safetensors_header(path)
        if any("lora" in key for key in header):
            lora = lora_file.look(path)
            return {
                "kind": "lora",
                **{name: getattr(lora, name) for name in LORA_SAYS},
                "tags": dict(lora.tags),
            }
        told = header.pop("__metadata__", {})
        return {
            "kind": "safetensors",
            "tensors": len(header),
            "metadata": told,
            "bytes": path.stat().st_size,
            "dtypes": dict(
                Counter(
                    str(entry.get("dtype")) for entry in header.values() if isinstance(entry, dict)
                )
            ),
        }
    if path.suffix in PICKLES:
        raise BadFile(
            f"{path.name} may carry programs and is not opened; only .safetensors weights are."
        )
    found = gallery.recipe(path)
    return {
        "kind": "picture",
        "source": found.source,
        "request": dict(found.values),
        "text": found.text,
        "notes": list(found.notes),
    }


def examine(settings: Settings) -> dict[str, Any]:
    """Python, packages, devices, memory, disk, models, and what is missing."""
    requirements = tested_requirements()
    versions = {item.name: _version(item.name) for item in requirements}
    shelf = Library(settings).scan()
    missing = [name for name, version in versions.items() if version is None]
    return {
        "studio": __version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        "home": str(settings.home),
        "versions": versions,
        "devices": _devices(),
        "memory": psutil.virtual_memory().total,
        "disk_free": shutil.disk_usage(settings.home).free,
        "missing": missing,
        "untested": outside_tested_range(requirements, versions),
        "models": {
            item.name: item.problem if isinstance(item, Unusable) else item.family for item in shelf
        },
    }


def in_words(found: dict[str, Any]) -> str:
    """The same as lines for a person."""
    devices = found["devices"]
    computes = (
        devices.get("problem")
        or f"{devices['chosen']} in {devices['dtype']} (there: {', '.join(devices['there'])})"
    )
    lines = [
        f"studio    {found['studio']}",
        f"python    {found['python']} on {found['system']}",
        f"device    {computes}",
        f"memory    {found['memory'] / 2**30:.1f} GiB",
        f"disk      {found['disk_free'] / 2**30:.1f} GiB free at {found['home']}",
    ]
    lines += [f"{name:<20}{version or 'MISSING'}" for name, version in found["versions"].items()]
    lines += [f"model     {name}: {about}" for name, about in found["models"].items()]
    lines += [f"untested  {sentence}" for sentence in found["untested"]]
    lines.append(
        "missing   "
        + (", ".join(found["missing"]) + " (pip install them)" if found["missing"] else "nothing")
    )
    return "\n".join(lines)


def tested_requirements() -> list[Requirement]:
    """Return what the installed studio asks for, with the versions it was tested on; extras are left out."""
    parsed = [Requirement(line) for line in metadata.requires(DISTRIBUTION) or ()]
    return [item for item in parsed if item.marker is None or "extra" not in str(item.marker)]


def outside_tested_range(
    requirements: list[Requirement], versions: dict[str, str | None]
) -> list[str]:
    """Return a sentence for every installed package whose version the studio was not tested with."""
    return [
        f"{item.name} {version} is installed; this studio was tested with {item.name}{item.specifier}. "
        f"Run: pip install '{item.name}{item.specifier}'"
        for item in requirements
        if (version := versions[item.name])
        and not item.specifier.contains(version, prereleases=True)
    ]


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _devices() -> dict[str, Any]:
    """Asked in a child process: a broken torch then is a line here, not the end of this command."""
    asked = subprocess.run(
        [sys.executable, "-c", _ASK_TORCH], capture_output=True, text=True, timeout=120, check=False
    )
    if asked.returncode:
        return {"problem": (asked.stderr.strip().splitlines() or ["torch cannot be imported"])[-1]}
    return dict(json.loads(asked.stdout.strip().splitlines()[-1]))
