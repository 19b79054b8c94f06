"""Pictures and captions as the networks take them: latents and embeddings, computed once, drawn from at every step.

Knows: pixels, the autoencoder's posterior, what the cached depends on. Does not know: which batch comes when (samples.py),
noise, timesteps, the loss (loop.py).

Of a picture the posterior's mean and deviation are kept, so that every step draws its own latents. `prepare` computes all that
the plan can ever show; afterwards neither the autoencoder nor frozen encoders are needed any more.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from PIL import Image

from studio.engine.models.families import ENCODERS, Parts
from studio.engine.training import latent_cache as caching
from studio.engine.training import rng, text_encoding
from studio.engine.training.batch_plan import Plan, Sample, View
from studio.engine.training.latent_cache import Cache, Tensors
from studio.errors import BadFile, DatasetError, InvalidSpec
from studio.imaging import decode

AHEAD = 4  # pictures that are decoded while one is encoded


@dataclass(frozen=True)
class Batch:
    """What one step trains on. `rows` and `pooled` are None where text encoders are trained: they read `captions` themselves.

    Latents are float32 and scaled for the U-Net; `time_ids` is for SDXL, `weights` for the losses, one for each sample.
    """

    step: int
    samples: list[Sample]
    captions: list[str]
    latents: torch.Tensor
    weights: torch.Tensor
    rows: torch.Tensor | None
    pooled: torch.Tensor | None
    time_ids: torch.Tensor | None

    @property
    def keys(self) -> list[str]:
        """What the draws for these samples depend on."""
        return [sample.key for sample in self.samples]


class Data:
    """A plan's batches for one model. `read_text` is False where text encoders are trained; with `keep` False pictures are
    encoded anew at every step, to the same latents."""

    def __init__(
        self, plan: Plan, cache: Cache, parts: Parts, read_text: bool = True, keep: bool = True
    ) -> None:
        """Raises InvalidSpec for buckets that this model's latents do not fit."""
        self.plan, self.read_text, self.keep, self._parts = plan, read_text, keep, parts
        self._cache, self._device, self._family = cache, parts.device, parts.info.family
        bad = [size for size in plan.of_bucket if size[0] % parts.scale or size[1] % parts.scale]
        if bad:
            raise InvalidSpec(
                [
                    f"Resolution: {parts.info.name} takes sides in steps of {parts.scale} pixels "
                    f"(not {bad[0][0]} x {bad[0][1]})."
                ]
            )
        self._shift, self._factor = _numbers(parts.vae.config)
        # Rounding differs between kinds of device: what was computed on one is not taken for another's.
        kind = f"{parts.vae.dtype} {parts.device.kind}"
        self._vae = caching.key("latents 1", caching.content(parts.info, "vae"), kind)
        if read_text:
            names = [name for row in ENCODERS[self._family] for name in row[:2]]
            kinds = [f"{encoder.dtype} {parts.device.kind}" for encoder in parts.text_encoders]
            self._text = caching.key(
                "text 1",
                self._family,
                caching.content(parts.info, *names),
                *kinds,
                plan.options.clip_skip,
                plan.options.chunks,
            )

    @torch.no_grad()
    def prepare(
        self, parts: Parts, report: Callable[[int, int], Any] = lambda done, total: None
    ) -> None:
        """Compute all that is not cached yet. `report` gets what is done and the total; what it raises ends the work.

        Raises DatasetError for a picture that broke, or has changed since the folder was read.
        """
        views, captions = (
            self.plan.views() if self.keep else [],
            self.plan.captions() if self.read_text else [],
        )
        total = len(views) + len(captions)
        missing = [view for view in views if self._cache.get(self._view_key(view)) is None]
        done = len(views) - len(missing)
        report(done, total)
        by_picture = [list(group) for _, group in groupby(missing, lambda view: view.item.path)]
        with closing(_ahead(_pixels_of, by_picture)) as decoded:
            for group, pictures in decoded:
                for view, picture in zip(group, pictures):
                    self._cache.put(self._view_key(view), _posterior(parts, view, picture))
                    done += 1
                    report(done, total)
        for caption in captions:
            if self._cache.get(self._caption_key(caption)) is None:
                self._cache.put(self._caption_key(caption), self._read(parts, caption))
            done += 1
            report(done, total)

    def batch(self, step: int) -> Batch:
        """The batch of a step, on the device. Needs `prepare` before it."""
        plan, samples = self.plan, self.plan.at(step)
        views = [plan.view(step, sample) for sample in samples]
        captions = [plan.caption(step, sample) for sample in samples]
        found = (
            [self._kept(self._view_key(view), view.item.path.name) for view in views]
            if self.keep
            else self._encoded(views)
        )
        means, deviations = (
            torch.stack([row[name] for row in found]).float() for name in ("mean", "std")
        )
        noise = rng.normal(
            tuple(means.shape[1:]),
            plan.options.seed,
            step,
            [sample.key for sample in samples],
            "posterior",
        )
        latents = (means + deviations * noise - self._shift) * self._factor
        said = (
            [self._kept(self._caption_key(caption), repr(caption)) for caption in captions]
            if self.read_text
            else [{}]
        )
        rows, pooled = (
            torch.stack([row[name] for row in said]) if name in said[0] else None
            for name in ("rows", "pooled")
        )
        sizes = (
            torch.tensor([view.time_ids for view in views], dtype=torch.float32)
            if self._family == "sdxl"
            else None
        )
        weights = torch.tensor([sample.weight for sample in samples])

        def there(tensor: torch.Tensor) -> torch.Tensor:
            return tensor.to(self._device.torch, non_blocking=True)

        return Batch(
            step,
            samples,
            captions,
            there(latents),
            there(weights),
            *(None if each is None else there(each) for each in (rows, pooled, sizes)),
        )

    @torch.no_grad()
    def _encoded(self, views: list[View]) -> list[Tensors]:
        return [_posterior(self._parts, view, _pixels_of([view])[0]) for view in views]

    def _view_key(self, view: View) -> str:
        return caching.key(
            self._vae,
            view.item.content,
            view.fit.resized,
            view.fit.bucket,
            view.left,
            view.top,
            view.flip,
        )

    def _caption_key(self, caption: str) -> str:
        return caching.key(self._text, caption)

    def _read(self, parts: Parts, caption: str) -> Tensors:
        ids = text_encoding.tokens(parts.tokenizers, [caption], self.plan.options.chunks)
        rows, pooled = text_encoding.encode(
            self._family, parts.text_encoders, ids, self.plan.options.clip_skip
        )
        return {"rows": rows[0]} | ({"pooled": pooled[0]} if pooled is not None else {})

    def _kept(self, key: str, what: str) -> Tensors:
        found = self._cache.get(key)
        if found is None:
            raise BadFile(
                f"What was computed of {what:.200} is gone from the cache on disk. Start again; it is computed anew."
            )
        return found


