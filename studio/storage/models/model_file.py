"""What a file of weights is, from its header alone: kind, family, prediction, contents, faults.

Knows: how a header is read, and in which order its names are asked about.
Does not know: torch; what kinds and families are called (header_rules.py); the library's folders.

`identify_file` never raises for what is in a file: what is wrong with it is part of the answer.
"""

from __future__ import annotations

import math
import re
import struct
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO

from studio.core.catalog import Family
from studio.errors import BadFile, quote
from studio.storage import atomic
from studio.storage.models.adapter_kinds import (
    IA3,
    is_supported,
    parse_adapter_key,
    title_adapter,
)
from studio.storage.models.header_rules import (
    ADAPTER_FAMILIES,
    DENOISER_PREFIXES,
    DTYPE_BYTES,
    FAMILY_BY_CROSS_ATTENTION_DIM,
    FAMILY_BY_TEXT_ENCODER_WIDTH,
    FAMILY_BY_VERSION,
    FAMILY_TITLES,
    FLOW_FAMILIES,
    KIND_FOLDERS,
    KIND_TITLES,
    PART_PREFIXES,
    RULES,
    FileKind,
    Rule,
)

MAX_TEXT_CHARS = 100
MAX_YAML_BYTES = 2**20
MAX_EMBEDDING_VECTORS = 1000  # a prompt has room for 75, a long one for some hundreds
TEXT_WIDTHS = (768, 1024, 1280)  # of the text encoders of SD 1.x, SD 2.x and SDXL
DTYPE_TITLES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "F8_E4M3": "8 bit",
    "F8_E5M2": "8 bit",
}
# Of the first bytes of files that are no safetensors: what they are.
_SIGNATURES: tuple[tuple[bytes, str], ...] = (
    (b"GGUF", "is a GGUF file, whose quantised weights the studio cannot read"),
    (
        b"version https://git-lfs",
        "is a Git LFS pointer of a few lines and not the file itself; fetch it with `git lfs pull`",
    ),
    (b"PK\x03\x04", "is a pickle, which can carry programs; it is not opened"),
    (b"\x80\x02", "is a pickle, which can carry programs; it is not opened"),
    (b"\x80\x03", "is a pickle, which can carry programs; it is not opened"),
    (b"\x80\x04", "is a pickle, which can carry programs; it is not opened"),
    (b"\x80\x05", "is a pickle, which can carry programs; it is not opened"),
    (b"<!doctype", "is a web page and not weights; the download asked for something first"),
    (b"<html", "is a web page and not weights; the download asked for something first"),
    (b"{", "is a JSON text and not weights"),
)
_UNKNOWN_KEY_PROBLEM = "is quantised in a way that the studio cannot read"
# Names that say what a denoiser's numbers mean, and that it cannot be used.
_MARKER_PROBLEMS = {
    "edm_mean": "predicts as EDM does (Playground 2.5), which the studio cannot paint with",
    "edm_std": "predicts as EDM does (Playground 2.5), which the studio cannot paint with",
    "edm_vpred.sigma_max": "predicts as EDM does (CosXL), which the studio cannot paint with",
}
# The half of a LoRA's pair that reads the text's vectors.
_CONTEXT_INPUT = re.compile(r"attn2[._](?:to_[kv]|processor[._]to_[kv]_lora)\b.*(?:down|lora_A)")
# ComfyUI's rule for SD 2.x: the spread of this tensor tells v-prediction from epsilon.
_SD2_TENSOR = "output_blocks.11.1.transformer_blocks.0.norm1.bias"
_SD2_V_STD = 0.09


