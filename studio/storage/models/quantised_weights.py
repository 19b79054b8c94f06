"""Weights of few bits in a safetensors file: which of them the studio can read.

Knows: how ComfyUI and others mark them. Does not know: how they are turned into numbers again
(engine/models/part_files.py); torch.

8-bit floats are read as they are, and with one scale for a tensor or for each of its rows beside
it: `x.scale_weight` (and an empty `scaled_fp8`), or `x.weight_scale`, with `x.comfy_quant` saying
which. All else needs more than a product.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, BinaryIO

from studio.errors import quote
from studio.storage.models.header_rules import QUANTISED_ENDINGS
from studio.storage.models.model_info import FP8_DTYPES

SCALE_ENDINGS = (".scale_weight", ".weight_scale")
MARK_ENDING = ".comfy_quant"  # a JSON text as bytes, beside a weight
METADATA_KEY = "_quantization_metadata"  # the same for all weights, in the header
READABLE_FORMATS = ("float8_e4m3fn", "float8_e5m2")
# What a mark may say besides its format: whether the product is to be computed in more bits.
_HARMLESS_KEYS = {"format", "full_precision_matrix_mult"}
MAX_MARK_BYTES = 4096
_PROBLEM = "is quantised in a way that the studio cannot read"


def find_quantisation_problem(
    file: BinaryIO,
    data_start: int,
    header: Mapping[str, Any],
    shapes: Mapping[str, Sequence[int]],
    metadata: Mapping[str, str],
) -> str:
    """Return why the weights cannot be read, as the end of a sentence; empty if they can.

    Args:
        file: The open file.
        data_start: Where its tensors begin.
        header: What it says of them.
        shapes: Of them.
        metadata: The texts in the header.
    """
    for mark in _list_marks(file, data_start, header, metadata):
        layout = mark.get("format") if isinstance(mark, dict) else None
        if layout not in READABLE_FORMATS or not set(mark) <= _HARMLESS_KEYS:
            return f"{_PROBLEM} ({quote(layout, 30)})" if isinstance(layout, str) else _PROBLEM
    for name in shapes:
        if name.endswith(SCALE_ENDINGS):
            weight = f"{name.rpartition('.')[0]}.weight"
            if not _is_scale_of(header, shapes, name, weight):
                return _PROBLEM
        elif name.endswith(QUANTISED_ENDINGS) and not name.endswith(MARK_ENDING):
            return _PROBLEM
    return ""


def _is_scale_of(
    header: Mapping[str, Any], shapes: Mapping[str, Sequence[int]], scale: str, weight: str
) -> bool:
    """Whether a tensor holds one number for an 8-bit float weight, or one for each of its rows."""
    if weight not in shapes or not shapes[weight]:
        return False
    if header[weight].get("dtype") not in FP8_DTYPES:
        # Left in its format by whoever scaled the others: a scale of one number changes it too.
        return math.prod(shapes[scale]) == 1
    return math.prod(shapes[scale]) in (1, shapes[weight][0])


def _list_marks(
    file: BinaryIO, data_start: int, header: Mapping[str, Any], metadata: Mapping[str, str]
) -> Iterator[Any]:
    """Yield what each mark says; None for one that cannot be read."""
    if METADATA_KEY in metadata:
        content = _parse_json(metadata[METADATA_KEY].encode())
        layers = content.get("layers") if isinstance(content, dict) else None
        yield from layers.values() if isinstance(layers, dict) else [None]
    for name, entry in header.items():
        if name != "__metadata__" and name.endswith(MARK_ENDING):
            begin, end = entry["data_offsets"]
            file.seek(data_start + begin)
            yield _parse_json(file.read(end - begin)) if end - begin <= MAX_MARK_BYTES else None


def _parse_json(data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None
