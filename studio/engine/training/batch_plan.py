"""Which images form which batch, how they are cropped and mirrored, and their captions.

Knows: epochs, buckets, repeats, class images, captions, validation; all of it is a pure function of
the dataset, the options and the step (a step here is one batch, counted from 0).
Does not know: pixels, latents, encoders (data_loader.py).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import astuple, dataclass, replace
from itertools import cycle, islice
from pathlib import Path
from typing import Literal

from studio.core.training.buckets import BucketFit, Buckets, Size, count_batches
from studio.engine.training import rng
from studio.errors import DatasetError
from studio.storage.datasets.training_set import TrainingImage

# Places that `crop` "random" chooses from for each image: few enough to cache their latents.
CROPS_PER_IMAGE = 4
# Orders of tags that `shuffle_caption` chooses from: few enough to cache their embeddings.
SHUFFLES_PER_CAPTION = 16


@dataclass(frozen=True)
class DataOptions:
    """Everything beside the images that decides what the network is trained on."""

    resolution: Size = (512, 512)
    enable_buckets: bool = True
    min_bucket_side: int = 256
    max_bucket_side: int = 2048
    bucket_step: int = 64
    no_upscale: bool = False
    batch_size: int = 1
    seed: int = 0
    random_flip: bool = False
    crop: Literal["centre", "random"] = "centre"
    trigger: str = ""  # put in front of captions that lack it, whatever is shuffled
    shuffle_caption: bool = False
    keep_tokens: int = 0  # number of leading tags that stay in front when tags are shuffled
    caption_dropout: float = 0.0
    clip_skip: int = 1
    num_chunks: int = 1  # chunks of 75 tokens that are read of a caption
    cache: Literal["memory", "disk"] = "memory"

    @property
    def bucketing(self) -> Buckets:
        """Return the buckets that images are assigned to."""
        return Buckets(
            self.resolution,
            self.min_bucket_side,
            self.max_bucket_side,
            self.bucket_step,
            self.no_upscale,
            self.enable_buckets,
        )

    @property
    def deterministic(self) -> DataOptions:
        """Return the same options without randomness, for validation."""
        return replace(
            self, random_flip=False, crop="centre", shuffle_caption=False, caption_dropout=0.0
        )


@dataclass(frozen=True)
class View:
    """An image as it is encoded: resized, cropped, then perhaps mirrored."""

    image: TrainingImage
    fit: BucketFit
    crop_left: int  # pixels of the resized image
    crop_top: int
    is_flipped: bool

    @property
    def time_ids(self) -> tuple[int, ...]:
        """Return SDXL's size conditions: original size, crop, target size, heights first."""
        crop_left = self.crop_left
        if self.is_flipped:
            crop_left = self.fit.cropped_pixels[0] - self.crop_left
        width, height = self.fit.bucket
        return (self.image.height, self.image.width, self.crop_top, crop_left, height, width)


@dataclass(frozen=True)
class Sample:
    """One appearance of an image in an epoch.

    `key` decides its random draws, `weight` scales its loss.
    """

    key: str
    image: TrainingImage
    fit: BucketFit
    weight: float = 1.0
    is_class_image: bool = False