@dataclass(frozen=True)
class ModelFile:
    """What a file of weights is.

    Attributes:
        path: The file.
        kind: What it is.
        family: Of which family; empty if that is not known.
        prediction: epsilon, v or flow of what paints, empty of all else.
        is_zero_snr: Whether its noise begins at zero signal.
        is_inpainting: Whether the denoiser also takes a mask.
        contents: Its parts.
        adapter: Which relative of LoRA it is; empty of all else.
        dtype: Of most of its bytes, as safetensors says it.
        size_bytes: Of the file.
        problem: Why the studio cannot use it, as the end of a sentence that begins with its name;
            empty if nothing speaks against it.
        metadata: The texts in its header.
    """

    path: Path
    kind: FileKind = "unknown"
    family: str = ""
    prediction: str = ""
    is_zero_snr: bool = False
    is_inpainting: bool = False
    contents: tuple[str, ...] = ()
    adapter: str = ""
    dtype: str = ""
    size_bytes: int = 0
    problem: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)

    @property
    def folder(self) -> str:
        """The folder of a home where it belongs; empty if it has no use there."""
        return "" if self.problem else KIND_FOLDERS.get(self.kind, "")

    @property
    def title(self) -> str:
        """What it is in a few words: `LoHa for SDXL`, `checkpoint of SD 1.x for inpainting`."""
        name = self.adapter or KIND_TITLES[self.kind]
        family = FAMILY_TITLES.get(self.family, "")
        if family:
            name += f" {'for' if self.kind in ('lora', 'controlnet') else 'of'} {family}"
        if self.is_inpainting:
            name += " for inpainting"
        return name

    @property
    def description(self) -> str:
        """What it is with its article, and what is in it: `a LoRA for SDXL (float16)`."""
        facts = [*self.contents]
        if self.prediction:
            facts.append(f"{self.prediction} prediction")
        if self.dtype:
            facts.append(DTYPE_TITLES.get(self.dtype, quote(self.dtype)))
        article = "an" if self.title[0] in "aeiouAEIO(" else "a"
        return f"{article} {self.title}" + (f" ({', '.join(facts)})" if facts else "")

    @property
    def sentence(self) -> str:
        """One sentence: what it is, what is in it, where it belongs or why it cannot be used."""
        name = _clean(self.path.name)
        if self.kind == "unknown" and self.problem:
            return f"{name} {self.problem}."
        if self.problem:
            return f"{name} is {self.description}; it {self.problem}."
        place = f"; it belongs in {self.folder}/" if self.folder else ""
        return f"{name} is {self.description}{place}."


def identify_file(path: Path) -> ModelFile:
    """Return what a file of weights is. Raises BadFile if it cannot be opened."""
    try:
        with open(path, "rb") as file:
            size_bytes = path.stat().st_size
            unread = ModelFile(path, size_bytes=size_bytes)
            problem = _check_signature(file.read(64), size_bytes)
            if problem:
                return replace(unread, problem=problem)
            try:
                header = atomic.read_safetensors_header(path)
            except BadFile as error:
                text = str(error).removeprefix(path.name).strip().rstrip(".")
                return replace(unread, problem=text)
            return _identify(unread, file, header)
    except OSError as error:
        raise BadFile(f"{path.name} cannot be read ({error.strerror}).") from None


def explain_no_model(path: Path) -> str:
    """Return why a file that lies among the models is none of them. Raises BadFile."""
    identified = identify_file(path)
    if identified.problem or identified.kind == "unknown":
        return identified.sentence
    if identified.kind in ("checkpoint", "denoiser"):
        return (
            f"It is {identified.description}; single files cannot be opened yet, only folders in "
            "diffusers layout."
        )
    if identified.folder:
        return f"It is {identified.description}; it belongs in {identified.folder}/."
    return f"It is {identified.description}, which the studio cannot use yet."


def _check_signature(head: bytes, size_bytes: int) -> str:
    """Return what speaks against a file by its first bytes; empty if nothing does."""
    if not size_bytes:
        return "is empty"
    text = head.lstrip().lower()
    for signature, problem in _SIGNATURES:
        if head.startswith(signature) or text.startswith(signature.lower()):
            return problem
    return ""


def _identify(unread: ModelFile, file: BinaryIO, header: Mapping[str, Any]) -> ModelFile:
    """Return what a file is by its header."""
    data_start, shapes, problem = _read_tensors(file, header, unread.size_bytes)
    metadata = read_metadata(header)
    result = replace(unread, metadata=metadata, dtype=_find_main_dtype(header, shapes))
    if problem:
        return replace(result, problem=problem)
    names = set(shapes)
    adapter, problem = _find_adapter(shapes)
    if adapter and "lora_controlnet" not in names:
        family = _find_adapter_family(shapes, metadata)
        return replace(result, kind="lora", adapter=adapter, family=family, problem=problem)
    if _is_embedding(shapes):
        return replace(result, kind="embedding", family=_find_embedding_family(shapes))
    denoiser, prefix = _strip_prefix(shapes)
    rule = _find_rule(denoiser) or _find_rule(shapes)
    if rule is None:
        return _describe_leftover(result, names)
    result = replace(result, kind=rule.kind, family=rule.family, problem=rule.problem)
    if rule.kind != "denoiser":
        return result
    contents = _list_parts(names)
    result = replace(
        result,
        kind="checkpoint" if "autoencoder" in contents else "denoiser",
        contents=contents,
        is_inpainting=_count_input_channels(denoiser) == 9,
    )
    problem = result.problem or _find_denoiser_problem(names, denoiser)
    prediction, is_zero_snr = _find_prediction(result, file, data_start, header, prefix)
    return replace(result, problem=problem, prediction=prediction, is_zero_snr=is_zero_snr)


# ---- the header ---------------------------------------------------------------------------------


