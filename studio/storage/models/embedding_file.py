"""Textual inversions as files: which vectors a file holds, for which text encoders, by its header.

Knows: the names that A1111, diffusers and trainers of SDXL give the tensors. Does not know: torch,
names in the library (embeddings.py), prompts.

    emb_params                        A1111, and what pickles of it are converted to: (n, width)
    string_to_param.*                 the same, by a converter
    <birb-style>                      diffusers: the word is the tensor's name
    clip_l (n, 768), clip_g (n, 1280) SDXL, one for each text encoder

A LoRA can carry the words that were trained with it:

    bundle_emb.NAME.string_to_param.*   OneTrainer; also bundle_emb.NAME.clip_l, …
    <s1>                                cloneofsimo's pivotal tuning
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from studio.errors import BadFile
from studio.storage import atomic
from studio.storage.models.denoiser_header import read_shape

MAX_VECTORS = 75  # what a chunk of a prompt has room for
FLOAT_DTYPES = ("F64", "F32", "F16", "BF16")
SDXL_TENSORS = ("clip_l", "clip_g")
ANONYMOUS_TENSORS = ("emb_params", "string_to_param.*", "*")
_BUNDLED_TENSOR = re.compile(r"bundle_emb\.(.{1,100}?)\.(string_to_param\.\*|emb_params|clip_[lg])")
_WORD_TENSOR = re.compile(r"<[^<>\s]{1,100}>")


@dataclass(frozen=True)
class FileEmbedding:
    """One embedding of a file.

    Attributes:
        word: What the file itself calls it, such as `<birb-style>`; empty if it does not.
        tensors: The tensor's name for each text encoder.
        widths: Numbers of a vector, for each text encoder.
        num_vectors: How many it has.
    """

    word: str
    tensors: tuple[str, ...]
    widths: tuple[int, ...]
    num_vectors: int


def read_embeddings(path: Path) -> list[FileEmbedding]:
    """Return what a file holds: mostly one embedding, of diffusers' files one for each word.

    Args:
        path: A safetensors file that is known to be a textual inversion.

    Raises:
        BadFile: It cannot be read, or its tensors are no vectors; the message follows its name.
    """
    header = atomic.read_safetensors_header(path)
    shapes = {
        name: _read_vectors(name, entry) for name, entry in header.items() if name != "__metadata__"
    }
    return _read_shapes(shapes)


def find_bundled(header: Mapping[str, Any], names: Iterable[str]) -> tuple[FileEmbedding, ...]:
    """Return the embeddings that a LoRA carries; what is none of any use is left out.

    Args:
        header: Of the LoRA's file.
        names: Its tensors that belong to no layer.
    """
    shapes: dict[str, dict[str, tuple[int, int]]] = {}  # by word, by the tensor's own name
    for name in names:
        match = _BUNDLED_TENSOR.fullmatch(name)
        word, tensor = match.groups() if match else (name, "emb_params")
        if not match and not _WORD_TENSOR.fullmatch(name):
            continue
        try:
            shapes.setdefault(word, {})[tensor] = _read_vectors(name, header[name])
        except BadFile:
            continue
    bundled = []
    for word, tensors in shapes.items():
        prefix = "" if word in header else f"bundle_emb.{word}."
        try:
            (embedding,) = _read_shapes(tensors)
        except BadFile:
            continue
        keys = (word,) if not prefix else tuple(prefix + name for name in embedding.tensors)
        bundled.append(replace(embedding, word=word, tensors=keys))
    return tuple(bundled)


def _read_shapes(shapes: dict[str, tuple[int, int]]) -> list[FileEmbedding]:
    if not shapes:
        raise BadFile("holds no vectors.")
    if not set(SDXL_TENSORS).isdisjoint(shapes):
        return [_read_sdxl(shapes)]
    anonymous = [name for name in ANONYMOUS_TENSORS if name in shapes]
    if anonymous:
        num_vectors, width = shapes[anonymous[0]]
        return [FileEmbedding("", (anonymous[0],), (width,), num_vectors)]
    return [
        FileEmbedding(name, (name,), (width,), num_vectors)
        for name, (num_vectors, width) in shapes.items()
    ]


def _read_sdxl(shapes: dict[str, tuple[int, int]]) -> FileEmbedding:
    missing = [name for name in SDXL_TENSORS if name not in shapes]
    if missing:
        raise BadFile(f"lacks {missing[0]}; an embedding for SDXL needs clip_l and clip_g.")
    (num_vectors, width), (other_num, other_width) = (shapes[name] for name in SDXL_TENSORS)
    if num_vectors != other_num:
        raise BadFile(f"has {num_vectors} vectors in clip_l but {other_num} in clip_g.")
    return FileEmbedding("", SDXL_TENSORS, (width, other_width), num_vectors)


def _read_vectors(name: str, entry: Any) -> tuple[int, int]:
    """Return how many vectors a tensor has, and of how many numbers each."""
    shape = read_shape(entry)
    if not shape or len(shape) > 2 or 0 in shape:
        raise BadFile(f"has no vectors in {name!a:.60} (its shape is {list(shape or ())}).")
    if entry.get("dtype") not in FLOAT_DTYPES:
        raise BadFile(f"has the wrong type of numbers in {name!a:.60}.")
    num_vectors = shape[0] if len(shape) == 2 else 1
    if num_vectors > MAX_VECTORS:
        raise BadFile(f"has {num_vectors} vectors, but a prompt has room for {MAX_VECTORS}.")
    return num_vectors, shape[-1]
