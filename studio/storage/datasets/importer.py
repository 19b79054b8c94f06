"""How images come into a dataset of the home: uploads, archives, the gallery, other datasets.

Knows: where each file goes; that nothing is added without having been decoded; that adding is a
step which can be undone. Does not know: what can be wrong with an archive (archives.py) or an image
(imaging/decode.py).

Everything is first written into a hidden folder of the dataset, images are decoded there, and then
the journal moves all of it to its places: after a kill all files are added or none. Where images
go: kohya's `10_moon` folders stay; a folder with a metadata file keeps its folders; everything else
comes into one folder. Names that are taken get a number, a caption's with its image's.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath

import psutil

from studio.core.captions.provenance import UNKNOWN_SOURCE, Source, Writer
from studio.errors import BadFile, DatasetError, NotAllowed
from studio.imaging import decode
from studio.storage import atomic
from studio.storage.datasets import archives, caption_files, image_index
from studio.storage.datasets.archives import Budget, Member, RejectedEntry
from studio.storage.datasets.caption_files import display_name
from studio.storage.datasets.file_changes import Change
from studio.storage.datasets.filesystem import file_suffix
from studio.storage.datasets.history import Journal, Step
from studio.storage.datasets.layout import (
    CAPTION_SUFFIXES,
    IMAGE_SUFFIXES,
    METADATA_FILENAMES,
    UNSUPPORTED_SUFFIXES,
    parse_concept_folder,
)
from studio.storage.datasets.training_set import TrainingSets
from studio.storage.gallery import GeneratedImage

ADDED_FOLDER = ".added"
INCOMING_FOLDER = ".incoming"
FILE_WRITER = Writer(by="file")
PROMPT_WRITER = Writer(by="prompt")
# stems that are taken, in lower case, with the last number that was tried after each
UsedStems = dict[str, int]
ProgressCallback = Callable[[str, int, int], None]  # what is done, how many, of how many
UNPACKING = "Unpacking"
DECODING = "Scanning the images"
REPORT_FILES = 200  # between two reports of what was unpacked


@dataclass
class ImportResult:
    """What was added, (file, why) of what was not, and the step that can be undone."""

    num_images: int = 0
    num_captions: int = 0
    skipped: list[tuple[str, str]] = field(default_factory=list)
    step: Step | None = None

    def note_step(self, step: Step) -> None:
        """Take in the step that was carried out; what the disk did not take of it was skipped."""
        self.step = step
        self.skipped += step.skipped
        missing = {key for key, _ in step.skipped if file_suffix(key) in IMAGE_SUFFIXES}
        self.num_images -= len(missing)


@dataclass(frozen=True)
class _StagedFile:
    """A file in the hidden folder: where it lies, and what its owner calls it."""

    path: Path
    name: str


def import_files(
    folder: Path,
    journal: Journal,
    files: Sequence[tuple[Path, str]],
    source: Source = UNKNOWN_SOURCE,
    report: ProgressCallback | None = None,
) -> ImportResult:
    """Add files to a dataset, as one step.

    Args:
        folder: of the dataset.
        journal: of its home.
        files: (where it lies, what its owner calls it) of images, captions, metadata files, zips.
        source: where the images come from.
        report: called with (UNPACKING or DECODING, files done, of how many); what it raises stops
            the import, and nothing is added.

    Returns:
        What was added, and what was skipped.

    Raises:
        BadFile: an archive cannot be read or is hostile, or the disk does not take the files;
            nothing is added.
    """
    result = ImportResult()
    _remove_leftovers(folder)
    staging_folder = _incoming_folder(folder)
    atomic.make_folder(staging_folder, mode=0o777)
    try:
        staged: dict[PurePosixPath, _StagedFile] = {}
        for path, name in files:
            is_zip = path.suffix.lower() == ".zip" or name.lower().endswith(".zip")
            packed_bytes = path.stat().st_size if is_zip else None
            budget = Budget(display_name(name), packed_bytes, folder)
            members: Iterable[Member]
            if is_zip:
                members = archives.iter_members(path, display_name(name), result.skipped)
            else:
                members = _single_member(path, name, result.skipped)
            for number, member in enumerate(members):
                if report and number % REPORT_FILES == 0:
                    report(UNPACKING, number, member.num_entries)
                _stage_member(member, staging_folder, budget, staged, result)
        _drop_broken_images(staged, result, report)
        return _commit_files(folder, journal, staged, source, result)
    except OSError as error:
        raise BadFile(f"The files could not be imported: {error.strerror or error}.") from None
    finally:
        shutil.rmtree(staging_folder, ignore_errors=True)


def import_generated(
    folder: Path, journal: Journal, images: Iterable[GeneratedImage], use_prompts: bool = True
) -> ImportResult:
    """Add images of the gallery to a dataset, marked as generated, as one step.

    Args:
        folder: of the dataset.
        journal: of its home.
        images: what to add.
        use_prompts: make their prompts their captions.

    Returns:
        What was added, and what could not be copied.
    """
    result = ImportResult()
    changes: list[Change] = []
    used_stems = _list_used_stems(folder)
    target_folder = PurePosixPath(_detect_folder_style(folder))
    token = secrets.token_hex(4)
    for number, image in enumerate(images):
        stem = _claim_stem((target_folder / image.path.stem).as_posix(), used_stems)
        added_file = f"{ADDED_FOLDER}/{token}/{number}.png"
        atomic.make_folder((folder / added_file).parent, mode=0o777)
        try:
            shutil.copyfile(image.path, folder / added_file)
        except OSError as error:
            reason = f"could not be copied: {error.strerror or error}."
            result.skipped.append((image.path.name, reason))
            continue
        key = f"{stem}.png"
        changes.append(Change(key, "move", key, added_file.encode(), key.encode()))
        changes.append(_source_change(key, _generated_source(image)))
        result.num_images += 1
        prompt = " ".join(image.request.prompt.split())
        if use_prompts and prompt:
            data = caption_files.replace_first_line(None, prompt)
            changes.append(Change(key, "file", f"{stem}.txt", None, data, "", prompt))
            result.num_captions += 1
    if changes:
        atomic.sync_disk(folder / ADDED_FOLDER)
        title = f"Add {result.num_images} images from the gallery"
        result.note_step(journal.add_step(folder, title, PROMPT_WRITER, changes))
    return result


@contextmanager
def ensure_dataset_folder(registry: TrainingSets, journal: Journal, name: str) -> Iterator[Path]:
    """Give the folder of a dataset of the home, created if it is new.

    A folder that is still empty afterwards is removed.

    Raises:
        NotAllowed: the dataset of this name came with the studio.
        BadFile: the disk does not take the folder.
    """
    name = atomic.safe_name(name)
    folder = registry.home_folder / name
    if not folder.is_dir():
        if name in registry.names():
            raise NotAllowed(
                f"{name} is built in and cannot be edited; copy it, or enter another name."
            )
        atomic.make_folder(folder, mode=0o777)
        journal.forget_folder(folder.resolve())
    try:
        yield folder.resolve()
    finally:
        with suppress(OSError):
            folder.rmdir()


def copy_dataset(registry: TrainingSets, journal: Journal, name: str, new_name: str) -> str:
    """Copy a dataset into the home, with its captions and metadata files.

    Hidden files and links are left out.

    Args:
        registry: the datasets of the home.
        journal: of the home.
        name: the dataset to copy.
        new_name: of the copy.

    Returns:
        The name of the copy, safe as a file name.

    Raises:
        DatasetError: there is no such dataset, or the new name is taken.
        BadFile: the disk does not take the copy.
    """
    folder = registry.find_folder(name)
    new_name = atomic.safe_name(new_name)
    if new_name in registry.names():
        raise DatasetError(f"There is already a dataset {new_name}; enter another name.")
    staging_folder = _incoming_folder(registry.home_folder)
    try:
        registry.home_folder.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(registry.home_folder)
        journal.forget_folder(registry.home_folder.resolve() / new_name)
        shutil.copytree(folder, staging_folder, ignore=_list_hidden_and_links)
        os.rename(staging_folder, registry.home_folder / new_name)
    except OSError as error:
        raise BadFile(
            f"{display_name(folder.name)} could not be copied: {error.strerror or error}."
        ) from None
    finally:
        shutil.rmtree(staging_folder, ignore_errors=True)
    return new_name


def plan_target_paths(
    paths: Sequence[PurePosixPath], used_stems: UsedStems, folder_style: str = ""
) -> dict[PurePosixPath, PurePosixPath]:
    """Plan where uploaded files go.

    An image and its captions stay together: files of one folder and stem get one new stem. No two
    stems differ in capitals only.

    Args:
        paths: of the files as they were uploaded.
        used_stems: stems ("10_moon/a") that are taken; new ones are added.
        folder_style: of the dataset that they join: empty for a new one, "." for images in one
            folder, or one of kohya's folders, which takes those that lie in none.

    Returns:
        Paths below the dataset, by uploaded path; without metadata files that nothing would read.
    """
    inner_paths = {path: PurePosixPath(*path.parts[1:]) for path in paths}
    if _is_one_plain_folder(paths):
        inner_targets = plan_target_paths(list(inner_paths.values()), used_stems, folder_style)
        return {
            path: inner_targets[inner_path]
            for path, inner_path in inner_paths.items()
            if inner_path in inner_targets
        }
    use_concept_folders = folder_style not in ("", ".")
    if folder_style == "":
        use_concept_folders = any(_find_concept_folder(path) for path in paths)
    keep_folders = (
        folder_style == ""
        and not use_concept_folders
        and any(path.name.lower() in METADATA_FILENAMES and len(path.parts) == 1 for path in paths)
    )
    new_stems: dict[PurePosixPath, str] = {}
    targets: dict[PurePosixPath, PurePosixPath] = {}
    for path in paths:
        concept_folder = _find_concept_folder(path) if use_concept_folders else ""
        if path.name.lower() in METADATA_FILENAMES:
            # beside kohya's folders nothing reads it
            if concept_folder or not use_concept_folders:
                targets[path] = PurePosixPath(concept_folder, path.name.lower())
            continue
        stem = path.with_suffix("")
        if stem not in new_stems:
            target_folder = ""
            if use_concept_folders:
                target_folder = concept_folder or folder_style or "1_"
            elif keep_folders:
                target_folder = path.parent.as_posix()
            wanted_stem = (PurePosixPath(target_folder) / path.stem).as_posix()
            new_stems[stem] = _claim_stem(wanted_stem, used_stems)
        targets[path] = PurePosixPath(new_stems[stem] + path.suffix)
    return targets


def _is_one_plain_folder(paths: Sequence[PurePosixPath]) -> bool:
    """Return whether all files lie in one folder that is none of kohya's, as in most archives."""
    top_folders = {path.parts[0] if len(path.parts) > 1 else "" for path in paths}
    if len(top_folders) != 1:
        return False
    (top_folder,) = top_folders
    return top_folder != "" and not _is_concept_folder(top_folder)


