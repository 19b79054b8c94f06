"""An album: a dataset as it is looked at and edited.

Knows: which pictures there are with their captions, how they are found, edited, undone. Does not know: torch, what a page looks
like, how a caption is computed. Reading for a training is dataset.py; both walk a folder the same way (layout.py).

    albums = Albums(settings)                        one for a process; web process and worker each have their own
    album = albums.open("moon")                      or open(Path("/any/folder")); quick also for 10,000 pictures
    for picture in album.pictures: picture.key, picture.path, picture.caption, picture.size, picture.bytes
    album.content(picture.key)                       sha256 of the file, computed when asked for and remembered
    album.examine(report)                            decodes all that is new: finds broken ones and repeats; remembered

    step = album.write({"a.png": "a red boat"}, Writer(by="model", model="pocket", instruction="…"), mode="fill")
    step = album.write({"b.png": "a tree"}, writer, mode="fill", into=step.id)      both are undone as one
    step.changed, step.left                          how many were written; (key, why) of those that were left alone
    album.undo(), album.redo(), album.history()      across restarts and processes

A write is stored in the journal before a file is touched, and each file is written aside and renamed: after kill -9 at any moment
every caption is the old one or the new one, and the next who opens the album completes the step. A caption that another program
changed since this album read it is left as it is and named in `step.left`; `refresh()` reads anew. A caption goes where it stands:
into its own file, or into its record of metadata.jsonl or .csv; one that is new into a file beside the picture.
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
from studio.core.captions.edits import Edit, Put, Row, SetAside
from studio.core.captions.lint import Finding, Rules
from studio.core.captions.provenance import NOBODY, Source, Writer
from studio.core.captions.text import Mode
from studio.errors import DatasetError, NotAllowed
from studio.settings import Settings, shipped
from studio.storage import atomic, gallery
from studio.storage.datasets import data_card, edit_planner, filesystem, importer, layout
from studio.storage.datasets.caption_files import shown
from studio.storage.datasets.data_card import Credit
from studio.storage.datasets.file_changes import Change
from studio.storage.datasets.history import Journal, Step
from studio.storage.datasets.image_index import Look, Looks
from studio.storage.datasets.importer import Taken
from studio.storage.datasets.items import Counts, Order, Page, Picture, in_order, row, unnameable
from studio.storage.datasets.layout import Entry
from studio.storage.datasets.thumbnails import Thumbs
from studio.storage.datasets.training_set import Datasets
from studio.storage.models.token_counter import Tokens

HAND = Writer(by="hand")


class Albums:
    """Opens albums of a home: by name (those of `names`), or any folder."""

    def __init__(self, settings: Settings) -> None:
        self.settings, self.shelf = settings, Datasets(settings)
        self._journal, self._looks, self._tokens, self._thumbs = (
            Journal(settings),
            Looks(settings),
            Tokens(),
            Thumbs(settings),
        )

    def names(self) -> list[str]:
        """All datasets of the home and those that came with the studio."""
        return self.shelf.names()

    def open(self, which: str | Path) -> Album:
        """The album of a name or folder; what a killed process left half written is completed. Raises DatasetError."""
        folder = which if isinstance(which, Path) else self.shelf.folder(which)
        name = shown(which.name) if isinstance(which, Path) else which
        if not folder.is_dir():
            raise DatasetError(
                f"There is no folder {shown(str(folder))}; choose one with pictures in it."
            )
        return Album(folder.resolve(), name, self._journal, self._looks, self._tokens, self._thumbs)

    def add(
        self,
        name: str,
        brought: Sequence[tuple[Path, str]],
        source: Source = NOBODY,
        report: importer.Report | None = None,
    ) -> Taken:
        """Add files, (where it lies, what its owner calls it), to a dataset of the home or a new one: pictures, captions, zips."""
        with importer.growing(self.shelf, self._journal, name) as folder:
            return importer.bring(folder, self._journal, brought, source, report)

    def add_made(
        self, name: str, pictures: Iterable[gallery.Picture], prompts: bool = True
    ) -> Taken:
        """Add pictures of the gallery, marked as generated, with their prompts as captions."""
        with importer.growing(self.shelf, self._journal, name) as folder:
            return importer.bring_made(folder, self._journal, pictures, prompts)

    def copy(self, name: str, new: str) -> Album:
        """A dataset under another name in the home, to be edited. Raises DatasetError where that name is taken."""
        return self.open(importer.copy(self.shelf, self._journal, name, new))


class Album:
    """One folder. What it knows is as of the last `refresh`; it is cheap, and every write notices what changed since.

    Several threads may use one: writers take turns, and readers see one state or the next.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        journal: Journal,
        looks: Looks,
        tokens: Tokens,
        thumbs: Thumbs,
    ) -> None:
        self.folder, self.name, self._journal, self._looks, self.tokens = (
            folder,
            name,
            journal,
            looks,
            tokens,
        )
        self._thumbs, self._lock, self._by_key = thumbs, threading.RLock(), dict[str, Picture]()
        self.shipped = folder.is_relative_to((shipped("assets") / "datasets").resolve())
        self.refresh()

    def refresh(self) -> None:
        """Read the folder anew: names, captions, headers of pictures that changed."""
        with self._lock:
            self._journal.recover(self.folder)
            seen = filesystem.changed(filesystem.tree(self.folder))
            found, entries = layout.walk(self.folder), []
            for entry in found.entries:
                if fault := unnameable(entry.key):
                    found.broken.append((found.name(entry.path), fault))
                else:
                    entries.append(entry)
            self._found, self.layout, self._seen = found, found.layout, seen
            self._take(entries, self._looks.of([entry.path for entry in entries], full=False))

    def stale(self) -> bool:
        """Whether files came, went or were written aside and renamed since this album read them; a look at a few folders."""
        return filesystem.changed(self._seen) != self._seen

    def examine(self, report: Callable[[int, int], None] | None = None) -> None:
        """Decode and hash every picture that has not been yet. `report(done, of)`; what it raises stops it, and nothing is lost."""
        paths = {picture.key: picture.path for picture in self.pictures}
        looks = dict(zip(paths, self._looks.of(list(paths.values()), True, report)))
        with self._lock:  # captions may have been written meanwhile
            self._take(
                [picture.entry for picture in self.pictures],
                [looks.get(picture.key, picture.look) for picture in self.pictures],
            )

    def _take(self, entries: Sequence[Entry], looks: Sequence[Look]) -> None:
        known = [self._by_key.get(entry.key) for entry in entries]
        self.pictures = tuple(
            old
            if old and old.entry is entry and old.look is look
            else Picture(entry.key, entry.path, entry.caption or "", entry, look)
            for old, entry, look in zip(known, entries, looks)
        )
        self._by_key = {picture.key: picture for picture in self.pictures}

    # ---- looking --------------------------------------------------------------------------------------------------

    @property
    def broken(self) -> list[tuple[str, str]]:
        """(file, why it cannot be used): pictures, captions, lines of metadata files."""
        return [
            *self._found.broken,
            *(
                (picture.key, picture.reason or picture.fault)
                for picture in self.pictures
                if picture.reason or picture.fault
            ),
        ]

    @property
    def notes(self) -> list[str]:
        """Sentences that the owner should know."""
        return [
            *self._found.notes,
            *(note for picture in self.pictures for note in picture.look.notes),
        ]

    def counts(self) -> Counts:
        good = [picture for picture in self.pictures if not picture.reason]
        return Counts(
            len(good),
            sum(picture.captioned for picture in good),
            len(self.broken),
            sum(not picture.look.full for picture in self.pictures),
            self.layout,
            dict(self._found.repeats),
        )

    def picture(self, key: str) -> Picture:
        """Raises DatasetError for one that is not there."""
        if key not in self._by_key:
            raise DatasetError(f"There is no picture {key!r:.80} in {self.name}.")
        return self._by_key[key]

    def content(self, key: str) -> str:
        """The sha256 of a picture's file; empty for one that cannot be used."""
        picture = self.picture(key)
        return picture.content or self._looks.of([picture.path])[0].content

    def page(
        self,
        offset: int = 0,
        limit: int = 60,
        filter: str = "",
        sort: Order = "name",
        reverse: bool = False,
    ) -> Page:
        """Pictures that a filter (core/captions/filter.py) lets through. Raises InvalidSpec for a filter or order that is none."""
        found = in_order(self._passing(filter), sort, reverse)
        return Page(tuple(found[offset : offset + limit]), len(found), offset)

    def thumbs(self, keys: Sequence[str]) -> list[Path | None]:
        """Small pictures to be shown, at most 320 pixels a side; None for one that cannot be read."""
        return self._thumbs.of([self.picture(key).path for key in keys])

    def keys(self, filter: str = "") -> list[str]:
        """Keys of the pictures that a filter lets through, by name."""
        return [picture.key for picture in self._passing(filter)]

    def tags(self, filter: str = "", keys: Sequence[str] | None = None) -> list[tuple[str, int]]:
        """Tags with how many captions have them, the most frequent first; of all pictures or of those named."""
        chosen = None if keys is None else set(keys)
        return text.counted(
            one.caption for one in self._passing(filter) if chosen is None or one.key in chosen
        )

    def _passing(self, filter: str) -> list[Picture]:
        test, pictures = caption_filter.parse(filter), self.pictures
        if not filter.strip():
            return list(pictures)
        return [
            picture
            for picture, seen in zip(pictures, self._rows(pictures, test.asks_tokens))
            if test.holds(seen)
        ]

    def _rows(self, pictures: Sequence[Picture], tokens: bool) -> list[Row]:
        """Pictures as the pure functions see them."""
        self.tokens.learn(picture.caption for picture in pictures if tokens)
        return [row(picture, self.tokens(picture.caption) if tokens else 0) for picture in pictures]

    def lint(self, rules: Rules | None = None) -> list[Finding]:
        """What is likely to spoil a training; repeats and broken pictures among those that were examined."""
        return caption_lint.lint(self._rows(self.pictures, tokens=True), rules or Rules())

    def credits(self) -> dict[str, list[Credit]]:
        """Who wrote each caption, the oldest first; of pictures that have one."""
        return data_card.credits_of(self.pictures, self._journal.written(self.folder))

    def card(self) -> dict[str, Any]:
        """All that is known of the dataset: who wrote its captions, where its pictures come from. Examines what is new."""
        self.examine()
        good = [picture for picture in self.pictures if not picture.reason]
        return data_card.card(self.name, good, self.credits(), self.sources(), self._found.repeats)

    def export(self, to: Path) -> Path:
        """The dataset with its card as a zip: captions beside the pictures and in metadata.jsonl. Raises BadFile."""
        about = self.card()
        return data_card.pack(
            to,
            about,
            [picture for picture in self.pictures if not picture.reason],
            atomic.safe_name(self.name),
        )

    # ---- changing -------------------------------------------------------------------------------------------------

    def write(
        self,
        texts: Mapping[str, str],
        writer: Writer,
        mode: Mode = "replace",
        into: int = 0,
        title: str = "",
        separator: str = ", ",
    ) -> Step:
        """Captions by key, as one step. `into`: a step that this goes on with, if it is still the last one.

        Raises DatasetError for a key that is not there, NotAllowed for a dataset that came with the studio, Busy, BadFile.
        """
        put = Put(texts=dict(texts), mode=mode, separator=separator)
        return self._do(put, list(texts), writer, into, title or f"{writer}: {edits.title(put)}")

    def preview(
        self, edit: Edit, keys: Sequence[str] | None = None, filter: str = ""
    ) -> list[Change]:
        """What an edit would change: (key, old, new) of each. Nothing is written. Raises InvalidSpec."""
        return self._changes(edit, self._scope(edit, keys, filter))

    def apply(
        self, edit: Edit, keys: Sequence[str] | None = None, filter: str = "", writer: Writer = HAND
    ) -> Step:
        """Carry an edit out on those pictures (all without keys and filter), as one step."""
        return self._do(edit, self._scope(edit, keys, filter), writer, 0, edits.title(edit))

    def undo(self) -> Step | None:
        """Take back the last step; None if there is none. Files that another program changed since stay, see Step.left."""
        with self._writing():
            return self._turned(self._journal.undo(self.folder))

    def redo(self) -> Step | None:
        """Do again what was undone last."""
        with self._writing():
            return self._turned(self._journal.redo(self.folder))

    def sources(self) -> dict[str, Source]:
        """Where pictures come from, of those of which it was said."""
        return self._journal.sources(self.folder)

    def history(self, limit: int = 100) -> list[Step]:
        """Steps, the newest first."""
        return self._journal.history(self.folder, limit)

    def changes(self, step: int) -> list[Change]:
        """What a step changed."""
        return self._journal.changes(step)

    def _scope(self, edit: Edit, keys: Sequence[str] | None, filter: str) -> list[str]:
        """The pictures that are meant: those named, by the edit itself or beside it (else all), that the filter lets through."""
        own: Iterable[str] = (
            edit.texts
            if isinstance(edit, Put)
            else edit.keys
            if isinstance(edit, SetAside)
            else self._by_key
        )
        passed, named = set(self.keys(filter)), set(own)
        chosen = (
            own
            if keys is None
            else [key for key in keys if key in named or key not in self._by_key]
        )
        return [
            self.picture(key).key
            for key in dict.fromkeys(chosen)
            if key in passed or key not in self._by_key
        ]

    def _do(self, edit: Edit, keys: Sequence[str], writer: Writer, into: int, title: str) -> Step:
        with self._writing():
            if not (changes := self._changes(edit, keys)):
                return Step(into, title, time.time(), writer, "done", 0)
            step = self._journal.make(self.folder, title, writer, changes, into)
            self._follow(changes if not step.left else None)
            return step

    def _turned(self, step: Step | None) -> Step | None:
        if step:
            changes = self._journal.changes(step.id)
            done = (
                changes if step.state == "done" else [change.back() for change in reversed(changes)]
            )
            self._follow(None if step.left else done)
        return step

    def _follow(self, changes: Sequence[Change] | None) -> None:
        """Know what was changed. Captions in files of their own are not read again; after everything else the folder is."""
        if changes is None or any(change.kind not in ("file", "source") for change in changes):
            self.refresh()
            return
        after = {
            self.folder / change.file: change.after for change in changes if change.kind == "file"
        }
        self._take(
            layout.followed([picture.entry for picture in self.pictures], after),
            [picture.look for picture in self.pictures],
        )

    @contextmanager
    def _writing(self) -> Iterator[None]:
        if self.shipped:
            raise NotAllowed(
                f"{self.name} came with the studio and stays as it is; copy it under another name and edit that."
            )
        with self._lock:
            stale = self.stale()
            yield
            if not stale:
                self._seen = filesystem.changed(self._seen)

    def _changes(self, edit: Edit, keys: Sequence[str]) -> list[Change]:
        chosen = [self.picture(key) for key in keys]
        if isinstance(edit, SetAside):
            return edit_planner.moves(self.folder, chosen, self.pictures)
        if isinstance(edit, edits.SetRepeats):
            return edit_planner.repeats(
                self.folder, edit, self._found, self.pictures, self.sources()
            )
        if isinstance(edit, edits.SetSource):
            return edit_planner.sources(edit, chosen, self.sources())
        return edit_planner.texts(self.folder, edit, chosen, self.pictures, self.tokens)