def pixels(image: Image.Image, view: View) -> torch.Tensor:
    """A picture as the autoencoder takes it: (3, height, width) in -1 … 1."""
    width, height = view.fit.resized
    if image.size != view.fit.resized:  # means of areas where it shrinks, as kohya does it
        smaller = width <= image.width and height <= image.height
        image = image.resize(
            view.fit.resized, Image.Resampling.BOX if smaller else Image.Resampling.LANCZOS
        )
    image = image.crop(
        (view.left, view.top, view.left + view.fit.bucket[0], view.top + view.fit.bucket[1])
    )
    image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if view.flip else image
    raw = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).view(
        image.height, image.width, 3
    )
    return (
        raw.permute(2, 0, 1).contiguous().float() / 255 * 2 - 1
    )  # another layout in memory would take other kernels


def _pixels_of(views: list[View]) -> list[torch.Tensor]:
    """One picture's views."""
    item = views[0].item
    try:
        data = item.path.read_bytes()
    except OSError as error:
        raise DatasetError(
            f"{item.path.name} cannot be read any more ({error.strerror or error})."
        ) from None
    if hashlib.sha256(data).hexdigest() != item.content:
        raise DatasetError(f"{item.path.name} has changed since the folder was read; start again.")
    image = decode.load(data, item.path.name).image
    return [pixels(image, view) for view in views]


def _posterior(parts: Parts, view: View, picture: torch.Tensor) -> Tensors:
    """Alone in its batch, so that nothing beside it changes a bit."""
    told = parts.vae.encode(picture[None].to(parts.device.torch, parts.vae.dtype)).latent_dist
    found = {"mean": told.mean[0], "std": told.std[0]}
    if not all(bool(torch.isfinite(tensor).all()) for tensor in found.values()):
        raise DatasetError(
            f"{view.item.path.name}: the autoencoder of {parts.info.name} makes no numbers of it in "
            f"{str(parts.vae.dtype).removeprefix('torch.')}. Choose --precision float32, or take the picture out."
        )
    return found


def _numbers(config: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """What latents are shifted and multiplied by between autoencoder and U-Net: the inverse of `Parts.decode`."""
    factor = torch.tensor(float(config.scaling_factor))
    if config.get("latents_mean") is None or config.get("latents_std") is None:
        return torch.tensor(0.0), factor
    mean, std = (
        torch.tensor(numbers).view(-1, 1, 1)
        for numbers in (config.latents_mean, config.latents_std)
    )
    return mean, factor / std


def _ahead(
    work: Callable[[list[View]], list[torch.Tensor]],
    things: Iterable[list[View]],
) -> Generator[tuple[list[View], list[torch.Tensor]], None, None]:
    """Results in order, each computed a little before it is asked for."""
    running: deque[tuple[list[View], Future[list[torch.Tensor]]]] = deque()
    with ThreadPoolExecutor(AHEAD) as pool:
        try:
            for thing in things:
                running.append((thing, pool.submit(work, thing)))
                if len(running) > AHEAD:
                    first, future = running.popleft()
                    yield first, future.result()
            while running:
                first, future = running.popleft()
                yield first, future.result()
        finally:
            for _, future in running:
                future.cancel()
