"""What a file of weights is, from its header alone: kind, family, prediction, contents, faults.

Knows: how a header is read, and in which order its names are asked about.
Does not know: torch; what kinds and families are called (header_rules.py); how a GGUF file is read
(gguf_file.py); where a file lies.

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

from studio.core.families.checkpoint_configs import CHECKPOINT_FACTS
from studio.core.families.family import FamilyName
from studio.core.families.registry import FAMILIES
from studio.core.families.unet_config import LATENT_CHANNELS
from studio.core.families.vae_shapes import find_missing_vae_tensor
from studio.errors import BadFile, quote
from studio.storage import atomic, odd_files
from studio.storage.models import gguf_file
from studio.storage.models.adapter_kinds import (
    IA3,
    is_supported,
    parse_adapter_key,
    title_adapter,
)
from studio.storage.models.denoiser_header import (
    SD2_TENSOR,
    count_input_channels,
    find_denoiser_problem,
    find_prediction,
    is_whole,
    list_parts,
    read_shape,
    read_vector,
)
from studio.storage.models.header_rules import (
    ADAPTABLE_FAMILIES,
    ADAPTER_FAMILIES,
    DENOISER_PREFIXES,
    DTYPE_BYTES,
    FAMILY_BY_CROSS_ATTENTION_DIM,
    FAMILY_BY_TEXT_ENCODER_WIDTH,
    FAMILY_BY_VERSION,
    FAMILY_TITLES,
    FLUX1_SIZES,
    KIND_FOLDERS,
    KIND_TITLES,
    KINDS_BEFORE_LORA,
    RULES,
    VAE_PREFIXES,
    FileKind,
    Rule,
)
from studio.storage.models.quantised_weights import find_quantisation_problem
from studio.storage.models.upscaler_shapes import find_upscaler_problem

MAX_TEXT_CHARS = 100
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
PICKLE_SUFFIXES = (".ckpt", ".pt", ".pth", ".bin", ".pkl")
WEIGHTS_SUFFIXES = (".safetensors", ".gguf", *PICKLE_SUFFIXES)
_PICKLE_PROBLEM = "is a pickle, which can contain programs, so it is not opened; use .safetensors"
# Of the first bytes of files that are no safetensors: what they are.
_SIGNATURES: tuple[tuple[bytes, str], ...] = (
    (
        b"version https://git-lfs",
        "is a Git LFS pointer, not the file itself; download it with `git lfs pull`",
    ),
    (b"PK\x03\x04", _PICKLE_PROBLEM),
    *((bytes([0x80, protocol]), _PICKLE_PROBLEM) for protocol in (2, 3, 4, 5)),
    (b"<!doctype", "is a web page, not weights; the download required something first"),
    (b"<html", "is a web page, not weights; the download required something first"),
    (b"<?xml", "is XML text, not weights; the download was refused"),
    (b"{", "is JSON text, not weights"),
)
_ONLY_FOLDERS = "models of that family only open as folders in diffusers layout"
_NO_FAMILY = "the studio does not support models of that family yet"
_PIECE_PROBLEM = "is one of several pieces; it belongs in its model's folder"
_OTHER_LORA_PROBLEM = "cannot be used: LoRAs for that family are not supported yet"
_LAYOUT_PROBLEM = "is damaged: its tensors are not contiguous"
_GGUF_PROBLEM = "is a GGUF file, whose quantised weights the studio cannot read"
_PIECE_STEM = re.compile(r"-\d{5}-of-\d{5}$")
# The half of a LoRA's pair that reads the text's vectors.
_CONTEXT_INPUT = re.compile(r"attn2[._](?:to_[kv]|processor[._]to_[kv]_lora)\b.*(?:down|lora_A)")


@dataclass(frozen=True)
class ModelFile:
    """What a file of weights is.

    Attributes:
        path: The file.
        kind: What it is.
        family: Of which family; empty if that is not known.
        prediction: epsilon, v, flow, EDM or EDM v of what paints, empty of all else.
        is_zero_snr: Whether its noise begins at zero signal.
        is_inpainting: Whether the denoiser also takes a mask.
        contents: Its parts, or how large it is.
        adapter: Which relative of LoRA it is; empty of all else.
        variant: What it is called where the kind's title is not exact enough.
        dtype: Of most of its bytes, as safetensors or GGUF says it.
        size_bytes: Of the file.
        problem: Why the studio cannot use it, as the end of a sentence that begins with its name;
            empty if nothing speaks against it.
        metadata: The texts in its header.
        converted: The safetensors file with the tensors of a pickle that was read (pickles.py).
    """

    path: Path
    kind: FileKind = "unknown"
    family: str = ""
    prediction: str = ""
    is_zero_snr: bool = False
    is_inpainting: bool = False
    contents: tuple[str, ...] = ()
    adapter: str = ""
    variant: str = ""
    dtype: str = ""
    size_bytes: int = 0
    problem: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    converted: Path | None = None

    @property
    def weights_path(self) -> Path:
        """The file to read the tensors from."""
        return self.converted or self.path

    @property
    def is_pickle(self) -> bool:
        """Whether it is a pickle, which is not opened here."""
        return self.problem == _PICKLE_PROBLEM

    @property
    def folder(self) -> str:
        """The folder of a home for files of its kind; empty if there is none yet."""
        return KIND_FOLDERS.get(self.kind, "")

    @property
    def title(self) -> str:
        """What it is in a few words: `LoHa for SDXL`, `checkpoint of SD 1.x for inpainting`."""
        name = self.adapter or self.variant or KIND_TITLES[self.kind]
        family = FAMILY_TITLES.get(self.family, "")
        if family:
            goes_with = self.kind in ("lora", "controlnet", "ip-adapter", "embedding")
            name += f" {'for' if goes_with else 'of'} {family}"
        if self.is_inpainting:
            name += " for inpainting"
        return name

    @property
    def description(self) -> str:
        """What it is with its article, and what is in it: `a LoRA for SDXL (float16)`."""
        facts = [part for part in self.contents if part != self.kind]
        if self.kind in ("checkpoint", "denoiser"):
            facts += self._list_missing_parts()
        if self.prediction:
            facts.append(f"{self.prediction} prediction")
        if self.dtype:
            facts.append(DTYPE_TITLES.get(self.dtype, _clean(self.dtype)))
        article = "an" if self.title[0] in "aeioAEIO(" or self.title.startswith("up") else "a"
        return f"{article} {self.title}" + (f" ({', '.join(facts)})" if facts else "")

    def _list_missing_parts(self) -> list[str]:
        parts = {part.rstrip("s") for part in self.contents}
        missing = [part for part in ("autoencoder", "text encoder") if part not in parts]
        return [f"without {' and '.join(missing)}"] if missing else []

    @property
    def sentence(self) -> str:
        """One sentence: what it is, what is in it, where it belongs or why it cannot be used."""
        return self.write_sentence(_clean(self.path.name))

    def write_sentence(self, subject: str) -> str:
        """Return the same sentence with `subject` in place of the file's name."""
        if self.kind == "unknown" and self.problem:
            return f"{subject} {self.problem}."
        if self.problem:
            return f"{subject} is {self.description}; it {self.problem}."
        if self.kind == "unknown":
            return f"{subject} is {self.description}."
        if not self.folder:
            return f"{subject} is {self.description}, which the studio cannot use yet."
        sentence = f"{subject} is {self.description}; it belongs in {self.folder}/"
        if self.obstacle:
            sentence += f", though {self.obstacle}"
        return f"{sentence}."

    @property
    def obstacle(self) -> str:
        """Why a whole checkpoint or denoiser is no model here, by its family; empty if it is."""
        if self.kind not in ("checkpoint", "denoiser") or self.family in CHECKPOINT_FACTS:
            return ""
        return _ONLY_FOLDERS if self.family in FAMILIES else _NO_FAMILY