class BatchPlan:
    """The order of images of a complete training, fixed before it begins.

    Class images are mixed in, as many as there are samples of training images, as kohya does it;
    they are repeated if they are fewer, and the surplus is dropped. `excluded_images` names images
    that fit no bucket, with the reason.
    """

    def __init__(
        self,
        images: Sequence[TrainingImage],
        options: DataOptions,
        class_images: Sequence[TrainingImage] = (),
        prior_loss_weight: float = 1.0,
    ) -> None:
        """Assign buckets and list the samples of an epoch.

        Args:
            images: The images to train on, with their repeats.
            options: Resolution, buckets, batch size, augmentation and captions.
            class_images: Images for prior preservation.
            prior_loss_weight: Factor on the loss of class images.

        Raises:
            DatasetError: If no training image fits a bucket.
        """
        self.options = options
        self.excluded_images: list[tuple[Path, str]] = []
        fits = self._assign_buckets([*images, *class_images])
        repeated = [image for image in images if image.path in fits for _ in range(image.repeats)]
        if not repeated:
            reasons = " ".join(f"{path.name} {reason}" for path, reason in self.excluded_images[:3])
            raise DatasetError(
                f"None of the {len(images)} images can be trained on. {reasons}".strip()
            )
        usable_class_images = [image for image in class_images if image.path in fits]
        self._key_counts: dict[str, int] = {}
        samples = []
        for image in repeated:
            samples.append(Sample(self._make_sample_key(image), image, fits[image.path]))
        for image in islice(cycle(usable_class_images), len(repeated)):
            key = self._make_sample_key(image, "class ")
            fit = fits[image.path]
            samples.append(Sample(key, image, fit, prior_loss_weight, is_class_image=True))
        self.samples = tuple(samples)
        self.samples_by_bucket: dict[Size, list[Sample]] = {}
        for sample in self.samples:
            self.samples_by_bucket.setdefault(sample.fit.bucket, []).append(sample)
        buckets = (sample.fit.bucket for sample in self.samples)
        self.batches_per_epoch = sum(count_batches(buckets, options.batch_size).values())
        self._epoch_batches: tuple[int, list[list[Sample]]] = (-1, [])

    @property
    def fingerprint(self) -> str:
        """Return the sha256 over everything that decides order and content of the batches.

        A run may only be resumed with the same fingerprint.
        """
        rows = []
        for sample in self.samples:
            image = sample.image
            rows.append(
                [
                    sample.key,
                    image.caption,
                    sample.weight,
                    sample.is_class_image,
                    image.width,
                    image.height,
                ]
            )
        # Where tensors are cached changes nothing.
        options = astuple(replace(self.options, cache="memory"))
        return hashlib.sha256(json.dumps([options, sorted(rows)]).encode()).hexdigest()

    def get_batch(self, step: int) -> list[Sample]:
        """Return the batch of a step, counted from 0; all of its samples are of one bucket.

        The last batch of a bucket in an epoch may be smaller.
        """
        epoch, index = divmod(step, self.batches_per_epoch)
        if self._epoch_batches[0] != epoch:
            self._epoch_batches = (epoch, self._shuffle_batches(epoch))
        return self._epoch_batches[1][index]

    def get_view(self, step: int, sample: Sample) -> View:
        """Return how a sample is cropped and mirrored at a step."""
        seed = self.options.seed
        crops = self._list_crops(sample.image, sample.fit)
        crop_index = rng.draw_index(len(crops), seed, step, sample.key, "crop")
        crop_left, crop_top = crops[crop_index]
        is_flipped = self.options.random_flip and (
            rng.draw_uniform(seed, step, sample.key, "flip") < 0.5
        )
        return View(sample.image, sample.fit, crop_left, crop_top, is_flipped)

    def list_views(self) -> list[View]:
        """List every view that `get_view` may ever return, grouped by image."""
        flips = (False, True) if self.options.random_flip else (False,)
        samples_by_path = {sample.image.path: sample for sample in self.samples}
        views = []
        for sample in samples_by_path.values():
            for crop_left, crop_top in self._list_crops(sample.image, sample.fit):
                for is_flipped in flips:
                    views.append(View(sample.image, sample.fit, crop_left, crop_top, is_flipped))
        return views

    def get_caption(self, step: int, sample: Sample) -> str:
        """Return a sample's caption at a step; an empty one where it is dropped."""
        options = self.options
        draw = rng.draw_uniform(options.seed, step, sample.key, "caption dropout")
        if draw < options.caption_dropout:
            return ""
        shuffle_index = 0
        if options.shuffle_caption:
            shuffle_index = rng.draw_index(
                SHUFFLES_PER_CAPTION, options.seed, step, sample.key, "caption"
            )
        return self._build_caption(sample.image, sample.is_class_image, shuffle_index)

    def list_captions(self) -> list[str]:
        """List every caption that `get_caption` may ever return."""
        num_shuffles = SHUFFLES_PER_CAPTION if self.options.shuffle_caption else 1
        images = {
            (sample.is_class_image, sample.image.path): sample.image for sample in self.samples
        }
        captions = set()
        for (is_class_image, _), image in images.items():
            for shuffle_index in range(num_shuffles):
                captions.add(self._build_caption(image, is_class_image, shuffle_index))
        if self.options.caption_dropout:
            captions.add("")
        return sorted(captions)

    def _build_caption(self, image: TrainingImage, is_class_image: bool, shuffle_index: int) -> str:
        caption = image.caption
        if self.options.shuffle_caption:
            caption = self._shuffle_tags(image, shuffle_index)
        trigger = "" if is_class_image else self.options.trigger.strip()
        if not trigger:
            return caption
        if re.search(rf"(?<!\w){re.escape(trigger)}(?!\w)", caption, re.IGNORECASE):
            return caption
        return f"{trigger}, {caption}" if caption else trigger

    def _shuffle_tags(self, image: TrainingImage, shuffle_index: int) -> str:
        """Return the caption with its tags in another order, save the first `keep_tokens`."""
        keep_tokens = self.options.keep_tokens
        tags = [part.strip() for part in image.caption.split(",") if part.strip()]
        shuffled = rng.shuffle(
            list(enumerate(tags[keep_tokens:])),
            lambda indexed_tag: f"{image.content_hash} {indexed_tag[0]}",
            self.options.seed,
            shuffle_index,
            "order of words",
        )
        return ", ".join([*tags[:keep_tokens], *(tag for _, tag in shuffled)])

    def _list_crops(self, image: TrainingImage, fit: BucketFit) -> list[tuple[int, int]]:
        """List the (crop_left, crop_top) corners that an image may be cropped at."""
        if self.options.crop == "centre":
            return [fit.center_offset]
        seed, content = self.options.seed, image.content_hash
        max_left, max_top = fit.cropped_pixels
        crops = set()
        for index in range(CROPS_PER_IMAGE):
            crop_left = rng.draw_index(max_left + 1, seed, index, content, "crop across")
            crop_top = rng.draw_index(max_top + 1, seed, index, content, "crop down")
            crops.add((crop_left, crop_top))
        return sorted(crops)

    def _shuffle_batches(self, epoch: int) -> list[list[Sample]]:
        """Return the batches of an epoch: samples shuffled within buckets, then the batches."""
        seed, size = self.options.seed, self.options.batch_size
        keyed_batches: list[tuple[str, list[Sample]]] = []
        for bucket, samples in sorted(self.samples_by_bucket.items()):
            shuffled = rng.shuffle(samples, lambda sample: sample.key, seed, epoch, "samples")
            for start in range(0, len(shuffled), size):
                keyed_batches.append((f"{bucket} {start}", shuffled[start : start + size]))
        keyed_batches = rng.shuffle(
            keyed_batches, lambda keyed_batch: keyed_batch[0], seed, epoch, "batches"
        )
        return [batch for _, batch in keyed_batches]

    def _assign_buckets(self, images: Sequence[TrainingImage]) -> dict[Path, BucketFit]:
        """Return each image's bucket, and note those that fit none as excluded."""
        buckets = self.options.bucketing
        fits = {}
        for image in images:
            fit = buckets.fit(image.width, image.height)
            if fit is not None:
                fits[image.path] = fit
                continue
            reason = (
                f"is too small or too narrow ({image.width} x {image.height} pixels) "
                f"for buckets in steps of {self.options.bucket_step}; "
                "turn off Do not enlarge, or use another image."
            )
            self.excluded_images.append((image.path, reason))
        return fits

    def _make_sample_key(self, image: TrainingImage, prefix: str = "") -> str:
        """Make a key from content and count: names and order of files do not matter."""
        content = prefix + image.content_hash
        count = self._key_counts.get(content, 0)
        self._key_counts[content] = count + 1
        return f"{content} {count}"


def split_validation(
    images: Sequence[TrainingImage], fraction: float, seed: int
) -> tuple[list[TrainingImage], list[TrainingImage]]:
    """Split images into those to train on and those to validate with.

    The split depends on contents and seed, not on names and order; copies of an image go to the
    same side. A `fraction` above 0 takes at least one content for validation, and never all.
    """
    contents = sorted({image.content_hash for image in images})
    num_validation = 0
    if fraction > 0:
        num_validation = min(max(round(fraction * len(contents)), 1), len(contents) - 1)
    shuffled = rng.shuffle(contents, lambda content: content, seed, 0, "validation")
    validation_contents = set(shuffled[:num_validation])
    training_images, validation_images = [], []
    for image in images:
        if image.content_hash in validation_contents:
            validation_images.append(image)
        else:
            training_images.append(image)
    return training_images, validation_images
