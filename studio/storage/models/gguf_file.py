"""GGUF files read from their headers: architecture, names, shapes and number formats of tensors.

Knows: versions 2 and 3 of the format. Does not know: what the names mean (header_rules.py); how
quantised numbers are read; torch.

Source: the specification of GGUF in ggml's repository (docs/gguf.md), and the sizes of ggml's types
in the package gguf 0.19. Every length in a header is somebody's claim: none is believed before it
is compared with a bound or with the file.
"""

from __future__ import annotations

import math
import os
import struct
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from studio.errors import BadFile
from studio.storage.odd_files import open_file

SIGNATURE = b"GGUF"
MAX_HEADER_BYTES = 32 * 2**20  # a vocabulary of 260,000 words with its merges takes 15 MB
MAX_ENTRIES = 20_000  # of metadata, and of tensors
MAX_ARRAY_TEXTS = 1_000_000
MAX_NAME_BYTES = 1000
MAX_DIMENSIONS = 8
MAX_SIDE = 2**40
MAX_ALIGNMENT_BYTES = 2**20
DEFAULT_ALIGNMENT_BYTES = 32
# ComfyUI's converter folds shapes that quantisation cannot take, and notes what they were.
_SHAPE_KEY = "comfy.gguf.orig_shape."
_KEPT_KEYS = ("general.architecture", "general.alignment", _SHAPE_KEY)
_TEXT, _ARRAY = 8, 9
_NUMBER_FORMATS = {
    0: "<B",
    1: "<b",
    2: "<H",
    3: "<h",
    4: "<I",
    5: "<i",
    6: "<f",
    7: "<?",
    10: "<Q",
    11: "<q",
    12: "<d",
}
# Of ggml's types: name, numbers in a block, bytes of a block.
TENSOR_TYPES: dict[int, tuple[str, int, int]] = {
    0: ("F32", 1, 4),
    1: ("F16", 1, 2),
    2: ("Q4_0", 32, 18),
    3: ("Q4_1", 32, 20),
    6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24),
    8: ("Q8_0", 32, 34),
    9: ("Q8_1", 32, 40),
    10: ("Q2_K", 256, 84),
    11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144),
    13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210),
    15: ("Q8_K", 256, 292),
    16: ("IQ2_XXS", 256, 66),
    17: ("IQ2_XS", 256, 74),
    18: ("IQ3_XXS", 256, 98),
    19: ("IQ1_S", 256, 50),
    20: ("IQ4_NL", 32, 18),
    21: ("IQ3_S", 256, 110),
    22: ("IQ2_S", 256, 82),
    23: ("IQ4_XS", 256, 136),
    24: ("I8", 1, 1),
    25: ("I16", 1, 2),
    26: ("I32", 1, 4),
    27: ("I64", 1, 8),
    28: ("F64", 1, 8),
    29: ("IQ1_M", 256, 56),
    30: ("BF16", 1, 2),
    34: ("TQ1_0", 256, 54),
    35: ("TQ2_0", 256, 66),
    39: ("MXFP4", 32, 17),
    40: ("NVFP4", 64, 36),
}


@dataclass(frozen=True)
class GgufHeader:
    """What a GGUF file says of itself.

    Attributes:
        architecture: What its writer calls the network, such as `flux` or `qwen3`; may be empty.
        shapes: Of the tensors by name, the slowest axis first as torch has it.
        dtype: ggml's name of the format that most of its bytes have.
    """

    architecture: str
    shapes: dict[str, tuple[int, ...]]
    dtype: str


