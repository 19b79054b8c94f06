"""Which pictures form which batch, how they are cropped and mirrored, and what is said about them.

Knows: epochs, buckets, repeats, class pictures, captions, validation; all of it is a pure function of the dataset, the options
and the step (a step here is one batch, counted from 0). Does not know: pixels, latents, encoders (data.py).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import Literal

from studio.core.training.buckets import Buckets, Fit, Size, batches
from studio.engine.training import rng
from studio.errors import DatasetError
from studio.storage.datasets.training_set import Item

CROPS = 4  # places that `crop` "random" chooses from, for each picture: few enough to keep their latents
SHUFFLES = 16  # orders of words that `shuffle_caption` chooses from, likewise


@dataclass(frozen=True)
class DataOptions:
    """All that decides what the network is shown."""

    resolution: Size = (512, 512)
    buckets: bool = True
    least_bucket: int = 256
    most_bucket: int = 2048
    bucket_step: int = 64
    no_upscale: bool = False
    batch: int = 1
    seed: int = 0
    flip: bool = False
    crop: Literal["centre", "random"] = "centre"
    trigger: str = ""  # stands before captions that lack it, whatever is shuffled
    shuffle_caption: bool = False
    keep_tokens: int = 0  # of the caption's parts between commas: so many stay in front
    caption_dropout: float = 0.0
    clip_skip: int = 1
    chunks: int = 1  # of 75 tokens each that are read of a caption
    cache: Literal["memory", "disk"] = "memory"

    @property
    def sizes(self) -> Buckets:
        return Buckets(
            self.resolution,
            self.least_bucket,
            self.most_bucket,
            self.bucket_step,
            self.no_upscale,
            self.buckets,
        )

    @property
    def still(self) -> DataOptions:
        """The same without chance: for validation."""
        return replace(self, flip=False, crop="centre", shuffle_caption=False, caption_dropout=0.0)


@dataclass(frozen=True)
class View:
    """A picture as it is encoded: resized, cropped at (left, top) of the resized picture, then perhaps mirrored."""

    item: Item
    fit: Fit
    left: int
    top: int
    flip: bool

    @property
    def time_ids(self) -> tuple[int, ...]:
        """What SDXL is told: original size, place of the crop, size; heights before widths."""
        left = self.fit.spare[0] - self.left if self.flip else self.left
        return (
            self.item.height,
            self.item.width,
            self.top,
            left,
            self.fit.bucket[1],
            self.fit.bucket[0],
        )


@dataclass(frozen=True)
class Sample:
    """One showing of a picture an epoch. Its draws depend on `key`; `weight` is that of its loss; `prior` is a class picture."""

    key: str
    item: Item
    fit: Fit
    weight: float = 1.0
    prior: bool = False


class Plan:
    """The whole training's order of pictures, known before it begins.

    Class pictures (`prior`) are mixed in, as many as there are showings of others, as kohya does it; they are repeated if they
    are fewer, and the surplus is left out. `left_out` names pictures that no bucket takes. Raises DatasetError if none is left.
    """

    def __init__(
        self,
        items: Sequence[Item],
        options: DataOptions,
        prior: Sequence[Item] = (),
        prior_weight: float = 1.0,
    ) -> None:
        self.options = options
        self.left_out: list[tuple[Path, str]] = []
        fits = self._fits([*items, *prior])
        taken = [(item, k) for item in items if item.path in fits for k in range(item.repeats)]
        classes = [item for item in prior if item.path in fits]
        extra = [
            (classes[k % len(classes)], k // len(classes))
            for k in range(len(taken) if classes else 0)
        ]
        if not taken:
            reasons = " ".join(f"{path.name} {why}" for path, why in self.left_out[:3])
            raise DatasetError(
                f"None of the {len(items)} pictures can be trained on. {reasons}".strip()
            )
        self._seen: dict[str, int] = {}
        self.samples = tuple(
            [Sample(self._key(item), item, fits[item.path]) for item, _ in taken]
            + [
                Sample(self._key(item, "class "), item, fits[item.path], prior_weight, True)
                for item, _ in extra
            ]
        )
        self.of_bucket: dict[Size, list[Sample]] = {}
        for sample in self.samples:
            self.of_bucket.setdefault(sample.fit.bucket, []).append(sample)
        self.batches_per_epoch = sum(
            batches((sample.fit.bucket for sample in self.samples), options.batch).values()
        )
        self._epoch: tuple[int, list[list[Sample]]] = (-1, [])

    @property
    def fingerprint(self) -> str:
        """sha256 over all that decides the order and the content of the batches: a run may only go on with the same."""
        rows = sorted(
            [one.key, one.item.caption, one.weight, one.prior, one.item.width, one.item.height]
            for one in self.samples
        )
        options = astuple(
            replace(self.options, cache="memory")
        )  # where things are kept changes nothing
        return hashlib.sha256(json.dumps([options, rows]).encode()).hexdigest()

    def at(self, step: int) -> list[Sample]:
        """The batch of a step: all of one bucket. The last one of a bucket in an epoch may be smaller."""
        epoch, place = divmod(step, self.batches_per_epoch)
        if self._epoch[0] != epoch:
            self._epoch = epoch, self._order(epoch)
        return self._epoch[1][place]

    def view(self, step: int, sample: Sample) -> View:
        """How a sample is shown at a step."""
        options = self.options
        places = self._places(sample.item, sample.fit)
        left, top = places[rng.choice(len(places), options.seed, step, sample.key, "crop")]
        return View(
            sample.item,
            sample.fit,
            left,
            top,
            options.flip and rng.number(options.seed, step, sample.key, "flip") < 0.5,
        )

    def views(self) -> list[View]:
        """All that `view` may ever give, by picture."""
        flips = (False, True) if self.options.flip else (False,)
        pictures = {sample.item.path: sample for sample in self.samples}
        return [
            View(sample.item, sample.fit, left, top, flip)
            for sample in pictures.values()
            for left, top in self._places(sample.item, sample.fit)
            for flip in flips
        ]

    def caption(self, step: int, sample: Sample) -> str:
        """What is said about a sample at a step; nothing where it is dropped."""
        options = self.options
        if rng.number(options.seed, step, sample.key, "caption dropout") < options.caption_dropout:
            return ""
        order = (
            rng.choice(SHUFFLES, options.seed, step, sample.key, "caption")
            if options.shuffle_caption
            else 0
        )
        return self._words(sample.item, sample.prior, order)

    def captions(self) -> list[str]:
        """All that `caption` may ever give."""
        orders = range(SHUFFLES if self.options.shuffle_caption else 1)
        pictures = {(sample.prior, sample.item.path): sample.item for sample in self.samples}
        said = {
            self._words(item, prior, order)
            for (prior, _), item in pictures.items()
            for order in orders
        }
        return sorted(said | ({""} if self.options.caption_dropout else set()))

    def _words(self, item: Item, prior: bool, order: int) -> str:
        options, caption = self.options, item.caption
        if options.shuffle_caption:
            tags = [tag for tag in (part.strip() for part in caption.split(",")) if tag]
            kept, rest = tags[: options.keep_tokens], list(enumerate(tags[options.keep_tokens :]))
            rest = rng.shuffled(
                rest, lambda tag: f"{item.content} {tag[0]}", options.seed, order, "order of words"
            )
            caption = ", ".join([*kept, *(tag for _, tag in rest)])
        trigger = "" if prior else options.trigger.strip()
        there = not trigger or re.search(
            rf"(?<!\w){re.escape(trigger)}(?!\w)", caption, re.IGNORECASE
        )
        return caption if there else ", ".join(filter(None, [trigger, caption]))

    def _places(self, item: Item, fit: Fit) -> list[tuple[int, int]]:
        if self.options.crop == "centre":
            return [fit.centre]
        across, down = fit.spare
        return sorted(
            {
                (
                    rng.choice(across + 1, self.options.seed, k, item.content, "crop across"),
                    rng.choice(down + 1, self.options.seed, k, item.content, "crop down"),
                )
                for k in range(CROPS)
            }
        )

    def _order(self, epoch: int) -> list[list[Sample]]:
        seed, size = self.options.seed, self.options.batch
        found = []
        for bucket, samples in sorted(self.of_bucket.items()):
            mixed = rng.shuffled(samples, lambda sample: sample.key, seed, epoch, "samples")
            found += [(f"{bucket} {k}", mixed[k : k + size]) for k in range(0, len(mixed), size)]
        return [
            batch
            for _, batch in rng.shuffled(found, lambda named: named[0], seed, epoch, "batches")
        ]

    def _fits(self, items: Sequence[Item]) -> dict[Path, Fit]:
        found, sizes = {}, self.options.sizes
        for item in items:
            fit = sizes.fit(item.width, item.height)
            if fit is None:
                why = (
                    f"is too small or too narrow ({item.width} x {item.height} pixels) for buckets in steps of "
                    f"{self.options.bucket_step}; allow enlarging, or take another picture."
                )
                self.left_out.append((item.path, why))
            else:
                found[item.path] = fit
        return found

    def _key(self, item: Item, kind: str = "") -> str:
        """By content and number, so that neither names nor order of files matter."""
        which = kind + item.content
        self._seen[which] = self._seen.get(which, -1) + 1
        return f"{which} {self._seen[which]}"


def split(items: Sequence[Item], share: float, seed: int) -> tuple[list[Item], list[Item]]:
    """Pictures to train on and pictures to validate with; it depends on contents and seed, not on names and order.

    A `share` above 0 takes at least one, and never all; a picture that is there twice goes to one side.
    """
    contents = sorted({item.content for item in items})
    count = min(max(round(share * len(contents)), 1), len(contents) - 1) if share > 0 else 0
    chosen = set(rng.shuffled(contents, lambda content: content, seed, 0, "validation")[:count])
    return [item for item in items if item.content not in chosen], [
        item for item in items if item.content in chosen
    ]
