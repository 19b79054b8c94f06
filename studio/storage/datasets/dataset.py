"""Datasets as they are looked at and edited.

Knows: which images there are with their captions, how they are found, edited, undone. Does not
know: torch, what a page looks like, how a caption is computed. A training reads training_set.py;
both walk a folder the same way (layout.py).

    store = DatasetStore(settings)           one for a process: web process, worker
    dataset = store.open("moon")             or open(Path("/any/folder")); quick for 10,000 images
    for image in dataset.images: image.key, image.path, image.caption, image.size, image.file_size
    dataset.compute_content_hash(image.key)  sha256 of the file, computed once and remembered
    dataset.examine(report)                  decodes all that is new: finds broken and equal images

    writer = Writer(by="model", model="pocket", instruction="…")
    step = dataset.write_captions({"a.png": "a red boat"}, writer, mode="fill")
    step = dataset.write_captions({"b.png": "a tree"}, writer, mode="fill", append_to=step.id)
    step.num_changes, step.skipped           how many were written; (key, why) of the others
    dataset.undo(), dataset.redo(), dataset.history()      across restarts and processes

A write is stored in the journal before a file is touched, and each file is written aside and
renamed: after kill -9 at any moment every caption is the old one or the new one, and whoever opens
the dataset next completes the step. A caption that another program changed since this dataset was
read is left as it is and listed in `step.skipped`; `refresh()` reads anew. A caption goes where it
stands: into its own file, or into its record of metadata.jsonl or .csv; a new one goes into a file
beside the image.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from studio.core.captions import edits, text
from studio.core.captions import filter as caption_filter
from studio.core.captions import lint as caption_lint
from studio.core.captions.edits import CaptionRow, Edit, SetAside, SetCaptions
from studio.core.captions.lint import Finding, LintRules
from studio.core.captions.provenance import UNKNOWN_SOURCE, Source, Writer
from studio.core.captions.text import MergeMode
from studio.errors import DatasetError, NotAllowed, quote
from studio.settings import Settings, shipped
from studio.storage import atomic, gallery
from studio.storage.datasets import data_card, edit_planner, filesystem, importer, layout
from studio.storage.datasets.caption_files import display_name
from studio.storage.datasets.data_card import Credit
from studio.storage.datasets.file_changes import Change
from studio.storage.datasets.history import Journal, Step
from studio.storage.datasets.image_index import ImageIndex, ImageInfo
from studio.storage.datasets.importer import ImportResult
from studio.storage.datasets.items import (
    Counts,
    DatasetImage,
    Page,
    SortOrder,
    explain_bad_name,
    sort_images,
    to_row,
)
from studio.storage.datasets.layout import ImageEntry
from studio.storage.datasets.thumbnails import ThumbnailCache
from studio.storage.datasets.token_models import TokenModels
from studio.storage.datasets.training_set import TrainingSets

HAND_WRITER = Writer(by="hand")
AFFIX_WRITER = Writer(by="affix")


class DatasetStore:
    """Opens the datasets of a home, or any folder."""

    def __init__(self, settings: Settings, registry: TrainingSets | None = None) -> None:
        """Open the history of edits.

        Args:
            settings: name the home.
            registry: the home's datasets, where they are open already.
        """
        self.settings = settings
        self.registry = registry or TrainingSets(settings)
        self._journal = Journal(settings)
        self.token_models = TokenModels(settings)
        self._thumbnails = ThumbnailCache(settings)

    def close(self) -> None:
        """Close the history and the registry."""
        self._journal.close()
        self.registry.close()

    def measure_forgotten_history(self) -> int:
        """Return the bytes that the history holds of datasets of the home that are no more."""
        return sum(self._journal.measure(folder) for folder in self._list_forgotten_folders())

    def forget_history(self) -> None:
        """Forget the edits of datasets of the home that are no more.

        Raises:
            Busy: another program keeps writing.
            BadFile: the disk does not take the journal.
        """
        for folder in self._list_forgotten_folders():
            self._journal.delete_history(folder)

    def _list_forgotten_folders(self) -> list[Path]:
        """List datasets whose folder is gone; a folder elsewhere may be on a missing disk."""
        home_folder = self.registry.home_folder.resolve()
        return [
            folder
            for folder in self._journal.list_folders()
            if folder.parent == home_folder and home_folder.is_dir() and not folder.exists()
        ]

    def names(self) -> list[str]:
        """List all datasets of the home and those that came with the studio."""
        return self.registry.names()

    def open(self, name_or_folder: str | Path) -> Dataset:
        """Open a dataset; what a killed process left half written is completed.

        Raises:
            DatasetError: there is no such dataset or folder.
        """
        if isinstance(name_or_folder, Path):
            folder = name_or_folder
            name = display_name(folder.name)
        else:
            folder = self.registry.find_folder(name_or_folder)
            name = name_or_folder
        if not folder.is_dir():
            raise DatasetError(
                f"There is no folder {display_name(str(folder))}; choose one with images in it."
            )
        return Dataset(
            folder.resolve(),
            name,
            journal=self._journal,
            image_index=self.registry.image_index,
            token_models=self.token_models,
            thumbnails=self._thumbnails,
        )

    def import_files(
        self,
        name: str,
        files: Sequence[tuple[Path, str]],
        source: Source = UNKNOWN_SOURCE,
        report: importer.ProgressCallback | None = None,
    ) -> ImportResult:
        """Add files to a dataset of the home, or to a new one.

        Args:
            name: of the dataset.
            files: (where it lies, what its owner calls it) of images, captions, metadata files,
                zips.
            source: where the images come from.
            report: called with (what is done, files done, of how many).

        Raises:
            NotAllowed: the dataset came with the studio.
            BadFile: an archive cannot be read or is hostile, or the disk does not take the files.
        """
        with importer.ensure_dataset_folder(self.registry, self._journal, name) as folder:
            return importer.import_files(folder, self._journal, files, source, report)

    def import_generated(
        self, name: str, images: Iterable[gallery.GeneratedImage], use_prompts: bool = True
    ) -> ImportResult:
        """Add images of the gallery, marked as generated, to a dataset of the home or a new one.

        Args:
            name: of the dataset.
            images: what to add.
            use_prompts: make their prompts their captions.

        Raises:
            NotAllowed: the dataset came with the studio.
        """
        with importer.ensure_dataset_folder(self.registry, self._journal, name) as folder:
            return importer.import_generated(folder, self._journal, images, use_prompts)

    def copy(self, name: str, new_name: str) -> Dataset:
        """Copy a dataset into the home under another name, and open the copy.

        Raises:
            DatasetError: there is no such dataset, or the new name is taken.
            BadFile: the disk does not take the copy.
        """
        return self.open(importer.copy_dataset(self.registry, self._journal, name, new_name))


class Dataset:
    """One folder, as of the last `refresh` (which is cheap) and the writes since.

    Several threads may use one: writers take turns, and readers see one state or the next.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        *,
        journal: Journal,
        image_index: ImageIndex,
        token_models: TokenModels,
        thumbnails: ThumbnailCache,
    ) -> None:
        self.folder = folder
        self.name = name
        self._token_models = token_models
        self.is_shipped = folder.is_relative_to((shipped("assets") / "datasets").resolve())
        self._journal = journal
        self._image_index = image_index
        self._thumbnails = thumbnails
        self._lock = threading.RLock()
        self._images_by_key: dict[str, DatasetImage] = {}
        self.refresh()

    def refresh(self) -> None:
        """Read the folder anew: names, captions, headers of images that changed.

        Raises:
            DatasetError: the folder is gone or cannot be read.
        """
        with self._lock:
            self._journal.recover(self.folder)
            mtimes = filesystem.read_mtimes(filesystem.list_folder_tree(self.folder))
            scan = layout.scan_folder(self.folder)
            entries = []
            for entry in scan.entries:
                if reason := explain_bad_name(entry.key):
                    scan.broken.append((scan.display_path(entry.path), reason))
                else:
                    entries.append(entry)
            self._scan = scan
            self.layout = scan.layout
            self._folder_mtimes = mtimes
            paths = [entry.path for entry in entries]
            self._set_images(entries, self._image_index.get_infos(paths, examine=False))

    def is_stale(self) -> bool:
        """Return whether files were added, removed or replaced since the last `refresh`.

        It looks at the times of a few folders only.
        """
        return filesystem.read_mtimes(self._folder_mtimes) != self._folder_mtimes

    def examine(self, report: Callable[[int, int], None] | None = None) -> None:
        """Decode and hash every image that has not been yet.

        Args:
            report: called with (images decoded, of how many); what it raises stops the work, and
                what was decoded is remembered.
        """
        paths = {image.key: image.path for image in self.images}
        new_infos = self._image_index.get_infos(list(paths.values()), True, report)
        infos_by_key = dict(zip(paths, new_infos))
        with self._lock:  # captions may have been written meanwhile
            entries = [image.entry for image in self.images]
            infos = [infos_by_key.get(image.key, image.info) for image in self.images]
            self._set_images(entries, infos)

    def _set_images(self, entries: Sequence[ImageEntry], infos: Sequence[ImageInfo]) -> None:
        """Replace the images; objects of those that did not change are kept."""
        images = []
        for entry, info in zip(entries, infos):
            image = self._images_by_key.get(entry.key)
            if image is None or image.entry is not entry or image.info is not info:
                image = DatasetImage(entry.key, entry.path, entry.caption or "", entry, info)
            images.append(image)
        self.images = tuple(images)
        self._images_by_key = {image.key: image for image in images}

    # ---- reading -------------------------------------------------------------------------------

    @property
    def broken(self) -> list[tuple[str, str]]:
        """(file, why it cannot be used) of images, captions, lines of metadata files."""
        broken = list(self._scan.broken)
        for image in self.images:
            if reason := image.image_error or image.caption_error:
                broken.append((image.key, reason))
        return broken

    @property
    def notes(self) -> list[str]:
        """Sentences that the owner should know."""
        return self._scan.notes + [note for image in self.images for note in image.info.notes]

    def count_images(self) -> Counts:
        """Count usable, captioned, broken and unexamined images."""
        usable_images = self._usable_images()
        return Counts(
            images=len(usable_images),
            captioned=sum(image.is_captioned for image in usable_images),
            broken=len(self.broken),
            unexamined=sum(not image.info.is_examined for image in self.images),
            layout=self.layout,
            repeats=dict(self._scan.repeats),
        )

    def get_image(self, key: str) -> DatasetImage:
        """Look up an image.

        Raises:
            DatasetError: there is none of this key.
        """
        if key not in self._images_by_key:
            raise DatasetError(f"There is no image {quote(key)} in {self.name}.")
        return self._images_by_key[key]

    def compute_content_hash(self, key: str) -> str:
        """Return the sha256 of an image's file; empty for one that cannot be used.

        Raises:
            DatasetError: there is none of this key.
        """
        image = self.get_image(key)
        return image.content_hash or self._image_index.get_infos([image.path])[0].content_hash

    def get_page(
        self,
        offset: int = 0,
        limit: int = 60,
        filter_query: str = "",
        sort: SortOrder = "name",
        reverse: bool = False,
    ) -> Page:
        """Return some of the images that a filter lets through.

        Args:
            offset: how many to leave out.
            limit: how many to return at most.
            filter_query: see core/captions/filter.py; empty for all images.
            sort: the order.
            reverse: the other way round.

        Raises:
            InvalidSpec: there is no such filter or order.
        """
        images = sort_images(self._filter_images(filter_query), sort, reverse)
        return Page(tuple(images[offset : offset + limit]), len(images), offset)

    def make_thumbnails(self, keys: Sequence[str]) -> list[Path | None]:
        """Return thumbnails, at most 320 pixels a side; None for an image that cannot be read.

        Raises:
            DatasetError: there is no image of a key.
        """
        return self._thumbnails.make_thumbnails([self.get_image(key).path for key in keys])

    def keys(self, filter_query: str = "") -> list[str]:
        """List the keys of the images that a filter lets through, by name.

        Raises:
            InvalidSpec: there is no such filter.
        """
        return [image.key for image in self._filter_images(filter_query)]

    def count_tags(
        self, filter_query: str = "", keys: Sequence[str] | None = None
    ) -> list[tuple[str, int]]:
        """Count in how many captions each tag stands, the most frequent first.

        Args:
            filter_query: only of images that it lets through.
            keys: only of these images.

        Raises:
            InvalidSpec: there is no such filter.
        """
        images = self._filter_images(filter_query)
        if keys is not None:
            selected_keys = set(keys)
            images = [image for image in images if image.key in selected_keys]
        return text.count_tags(image.caption for image in images)

    def lint(self, rules: LintRules | None = None) -> list[Finding]:
        """Find what is likely to spoil a training.

        Equal and broken images are found among those that were examined.
        """
        rows = self._to_rows(self.images, count_tokens=True)
        return caption_lint.lint(rows, rules or LintRules())

    def read_credits(self) -> dict[str, list[Credit]]:
        """Return who wrote each caption by key, the oldest writing first."""
        written_captions = self._journal.iter_written_captions(self.folder)
        return data_card.collect_credits(self.images, written_captions)

    def build_card(self) -> dict[str, Any]:
        """Build the dataset's card: who wrote its captions, where its images come from.

        New images are examined.
        """
        self.examine()
        return data_card.build_card(
            self.name,
            self._usable_images(),
            self.read_credits(),
            self.read_sources(),
            self._scan.repeats,
        )

    def export(self, target: Path) -> Path:
        """Write the dataset with its card as a zip file and return its path.

        Captions are beside the images and in metadata.jsonl.

        Raises:
            BadFile: an image cannot be read, or the disk does not take the zip.
        """
        card = self.build_card()
        concept = atomic.safe_name(self.name)
        return data_card.write_zip(target, card, self._usable_images(), concept)

    def _usable_images(self) -> list[DatasetImage]:
        return [image for image in self.images if not image.image_error]

    def _filter_images(self, filter_query: str) -> list[DatasetImage]:
        caption_test = caption_filter.parse_filter(filter_query)
        images = self.images
        if not filter_query.strip():
            return list(images)
        rows = self._to_rows(images, caption_test.needs_tokens)
        return [image for image, row in zip(images, rows) if caption_test.matches(row)]

    def _to_rows(self, images: Sequence[DatasetImage], count_tokens: bool) -> list[CaptionRow]:
        """Convert images to what filters and lint work on."""
        if not count_tokens:
            return [to_row(image) for image in images]
        counter = self._token_models.get_counter(self.folder)
        counter.count_batch(image.caption for image in images)
        return [to_row(image, counter(image.caption)) for image in images]

    # ---- changing ------------------------------------------------------------------------------

    def write_captions(
        self,
        texts: Mapping[str, str],
        writer: Writer,
        *,
        mode: MergeMode = "replace",
        append_to: int = 0,
        title: str = "",
        separator: str = ", ",
    ) -> Step:
        """Write captions as one step.

        Args:
            texts: captions by key.
            writer: who wrote them.
            mode: what happens to captions that are there.
            append_to: id of a step that this one continues if it is still the last; both are undone
                as one.
            title: for the history; by default made from writer and mode.
            separator: between an old caption and what is added to it.

        Raises:
            DatasetError: there is no image of a key, or no file can hold a caption.
            NotAllowed: the dataset came with the studio.
            Busy: another program keeps writing.
            BadFile: the disk does not take the journal.
        """
        edit = SetCaptions(texts=dict(texts), mode=mode, separator=separator)
        return self._execute_edit(
            edit,
            list(texts),
            writer=writer,
            append_to=append_to,
            title=title or f"{writer}: {edits.describe_edit(edit)}",
        )

    def preview(
        self, edit: Edit, keys: Sequence[str] | None = None, filter_query: str = ""
    ) -> list[Change]:
        """Return what an edit would change, without writing anything.

        Args:
            edit: what to do.
            keys: only to these images.
            filter_query: only to images that it lets through.

        Raises:
            InvalidSpec: the edit or the filter cannot be carried out.
            DatasetError: there is no image of a key, or no file can hold a caption.
        """
        return self._plan_changes(edit, self._select_keys(edit, keys, filter_query))

    def apply(
        self,
        edit: Edit,
        keys: Sequence[str] | None = None,
        filter_query: str = "",
        writer: Writer | None = None,
    ) -> Step:
        """Carry out an edit, as one step.

        Args:
            edit: what to do.
            keys: only to these images.
            filter_query: only to images that it lets through.
            writer: who does it; None is a person. Words that are only put around captions leave
                those to their authors.

        Raises:
            InvalidSpec: the edit or the filter cannot be carried out.
            DatasetError: there is no image of a key, or no file can hold a caption.
            NotAllowed: the dataset came with the studio.
            Busy: another program keeps writing.
            BadFile: the disk does not take the journal.
        """
        selected_keys = self._select_keys(edit, keys, filter_query)
        title = edits.describe_edit(edit)
        if writer is None:
            writer = AFFIX_WRITER if isinstance(edit, edits.AddAffixes) else HAND_WRITER
        return self._execute_edit(edit, selected_keys, writer=writer, append_to=0, title=title)

    def undo(self) -> Step | None:
        """Undo the last step; None if there is none.

        Files that another program changed since stay, see `Step.skipped`.

        Raises:
            NotAllowed: the dataset came with the studio.
            Busy: another program keeps writing.
            BadFile: the disk does not take the journal.
        """
        with self._write_access():
            return self._sync_step(self._journal.undo(self.folder))

    def redo(self) -> Step | None:
        """Redo the step that was undone last; None if there is none.

        Raises:
            NotAllowed: the dataset came with the studio.
            Busy: another program keeps writing.
            BadFile: the disk does not take the journal.
        """
        with self._write_access():
            return self._sync_step(self._journal.redo(self.folder))

    def read_sources(self) -> dict[str, Source]:
        """Return where images come from, by key, as far as it was recorded."""
        return self._journal.read_sources(self.folder)

    def history(self, limit: int = 100) -> list[Step]:
        """List at most `limit` steps, the newest first."""
        return self._journal.history(self.folder, limit)

    def list_changes(self, step_id: int) -> list[Change]:
        """List what a step changed (or skipped), in order."""
        return self._journal.list_changes(step_id)

    def _select_keys(self, edit: Edit, keys: Sequence[str] | None, filter_query: str) -> list[str]:
        """Return the keys that an edit applies to.

        Those are the edit's own (else all), if they are among `keys` and the filter lets them
        through. Raises DatasetError for a key that is not there.
        """
        edit_keys: Iterable[str] = self._images_by_key
        if isinstance(edit, SetCaptions):
            edit_keys = edit.texts
        elif isinstance(edit, SetAside):
            edit_keys = edit.keys
        candidates = edit_keys
        if keys is not None:
            named_keys = set(edit_keys)
            candidates = [
                key for key in keys if key in named_keys or key not in self._images_by_key
            ]
        visible_keys = set(self.keys(filter_query))
        return [
            self.get_image(key).key
            for key in dict.fromkeys(candidates)
            if key in visible_keys or key not in self._images_by_key
        ]

    def _execute_edit(
        self, edit: Edit, keys: Sequence[str], *, writer: Writer, append_to: int, title: str
    ) -> Step:
        with self._write_access():
            changes = self._plan_changes(edit, keys)
            if not changes:
                return Step(append_to, title, time.time(), writer, "done", 0)
            step = self._journal.add_step(self.folder, title, writer, changes, append_to)
            self._sync_changes(None if step.skipped else changes)
            return step

    def _sync_step(self, step: Step | None) -> Step | None:
        """Update the images after a step was undone or redone."""
        if step is None:
            return None
        changes = self._journal.list_changes(step.id)
        if step.state != "done":
            changes = [change.invert() for change in reversed(changes)]
        self._sync_changes(None if step.skipped else changes)
        return step

    def _sync_changes(self, changes: Sequence[Change] | None) -> None:
        """Update the images after changes of their own caption files; else read the folder anew.

        None stands for changes of which some were skipped.
        """
        if changes is None or any(change.kind not in ("file", "source") for change in changes):
            self.refresh()
            return
        file_data = {
            self.folder / change.file: change.new_data
            for change in changes
            if change.kind == "file"
        }
        entries = layout.update_entries([image.entry for image in self.images], file_data)
        self._set_images(entries, [image.info for image in self.images])

    @contextmanager
    def _write_access(self) -> Iterator[None]:
        """Keep other threads out; the writes inside do not make the dataset stale."""
        if self.is_shipped:
            raise NotAllowed(
                f"{self.name} is built in and cannot be edited; copy it under another name and "
                "edit the copy."
            )
        with self._lock:
            was_stale = self.is_stale()
            yield
            if not was_stale:
                self._folder_mtimes = filesystem.read_mtimes(self._folder_mtimes)

    def _plan_changes(self, edit: Edit, keys: Sequence[str]) -> list[Change]:
        images = [self.get_image(key) for key in keys]
        if isinstance(edit, SetAside):
            return edit_planner.plan_set_aside(self.folder, images, self.images)
        if isinstance(edit, edits.SetRepeats):
            return edit_planner.plan_repeats_change(
                self.folder, edit, self._scan, self.images, self.read_sources()
            )
        if isinstance(edit, edits.SetSource):
            return edit_planner.plan_source_changes(edit, images, self.read_sources())
        count_tokens = self._token_models.get_counter(self.folder)
        return edit_planner.plan_caption_changes(
            self.folder, edit, images, self.images, count_tokens
        )
