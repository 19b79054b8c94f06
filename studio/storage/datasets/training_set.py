"""A dataset as a training sees it: usable images, each with its caption and how often it counts.

Knows: the datasets of a home; which files cannot be used, and why. Does not know: torch, buckets,
what is trained; how captions are changed (dataset.py). It changes nothing on disk. layout.py says
how a folder may be laid out.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from studio.errors import DatasetError, list_alternatives, quote
from studio.settings import Settings, shipped
from studio.storage.datasets import filesystem, layout
from studio.storage.datasets.caption_files import display_name
from studio.storage.datasets.image_index import ImageIndex
from studio.storage.datasets.layout import Layout
from studio.storage.odd_files import list_folder


@dataclass(frozen=True)
class TrainingImage:
    """An image to train on.

    `width` and `height` are those of the upright image in pixels, `content_hash` is the sha256 of
    its file.
    """

    path: Path
    caption: str
    repeats: int
    concept: str
    width: int
    height: int
    content_hash: str


@dataclass(frozen=True)
class TrainingSet:
    """The images of a folder that can be trained on.

    `broken` are (file, why it cannot be used), `notes` what the owner should know.
    """

    name: str
    folder: Path
    images: tuple[TrainingImage, ...]
    broken: tuple[tuple[str, str], ...]
    layout: Layout
    notes: tuple[str, ...] = ()

    @property
    def images_per_epoch(self) -> int:
        """Images of an epoch: each as often as it is repeated."""
        return sum(image.repeats for image in self.images)

    @property
    def content_hash(self) -> str:
        """The sha256 over all that a training sees, whatever files and folders are called."""
        rows = sorted([image.content_hash, image.caption, image.repeats] for image in self.images)
        return hashlib.sha256(json.dumps(rows).encode()).hexdigest()

    def tag_frequency(self) -> dict[str, dict[str, int]]:
        """Count the tags of the captions by folder, as kohya's `ss_tag_frequency`."""
        counts_by_folder: dict[str, Counter[str]] = {}
        for image in self.images:
            tags = [tag.strip().lower() for tag in image.caption.split(",")]
            folder = display_name(image.path.parent.name)
            counts = counts_by_folder.setdefault(folder, Counter())
            counts.update(tag for tag in tags if tag)
        return {folder: dict(counts.most_common()) for folder, counts in counts_by_folder.items()}


class TrainingSets:
    """The datasets of a home: folders in home/datasets, and the shipped ones.

    Images that have not changed are not read twice.
    """

    def __init__(self, settings: Settings) -> None:
        self.home_folder = settings.home / "datasets"
        self._folders = (self.home_folder, shipped("assets") / "datasets")
        self.image_index = ImageIndex(settings)

    def close(self) -> None:
        """Close the index of images."""
        self.image_index.close()

    def names(self) -> list[str]:
        """List all datasets, the home's own first; those hide a shipped one of the same name."""
        return list(self._find_folders())

    def find_folder(self, name: str) -> Path:
        """Return the folder of a dataset.

        Raises:
            DatasetError: there is none of this name; the message names close matches.
        """
        folders = self._find_folders()
        if name not in folders:
            matches = difflib.get_close_matches(name, folders, 3, 0.4)
            raise DatasetError(
                f"There is no dataset {quote(name)} in home/datasets; available: "
                f"{list_alternatives(matches, list(folders))}."
            )
        return folders[name]

    def load_training_set(self, name: str) -> TrainingSet:
        """Read a dataset to train on.

        Raises:
            DatasetError: there is none of this name, or no image in it can be used.
        """
        return read_training_set(self.find_folder(name), name, self.image_index)

    def _find_folders(self) -> dict[str, Path]:
        folders: dict[str, Path] = {}
        for parent in self._folders:
            for path in list_folder(parent):
                if path.is_dir() and not path.name.startswith("."):
                    folders.setdefault(display_name(path.name), path)
        return folders


def read_training_set(
    folder: Path, name: str = "", image_index: ImageIndex | None = None
) -> TrainingSet:
    """Read a folder to train on; every image is decoded once.

    Args:
        folder: the dataset.
        name: its name; the folder's by default.
        image_index: remembers images from call to call.

    Raises:
        DatasetError: no image in it can be used.
    """
    scan = layout.scan_folder(folder)
    paths = [entry.path for entry in scan.entries]
    infos = (image_index or ImageIndex()).get_infos(paths)
    images: list[TrainingImage] = []
    for entry, info in zip(scan.entries, infos):
        reason = info.image_error or entry.caption_error
        if reason:
            scan.broken.append((scan.display_path(entry.path), reason))
            continue
        width, height = info.size
        images.append(
            TrainingImage(
                path=entry.path,
                caption=entry.concept if entry.caption is None else entry.caption,
                repeats=entry.repeats,
                concept=entry.concept,
                width=width,
                height=height,
                content_hash=info.content_hash,
            )
        )
        scan.notes += info.notes
    if not images:
        raise DatasetError(explain_no_images(folder, scan.broken))
    scan.notes += _collect_notes(images)
    return TrainingSet(
        name=name or display_name(folder.name),
        folder=folder,
        images=tuple(images),
        broken=tuple(scan.broken),
        layout=scan.layout,
        notes=tuple(scan.notes),
    )


def explain_no_images(folder: Path, broken: list[tuple[str, str]]) -> str:
    """Explain why a folder gives nothing to train on, and where to look.

    Args:
        folder: the dataset.
        broken: (file, why it cannot be used) of its files.
    """
    if broken:
        reasons = " ".join(f"{file} {reason}" for file, reason in broken[:3])
        return f"None of the images in {display_name(str(folder))} can be used. {reasons}"
    hint = "Put PNG, JPEG, WebP or BMP files into it."
    subfolders = [entry for entry in filesystem.list_folder(folder) if filesystem.is_dir(entry)]
    candidates = [entry.name for entry in subfolders if _looks_like_dataset(Path(entry.path))]
    if candidates:
        hint = f"Choose its folder {display_name(candidates[0])} instead."
    return f"There are no images in {display_name(str(folder))}. {hint}"


def _looks_like_dataset(folder: Path) -> bool:
    return any(
        filesystem.file_suffix(entry.name) in layout.IMAGE_SUFFIXES
        or layout.parse_concept_folder(entry.name)
        for entry in filesystem.list_folder(folder)
    )


def _collect_notes(images: list[TrainingImage]) -> list[str]:
    """Return what is worth knowing about all images together."""
    notes = []
    uncaptioned = [image for image in images if not image.caption]
    if uncaptioned:
        notes.append(
            f"{len(uncaptioned)} of {len(images)} images have no caption, such as "
            f"{display_name(uncaptioned[0].path.name)}."
        )
    first_by_content: dict[str, TrainingImage] = {}
    for image in images:
        first = first_by_content.setdefault(image.content_hash, image)
        if first is not image:
            notes.append(
                f"{display_name(image.path.name)} is the same image as "
                f"{display_name(first.path.name)}."
            )
    return notes
