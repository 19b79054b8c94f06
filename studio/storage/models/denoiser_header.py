"""What a header says of the network that paints: its parts, what it predicts, what it cannot do.

Knows: the marks that trainers and converters leave. Does not know: which family a file is of, and
how its header is read (model_file.py); torch.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from studio.storage.models.header_rules import DTYPE_BYTES, FLOW_FAMILIES, PART_PREFIXES
from studio.storage.odd_files import open_file

MAX_YAML_BYTES = 2**20
# Names that say what a denoiser predicts, and that it cannot be used: (prediction, whose it is).
_EDM_MARKERS = {
    "edm_mean": ("EDM", "Playground 2.5"),
    "edm_std": ("EDM", "Playground 2.5"),
    "edm_vpred.sigma_max": ("EDM v", "CosXL"),
}
# ComfyUI's rule for SD 2.x: the spread of this tensor tells v-prediction from epsilon.
SD2_TENSOR = "output_blocks.11.1.transformer_blocks.0.norm1.bias"
_SD2_V_STD = 0.09


EMA_PART = PART_PREFIXES["model_ema."]


def list_parts(names: set[str]) -> tuple[str, ...]:
    """Return the parts of a file that has a denoiser."""
    parts = ["denoiser"]
    for prefix, part in PART_PREFIXES.items():
        if part not in parts and any(name.startswith(prefix) for name in names):
            parts.append(part)
    return tuple(parts)


def is_whole(parts: Sequence[str]) -> bool:
    """Return whether there is more than a denoiser, of which a moving average is only a copy."""
    return bool(set(parts) - {"denoiser", EMA_PART})


def count_input_channels(denoiser: Mapping[str, tuple[int, ...]]) -> int:
    """Return how many channels a U-Net takes: 4 plain ones, 9 for inpainting; 0 of all else."""
    for name in ("input_blocks.0.0.weight", "conv_in.weight"):
        shape = denoiser.get(name, ())
        if len(shape) == 4:
            return shape[1]
    return 0


def find_denoiser_problem(
    names: set[str], denoiser: Mapping[str, tuple[int, ...]], num_channels: int
) -> str:
    """Return why the studio cannot paint with a denoiser, as the end of a sentence, or nothing."""
    for marker, (_, model) in _EDM_MARKERS.items():
        if marker in names or marker in denoiser:
            return f"predicts as EDM does ({model}), which the studio does not support"
    if num_channels == 8:
        return "edits by instructions (InstructPix2Pix), which the studio cannot do"
    if num_channels not in (0, 4, 9):
        return f"takes {num_channels} channels; the studio supports 4, and 9 for inpainting"
    return ""


def find_prediction(
    path: Path,
    family: str,
    metadata: Mapping[str, str],
    *,
    names: set[str],
    prefix: str,
    sd2_bias: Sequence[float],
) -> tuple[str, bool]:
    """Return what a denoiser predicts, and whether its noise begins at zero signal.

    Args:
        path: The file; a config of the original repository may lie beside it.
        family: Of which family it is.
        metadata: The texts in its header.
        names: Of its tensors.
        prefix: Of the denoiser's tensors.
        sd2_bias: The numbers of `SD2_TENSOR`; empty if they are not at hand.
    """
    if family in FLOW_FAMILIES:
        return "flow", False
    for marker, (prediction, _) in _EDM_MARKERS.items():
        if {marker, prefix + marker} & names:
            return prediction, False
    is_zero_snr = bool({"ztsnr", f"{prefix}ztsnr"} & names)
    is_zero_snr = is_zero_snr or metadata.get("ss_zero_terminal_snr") == "True"
    if {"v_pred", f"{prefix}v_pred"} & names:
        return "v", is_zero_snr
    stated = metadata.get("modelspec.prediction_type", "").lower()
    if stated in ("v", "velocity", "v_prediction"):
        return "v", is_zero_snr
    if stated == "epsilon":
        return "epsilon", is_zero_snr
    if metadata.get("ss_v_parameterization") == "True" or says_v_prediction_beside(path):
        return "v", is_zero_snr
    if family == "sd2" and sd2_bias and _compute_std(sd2_bias) > _SD2_V_STD:
        return "v", is_zero_snr
    return "epsilon", is_zero_snr


def says_v_prediction_beside(path: Path) -> bool:
    """Return whether the config of the original repository, beside the file, says v-prediction."""
    try:
        with open_file(path.with_suffix(".yaml")) as file:
            text = file.read(MAX_YAML_BYTES).decode("utf-8", "replace")
    except OSError:
        return False
    return bool(re.search(r"parameterization:\s*[\"']?v\b", text))


def read_vector(file: BinaryIO, data_start: int, entry: Any) -> list[float]:
    """Read a short tensor without torch; empty if it is not there or of another number format."""
    if not isinstance(entry, dict):
        return []
    shape = read_shape(entry)
    dtype = entry.get("dtype")
    struct_format = {"F32": "f", "F16": "e", "BF16": "H"}.get(str(dtype))
    if shape is None or struct_format is None or not 2 <= math.prod(shape) <= 4096:
        return []
    num_bytes = math.prod(shape) * DTYPE_BYTES[str(dtype)]
    file.seek(data_start + entry["data_offsets"][0])
    data = file.read(num_bytes)
    if len(data) < num_bytes:
        return []
    values = struct.unpack(f"<{math.prod(shape)}{struct_format}", data)
    if dtype == "BF16":  # the upper half of a float32
        return [struct.unpack("<f", struct.pack("<I", value << 16))[0] for value in values]
    return list(values)


def _compute_std(values: Sequence[float]) -> float:
    mean = sum(values) / len(values)
    return math.sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1))


def read_shape(entry: Any) -> tuple[int, ...] | None:
    """Return the shape that a header gives a tensor; None for what is none."""
    shape = entry.get("shape") if isinstance(entry, dict) else None
    if not isinstance(shape, list) or any(type(side) is not int or side < 0 for side in shape):
        return None
    return tuple(shape)