def identify_file(path: Path) -> ModelFile:
    """Return what a file of weights is. Raises BadFile if it cannot be opened."""
    try:
        with odd_files.open_file(path) as file:
            size_bytes = path.stat().st_size
            unread = ModelFile(path, size_bytes=size_bytes)
            head = file.read(64)
            if head.startswith(gguf_file.SIGNATURE):
                return _identify_gguf(unread)
            problem = ""
            if not _begins_as_safetensors(head, size_bytes):
                problem = _explain_signature(head)
                if not problem and path.suffix.lower() == ".gguf":
                    problem = "is not a GGUF file, despite its name"
            if problem:
                return replace(unread, problem=problem)
            header = atomic.read_safetensors_header(path)
            identified = _identify(unread, file, header)
    except BadFile as error:
        if path.suffix.lower() in PICKLE_SUFFIXES and not head.startswith(gguf_file.SIGNATURE):
            return replace(unread, problem=_PICKLE_PROBLEM)
        return replace(unread, problem=str(error).removeprefix(path.name).strip().rstrip("."))
    except OSError as error:
        raise BadFile(f"{path.name} cannot be read ({error.strerror}).") from None
    if path.suffix.lower() in PICKLE_SUFFIXES and not identified.problem:
        problem = f"is named {path.suffix} although it is a safetensors file; rename it"
        return replace(identified, problem=problem)
    return identified