def _find_concept_folder(path: PurePosixPath) -> str:
    """Return the innermost kohya folder that a file lies in; empty without one."""
    return next((part for part in path.parts[-2::-1] if _is_concept_folder(part)), "")


def _detect_folder_style(folder: Path) -> str:
    """Return the `folder_style` of a dataset (see plan_target_paths)."""
    entries = [entry for entry in os.scandir(folder) if not entry.name.startswith(".")]
    concept_folders = [
        entry.name
        for entry in entries
        if entry.is_dir(follow_symlinks=False) and _is_concept_folder(entry.name)
    ]
    if concept_folders:
        return min(concept_folders)
    if any(file_suffix(entry.name) in IMAGE_SUFFIXES for entry in entries):
        return "."
    return ""


def _is_concept_folder(name: str) -> bool:
    return "_" in name and parse_concept_folder(name) is not None


def _claim_stem(stem: str, used_stems: UsedStems) -> str:
    """Return a stem that is free, and mark it as taken."""
    free_stem = stem
    while free_stem.casefold() in used_stems:
        used_stems[stem.casefold()] += 1
        free_stem = f"{stem}-{used_stems[stem.casefold()]}"
    used_stems[free_stem.casefold()] = 1
    return free_stem


def _incoming_folder(folder: Path) -> Path:
    return folder / f"{INCOMING_FOLDER}-{os.getpid()}-{secrets.token_hex(4)}"


