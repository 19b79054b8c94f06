"""Looks at the first bytes of a file of weights while they come, before the rest is taken.

Knows: how the header of a safetensors file is built, what pages and pickles begin with.
Does not know: the network; what the names in a header mean (model_file.py).
"""

from __future__ import annotations

import json
import struct
from typing import Any

from studio.core.downloads.plan import format_size
from studio.errors import BadFile
from studio.storage.atomic import MAX_HEADER_BYTES, MAX_TENSORS

SAFETENSORS_SUFFIX = ".safetensors"
PICKLE_SUFFIXES = (".pt", ".pth", ".bin")  # of embeddings and upscalers
MAX_PICKLE_BYTES = 300 * 10**6
_PAGE_STARTS = (b"<!doctype", b"<html", b"<head", b"<?xml", b"{", b"[")
_PICKLE_STARTS = (b"\x80", b"PK\x03\x04")
_START_BYTES = 16  # enough to tell what it is not


def check_suffix(name: str) -> None:
    """Raise BadFile for a file that the studio takes under no circumstances, by its name alone."""
    lower = name.lower()
    if lower.endswith((SAFETENSORS_SUFFIX, *PICKLE_SUFFIXES)):
        return
    if lower.endswith(".gguf"):
        raise BadFile(f"{name} is a GGUF file, whose quantised weights the studio cannot read.")
    if lower.endswith((".ckpt", ".pkl", ".pickle")):
        raise BadFile(
            f"{name} is a pickle, which can contain programs; look for the same model as "
            ".safetensors."
        )
    raise BadFile(
        f"{name} is not a weights file; the studio downloads .safetensors files, and .pt, .pth "
        "and .bin for embeddings and upscalers."
    )


class WeightsGate:
    """Takes the first bytes of a file, and refuses it as soon as they show that it is no use."""

    def __init__(self, name: str, total_bytes: int) -> None:
        self._name, self._total_bytes = name, total_bytes
        self._is_pickle = name.lower().endswith(PICKLE_SUFFIXES)
        self._start = bytearray()
        self.is_open = False  # once all that has to be seen was seen
        if self._is_pickle and total_bytes > MAX_PICKLE_BYTES:
            raise BadFile(
                f"{name} is a pickle of {format_size(total_bytes)}; embeddings and upscalers are "
                f"smaller than {format_size(MAX_PICKLE_BYTES)}, so it is not downloaded."
            )

    @property
    def start(self) -> bytes:
        """What was seen: of a safetensors file its whole header with the eight bytes before it."""
        return bytes(self._start)

    def feed(self, data: bytes | memoryview) -> None:
        """Take the next bytes. Raises BadFile."""
        if self.is_open:
            return
        self._start += data
        if len(self._start) < min(_START_BYTES, self._total_bytes):
            return
        self._check_signature()
        if self._is_pickle:
            self.is_open = True
        elif len(self._start) >= 8:
            self._check_header()

    def _check_signature(self) -> None:
        start = bytes(self._start[:_START_BYTES]).lstrip(b"\xef\xbb\xbf \t\r\n").lower()
        is_header = self._start[8:9] == b"{" and not self._is_pickle
        if start.startswith(_PAGE_STARTS) and not is_header:
            raise BadFile(
                f"{self._name} is a page or a text, not weights. The site may require a login, or "
                "the link leads to the page about the file; use the link of its download button."
            )
        if bytes(self._start[:4]).startswith(b"GGUF"):
            raise BadFile(f"{self._name} is a GGUF file, which the studio cannot read.")
        is_pickled = bytes(self._start[:4]).startswith(_PICKLE_STARTS)
        if is_pickled and not self._is_pickle and not is_header:
            raise BadFile(
                f"{self._name} is a pickle under another name, which can contain programs; "
                "nothing of it was kept."
            )
        if self._is_pickle and not is_pickled:
            raise BadFile(f"{self._name} is not a PyTorch file, despite its name.")

    def _check_header(self) -> None:
        (length,) = struct.unpack("<Q", self._start[:8])
        if not 2 <= length <= min(MAX_HEADER_BYTES, self._total_bytes - 8):
            raise BadFile(
                f"{self._name} is not a safetensors file: its header would have {length:,} bytes "
                f"of {self._total_bytes:,}."
            )
        if len(self._start) < 8 + length:
            return
        del self._start[8 + length :]
        data_bytes = _measure_tensors(self._name, bytes(self._start[8:]))
        if data_bytes != self._total_bytes - 8 - length:
            raise BadFile(
                f"{self._name} does not match its own header: {data_bytes:,} bytes of tensors are "
                f"listed, but {self._total_bytes - 8 - length:,} are there. It is damaged."
            )
        self.is_open = True


def _measure_tensors(name: str, text: bytes) -> int:
    """Return where the last tensor of a header ends. Raises BadFile for what is no header."""
    try:
        header: Any = json.loads(text)
        if not isinstance(header, dict) or not 0 < len(header) <= MAX_TENSORS:
            raise ValueError
        ends = [0]
        for key, entry in header.items():
            if key != "__metadata__":
                start, end = entry["data_offsets"]
                if type(start) is not int or type(end) is not int or not 0 <= start <= end:
                    raise ValueError
                ends.append(end)
    except (ValueError, TypeError, KeyError, RecursionError):
        raise BadFile(f"{name} is not a safetensors file: its header cannot be read.") from None
    return max(ends)
