"""What a pickle seems to be, by the words in it, without unpickling anything.

Knows: how PyTorch writes files, words that only embeddings or upscalers have. Does not know: how
pickles are read for use, or whether one does harm: nothing of it is run here.
"""

from __future__ import annotations

import io
import pickletools
import zipfile
import zlib
from pathlib import Path
from typing import Literal

MAX_SCANNED_BYTES = 4 * 2**20  # the words come first; the numbers lie in files of their own
MAX_WORDS = 20_000
_EMBEDDING_WORDS = ("string_to_param", "string_to_token", "emb_params", "clip_l", "clip_g")
_UPSCALER_WORDS = ("conv_first.weight", "model.0.weight", "params_ema", "body.0.weight")
MAX_PLAIN_EMBEDDING_BYTES = 2**20  # of a `.bin` of diffusers, which has only its own word


def classify_pickle(path: Path) -> Literal["embedding", "upscaler", ""]:
    """Return what a pickle seems to be; empty for anything else, and for what cannot be read."""
    words = read_words(path)
    if any(word in words for word in _UPSCALER_WORDS):
        return "upscaler"
    if any(word in words for word in _EMBEDDING_WORDS):
        return "embedding"
    is_small = path.stat().st_size <= MAX_PLAIN_EMBEDDING_BYTES
    if is_small and any(word.startswith("<") and word.endswith(">") for word in words):
        return "embedding"
    return ""


def read_words(path: Path) -> set[str]:
    """Return the texts in a pickle's instructions, as far as they can be read."""
    words: set[str] = set()
    try:
        data = _read_instructions(path)
        stream = io.BytesIO(data)
        while stream.tell() < len(data) and len(words) < MAX_WORDS:
            # The older format is several pickles one after the other.
            for opcode, argument, _position in pickletools.genops(stream):
                if isinstance(argument, str) and "UNICODE" in opcode.name:
                    words.add(argument[:200])
                if len(words) >= MAX_WORDS:
                    break
    except (
        OSError,
        ValueError,
        KeyError,
        EOFError,
        RuntimeError,
        NotImplementedError,
        zipfile.BadZipFile,
        zlib.error,
    ):
        pass  # what was read until then counts
    return words


def _read_instructions(path: Path) -> bytes:
    if not zipfile.is_zipfile(path):
        with open(path, "rb") as file:
            return file.read(MAX_SCANNED_BYTES)
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist()[:10_000]:
            if info.filename.rpartition("/")[2] == "data.pkl":
                with archive.open(info) as member:
                    return member.read(MAX_SCANNED_BYTES)
    return b""
