"""The work behind Caption: a dataset → captions in it, or beside the present ones without writing them.

Knows: the order of things: which pictures lack a caption, who has to be asked, when it is written, going on after a stop or a kill.
Does not know: how a captioner works, how a folder keeps captions (storage/datasets/dataset.py), the page.

Whatever a captioner says is kept at once by the picture's content (storage/datasets/caption_cache.py) and written into the dataset every few
seconds, as one step that can be undone. A stop or a kill loses nothing: the same asked again takes what was said and asks for the
rest; so does the run after a dry run. What is appended stands once, however often it is asked.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from studio.core.base import check
from studio.core.captions.provenance import Writer
from studio.core.captions.spec import CaptionSpec
from studio.core.captions.text import one_line
from studio.core.catalog import CAPTIONERS, ENDPOINT
from studio.engine import prefetch
from studio.engine.context import Bench
from studio.errors import BadPicture, DatasetError, NotAllowed, StudioError
from studio.imaging import decode
from studio.storage.datasets.caption_cache import Answers
from studio.storage.datasets.dataset import Album
from studio.storage.datasets.items import Picture
from studio.storage.jobs import Progress

Report = Callable[[Progress], None]
WRITE_EVERY = 3.0  # seconds, or ten times as long as writing takes
LONGEST = 8000  # characters of what a captioner says that are kept
MOST_ROWS = 5000  # that are told one by one
HOPELESS = 3  # pictures that were refused, and none captioned: it will not become better


def caption_folder(bench: Bench, spec: Mapping[str, Any], report: Report) -> dict[str, Any]:
    """Caption a dataset's pictures. `spec` is a CaptionSpec; from this machine's own programs it may have a "folder" beside it.

    Returns how many pictures were captioned, taken from what was said before, had a caption already, failed (with reasons), a row
    for each with the caption before and after, and the step that undoes it. `report` raises Cancelled to stop.
    """
    began, given = time.perf_counter(), dict(spec)
    folder = given.pop("folder", None)
    asked = check(CaptionSpec, given)
    report(Progress(0, 0, "Reading the pictures"))
    album = bench.albums.open(Path(folder) if folder else asked.dataset)
    if album.shipped and not asked.dry_run:
        raise NotAllowed(
            f"{album.name} came with the studio and stays as it is; copy it under another name and caption that."
        )
    run = _Run(album, asked, report)
    if run.wanted:
        with _lent(bench, asked, report) as (captioner, by, key, size):
            run.all(captioner, by, Answers(bench.settings.home, key), lambda: bench.between(size))
    return run.result() | {
        "captioner": asked.captioner,
        "seconds": round(time.perf_counter() - began, 3),
    }


@contextmanager
def _lent(bench: Bench, asked: CaptionSpec, report: Report) -> Iterator[tuple[Any, str, str, int]]:
    """The captioner, what its captions are signed with, the key of its answers, and about what a call takes in bytes."""
    if asked.captioner == ENDPOINT:
        module = _module(ENDPOINT)
        told = [
            ENDPOINT,
            asked.address,
            asked.model,
            asked.instruction or module.USUAL,
            asked.tokens,
        ]
        yield module.Captioner(asked.address), f"{asked.model} at {asked.address}", _hash(told), 0
        return
    networks, device = bench.pipelines.networks, bench.pipelines.device
    info = networks.captioner(asked.captioner)
    asked.check_kind(info.kind)
    module, content = _module(info.kind), networks.content(info)
    key = f"captioner {content} {device.dtype_name}"
    report(Progress(0, 0, "Loading the captioner"))
    with bench.pipelines.hold(
        key, lambda: module.Captioner.load(info, device), 2 * info.bytes, f"Captioner {info.name}"
    ) as lent:
        told = [key, asked.instruction, asked.tokens or CAPTIONERS[info.kind].tokens]
        yield lent, f"{info.name} ({content[:12]})", _hash(told), info.bytes


def _module(kind: str) -> Any:
    """What CAPTIONERS names, imported."""
    return importlib.import_module(f"studio.engine.captioning.{CAPTIONERS[kind].module or kind}")


def _hash(told: Any) -> str:
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:32]


@dataclass(frozen=True)
class _Look:
    """A picture as the captioner takes it; nothing where it need not be asked."""

    content: str
    look: Any = None


class _Run:
    """One captioning, and how far it is."""

    def __init__(self, album: Album, asked: CaptionSpec, report: Report) -> None:
        self.album, self.asked, self._report = album, asked, report
        self.wanted: list[Picture] = []
        self.rows: list[dict[str, str]] = []
        self.failed: list[dict[str, str]] = []
        self.made = self.taken = self.kept = (
            0  # captioned now; from what was said before; that have a caption and keep it
        )
        self.done = self.refused = 0  # of those wanted
        self.step = 0  # of the album's journal
        self._known: dict[str, str] = {}  # words by content
        self._ready: dict[str, str] = {}  # captions that are not written yet
        self._began, self._waited, self._wrote, self._pause = 0.0, 0.0, 0.0, WRITE_EVERY
        self._choose()

    def _choose(self) -> None:
        passed = set(self.album.keys(self.asked.filter))
        for picture in [
            self.album.picture(key) for key in self.asked.pictures
        ] or self.album.pictures:
            if picture.key not in passed:
                continue
            if fault := picture.reason or picture.fault:
                self.failed.append({"file": picture.key, "error": fault})
            elif self.asked.mode == "fill" and picture.caption:
                self.kept += 1
            else:
                self.wanted.append(picture)
        if not (self.wanted or self.kept or self.failed):
            raise DatasetError(
                f"There is no picture to caption in {self.album.name}"
                + (
                    f" that the filter {self.asked.filter!r:.60} lets through."
                    if self.asked.filter
                    else "."
                )
            )

    def result(self) -> dict[str, Any]:
        """What came of it, as plain data."""
        return {
            "count": len(self.wanted) + self.kept,
            "made": self.made,
            "taken": self.taken,
            "kept": self.kept,
            "failed": self.failed,
            "rows": self.rows[:MOST_ROWS],
            "more_rows": max(0, len(self.rows) - MOST_ROWS),
            "step": self.step,
            "dry_run": self.asked.dry_run,
        }

    def all(self, captioner: Any, by: str, answers: Answers, between: Callable[[], bool]) -> None:
        """Group by group. What was said is written now and then, at the end, and when a stop or an error comes."""
        size = self.asked.batch or CAPTIONERS[captioner.kind].batch
        self._known = {} if self.asked.anew else answers.all()
        self._began = self._wrote = time.perf_counter()
        group: dict[
            str, tuple[Any, list[Picture]]
        ] = {}  # by content: a picture that is there twice is asked about once
        looked = prefetch.ahead(
            self.wanted, lambda picture: self._look(captioner, picture), 2 * size
        )
        try:
            for picture, look in looked:
                if isinstance(look, StudioError):
                    self._fail(picture, str(look).removeprefix(f"{picture.path.name} "))
                elif look.look is None or look.content in self._known:
                    self.taken += 1
                    self._say(picture, self._known[look.content])
                else:
                    group.setdefault(look.content, (look.look, []))[1].append(picture)
                if len(group) == size:
                    self._ask(captioner, group, answers)
                    group = {}
                    began = time.perf_counter()
                    if between():
                        self._waited += time.perf_counter() - began
                self._beat()
                self._write(by)
            if group:
                self._ask(captioner, group, answers)
        finally:
            looked.close()
            self._write(by, at_once=True)

    def _look(self, captioner: Any, picture: Picture) -> _Look:
        """In a thread of its own: the file is read once, and decoded if its words are not known."""
        try:
            data = picture.path.read_bytes()
        except OSError as error:
            raise BadPicture(f"cannot be read ({error.strerror or error}).") from None
        content = hashlib.sha256(data).hexdigest()
        known = content in self._known
        return _Look(
            content,
            None
            if known
            else captioner.look(decode.load(data, picture.path.name).image, self.asked),
        )

    def _ask(
        self, captioner: Any, group: Mapping[str, tuple[Any, list[Picture]]], answers: Answers
    ) -> None:
        contents = list(group)

        def hear(
            found: Mapping[int, str],
        ) -> None:  # from whatever thread, and perhaps after a stop
            words = {
                contents[number]: clean for number, text in found.items() if (clean := _clean(text))
            }
            answers.keep(words)
            self._known.update(words)

        refused = captioner.caption(
            [look for look, _ in group.values()], self.asked, self._beat, hear
        )
        for number, (content, (_, members)) in enumerate(group.items()):
            for picture in members:
                if content in self._known:
                    self.made += 1
                    self._say(picture, self._known[content])
                else:
                    self.refused += 1
                    self._fail(picture, refused.get(number, "The captioner said nothing about it."))
        if not self.made + self.taken and self.refused >= HOPELESS:
            raise StudioError(
                f"None of the first {self.refused} pictures was captioned. {self.failed[-1]['error']}"
            )

    def _say(self, picture: Picture, words: str) -> None:
        self.done += 1
        after = self.asked.caption(words, picture.caption)
        self.rows.append({"file": picture.key, "before": picture.caption, "after": after})
        self._ready[picture.key] = after

    def _fail(self, picture: Picture, why: str) -> None:
        self.done += 1
        self.failed.append({"file": picture.key, "error": why})

    def _beat(self) -> None:
        """Raises Cancelled where a stop was asked for."""
        took, total = time.perf_counter() - self._began - self._waited, len(self.wanted)
        left = round(took / self.done * (total - self.done), 1) if self.done else None
        self._report(Progress(self.done, total, "Captioning", left))

    def _write(self, by: str, at_once: bool = False) -> None:
        began = time.perf_counter()
        if (
            self.asked.dry_run
            or not self._ready
            or not (at_once or began - self._wrote > self._pause)
        ):
            return
        ready, self._ready = self._ready, {}
        step = self.album.write(
            ready, self._writer(by), "replace", into=self.step, title=self._title()
        )
        self.step = step.id or self.step
        left = {key: why for key, why in step.left if key in ready}
        self.failed += [{"file": key, "error": why} for key, why in left.items()]
        self.rows = [row for row in self.rows if row["file"] not in left]
        self._wrote = time.perf_counter()
        self._pause = max(WRITE_EVERY, 10 * (self._wrote - began))

    def _writer(self, by: str) -> Writer:
        told = {
            name: getattr(self.asked, name) for name in ("tokens", "prefix", "suffix", "trigger")
        }
        return Writer(
            by="model",
            model=by[:200],
            instruction=self.asked.instruction,
            settings=", ".join(f"{name} {value!r}" for name, value in told.items() if value),
        )

    def _title(self) -> str:
        return f"{self.asked.captioner:.60}: {self.asked.mode} {len(self.wanted)} captions"


def _clean(text: str) -> str:
    """What a captioner said as one line of text that any file takes."""
    plain = "".join(
        letter
        for letter in text.encode("utf-8", "ignore").decode()
        if letter.isprintable() or letter.isspace()
    )
    return one_line(plain)[:LONGEST]
