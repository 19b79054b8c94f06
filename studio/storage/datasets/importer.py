"""How pictures come into a dataset of the home: uploaded, from an archive, from the gallery, from another dataset.

Knows: where each file goes; that nothing is taken without having been looked at; that adding is a step which can be undone. Does
not know: what can be wrong with an archive (unpack.py), or with a picture (images.py).

Everything is first written into a hidden folder of the dataset, pictures are decoded there, and then moved to their places by the
journal: after a kill all are added or none. Where pictures go: kohya's `10_moon` folders stay; a folder with a metadata file keeps
its folders; everything else comes into one folder. Names that are taken get a number, the caption's with its picture's.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import psutil

from studio.core.captions.provenance import NOBODY, Source, Writer
from studio.errors import BadFile, DatasetError, NotAllowed
from studio.imaging import decode
from studio.storage import atomic
from studio.storage.datasets import archives, caption_files, image_index
from studio.storage.datasets.archives import Budget, Member, Refused
from studio.storage.datasets.caption_files import shown
from studio.storage.datasets.file_changes import Change
from studio.storage.datasets.filesystem import ending
from studio.storage.datasets.history import Journal, Step
from studio.storage.datasets.layout import CAPTIONS, METADATA, OTHERS, TAKEN, repeats_and_concept
from studio.storage.datasets.training_set import Datasets
from studio.storage.gallery import Picture

ADDED, COMING = ".added", ".incoming"
BROUGHT = Writer(by="file")
PROMPT = Writer(by="prompt")
Used = dict[
    str, int
]  # stems that are taken, in small letters, with the last number that was tried after each
Report = Callable[[int, int], None]


@dataclass
class Taken:
    """What came of it: pictures and captions that were added, (file, why) of what was not, and the step that can be undone."""

    pictures: int = 0
    captions: int = 0
    left: list[tuple[str, str]] = field(default_factory=list)
    step: Step | None = None


def bring(
    folder: Path,
    journal: Journal,
    brought: Sequence[tuple[Path, str]],
    source: Source = NOBODY,
    report: Report | None = None,
) -> Taken:
    """Add files to a dataset: (where it lies, what its owner calls it) of pictures, captions, metadata files, zip archives.

    `report(pictures looked at, of how many)`. What it raises stops everything, and BadFile is raised for an archive that is none or
    hostile as a whole; nothing is added then.
    """
    taken = Taken()
    _sweep(folder)
    aside = folder / f"{COMING}-{os.getpid()}-{secrets.token_hex(4)}"
    aside.mkdir(parents=True)
    try:
        found: dict[PurePosixPath, tuple[Path, str]] = {}
        for path, name in brought:
            zipped = path.suffix.lower() == ".zip" or name.lower().endswith(".zip")
            budget = Budget(shown(name), path.stat().st_size if zipped else None, folder)
            members = (
                archives.members(path, shown(name), taken.left)
                if zipped
                else _single(path, name, taken.left)
            )
            for member in members:
                _stage(member, aside, budget, found, taken)
        return _place(folder, journal, _looked(found, taken, report), source, taken)
    except OSError as error:
        raise BadFile(f"The files could not be taken in: {error.strerror or error}.") from None
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def bring_made(
    folder: Path, journal: Journal, pictures: Iterable[Picture], prompts: bool = True
) -> Taken:
    """Add pictures of the gallery, marked as generated; their prompts become captions if so wished."""
    taken, changes, used = Taken(), [], _used(folder)
    token = secrets.token_hex(4)
    for number, picture in enumerate(pictures):
        stem = _free((PurePosixPath(_shape(folder)) / picture.path.stem).as_posix(), used)
        added, to = f"{ADDED}/{token}/{number}.png", f"{stem}.png"
        (folder / added).parent.mkdir(parents=True, exist_ok=True)
        try:
            shutil.copyfile(picture.path, folder / added)
        except OSError as error:
            taken.left.append(
                (picture.path.name, f"could not be copied: {error.strerror or error}.")
            )
            continue
        about = Source(
            source="made in this studio",
            author=picture.owner,
            generated=True,
            note=f"model {picture.request.model}, seed {picture.request.seed}, digest {picture.digest}",
        )
        prompt = " ".join(picture.request.prompt.split())
        changes += [
            Change(to, "move", to, added.encode(), to.encode()),
            Change(to, "source", "", None, about.model_dump_json().encode()),
        ]
        if prompts and prompt:
            changes.append(
                Change(
                    to,
                    "file",
                    f"{stem}.txt",
                    None,
                    caption_files.with_first_line(None, prompt),
                    "",
                    prompt,
                )
            )
            taken.captions += 1
        taken.pictures += 1
    if changes:
        taken.step = journal.make(
            folder, f"Add {taken.pictures} pictures from the gallery", PROMPT, changes
        )
    return taken


@contextmanager
def growing(shelf: Datasets, journal: Journal, name: str) -> Iterator[Path]:
    """The folder of a dataset of the home, made if it is new; it goes again where nothing came into it."""
    name = atomic.safe_name(name)
    folder = shelf.own / name
    if not folder.is_dir():
        if name in shelf.names():
            raise NotAllowed(
                f"{name} came with the studio and stays as it is; copy it, or take another name."
            )
        folder.mkdir(parents=True)
        journal.begin(folder.resolve())
    try:
        yield folder.resolve()
    finally:
        with suppress(OSError):
            folder.rmdir()


def copy(shelf: Datasets, journal: Journal, name: str, new: str) -> str:
    """A dataset under another name in the home: pictures, captions and metadata files; nothing hidden and no links. Its name.

    Raises DatasetError for a name that is not there or taken, BadFile where the disk does not take it.
    """

    def passed_over(at: str, names: list[str]) -> list[str]:
        return [
            name for name in names if name.startswith(".") or os.path.islink(os.path.join(at, name))
        ]

    folder, new = shelf.folder(name), atomic.safe_name(new)
    if new in shelf.names():
        raise DatasetError(f"There is a dataset {new} already; take another name.")
    aside = shelf.own / f"{COMING}-{os.getpid()}-{secrets.token_hex(4)}"
    try:
        shelf.own.mkdir(parents=True, exist_ok=True)
        _sweep(shelf.own)
        journal.begin(shelf.own.resolve() / new)
        shutil.copytree(folder, aside, ignore=passed_over)
        os.rename(aside, shelf.own / new)
    except OSError as error:
        raise BadFile(
            f"{shown(folder.name)} could not be copied: {error.strerror or error}."
        ) from None
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return new


def places(
    names: Sequence[PurePosixPath], used: Used, shape: str = ""
) -> dict[PurePosixPath, PurePosixPath]:
    """Where files go, by where they come from. `used`: stems ("10_moon/a") that are taken; it grows.

    `shape` is that of the dataset that they join: empty for a new one, "." for pictures in one folder, or one of kohya's folders,
    into which those go that have none. A picture and its captions stay together: files of one folder and stem get one new stem. No
    two differ in capitals only.
    """
    heads = {path.parts[0] for path in names if len(path.parts) > 1}
    if (
        len(heads) == 1
        and all(len(path.parts) > 1 for path in names)
        and not _concept(next(iter(heads)))
    ):
        inner = places([PurePosixPath(*path.parts[1:]) for path in names], used, shape)
        return {path: inner[PurePosixPath(*path.parts[1:])] for path in names}
    kohya = shape != "." and (
        shape != "" or any(_concept(part) for path in names for part in path.parts[:-1])
    )
    described = (
        not shape
        and not kohya
        and any(path.name.lower() in METADATA and len(path.parts) == 1 for path in names)
    )
    stems: dict[PurePosixPath, str] = {}
    made = {}
    for path in names:
        if path.name.lower() in METADATA:
            inside = next((part for part in path.parts[-2::-1] if _concept(part)), "")
            if inside or not kohya:  # kohya's folders are read each by itself
                made[path] = PurePosixPath(inside if kohya else "", path.name.lower())
            continue
        unit = path.with_suffix("")
        if unit not in stems:
            folder = _home(path, shape) if kohya else path.parent.as_posix() if described else ""
            stems[unit] = _free((PurePosixPath(folder) / path.stem).as_posix(), used)
        made[path] = PurePosixPath(stems[unit] + path.suffix)
    return made


def _home(path: PurePosixPath, shape: str) -> str:
    """The kohya folder of a file: the innermost that it lies in, else the dataset's, else one that counts once."""
    return next((part for part in path.parts[-2::-1] if _concept(part)), shape or "1_")


