"""Which thing of the library somebody means by a name that need not be whole.

Knows: names in folders, as A1111 writes them, with the file's ending; what is said where a name
means none or several. Does not know: what there is (shelf.py, lora_shelf.py, library.py).

    a1111/anime/ink    may be called   ink, anime/ink, anime_ink (A1111's), ink.safetensors
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

from studio.errors import list_alternatives, quote
from studio.storage.models.model_file import WEIGHTS_SUFFIXES

MAX_LISTED = 5


def select_names(name: str, names: Iterable[str]) -> list[str]:
    """Return the whole names that a name may stand for: one, several or none.

    Only the best kind of match counts: the whole name, the end of it, the end as A1111 writes it,
    the end of a name with its file's ending; then all of them for the name without such an ending.
    """
    candidates = list(dict.fromkeys(names))
    stem = _strip_suffix(name)
    for spelling in (name, stem) if stem != name else (name,):
        if not spelling:
            continue
        if spelling in candidates:
            return [spelling]
        for fits in (_is_end, _is_a1111_end, _is_end_of_stem):
            matches = [candidate for candidate in candidates if fits(spelling, candidate)]
            if matches:
                return matches
    return []


def list_ends(name: str) -> list[str]:
    """Return a name and all that is left of it without the first of its folders, longest first."""
    parts = name.split("/")
    return ["/".join(parts[begin:]) for begin in range(len(parts))]


def may_be_called(name: str, file_name: str) -> bool:
    """Whether a name may end in a file, as far as the file's own name tells."""
    stem = file_name.rpartition(".")[0] or file_name
    return any(
        spelling == part or spelling.endswith((f"/{part}", f"_{part}"))
        for spelling in (name, _strip_suffix(name))
        for part in (file_name, stem)
    )


def explain_absence(
    noun: str, name: str, location: str, names: Sequence[str], same: Sequence[str] = ()
) -> str:
    """Return why a name means nothing.

    Args:
        noun: What is looked for, such as "model".
        name: What it was called.
        location: Where it was looked for.
        names: All that can be used.
        same: Those that it may stand for, where there are several.
    """
    if len(same) > 1:
        rest = f" and {len(same) - MAX_LISTED} more" if len(same) > MAX_LISTED else ""
        listed = ", ".join(sorted(same)[:MAX_LISTED]) + rest
        return f"More than one {noun} is called {quote(name)}: {listed}; use one of these names."
    by_folded_name = {entry.casefold(): entry for entry in names}
    matches = difflib.get_close_matches(name.casefold(), by_folded_name, 3, 0.4)
    listed = list_alternatives([by_folded_name[match] for match in matches], names)
    return f"There is no {noun} {quote(name)} in {location}; available: {listed}."


def _is_end(name: str, candidate: str) -> bool:
    return candidate == name or candidate.endswith(f"/{name}")


def _is_a1111_end(name: str, candidate: str) -> bool:
    """Whether a name is the end of another one with _ in place of slashes."""
    begin = len(candidate) - len(name)
    is_whole_part = begin == 0 or (begin > 0 and candidate[begin - 1] == "/")
    return is_whole_part and candidate[begin:].replace("/", "_") == name


def _is_end_of_stem(name: str, candidate: str) -> bool:
    return _is_end(name, _strip_suffix(candidate))


def _strip_suffix(name: str) -> str:
    lowered = name.lower()
    for suffix in WEIGHTS_SUFFIXES:
        if lowered.endswith(suffix):
            return name[: -len(suffix)]
    return name