def explain_no_model(identified: ModelFile) -> str:
    """Return why a file that lies among the models is none of them."""
    if identified.obstacle and not identified.problem:
        return f"It is {identified.description}; {identified.obstacle}."
    return identified.write_sentence("It")


def _begins_as_safetensors(head: bytes, size_bytes: int) -> bool:
    """Whether the first eight bytes are a length that can be, and a JSON text follows.

    Asked before all signatures: a length can have the bytes of any of them.
    """
    if len(head) <= 8:
        return False
    (header_bytes,) = struct.unpack("<Q", head[:8])
    return head[8:9] == b"{" and 2 <= header_bytes <= size_bytes - 8


def _explain_signature(head: bytes) -> str:
    """Return what speaks against a file by its first bytes; empty if nothing does."""
    if not head:
        return "is empty"
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    for signature, problem in _SIGNATURES:
        if head.startswith(signature) or text.startswith(signature.lower()):
            return problem
    return ""


def _identify_gguf(unread: ModelFile) -> ModelFile:
    """Return what a GGUF file is by its header. Raises BadFile if that cannot be read."""
    header = gguf_file.read_gguf_header(unread.path)
    result = replace(unread, dtype=header.dtype, problem=_GGUF_PROBLEM)
    denoiser, prefix = _strip_prefix(header.shapes)
    rule = _find_rule(denoiser) or _find_rule(header.shapes)
    if rule is None:
        facts = [f"architecture {quote(header.architecture)}"] if header.architecture else []
        facts += [header.dtype] if header.dtype else ["no tensors"]
        return replace(result, problem=f"{_GGUF_PROBLEM} ({', '.join(facts)})")
    result = replace(result, kind=rule.kind, family=rule.family, variant=rule.variant)
    if rule.kind != "denoiser":
        return result
    names = set(header.shapes)
    contents = list_parts(names)
    prediction, is_zero_snr = find_prediction(
        unread.path, rule.family, {}, names=names, prefix=prefix, sd2_bias=()
    )
    if rule.family == "sd2" and prediction == "epsilon":
        prediction = ""  # what would tell is a number in the file
    return replace(
        result,
        kind="checkpoint" if is_whole(contents) else "denoiser",
        contents=contents,
        prediction=prediction,
        is_zero_snr=is_zero_snr,
        is_inpainting=count_input_channels(denoiser) == 9,
    )