def _shape(folder: Path) -> str:
    """What `places` calls the shape of a dataset that is there."""
    inside = [one for one in os.scandir(folder) if not one.name.startswith(".")]
    concepts = sorted(
        one.name for one in inside if one.is_dir(follow_symlinks=False) and _concept(one.name)
    )
    return (
        concepts[0] if concepts else "." if any(ending(one.name) in TAKEN for one in inside) else ""
    )


def _concept(part: str) -> bool:
    return "_" in part and repeats_and_concept(part) is not None


def _free(stem: str, used: Used) -> str:
    """A stem that nothing has, and taken from now on."""
    made = stem
    while made.casefold() in used:
        used[stem.casefold()] += 1
        made = f"{stem}-{used[stem.casefold()]}"
    used[made.casefold()] = 1
    return made


def _single(path: Path, name: str, left: list[tuple[str, str]]) -> Iterable[Member]:
    """A file that is no archive."""
    try:
        judged = archives.judged(PurePosixPath(name.replace("\\", "/")).name)
    except BadFile as error:
        left.append((shown(name), str(error)))
        return []
    return [Member(shown(name), judged, lambda: open(path, "rb"))] if judged else []


def _stage(
    member: Member,
    aside: Path,
    budget: Budget,
    found: dict[PurePosixPath, tuple[Path, str]],
    taken: Taken,
) -> None:
    """Copy one file aside, if it is one that a dataset has."""
    end, name = ending(member.path.name), member.path.name.lower()
    most = (
        decode.MOST_BYTES
        if end in TAKEN
        else caption_files.MOST_METADATA
        if name in METADATA
        else caption_files.MOST_CAPTION
    )
    to = aside / secrets.token_hex(8)
    try:
        if end in OTHERS:
            raise Refused(f"is a {end} file; save it as PNG, JPEG, WebP or BMP.")
        if end not in (*TAKEN, *CAPTIONS) and name not in METADATA:
            raise Refused("is neither a picture nor a caption.")
        if member.path in found:
            raise Refused("stands there twice; the first is taken.")
        archives.copied(member, to, most, budget)
        found[member.path] = (to, member.name)
    except Refused as error:
        to.unlink(missing_ok=True)
        taken.left.append((member.name, str(error)))


