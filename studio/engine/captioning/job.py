"""The work behind Caption: a dataset → captions in it, or a dry run.

Knows: the order of things: which images lack a caption, which a captioner has to see, when captions
are written, going on after a stop or a kill.
Does not know: how a captioner is loaded (captioner_loader.py) and works, how a folder stores
captions (storage/datasets/dataset.py), the page.

Whatever a captioner says is stored at once by the image's content
(storage/datasets/caption_cache.py) and written into the dataset every few seconds, as one step that
can be undone. A stop or a kill loses nothing: the same job again takes what was said and asks for
the rest; so does the run after a dry run. What is appended stands once, however often it is asked
for.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from studio.core.base import validate
from studio.core.captions.provenance import Writer
from studio.core.captions.spec import CaptionSpec
from studio.core.captions.text import collapse_whitespace
from studio.core.catalog import CAPTIONERS
from studio.engine import prefetch
from studio.engine.captioning.captioner_loader import (
    LoadedCaptioner,
    borrow_captioner,
)
from studio.engine.context import WorkerContext
from studio.engine.progress import ProgressCallback, ProgressTracker
from studio.errors import BadPicture, DatasetError, NotAllowed, StudioError, quote
from studio.imaging import decode
from studio.storage.datasets.caption_cache import CaptionCache
from studio.storage.datasets.dataset import Dataset
from studio.storage.datasets.items import DatasetImage
from studio.storage.jobs import Progress

WRITE_INTERVAL_SECONDS = 3.0  # or ten times as long as writing takes
MAX_CAPTION_CHARS = 8000  # of what a captioner says
MAX_RESULT_ROWS = 5000  # that are listed one by one
MAX_MODEL_LABEL_CHARS = 200
# Images that were rejected, and none captioned: it will not become better
MAX_REFUSALS_WITHOUT_CAPTION = 3
NO_CAPTION_REASON = "The captioning model returned no caption for it."


def caption_dataset(
    context: WorkerContext, spec: Mapping[str, Any], report: ProgressCallback
) -> dict[str, Any]:
    """Caption a dataset's images.

    Args:
        context: The worker's stores and models.
        spec: A CaptionSpec; programs of this machine may add the path of a "folder".
        report: Receives the progress; raises Cancelled to stop.

    Returns:
        How many images there are ("count"), were captioned ("made"), taken from what was said
        before ("taken") and had a caption already ("kept"); "failed", with reasons; "rows" with
        the caption before and after; "step", which undoes it; the seconds.

    Raises:
        NotAllowed: If the dataset came with the studio and this is no dry run.
        DatasetError: If there is no image to caption.
        StudioError: If the captioner rejects the first images.
    """
    start_time = time.perf_counter()
    values = dict(spec)
    folder = values.pop("folder", None)
    caption_spec = validate(CaptionSpec, values)
    report(Progress(0, 0, "Reading the images"))
    dataset = context.home.datasets.open(Path(folder) if folder else caption_spec.dataset)
    if dataset.is_shipped and not caption_spec.dry_run:
        raise NotAllowed(
            f"{dataset.name} is built in and cannot be edited; copy it under another name and "
            "caption the copy."
        )
    run = _CaptionRun(dataset, caption_spec, report)
    if run.pending_images:
        with borrow_captioner(context, caption_spec, report) as loaded:
            cache = context.home.get_caption_cache(loaded.cache_key)
            run.run(loaded, cache, lambda: context.interleave_job(loaded.size_bytes))
    return run.summarize() | {
        "captioner": caption_spec.captioner,
        "seconds": round(time.perf_counter() - start_time, 3),
    }


@dataclass(frozen=True)
class _PreparedImage:
    """An image as the captioner takes it; None where the caption is known."""

    content_hash: str
    model_input: Any = None


@dataclass
class _BatchEntry:
    """One content of a batch, and the images that have it."""

    model_input: Any
    images: list[DatasetImage] = field(default_factory=list)


class _CaptionRun:
    """One captioning, and how far it is."""

    def __init__(self, dataset: Dataset, spec: CaptionSpec, report: ProgressCallback) -> None:
        """Select the images. Raises DatasetError if there is none."""
        self.dataset = dataset
        self.spec = spec
        self.pending_images: list[DatasetImage] = []
        self.rows: list[dict[str, str]] = []
        self.failures: list[dict[str, str]] = []
        self.num_captioned = 0
        self.num_from_cache = 0  # what the captioner said before
        self.num_skipped = 0  # that have a caption and keep it
        self.num_done = 0  # of the pending images
        self.num_refused = 0
        self.history_step = 0  # of the dataset's journal
        self._tracker = ProgressTracker(report)
        self._captions_by_hash: dict[str, str] = {}
        self._unwritten_captions: dict[str, str] = {}  # by the image's key
        self._last_write_time = 0.0
        self._write_interval = WRITE_INTERVAL_SECONDS
        self._select_images()

    def _select_images(self) -> None:
        """Sort the images into pending ones, skipped ones and failures."""
        filtered_keys = set(self.dataset.keys(self.spec.filter))
        named_images = [self.dataset.get_image(key) for key in self.spec.pictures]
        for image in named_images or self.dataset.images:
            if image.key not in filtered_keys:
                continue
            if error := image.image_error or image.caption_error:
                self.failures.append({"file": image.key, "error": error})
            elif self.spec.mode == "fill" and image.caption:
                self.num_skipped += 1
            else:
                self.pending_images.append(image)
        if not (self.pending_images or self.num_skipped or self.failures):
            ending = "."
            if self.spec.filter:
                ending = f" that matches the filter {quote(self.spec.filter)}."
            raise DatasetError(f"There is no image to caption in {self.dataset.name}{ending}")

    def summarize(self) -> dict[str, Any]:
        """Return what came of it, as plain data."""
        return {
            "count": len(self.pending_images) + self.num_skipped,
            "made": self.num_captioned,
            "taken": self.num_from_cache,
            "kept": self.num_skipped,
            "failed": self.failures,
            "rows": self.rows[:MAX_RESULT_ROWS],
            "more_rows": max(0, len(self.rows) - MAX_RESULT_ROWS),
            "step": self.history_step,
            "dry_run": self.spec.dry_run,
        }

    def run(
        self, loaded: LoadedCaptioner, cache: CaptionCache, interleave_job: Callable[[], bool]
    ) -> None:
        """Caption the pending images, batch by batch.

        Captions are written now and then, at the end, and when a stop or an error comes.
        `interleave_job` lets another job run and returns whether there was one.
        """
        captioner = loaded.captioner
        batch_size = self.spec.batch or CAPTIONERS[captioner.kind].default_batch_size
        if not self.spec.anew:
            self._captions_by_hash = cache.read_all()
        self._tracker.total = len(self.pending_images)
        self._tracker.start()
        self._last_write_time = time.perf_counter()
        # By content: the captioner sees an image that is there twice once.
        batch: dict[str, _BatchEntry] = {}
        prefetched = prefetch.prefetch_images(
            self.pending_images, lambda image: self._prepare_image(captioner, image), 2 * batch_size
        )
        try:
            for image, prepared in prefetched:
                if isinstance(prepared, StudioError):
                    reason = str(prepared).removeprefix(f"{image.path.name} ")
                    self._add_failure(image, reason)
                elif (
                    prepared.model_input is None or prepared.content_hash in self._captions_by_hash
                ):
                    self.num_from_cache += 1
                    self._add_caption(image, self._captions_by_hash[prepared.content_hash])
                else:
                    entry = _BatchEntry(prepared.model_input)
                    batch.setdefault(prepared.content_hash, entry).images.append(image)
                if len(batch) == batch_size:
                    self._caption_batch(captioner, batch, cache)
                    batch = {}
                    self._interleave(interleave_job)
                self._report_progress()
                self._write_captions(loaded.label)
            if batch:
                self._caption_batch(captioner, batch, cache)
        finally:
            prefetched.close()
            self._write_captions(loaded.label, force=True)

    def _interleave(self, interleave_job: Callable[[], bool]) -> None:
        """Let another job run; its seconds do not count for the remaining time."""
        start_time = time.perf_counter()
        if interleave_job():
            self._tracker.exclude(time.perf_counter() - start_time)

    def _prepare_image(self, captioner: Any, image: DatasetImage) -> _PreparedImage:
        """Read a file, and decode it if its caption is not known; in a thread of its own."""
        try:
            data = image.path.read_bytes()
        except OSError as error:
            raise BadPicture(f"cannot be read ({error.strerror or error}).") from None
        content_hash = hashlib.sha256(data).hexdigest()
        if content_hash in self._captions_by_hash:
            return _PreparedImage(content_hash)
        pixels = decode.load_image(data, image.path.name).image
        return _PreparedImage(content_hash, captioner.prepare_image(pixels, self.spec))

    def _caption_batch(
        self, captioner: Any, batch: Mapping[str, _BatchEntry], cache: CaptionCache
    ) -> None:
        """Caption one batch. Raises StudioError if the captioner rejects everything."""
        hashes = list(batch)

        def on_captions(texts: Mapping[int, str]) -> None:
            # From any thread, and perhaps after a stop
            captions = {hashes[index]: _clean_caption(text) for index, text in texts.items()}
            captions = {content: caption for content, caption in captions.items() if caption}
            cache.add(captions)
            self._captions_by_hash.update(captions)

        rejections = captioner.caption_images(
            [entry.model_input for entry in batch.values()],
            self.spec,
            self._report_progress,
            on_captions,
        )
        for index, (content_hash, entry) in enumerate(batch.items()):
            caption = self._captions_by_hash.get(content_hash)
            for image in entry.images:
                if caption is not None:
                    self.num_captioned += 1
                    self._add_caption(image, caption)
                else:
                    self.num_refused += 1
                    reason = rejections.get(index, NO_CAPTION_REASON)
                    self._add_failure(image, reason)
        has_captions = self.num_captioned or self.num_from_cache
        if not has_captions and self.num_refused >= MAX_REFUSALS_WITHOUT_CAPTION:
            raise StudioError(
                f"None of the first {self.num_refused} images could be captioned. "
                f"{self.failures[-1]['error']}"
            )

    def _add_caption(self, image: DatasetImage, caption: str) -> None:
        self.num_done += 1
        new_caption = self.spec.compose_caption(caption, image.caption)
        self.rows.append({"file": image.key, "before": image.caption, "after": new_caption})
        self._unwritten_captions[image.key] = new_caption

    def _add_failure(self, image: DatasetImage, reason: str) -> None:
        self.num_done += 1
        self.failures.append({"file": image.key, "error": reason})

    def _report_progress(self) -> None:
        """Report. Raises Cancelled where a stop was asked for."""
        self._tracker.report(self.num_done, "Captioning")

    def _write_captions(self, model_label: str, force: bool = False) -> None:
        """Write what is not written yet, if it is time to or `force`d."""
        start_time = time.perf_counter()
        if self.spec.dry_run or not self._unwritten_captions:
            return
        if not force and start_time - self._last_write_time <= self._write_interval:
            return
        captions = self._unwritten_captions
        self._unwritten_captions = {}
        step = self.dataset.write_captions(
            captions,
            self._build_provenance(model_label),
            mode="replace",
            append_to=self.history_step,
            title=self._format_title(),
        )
        self.history_step = step.id or self.history_step
        skipped = {key: reason for key, reason in step.skipped if key in captions}
        self.failures += [{"file": key, "error": reason} for key, reason in skipped.items()]
        self.rows = [row for row in self.rows if row["file"] not in skipped]
        self._last_write_time = time.perf_counter()
        self._write_interval = max(
            WRITE_INTERVAL_SECONDS, 10 * (self._last_write_time - start_time)
        )

    def _build_provenance(self, model_label: str) -> Writer:
        settings = []
        for name in ("tokens", "prefix", "suffix", "trigger"):
            if value := getattr(self.spec, name):
                settings.append(f"{name} {value!r}")
        return Writer(
            by="model",
            model=model_label[:MAX_MODEL_LABEL_CHARS],
            instruction=self.spec.instruction,
            settings=", ".join(settings),
        )

    def _format_title(self) -> str:
        return f"{self.spec.captioner:.60}: {self.spec.mode} {len(self.pending_images)} captions"


def _clean_caption(text: str) -> str:
    """Return what a captioner said as one line of text that any file takes."""
    encodable = text.encode("utf-8", "ignore").decode()
    printable = "".join(letter for letter in encodable if letter.isprintable() or letter.isspace())
    return collapse_whitespace(printable)[:MAX_CAPTION_CHARS]