class _Reader:
    """Reads a header of limited length from the front of a file."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._file, self._name = file, name
        self._num_bytes_left = MAX_HEADER_BYTES
        self._num_texts_left = MAX_ARRAY_TEXTS

    def fail(self, problem: str) -> BadFile:
        return BadFile(f"{self._name} is a GGUF file {problem}.")

    def read(self, num_bytes: int) -> bytes:
        if num_bytes > self._num_bytes_left:
            raise self.fail(f"with a header of more than {MAX_HEADER_BYTES // 2**20} MiB")
        self._num_bytes_left -= num_bytes
        data = self._file.read(num_bytes)
        if len(data) < num_bytes:
            raise self.fail("that was cut off while copying")
        return data

    def read_number(self, struct_format: str) -> Any:
        return struct.unpack(struct_format, self.read(struct.calcsize(struct_format)))[0]

    def read_count(self, limit: int, what: str) -> int:
        count = int(self.read_number("<Q"))
        if count > limit:
            raise self.fail(f"that claims to have {count:,} {what}; at most {limit:,} are possible")
        return count

    def read_text(self, max_bytes: int = MAX_HEADER_BYTES) -> str:
        num_bytes = self.read_count(max_bytes, "bytes in a name")
        return self.read(num_bytes).decode("utf-8", "replace")

    def read_value(self, value_type: int) -> Any:
        """Read a value of the metadata; of arrays only those of a few numbers are returned."""
        if value_type == _TEXT:
            return self.read_text()
        if value_type == _ARRAY:
            return self._read_array()
        if value_type not in _NUMBER_FORMATS:
            raise self.fail(f"with metadata of an unknown type ({value_type})")
        return self.read_number(_NUMBER_FORMATS[value_type])

    def _read_array(self) -> tuple[Any, ...]:
        item_type = self.read_number("<I")
        count = self.read_count(MAX_HEADER_BYTES, "items in a list")
        if item_type == _TEXT:
            self._num_texts_left -= count
            if self._num_texts_left < 0:
                raise self.fail(f"with more than {MAX_ARRAY_TEXTS:,} texts in its lists")
            for _ in range(count):
                self.read(self.read_number("<Q"))
            return ()
        if item_type not in _NUMBER_FORMATS:
            raise self.fail(f"with a list of an unknown type ({item_type})")
        item_format = _NUMBER_FORMATS[item_type]
        data = self.read(count * struct.calcsize(item_format))
        if count > MAX_DIMENSIONS:
            return ()
        return struct.unpack(f"<{count}{item_format[1:]}", data)


def read_gguf_header(path: Path) -> GgufHeader:
    """Return what the header of a GGUF file says.

    Raises:
        BadFile: The header cannot be read, or the file is shorter than it says.
        OSError: The file cannot be opened.
    """
    with open_file(path) as file:
        size_bytes = os.fstat(file.fileno()).st_size
        reader = _Reader(file, path.name)
        if reader.read(4) != SIGNATURE:
            raise BadFile(f"{path.name} is not a GGUF file.")
        version = reader.read_number("<I")
        if version not in (2, 3):
            if version in (2 << 24, 3 << 24):
                raise reader.fail("written for machines of another byte order")
            raise reader.fail(f"of version {version}; the studio reads versions 2 and 3")
        num_tensors = reader.read_count(MAX_ENTRIES, "tensors")
        metadata = _read_metadata(reader)
        tensors = [_read_tensor(reader) for _ in range(num_tensors)]
        alignment = metadata.get("general.alignment", DEFAULT_ALIGNMENT_BYTES)
        if type(alignment) is not int or not 1 <= alignment <= MAX_ALIGNMENT_BYTES:
            raise reader.fail("that does not say where its tensors begin")
        data_start = math.ceil(file.tell() / alignment) * alignment
        bytes_by_type: Counter[str] = Counter()
        shapes: dict[str, tuple[int, ...]] = {}
        for name, shape, tensor_type, offset in tensors:
            type_name, block, block_bytes = TENSOR_TYPES.get(
                tensor_type, (f"type {tensor_type}", 1, 0)
            )
            num_bytes = math.ceil(math.prod(shape) / block) * block_bytes
            if data_start + offset + num_bytes > size_bytes:
                raise reader.fail("that was cut off while copying")
            bytes_by_type[type_name] += num_bytes
            shapes[name] = _find_original_shape(metadata, name, shape)
    architecture = metadata.get("general.architecture", "")
    return GgufHeader(
        architecture=architecture if isinstance(architecture, str) else "",
        shapes=shapes,
        dtype=bytes_by_type.most_common(1)[0][0] if bytes_by_type else "",
    )


def _read_metadata(reader: _Reader) -> dict[str, Any]:
    """Return the values that are of use here, by key."""
    metadata: dict[str, Any] = {}
    for _ in range(reader.read_count(MAX_ENTRIES, "entries of metadata")):
        key = reader.read_text(MAX_NAME_BYTES)
        value = reader.read_value(reader.read_number("<I"))
        if key.startswith(_KEPT_KEYS):
            metadata[key] = value
    return metadata


def _read_tensor(reader: _Reader) -> tuple[str, tuple[int, ...], int, int]:
    """Return a tensor's name, shape, type and offset in bytes."""
    name = reader.read_text(MAX_NAME_BYTES)
    num_dimensions = reader.read_number("<I")
    if num_dimensions > MAX_DIMENSIONS:
        raise reader.fail(f"with a tensor of {num_dimensions:,} dimensions")
    sides = [reader.read_count(MAX_SIDE, "numbers in a row") for _ in range(num_dimensions)]
    tensor_type = reader.read_number("<I")
    offset = reader.read_number("<Q")
    return name, tuple(reversed(sides)), tensor_type, offset


def _find_original_shape(
    metadata: dict[str, Any], name: str, shape: tuple[int, ...]
) -> tuple[int, ...]:
    """Return the shape before the converter folded it, if that is of as many numbers."""
    original = metadata.get(_SHAPE_KEY + name, ())
    if not isinstance(original, tuple) or not original:
        return shape
    if any(type(side) is not int or side < 0 for side in original):
        return shape
    return original if math.prod(original) == math.prod(shape) else shape
