"""What the header of an upscaler tells: tensors under today's names, how much it enlarges.

Knows: SRVGG-compact, and ESRGAN's generator (RRDB) in all three sets of names. Does not know:
torch, the networks (engine/upscaling), other kinds.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path

from studio.storage import atomic
from studio.storage.models.denoiser_header import read_shape

# The names between the numbered ones and today's.
_RENAMED_PARTS = {
    "RRDB_trunk.": "body.",
    "trunk_conv.": "conv_body.",
    "upconv": "conv_up",
    "HRconv.": "conv_hr.",
    ".RDB": ".rdb",
}
_COMPACT_LAYER = re.compile(r"body\.(\d+)\.(?:weight|bias)")
_DOUBLING = re.compile(r"conv_up\d\.weight")
_NUMBERED_BLOCK = re.compile(r"model\.1\.sub\.(\d+)\.RDB([123])\.conv([1-5])\.0\.(weight|bias)")
_NUMBERED_LAYER = re.compile(r"model\.(\d+)\.(weight|bias)")
_NUMBERED_TRUNK = re.compile(r"model\.1\.sub\.(\d+)\.(weight|bias)")


def read_scale(path: Path) -> int:
    """Return how many times as large an upscaler makes an image; 0 for kinds that are not known.

    Args:
        path: A safetensors file.

    Raises:
        BadFile: It cannot be read.
    """
    header = atomic.read_safetensors_header(path)
    return find_scale(
        {
            name: tuple(read_shape(entry) or ())
            for name, entry in header.items()
            if name != "__metadata__"
        }
    )


def find_scale(shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Return how many times as large an upscaler with these tensors makes an image, or 0."""
    renamed = {new: shapes[old] for old, new in rename_tensors(list(shapes)).items()}
    first, last = (renamed.get(f"conv_{name}.weight", ()) for name in ("first", "last"))
    if "body.0.rdb1.conv1.weight" in renamed and len(first) == len(last) == 4:
        fold = math.isqrt(first[1] // last[0]) if last[0] else 0
        num_doublings = sum(bool(_DOUBLING.fullmatch(name)) for name in renamed)
        return 2**num_doublings // fold if fold else 0
    indices = [int(match[1]) for name in renamed if (match := _COMPACT_LAYER.fullmatch(name))]
    if len(indices) < len(renamed) or not indices:
        return 0
    first, last = (renamed.get(f"body.{index}.weight", ()) for index in (0, max(indices)))
    if len(first) != 4 or len(last) != 4 or not first[1]:
        return 0
    return math.isqrt(last[0] // first[1])


def rename_tensors(names: list[str]) -> dict[str, str]:
    """Return today's name of every tensor of an ESRGAN file, by the name that it has there.

    Names that are of none of the three kinds stay what they are.
    """
    if any(name.startswith("model.1.sub.") for name in names):
        return _rename_numbered(names)
    renamed = {}
    for name in names:
        new_name = name
        for old, new in _RENAMED_PARTS.items():
            new_name = new_name.replace(old, new)
        renamed[name] = new_name
    return renamed


def _rename_numbered(names: list[str]) -> dict[str, str]:
    """Rename the layers of the first release: 0 is the first, 1 the body, then three a doubling."""
    indices = [int(match[1]) for name in names if (match := _NUMBERED_LAYER.fullmatch(name))]
    last_index = max(indices, default=0)
    layers = {0: "conv_first", last_index - 2: "conv_hr", last_index: "conv_last"}
    layers |= {3 * number: f"conv_up{number}" for number in range(1, (last_index - 4) // 3 + 1)}
    renamed = {}
    for name in names:
        new_name = name
        if match := _NUMBERED_BLOCK.fullmatch(name):
            new_name = f"body.{match[1]}.rdb{match[2]}.conv{match[3]}.{match[4]}"
        elif match := _NUMBERED_TRUNK.fullmatch(name):
            new_name = f"conv_body.{match[2]}"
        elif (match := _NUMBERED_LAYER.fullmatch(name)) and int(match[1]) in layers:
            new_name = f"{layers[int(match[1])]}.{match[2]}"
        renamed[name] = new_name
    return renamed