def _read_tensors(
    file: BinaryIO, header: Mapping[str, Any], size_bytes: int
) -> tuple[int, dict[str, tuple[int, ...]], str]:
    """Return where the data begin, the tensors' shapes, and what is wrong with them."""
    file.seek(0)
    (header_bytes,) = struct.unpack("<Q", file.read(8))
    data_start = 8 + header_bytes
    shapes: dict[str, tuple[int, ...]] = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        shape = _read_shape(entry)
        end = _read_end(entry)
        if shape is None or end is None:
            return data_start, shapes, f"does not say how large {name!a:.60} is"
        if data_start + end > size_bytes:
            return data_start, shapes, "was cut off while it was copied"
        shapes[name] = shape
    return data_start, shapes, "" if shapes else "has no tensors"


def _read_shape(entry: Any) -> tuple[int, ...] | None:
    shape = entry.get("shape") if isinstance(entry, dict) else None
    if not isinstance(shape, list) or any(type(side) is not int or side < 0 for side in shape):
        return None
    return tuple(shape)


def _read_end(entry: Any) -> int | None:
    """Return where a tensor ends, in bytes after the header."""
    offsets = entry.get("data_offsets") if isinstance(entry, dict) else None
    if not isinstance(offsets, list) or len(offsets) != 2:
        return None
    if any(type(offset) is not int for offset in offsets) or not 0 <= offsets[0] <= offsets[1]:
        return None
    return int(offsets[1])


def read_metadata(header: Mapping[str, Any]) -> dict[str, str]:
    """Return the texts in a file's header."""
    metadata = header.get("__metadata__")
    if not isinstance(metadata, dict):
        return {}
    return {str(key): value for key, value in metadata.items() if isinstance(value, str)}


def _find_main_dtype(header: Mapping[str, Any], shapes: Mapping[str, Sequence[int]]) -> str:
    sizes: Counter[str] = Counter()
    for name, shape in shapes.items():
        dtype = header[name].get("dtype")
        if isinstance(dtype, str) and len(dtype) <= MAX_TEXT_CHARS:
            sizes[dtype] += math.prod(shape) * DTYPE_BYTES.get(dtype, 1)
    return sizes.most_common(1)[0][0] if sizes else ""


# ---- the kind -----------------------------------------------------------------------------------


def _find_adapter(shapes: Mapping[str, Sequence[int]]) -> tuple[str, str]:
    """Return which relative of LoRA a file is and why it cannot be used, if it is one."""
    parsed = {name: parse_adapter_key(name) for name in shapes}
    kinds = {result[1].kind for result in parsed.values() if result} - {""}
    num_tensors = sum(result is not None for result in parsed.values())
    if IA3 in kinds:  # half of its tensors have names that say nothing
        num_tensors *= 2
    if not kinds or 2 * num_tensors <= len(shapes):
        return "", ""
    problem = "" if all(is_supported(kind) for kind in kinds) else "cannot be used yet"
    return title_adapter(shapes), problem


def _find_adapter_family(shapes: Mapping[str, tuple[int, ...]], metadata: Mapping[str, str]) -> str:
    names = "\n".join(shapes)
    for pattern, family in ADAPTER_FAMILIES.items():
        if re.search(pattern, names):
            return family
    for name, shape in shapes.items():
        if _CONTEXT_INPUT.search(name) and len(shape) > 1:
            by_width = FAMILY_BY_CROSS_ATTENTION_DIM.get(shape[1])
            if by_width:
                return by_width
    return find_stated_family(metadata) or ""


def find_stated_family(metadata: Mapping[str, str]) -> Family | None:
    """Return the family that a trainer wrote into a file's header."""
    version = metadata.get("ss_base_model_version", "") + metadata.get("modelspec.architecture", "")
    for part, family in FAMILY_BY_VERSION.items():
        if part in version:
            return family
    return None