def _looked(
    found: Mapping[PurePosixPath, tuple[Path, str]], taken: Taken, report: Report | None
) -> dict[PurePosixPath, tuple[Path, str]]:
    """Without pictures that are broken; each of those is named."""
    pictures = [path for path in found if ending(path.name) in TAKEN]
    good = dict(found)
    for path, look in zip(
        pictures, image_index.Looks().of([found[path][0] for path in pictures], True, report)
    ):
        if look.reason:
            taken.left.append((found[path][1], look.reason))
            del good[path]
    return good


def _place(
    folder: Path,
    journal: Journal,
    good: Mapping[PurePosixPath, tuple[Path, str]],
    source: Source,
    taken: Taken,
) -> Taken:
    """Move everything to its place as one step."""
    used = _used(folder)
    units = {path.with_suffix("") for path in good if ending(path.name) in TAKEN}
    bare = [
        path for path in good if ending(path.name) in CAPTIONS and path.with_suffix("") not in units
    ]
    targets = places([path for path in good if path not in bare], used, _shape(folder))
    for path in bare:  # a caption that comes alone: for a picture that is there and has none
        at = next(
            (
                folder / f"{path.stem}{end}"
                for end in TAKEN
                if (folder / f"{path.stem}{end}").is_file()
            ),
            None,
        )
        if at and not any(at.with_suffix(end).exists() for end in CAPTIONS):
            targets[path] = PurePosixPath(path.name)
        else:
            taken.left.append(
                (good[path][1], "belongs to no picture, or to one that has a caption already.")
            )
    taken.left += [
        (
            good[path][1],
            "is not read above folders like 10_moon; captions have to lie beside the pictures there.",
        )
        for path in good
        if path not in targets and path not in bare
    ]
    changes: list[Change] = []
    described: set[str] = set()
    token = secrets.token_hex(4)
    for number, (path, target) in enumerate(targets.items()):
        key = target.as_posix()
        if target.name in METADATA and ((folder / target).exists() or key in described):
            taken.left.append(
                (good[path][1], "is there already; write its captions beside the pictures.")
            )
            continue
        described |= {key} if target.name in METADATA else set()
        added = f"{ADDED}/{token}/{number}"
        (folder / added).parent.mkdir(parents=True, exist_ok=True)
        os.rename(good[path][0], folder / added)
        changes.append(Change(key, "move", key, added.encode(), key.encode()))
        if ending(target.name) in TAKEN:
            taken.pictures += 1
            if source != NOBODY:
                changes.append(Change(key, "source", "", None, source.model_dump_json().encode()))
        else:
            taken.captions += 1
    if changes:
        taken.step = journal.make(folder, f"Add {taken.pictures} pictures", BROUGHT, changes)
    return taken


def _used(folder: Path) -> Used:
    """Stems that are taken in the dataset and one folder below."""
    found: Used = {}
    for part in (
        folder,
        *(Path(one.path) for one in os.scandir(folder) if one.is_dir(follow_symlinks=False)),
    ):
        below = "" if part == folder else f"{part.name}/"
        with suppress(OSError):
            found |= {
                f"{below}{os.path.splitext(one.name)[0]}".casefold(): 1
                for one in os.scandir(part)
                if one.is_file()
            }
    return found


def _sweep(folder: Path) -> None:
    """Remove what a killed upload left."""
    if not folder.is_dir():
        raise DatasetError(f"There is no folder {shown(str(folder))}.")
    for one in list(os.scandir(folder)):
        parts = one.name.split("-")
        if (
            parts[0] == COMING
            and len(parts) == 3
            and parts[1].isdigit()
            and not psutil.pid_exists(int(parts[1]))
        ):
            shutil.rmtree(one.path, ignore_errors=True)