def _list_hidden_and_links(folder: str, names: list[str]) -> list[str]:
    return [
        name for name in names if name.startswith(".") or os.path.islink(os.path.join(folder, name))
    ]


def _generated_source(image: GeneratedImage) -> Source:
    request = image.request
    return Source(
        source="made in this studio",
        author=image.owner,
        generated=True,
        note=f"model {request.model}, seed {request.seed}, digest {image.digest}",
    )


def _source_change(key: str, source: Source) -> Change:
    return Change(key, "source", "", None, source.model_dump_json().encode())


def _single_member(path: Path, name: str, skipped: list[tuple[str, str]]) -> list[Member]:
    """Return a file that is no archive; none if it is rejected or passed over."""
    try:
        member_path = archives.safe_member_path(PurePosixPath(name.replace("\\", "/")).name)
    except BadFile as error:
        skipped.append((display_name(name), str(error)))
        return []
    if member_path is None:
        return []
    return [Member(display_name(name), member_path, lambda: open(path, "rb"))]


def _stage_member(
    member: Member,
    staging_folder: Path,
    budget: Budget,
    staged: dict[PurePosixPath, _StagedFile],
    result: ImportResult,
) -> None:
    """Copy one file into the hidden folder, if it is one that a dataset has."""
    suffix = file_suffix(member.path.name)
    is_metadata = member.path.name.lower() in METADATA_FILENAMES
    max_bytes = caption_files.MAX_CAPTION_BYTES
    if suffix in IMAGE_SUFFIXES:
        max_bytes = decode.MAX_FILE_BYTES
    elif is_metadata:
        max_bytes = caption_files.MAX_METADATA_BYTES
    staged_path = staging_folder / secrets.token_hex(8)
    try:
        if suffix in UNSUPPORTED_SUFFIXES:
            raise RejectedEntry(f"is a {suffix} file; save it as PNG, JPEG, WebP or BMP.")
        if suffix not in (*IMAGE_SUFFIXES, *CAPTION_SUFFIXES) and not is_metadata:
            raise RejectedEntry("is neither an image nor a caption.")
        if member.path in staged:
            raise RejectedEntry("appears twice; the first one is used.")
        archives.copy_member(member, staged_path, max_bytes, budget)
        staged[member.path] = _StagedFile(staged_path, member.name)
    except RejectedEntry as error:
        staged_path.unlink(missing_ok=True)
        result.skipped.append((member.name, str(error)))