def _is_embedding(shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Whether a file holds a few vectors as wide as text encoders are, and nothing else."""
    return 1 <= len(shapes) <= 3 and all(
        len(shape) in (1, 2)
        and shape[-1] in TEXT_WIDTHS
        and math.prod(shape) <= MAX_EMBEDDING_VECTORS * shape[-1]
        for shape in shapes.values()
    )


def _find_embedding_family(shapes: Mapping[str, tuple[int, ...]]) -> str:
    widths = {shape[-1] for shape in shapes.values()}
    if 1280 in widths:
        return "sdxl"
    return FAMILY_BY_TEXT_ENCODER_WIDTH.get(next(iter(widths)), "")


def _strip_prefix(
    shapes: Mapping[str, tuple[int, ...]],
) -> tuple[dict[str, tuple[int, ...]], str]:
    """Return a denoiser's tensors without their prefix, and that prefix."""
    for prefix in DENOISER_PREFIXES:
        inner = {
            name.removeprefix(prefix): shape
            for name, shape in shapes.items()
            if name.startswith(prefix)
        }
        if len(inner) > 1:
            return inner, prefix
    return dict(shapes), ""


def _find_rule(shapes: Mapping[str, tuple[int, ...]]) -> Rule | None:
    return next((rule for rule in RULES if _fits(rule, shapes)), None)


def _fits(rule: Rule, shapes: Mapping[str, tuple[int, ...]]) -> bool:
    for name, axis, size in rule.sizes:
        shape = shapes.get(name, ())
        if len(shape) <= axis or shape[axis] != size:
            return False
    return all(_occurs(name, shapes) for name in rule.names)


def _occurs(name: str, shapes: Mapping[str, tuple[int, ...]]) -> bool:
    if name.endswith("*"):
        return any(key.startswith(name[:-1]) for key in shapes)
    return name in shapes


def _describe_leftover(result: ModelFile, names: set[str]) -> ModelFile:
    """Return what can be said of a file that no rule fits."""
    if any(name.startswith("model_ema.") for name in names):
        return replace(result, problem="holds only the moving average (EMA) of a training")
    if re.search(r"-\d{5}-of-\d{5}$", result.path.stem):
        return replace(result, problem="is one of several pieces; it belongs in its model's folder")
    return result


# ---- a denoiser ---------------------------------------------------------------------------------


def _list_parts(names: set[str]) -> tuple[str, ...]:
    parts = ["denoiser"]
    for prefix, part in PART_PREFIXES.items():
        if part not in parts and any(name.startswith(prefix) for name in names):
            parts.append(part)
    return tuple(parts)


def _count_input_channels(denoiser: Mapping[str, tuple[int, ...]]) -> int:
    for name in ("input_blocks.0.0.weight", "conv_in.weight"):
        shape = denoiser.get(name, ())
        if len(shape) == 4:
            return shape[1]
    return 0


def _find_denoiser_problem(names: set[str], denoiser: Mapping[str, tuple[int, ...]]) -> str:
    for name, problem in _MARKER_PROBLEMS.items():
        if name in names or name in denoiser:
            return problem
    if any(name.endswith((".comfy_quant", ".weight_scale")) for name in names):
        return _UNKNOWN_KEY_PROBLEM
    if any(name.endswith(("scaled_fp8", ".scale_weight")) for name in names):
        return "has 8-bit weights with a scale beside each, which the studio cannot read yet"
    if _count_input_channels(denoiser) == 8:
        return "edits by instructions (InstructPix2Pix), which the studio cannot do"
    return ""


def _find_prediction(
    result: ModelFile,
    file: BinaryIO,
    data_start: int,
    header: Mapping[str, Any],
    prefix: str,
) -> tuple[str, bool]:
    """Return what a denoiser predicts, and whether its noise begins at zero signal."""
    if result.family in FLOW_FAMILIES:
        return "flow", False
    metadata = result.metadata
    is_zero_snr = "ztsnr" in header or metadata.get("ss_zero_terminal_snr") == "True"
    if "v_pred" in header or prefix + "v_pred" in header:
        return "v", is_zero_snr
    stated = metadata.get("modelspec.prediction_type", "").lower()
    if stated in ("v", "velocity", "v_prediction"):
        return "v", is_zero_snr
    if stated == "epsilon":
        return "epsilon", is_zero_snr
    if metadata.get("ss_v_parameterization") == "True" or _read_yaml_v(result.path):
        return "v", is_zero_snr
    if result.family == "sd2":
        bias = _read_vector(file, data_start, header.get(prefix + _SD2_TENSOR))
        if bias and _compute_std(bias) > _SD2_V_STD:
            return "v", is_zero_snr
    return "epsilon", is_zero_snr


def _read_yaml_v(path: Path) -> bool:
    """Whether the config of the original repository, beside the file, says v-prediction."""
    try:
        with open(path.with_suffix(".yaml"), encoding="utf-8", errors="replace") as file:
            text = file.read(MAX_YAML_BYTES)
    except OSError:
        return False
    return bool(re.search(r"parameterization:\s*[\"']?v\b", text))


def _read_vector(file: BinaryIO, data_start: int, entry: Any) -> list[float]:
    """Read a short tensor without torch; empty if it is not there or of another number format."""
    if not isinstance(entry, dict):
        return []
    shape = _read_shape(entry)
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


def _clean(name: str) -> str:
    """Return a file's name fit to be shown: its bytes need not be text."""
    return "".join(char if char.isprintable() else "?" for char in name)
