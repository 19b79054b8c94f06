"""The cookies that the studio gives to browsers.

Knows: what keeps a cookie from scripts, from other sites and from plain HTTP. Does not know: what
is in one.
"""

from __future__ import annotations

from studio.services.connection import Connection
from studio.settings import Settings

MAX_AGE_SECONDS = 365 * 24 * 3600


def build_cookie(
    name: str, value: str, connection: Connection, settings: Settings
) -> tuple[bytes, bytes]:
    """Return the Set-Cookie header for a cookie; an empty value takes it back.

    No script reads it, and no page of another site sends it along. (Lax and not Strict: who follows
    a link to the studio has to be known, or would be taken for somebody new.) Only in a frame on
    another site, which the settings have to name, is it sent there too.
    """
    max_age = MAX_AGE_SECONDS if value else 0
    parts = [f"{name}={value}", f"Path={connection.root_path or '/'}", f"Max-Age={max_age}"]
    parts.append("HttpOnly")
    if connection.is_encrypted:
        parts.append("Secure")
    if connection.is_encrypted and settings.allow_embedding:
        parts += ["SameSite=None", "Partitioned"]
    else:
        parts.append("SameSite=Lax")
    return b"set-cookie", "; ".join(parts).encode("latin-1")