def _identify(unread: ModelFile, file: BinaryIO, header: Mapping[str, Any]) -> ModelFile:
    """Return what a safetensors file is by its header."""
    data_start, shapes, problem = _read_tensors(file, header, unread.size_bytes)
    metadata = read_metadata(header)
    result = replace(unread, metadata=metadata, dtype=_find_main_dtype(header, shapes))
    if problem:
        return replace(result, problem=problem)
    names = set(shapes)
    denoiser, prefix = _strip_prefix(shapes)
    rule = _find_rule(denoiser) or _find_rule(shapes)
    adapter, problem = _find_adapter(shapes)
    if adapter and not (rule and rule.kind in KINDS_BEFORE_LORA):
        family = _find_adapter_family(shapes, metadata)
        if family and family not in ADAPTABLE_FAMILIES:
            problem = _OTHER_LORA_PROBLEM
        return replace(result, kind="lora", adapter=adapter, family=family, problem=problem)
    if _is_embedding(shapes):
        return replace(result, kind="embedding", family=_find_embedding_family(shapes))
    if rule is None:
        return _describe_leftover(result, names)
    result = replace(
        result,
        kind=rule.kind,
        family=rule.family,
        variant=rule.variant,
        problem=rule.problem
        or find_quantisation_problem(file, data_start, header, shapes, metadata)
        or (_PIECE_PROBLEM if _PIECE_STEM.search(unread.path.stem) else ""),
    )
    if rule.kind == "vae":
        result = replace(result, contents=_describe_latents(shapes))
        return replace(result, problem=result.problem or _find_vae_hole(result, shapes))
    if rule.kind == "upscaler":
        return replace(result, problem=result.problem or find_upscaler_problem(shapes))
    if rule.kind != "denoiser":
        return result
    contents = list_parts(names)
    num_channels = count_input_channels(denoiser)
    result = replace(
        result,
        kind="checkpoint" if is_whole(contents) else "denoiser",
        contents=contents,
        is_inpainting=num_channels == 9,
        problem=result.problem or find_denoiser_problem(names, denoiser, num_channels),
    )
    bias_entry = header.get(prefix + SD2_TENSOR) if rule.family == "sd2" else None
    prediction, is_zero_snr = find_prediction(
        unread.path,
        rule.family,
        metadata,
        names=names,
        prefix=prefix,
        sd2_bias=read_vector(file, data_start, bias_entry),
    )
    return replace(result, prediction=prediction, is_zero_snr=is_zero_snr)


# ---- the header ---------------------------------------------------------------------------------


def _read_tensors(
    file: BinaryIO, header: Mapping[str, Any], size_bytes: int
) -> tuple[int, dict[str, tuple[int, ...]], str]:
    """Return where the data begin, the tensors' shapes, and what is wrong with them."""
    file.seek(0)
    (header_bytes,) = struct.unpack("<Q", file.read(8))
    data_start = 8 + header_bytes
    shapes: dict[str, tuple[int, ...]] = {}
    last_end = 0
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        shape, offsets = read_shape(entry), _read_offsets(entry)
        if shape is None or offsets is None:
            return data_start, shapes, f"does not say how large {name!a:.60} is"
        if not isinstance(entry.get("dtype"), str):
            return data_start, shapes, f"does not say which type of numbers {name!a:.60} contains"
        begin, end = offsets
        if data_start + end > size_bytes:
            return data_start, shapes, "was cut off while copying"
        element_bytes = DTYPE_BYTES.get(entry["dtype"])
        if element_bytes and end - begin != math.prod(shape) * element_bytes:
            return (
                data_start,
                shapes,
                (f"has the wrong number of bytes for the shape of {name!a:.60}"),
            )
        shapes[name] = shape
        last_end = max(last_end, end)
    if not shapes:
        return data_start, shapes, "has no tensors"
    if data_start + last_end < size_bytes:
        return (
            data_start,
            shapes,
            ("has more bytes than its header says, so one of the two is damaged"),
        )
    return data_start, shapes, find_layout_problem(header)


def find_layout_problem(header: Mapping[str, Any]) -> str:
    """Return the end of a sentence if tensors share bytes or leave some out; empty if not.

    The format allows neither: two readers could see different numbers in one file. Every tensor
    has to say where it begins and ends.
    """
    places = sorted(
        tuple(entry["data_offsets"]) for name, entry in header.items() if name != "__metadata__"
    )
    position = 0
    for begin, end in places:
        if begin != position:
            return _LAYOUT_PROBLEM
        position = end
    return ""