def _drop_broken_images(
    staged: dict[PurePosixPath, _StagedFile],
    result: ImportResult,
    report: ProgressCallback | None,
) -> None:
    """Decode all images and drop the broken ones."""
    images = [path for path in staged if file_suffix(path.name) in IMAGE_SUFFIXES]
    staged_paths = [staged[path].path for path in images]
    infos = image_index.ImageIndex().get_infos(
        staged_paths, True, partial(report, DECODING) if report else None
    )
    for path, info in zip(images, infos):
        if info.image_error:
            result.skipped.append((staged[path].name, info.image_error))
            del staged[path]


def _commit_files(
    folder: Path,
    journal: Journal,
    staged: Mapping[PurePosixPath, _StagedFile],
    source: Source,
    result: ImportResult,
) -> ImportResult:
    """Move all staged files to their places, as one step."""
    targets = _plan_staged_files(folder, staged, result)
    if targets:
        # Once for all: after each of 50,000 files it would take ten minutes. Before the journal
        # moves them: what it names has to outlive a power cut.
        atomic.sync_disk(folder)
    changes: list[Change] = []
    metadata_keys: set[str] = set()
    token = secrets.token_hex(4)
    for number, (path, target) in enumerate(targets.items()):
        key = target.as_posix()
        if target.name in METADATA_FILENAMES:
            if (folder / target).exists() or key in metadata_keys:
                reason = "already exists; put its captions beside the images."
                result.skipped.append((staged[path].name, reason))
                continue
            metadata_keys.add(key)
        added_file = f"{ADDED_FOLDER}/{token}/{number}"
        (folder / added_file).parent.mkdir(parents=True, exist_ok=True)
        os.rename(staged[path].path, folder / added_file)
        changes.append(Change(key, "move", key, added_file.encode(), key.encode()))
        if file_suffix(target.name) not in IMAGE_SUFFIXES:
            result.num_captions += 1
            continue
        result.num_images += 1
        if source != UNKNOWN_SOURCE:
            changes.append(_source_change(key, source))
    if changes:
        title = f"Add {result.num_images} images"
        result.note_step(journal.add_step(folder, title, FILE_WRITER, changes))
    return result


