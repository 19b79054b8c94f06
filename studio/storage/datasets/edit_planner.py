"""From an edit of captions to changes of files.

Knows: where a picture's caption stands, what a file or record becomes, which files move.
Does not know: how a change is carried out (carry.py), undo.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath

from studio.core.captions import edits
from studio.core.captions.edits import JoinLines, SetRepeats, SetSource, TextEdit
from studio.core.captions.provenance import NOBODY, Source
from studio.errors import DatasetError
from studio.storage.datasets import caption_files, layout
from studio.storage.datasets.file_changes import Change
from studio.storage.datasets.items import Picture, row

ASIDE = ".aside"  # hidden, so that nothing reads it


def texts(
    folder: Path,
    edit: TextEdit,
    chosen: Sequence[Picture],
    everything: Sequence[Picture],
    tokens: Callable[[str], int],
) -> list[Change]:
    """What an edit of captions changes. Raises InvalidSpec for one that cannot be, DatasetError for a caption that cannot."""
    new = edits.changed(edit, map(row, chosen), map(row, everything), tokens)
    whole = isinstance(edit, JoinLines)
    return [
        _text(folder, picture, new[picture.key], whole) for picture in chosen if picture.key in new
    ]


def _text(folder: Path, picture: Picture, caption: str, whole: bool) -> Change:
    place = picture.entry.place
    file = place.file.relative_to(folder).as_posix()
    try:
        if place.record:
            before, after = (
                place.record.raw.encode(),
                caption_files.with_caption(place.record, caption).encode(),
            )
            return Change(picture.key, "record", file, before, after, picture.caption, caption)
        made = caption_files.with_first_line(place.data, caption, whole)
    except DatasetError as error:
        raise DatasetError(f"{picture.key}: {error}") from None
    return Change(picture.key, "file", file, place.data, made, picture.caption, caption)


def moves(folder: Path, chosen: Sequence[Picture], everything: Sequence[Picture]) -> list[Change]:
    """Pictures and what belongs to them alone into the hidden folder; a record of theirs is taken out of its file."""
    staying = {picture.path.with_suffix("") for picture in everything} - {
        picture.path.with_suffix("") for picture in chosen
    }
    made, taken = [], set()
    for picture in chosen:
        files = [picture.path]
        if (stem := picture.path.with_suffix("")) not in staying and stem not in taken:
            taken.add(stem)
            files += [
                path for end in layout.CAPTIONS if (path := picture.path.with_suffix(end)).is_file()
            ]
            own = picture.entry.place.file
            files += (
                [own]
                if own not in files and not picture.entry.place.record and own.is_file()
                else []
            )
        for path in files:
            old = path.relative_to(folder).as_posix()
            made.append(
                Change(
                    picture.key,
                    "move",
                    old,
                    old.encode(),
                    _free(folder, old).encode(),
                    picture.caption,
                    "",
                )
            )
        if record := picture.entry.place.record:
            file = picture.entry.place.file.relative_to(folder).as_posix()
            made.append(
                Change(picture.key, "record", file, record.raw.encode(), None, picture.caption, "")
            )
    return made


def _free(folder: Path, name: str) -> str:
    """A name in the hidden folder that nothing has yet."""
    wanted = PurePosixPath(ASIDE) / name
    for number in range(1, 10_000):
        made = wanted if number == 1 else wanted.with_name(f"{wanted.stem}-{number}{wanted.suffix}")
        if not (folder / made).exists():
            return made.as_posix()
    raise DatasetError(f"{name} was set aside ten thousand times; empty the folder {ASIDE}.")


def repeats(
    folder: Path,
    edit: SetRepeats,
    found: layout.Found,
    everything: Sequence[Picture],
    known: Mapping[str, Source],
) -> list[Change]:
    """Another name for one of kohya's folders: one rename. What is said of its pictures' origins goes along.

    Raises DatasetError for a folder that is not read as one of kohya's, and where one of the new name is there already.
    """
    inner = [name for name in found.repeats if name != "."]
    if edit.folder not in inner:
        raise DatasetError(
            f"{found.name(folder)} has no folder {edit.folder!r:.80} with repeats in its name; there is "
            f"{', '.join(inner[:5]) or 'none'}."
        )
    if found.repeats[edit.folder] == edit.repeats:
        return []
    new = f"{edit.repeats}_{edit.folder.partition('_')[2]}"
    if os.path.lexists(folder / new):
        raise DatasetError(f"There is a folder {new} already; two cannot have one name.")
    made = [Change("", "move", edit.folder, os.fsencode(edit.folder), os.fsencode(new))]
    for picture in everything:
        if (
            below := picture.key.removeprefix(f"{edit.folder}/")
        ) != picture.key and picture.key in known:
            said = known[picture.key].model_dump_json().encode()
            made += [
                Change(picture.key, "source", "", said, None),
                Change(f"{new}/{below}", "source", "", None, said),
            ]
    return made


def sources(
    edit: SetSource, chosen: Sequence[Picture], known: Mapping[str, Source]
) -> list[Change]:
    """What is newly said of pictures' origins."""
    made = []
    for picture in chosen:
        old = known.get(picture.key, NOBODY)
        if (new := edit.on(old)) != old:
            before = old.model_dump_json().encode() if picture.key in known else None
            made.append(Change(picture.key, "source", "", before, new.model_dump_json().encode()))
    return made
