"""Which letters the bytes of a text in a file are.

Knows: UTF-8 that was taken for Latin-1, EXIF's codecs in both byte orders, Windows' EXIF texts.
Does not know: where the bytes stood.
"""

from __future__ import annotations

import codecs
from typing import Any

_USER_COMMENT_MARK_BYTES = 8
_UNICODE_MARK, _ASCII_MARK, _JIS_MARK = b"UNICODE\0", b"ASCII\0\0\0", b"JIS\0\0\0\0\0"


def decode_text(value: bytes | str) -> str:
    """Return a text in UTF-8, else in Latin-1.

    Also where somebody took its UTF-8 for Latin-1 before: as A1111's texts come out of some
    programs, with "Ã¶" for "ö".
    """
    if isinstance(value, bytes):
        encoding = "utf-8-sig"
        if value.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            encoding = "utf-16"
        try:
            text = value.decode(encoding)
        except ValueError:
            return value.decode("latin-1").rstrip("\0")
    else:
        text = value
    return _undo_latin1(text).rstrip("\0")


def decode_user_comment(value: Any) -> str:
    """Return EXIF's UserComment: its first eight bytes say the codec, but not the byte order."""
    if isinstance(value, str):
        return decode_text(value)
    if not isinstance(value, bytes):
        return ""
    mark, rest = value[:_USER_COMMENT_MARK_BYTES], value[_USER_COMMENT_MARK_BYTES:]
    if mark == _JIS_MARK:
        return ""
    if mark == _UNICODE_MARK:
        return _decode_utf16(rest)
    if mark == _ASCII_MARK or mark == bytes(_USER_COMMENT_MARK_BYTES):
        return decode_text(rest)
    return decode_text(value)


def decode_windows_text(value: Any) -> str:
    """Return a text that Windows' Explorer wrote into EXIF: UTF-16 as bytes, or their numbers."""
    if isinstance(value, tuple) and all(isinstance(code, int) for code in value):
        value = bytes(code % 256 for code in value)
    if not isinstance(value, bytes):
        return value if isinstance(value, str) else ""
    return value.decode("utf-16-le", "replace").rstrip("\0")


def _decode_utf16(data: bytes) -> str:
    """Decode in the byte order in which the text has more letters of a first plane's beginning.

    What is marked as Unicode can be UTF-8 all the same: it has no zeros then.
    """
    if b"\0" not in data:
        try:
            return data.decode("utf-8")
        except ValueError:
            pass
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data.decode("utf-16", "replace").rstrip("\0")
    num_big, num_little = data[0::2].count(0), data[1::2].count(0)
    order = "utf-16-le" if num_little > num_big else "utf-16-be"
    return data.decode(order, "replace").rstrip("\0")


def _undo_latin1(text: str) -> str:
    """Return a text whose UTF-8 was taken for Latin-1 as it was; any other as it is."""
    if text.isascii():
        return text
    try:
        return text.encode("latin-1").decode("utf-8")
    except ValueError:
        return text