def _read_offsets(entry: Any) -> tuple[int, int] | None:
    """Return where a tensor begins and ends, in bytes after the header."""
    offsets = entry.get("data_offsets") if isinstance(entry, dict) else None
    if not isinstance(offsets, list) or len(offsets) != 2:
        return None
    begin, end = offsets
    if type(begin) is not int or type(end) is not int or not 0 <= begin <= end:
        return None
    return begin, end


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
        if re.search(pattern, names, re.MULTILINE):
            return "flux2" if family == "flux1" and _exceeds_flux1(shapes) else family
    for name, shape in shapes.items():
        if _CONTEXT_INPUT.search(name) and len(shape) > 1:
            by_width = FAMILY_BY_CROSS_ATTENTION_DIM.get(shape[1])
            if by_width:
                return by_width
    return find_stated_family(metadata) or ""


def _exceeds_flux1(shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Whether a layer that goes by a name of FLUX.1 is wider than its."""
    return any(
        len(shape) == 2 and shape[axis] != size and re.search(pattern, name)
        for name, shape in shapes.items()
        for pattern, axis, size in FLUX1_SIZES
    )


def find_stated_family(metadata: Mapping[str, str]) -> FamilyName | None:
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
    names_by_pattern: dict[str, str | None] = {}  # most rows ask for what another has asked for

    def find(pattern: str) -> str | None:
        if pattern not in names_by_pattern:
            names_by_pattern[pattern] = _find_name(pattern, shapes)
        return names_by_pattern[pattern]

    for rule in RULES:
        if all(find(name) is not None for name in rule.names) and all(
            _has_size(shapes.get(find(pattern) or "", ()), axis, size)
            for pattern, axis, size in rule.sizes
        ):
            return rule
    return None


def _has_size(shape: tuple[int, ...], axis: int, size: int) -> bool:
    return len(shape) > axis and shape[axis] == size


def _find_name(pattern: str, shapes: Mapping[str, tuple[int, ...]]) -> str | None:
    """Return the first tensor's name that fits one of a rule: `name`, `begins.*` or `*.ends`."""
    if pattern.startswith("*"):
        return next((name for name in shapes if name.endswith(pattern[1:])), None)
    if pattern.endswith("*"):
        return next((name for name in shapes if name.startswith(pattern[:-1])), None)
    return pattern if pattern in shapes else None


def _describe_leftover(result: ModelFile, names: set[str]) -> ModelFile:
    """Return what can be said of a file that no rule fits."""
    if any(name.startswith("model_ema.") for name in names):
        return replace(result, problem="contains only the moving average (EMA) of a training")
    if _PIECE_STEM.search(result.path.stem):
        return replace(result, problem=_PIECE_PROBLEM)
    return result


def _describe_latents(shapes: Mapping[str, tuple[int, ...]]) -> tuple[str, ...]:
    """Return how many channels an autoencoder's latents have."""
    for prefix in VAE_PREFIXES:
        shape = shapes.get(f"{prefix}decoder.conv_in.weight", ())
        if len(shape) > 1:
            return (f"{shape[1]} latent channels",)
    return ()


def _find_vae_hole(identified: ModelFile, shapes: Mapping[str, tuple[int, ...]]) -> str:
    """Return that an autoencoder of Stable Diffusion lacks a tensor, as the end of a sentence."""
    if count_latent_channels(identified) != LATENT_CHANNELS:
        return ""  # of families whose autoencoders are built otherwise
    for prefix in VAE_PREFIXES:
        if len(shapes.get(f"{prefix}decoder.conv_in.weight", ())) == 4:
            inner = {
                name.removeprefix(prefix): shape
                for name, shape in shapes.items()
                if name.startswith(prefix)
            }
            missing = find_missing_vae_tensor(inner)
            return f"lacks {missing}; copy the file again" if missing else ""
    return ""


def count_latent_channels(identified: ModelFile) -> int:
    """Return how many channels the latents of an autoencoder's file have; 0 if that is unknown."""
    for fact in identified.contents:
        count, _, unit = fact.partition(" ")
        if unit == "latent channels" and count.isdecimal():
            return int(count)
    return 0


def _clean(name: str) -> str:
    """Return a file's name fit to be shown: its bytes need not be text."""
    return "".join(char if char.isprintable() else "?" for char in name)
