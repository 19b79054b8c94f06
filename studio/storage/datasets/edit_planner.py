"""From an edit of captions to changes of files.

Knows: where an image's caption stands, what a file or record becomes, which files move.
Does not know: how a change is carried out (file_changes.py), undo (history.py).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath

from studio.core.captions import edits
from studio.core.captions.edits import JoinLines, SetRepeats, SetSource, TextEdit
from studio.core.captions.provenance import UNKNOWN_SOURCE, Source
from studio.errors import DatasetError, list_alternatives, quote
from studio.storage.datasets import caption_files, layout
from studio.storage.datasets.file_changes import Change, ChangeKind
from studio.storage.datasets.items import DatasetImage, to_row

SET_ASIDE_FOLDER = ".aside"  # hidden, so that nothing reads it


def plan_caption_changes(
    folder: Path,
    edit: TextEdit,
    images: Sequence[DatasetImage],
    all_images: Sequence[DatasetImage],
    count_tokens: Callable[[str], int],
) -> list[Change]:
    """Plan the changes of an edit of captions.

    Args:
        folder: of the dataset.
        edit: what to do.
        images: those to edit.
        all_images: of the dataset; some edits look at all captions.
        count_tokens: counts the tokens of a caption.

    Raises:
        InvalidSpec: the edit cannot be carried out.
        DatasetError: no file can hold a caption that it gives.
    """
    captions = edits.edit_captions(edit, map(to_row, images), map(to_row, all_images), count_tokens)
    drop_extra_lines = isinstance(edit, JoinLines)
    return [
        _plan_caption_change(folder, image, captions[image.key], drop_extra_lines)
        for image in images
        if image.key in captions
    ]


def _plan_caption_change(
    folder: Path, image: DatasetImage, caption: str, drop_extra_lines: bool
) -> Change:
    location = image.entry.caption_location
    file = location.file.relative_to(folder).as_posix()
    kind: ChangeKind
    try:
        if location.record:
            kind = "record"
            old_data: bytes | None = location.record.raw.encode()
            new_data = caption_files.replace_record_caption(location.record, caption).encode()
        else:
            kind = "file"
            old_data = location.data
            new_data = caption_files.replace_first_line(location.data, caption, drop_extra_lines)
    except DatasetError as error:
        raise DatasetError(f"{image.key}: {error}") from None
    return Change(image.key, kind, file, old_data, new_data, image.caption, caption)


def plan_set_aside(
    folder: Path, images: Sequence[DatasetImage], all_images: Sequence[DatasetImage]
) -> list[Change]:
    """Plan to move images, and the files that only they use, into the hidden folder.

    A record of theirs is removed from its metadata file.

    Args:
        folder: of the dataset.
        images: those to set aside.
        all_images: of the dataset.
    """
    all_stems = {image.path.with_suffix("") for image in all_images}
    # stems whose caption files stay (an image that uses them stays) or are planned already
    kept_stems = all_stems - {image.path.with_suffix("") for image in images}
    changes = []
    for image in images:
        files = [image.path]
        stem = image.path.with_suffix("")
        if stem not in kept_stems:
            kept_stems.add(stem)
            files += _list_caption_files(image)
        for path in files:
            name = path.relative_to(folder).as_posix()
            new_name = _find_free_name(folder, name)
            changes.append(_plan_move(name, new_name, image.key, image.caption))
        location = image.entry.caption_location
        if location.record:
            file = location.file.relative_to(folder).as_posix()
            record_data = location.record.raw.encode()
            changes.append(Change(image.key, "record", file, record_data, None, image.caption, ""))
    return changes


def _list_caption_files(image: DatasetImage) -> list[Path]:
    """List the caption files beside an image, whether they are read or not."""
    paths = [image.path.with_suffix(suffix) for suffix in layout.CAPTION_SUFFIXES]
    files = [path for path in paths if path.is_file()]
    location = image.entry.caption_location
    if location.file not in files and not location.record and location.file.is_file():
        files.append(location.file)
    return files


def _plan_move(name: str, new_name: str, key: str = "", caption: str = "") -> Change:
    return Change(key, "move", name, os.fsencode(name), os.fsencode(new_name), caption, "")


def _find_free_name(folder: Path, name: str) -> str:
    """Return a name in the hidden folder that no file has yet."""
    path = PurePosixPath(SET_ASIDE_FOLDER) / name
    for number in range(1, 10_000):
        free_path = path
        if number > 1:
            free_path = path.with_name(f"{path.stem}-{number}{path.suffix}")
        if not (folder / free_path).exists():
            return free_path.as_posix()
    raise DatasetError(
        f"{name} was excluded ten thousand times; empty the folder {SET_ASIDE_FOLDER}."
    )


def plan_repeats_change(
    folder: Path,
    edit: SetRepeats,
    scan: layout.ScanResult,
    all_images: Sequence[DatasetImage],
    sources: Mapping[str, Source],
) -> list[Change]:
    """Plan to rename one of kohya's folders; the sources of its images move to their new keys.

    Args:
        folder: of the dataset.
        edit: which folder, and its new repeats.
        scan: of the dataset's folder.
        all_images: of the dataset.
        sources: where images come from, by key.

    Raises:
        DatasetError: it is none of kohya's folders, or the new name is taken.
    """
    concept_folders = [name for name in scan.repeats if name != "."]
    if edit.folder not in concept_folders:
        raise DatasetError(
            f"{scan.display_path(folder)} has no folder {quote(edit.folder)} with repeats in its "
            f"name; available: {list_alternatives((), concept_folders)}."
        )
    if scan.repeats[edit.folder] == edit.repeats:
        return []
    new_folder = f"{edit.repeats}_{edit.folder.partition('_')[2]}"
    if os.path.lexists(folder / new_folder):
        raise DatasetError(f"There is already a folder {new_folder}; enter other repeats.")
    changes = [_plan_move(edit.folder, new_folder)]
    for image in all_images:
        name = image.key.removeprefix(f"{edit.folder}/")
        if name == image.key or image.key not in sources:
            continue
        source_data = sources[image.key].model_dump_json().encode()
        changes.append(Change(image.key, "source", "", source_data, None))
        changes.append(Change(f"{new_folder}/{name}", "source", "", None, source_data))
    return changes


def plan_source_changes(
    edit: SetSource, images: Sequence[DatasetImage], known_sources: Mapping[str, Source]
) -> list[Change]:
    """Plan to record where images come from.

    Args:
        edit: what to record.
        images: those to record it of.
        known_sources: what is recorded so far, by key.
    """
    changes = []
    for image in images:
        old_source = known_sources.get(image.key, UNKNOWN_SOURCE)
        new_source = edit.apply(old_source)
        if new_source == old_source:
            continue
        old_data = None
        if image.key in known_sources:
            old_data = old_source.model_dump_json().encode()
        new_data = new_source.model_dump_json().encode()
        changes.append(Change(image.key, "source", "", old_data, new_data))
    return changes