def _plan_staged_files(
    folder: Path, staged: Mapping[PurePosixPath, _StagedFile], result: ImportResult
) -> dict[PurePosixPath, PurePosixPath]:
    """Plan where staged files go; those that go nowhere are added to the skipped ones."""
    image_stems = {
        path.with_suffix("") for path in staged if file_suffix(path.name) in IMAGE_SUFFIXES
    }
    # a dict, in whose order and speed: a list of 50,000 would be searched 50,000 times
    lone_captions = dict.fromkeys(
        path
        for path in staged
        if file_suffix(path.name) in CAPTION_SUFFIXES and path.with_suffix("") not in image_stems
    )
    paths = [path for path in staged if path not in lone_captions]
    used_stems = _list_used_stems(folder)
    targets = plan_target_paths(paths, used_stems, _detect_folder_style(folder))
    reason = "is not read above folders like 10_moon; put captions beside the images there."
    unread = [(staged[path].name, reason) for path in paths if path not in targets]
    for path in lone_captions:
        if _has_uncaptioned_image(folder, path.stem):
            targets[path] = PurePosixPath(path.name)
        else:
            reason = "belongs to no image, or to one that already has a caption."
            result.skipped.append((staged[path].name, reason))
    result.skipped += unread
    return targets


def _has_uncaptioned_image(folder: Path, stem: str) -> bool:
    """Return whether the dataset has an image of that stem, and no caption file beside it."""
    candidates = [folder / f"{stem}{suffix}" for suffix in IMAGE_SUFFIXES]
    image_path = next((path for path in candidates if path.is_file()), None)
    if image_path is None:
        return False
    return not any(image_path.with_suffix(suffix).exists() for suffix in CAPTION_SUFFIXES)


def _list_used_stems(folder: Path) -> UsedStems:
    """List the stems that are taken in the dataset and its folders, hidden ones too."""
    subfolders = [entry for entry in os.scandir(folder) if entry.is_dir(follow_symlinks=False)]
    prefixes = {"": str(folder)} | {f"{entry.name}/": entry.path for entry in subfolders}
    used_stems: UsedStems = {}
    for prefix, path in prefixes.items():
        with suppress(OSError):
            names = [entry.name for entry in os.scandir(path) if entry.is_file()]
            stems = [f"{prefix}{os.path.splitext(name)[0]}" for name in names]
            used_stems.update((stem.casefold(), 1) for stem in stems)
    return used_stems


def _remove_leftovers(folder: Path) -> None:
    """Remove what killed uploads left behind."""
    if not folder.is_dir():
        raise DatasetError(f"There is no folder {display_name(str(folder))}.")
    for entry in list(os.scandir(folder)):
        parts = entry.name.split("-")
        is_incoming = parts[0] == INCOMING_FOLDER and len(parts) == 3 and parts[1].isdigit()
        if is_incoming and not psutil.pid_exists(int(parts[1])):
            shutil.rmtree(entry.path, ignore_errors=True)
