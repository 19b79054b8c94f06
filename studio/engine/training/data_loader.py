"""Images and captions as the networks take them: latents and embeddings, cached before training.

Knows: pixels, the autoencoder's posterior, what cached tensors depend on.
Does not know: which batch comes when (batch_plan.py), noise, timesteps, the loss (objective.py).

Of an image the posterior's mean and deviation are cached, so that every step draws its own latents.
`fill_cache` computes everything that the plan can ever ask for; afterwards neither the autoencoder
nor frozen text encoders are needed any more.
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

from studio.engine.models import devices
from studio.engine.models.loaded_model import LoadedModel
from studio.engine.training import latent_cache as caching
from studio.engine.training import rng, text_encoding
from studio.engine.training.batch_plan import BatchPlan, Sample, View
from studio.engine.training.latent_cache import TensorCache, Tensors
from studio.errors import BadFile, DatasetError, InvalidSpec
from studio.imaging import decode
from studio.storage.models.model_configs import hash_components

PREFETCH_IMAGES = 4  # images that are decoded while one is encoded


@dataclass(frozen=True)
class Batch:
    """What one step trains on, on the device.

    Attributes:
        step: The batch's number, counted from 0.
        samples: What the rows of the tensors are of; all of one bucket.
        captions: The samples' captions.
        latents: (samples, channels, latent height, latent width), float32, scaled for the U-Net.
        loss_weights: (samples,), factors on the losses.
        prompt_embeds: (samples, tokens, width), or None where text encoders are trained: they read
            `captions` themselves.
        pooled_prompt_embeds: (samples, width), SDXL only, or None as above.
        time_ids: (samples, 6), SDXL's size conditions, or None.
    """

    step: int
    samples: list[Sample]
    captions: list[str]
    latents: torch.Tensor
    loss_weights: torch.Tensor
    prompt_embeds: torch.Tensor | None
    pooled_prompt_embeds: torch.Tensor | None
    time_ids: torch.Tensor | None

    @property
    def sample_keys(self) -> list[str]:
        """Return what the random draws for these samples depend on."""
        return [sample.key for sample in self.samples]


class BatchLoader:
    """A plan's batches for one model."""

    def __init__(
        self,
        plan: BatchPlan,
        cache: TensorCache,
        model: LoadedModel,
        cache_text_embeds: bool = True,
        cache_latents: bool = True,
    ) -> None:
        """Prepare to load batches.

        Args:
            plan: Which samples form which batch.
            cache: Where latents and embeddings are kept.
            model: The model that encodes them.
            cache_text_embeds: False where text encoders are trained.
            cache_latents: With False images are encoded anew at every step, to the same latents.

        Raises:
            InvalidSpec: If a bucket's sides are no multiples of the autoencoder's scale factor.
        """
        self.plan = plan
        self.cache_text_embeds = cache_text_embeds
        self.cache_latents = cache_latents
        self._model = model
        self._cache = cache
        self._device = model.device
        self._family = model.family
        for width, height in plan.samples_by_bucket:
            if width % model.vae_scale_factor or height % model.vae_scale_factor:
                raise InvalidSpec(
                    [
                        f"Resolution: {model.info.name} requires sides in steps of "
                        f"{model.vae_scale_factor} pixels (this would be {width} x {height})."
                    ]
                )
        self._latent_shift, self._latent_scale = _get_latent_normalization(model.vae.config)
        # Rounding differs between kinds of device: a tensor computed on one is not used on another.
        vae_kind = f"{model.vae.dtype} {model.device.kind}"
        self._vae_cache_key = caching.make_key(
            "latents 1", hash_components(model.info, "vae"), vae_kind
        )
        if cache_text_embeds:
            parts = model.family.text_encoders
            names = [name for part in parts for name in (part.tokenizer, part.encoder)]
            kinds = [f"{encoder.dtype} {model.device.kind}" for encoder in model.text_encoders]
            self._text_cache_key = caching.make_key(
                "text 1",
                self._family.name,
                hash_components(model.info, *names),
                *kinds,
                plan.options.clip_skip,
                plan.options.num_chunks,
            )

    @torch.no_grad()
    def fill_cache(
        self, model: LoadedModel, report: Callable[[int, int], Any] = lambda _current, _total: None
    ) -> None:
        """Compute everything that is not cached yet.

        Args:
            model: The model that encodes.
            report: Called with the number of cached tensors and their total; it may raise to stop.

        Raises:
            DatasetError: If an image is broken, or has changed since the folder was read.
        """
        views = self.plan.list_views() if self.cache_latents else []
        captions = self.plan.list_captions() if self.cache_text_embeds else []
        total = len(views) + len(captions)
        missing = [view for view in views if self._cache.get(self._view_key(view)) is None]
        num_cached = len(views) - len(missing)
        report(num_cached, total)
        views_by_image: list[list[View]] = []
        for _, group in groupby(missing, lambda view: view.image.path):
            views_by_image.append(list(group))
        with closing(_prefetch(_load_views, views_by_image)) as decoded:
            for views_of_image, pixels_of_views in decoded:
                for view, pixels in zip(views_of_image, pixels_of_views):
                    self._cache.put(self._view_key(view), _encode_posterior(model, view, pixels))
                    num_cached += 1
                    report(num_cached, total)
        for caption in captions:
            key = self._caption_key(caption)
            if self._cache.get(key) is None:
                self._cache.put(key, self._encode_caption(model, caption))
            num_cached += 1
            report(num_cached, total)

    def load_batch(self, step: int) -> Batch:
        """Return the batch of a step, counted from 0. Call `fill_cache` first."""
        samples = self.plan.get_batch(step)
        views = [self.plan.get_view(step, sample) for sample in samples]
        captions = [self.plan.get_caption(step, sample) for sample in samples]
        sample_keys = [sample.key for sample in samples]

        latents = self._sample_latents(step, views, sample_keys)
        weights = torch.tensor([sample.weight for sample in samples])
        text_embeds: list[Tensors] = []
        if self.cache_text_embeds:
            for caption in captions:
                text_embeds.append(self._load_cached(self._caption_key(caption), repr(caption)))
        time_ids = None
        if self._family.pooled_prompt:
            time_ids = torch.tensor([view.time_ids for view in views], dtype=torch.float32)

        def to_device(tensor: torch.Tensor) -> torch.Tensor:
            return devices.copy_to(self._device.torch_device, tensor)

        def to_device_or_none(tensor: torch.Tensor | None) -> torch.Tensor | None:
            return None if tensor is None else to_device(tensor)

        return Batch(
            step=step,
            samples=samples,
            captions=captions,
            latents=to_device(latents),
            loss_weights=to_device(weights),
            prompt_embeds=to_device_or_none(_stack_rows(text_embeds, "rows")),
            pooled_prompt_embeds=to_device_or_none(_stack_rows(text_embeds, "pooled")),
            time_ids=to_device_or_none(time_ids),
        )

    def _sample_latents(self, step: int, views: list[View], sample_keys: list[str]) -> torch.Tensor:
        """Draw latents from the posteriors of views, scaled for the U-Net."""
        if self.cache_latents:
            posteriors = []
            for view in views:
                key = self._view_key(view)
                posteriors.append(self._load_cached(key, view.image.path.name))
        else:
            posteriors = self._encode_views(views)
        means = torch.stack([posterior["mean"] for posterior in posteriors]).float()
        stds = torch.stack([posterior["std"] for posterior in posteriors]).float()
        shape = tuple(means.shape[1:])
        noise = rng.draw_normal(shape, self.plan.options.seed, step, sample_keys, "posterior")
        # Cached posteriors are on the CPU, those that were encoded just now are not.
        noise, shift, scale = (
            devices.copy_to(means.device, tensor)
            for tensor in (noise, self._latent_shift, self._latent_scale)
        )
        return (means + stds * noise - shift) * scale

    @torch.no_grad()
    def _encode_views(self, views: list[View]) -> list[Tensors]:
        return [_encode_posterior(self._model, view, _load_views([view])[0]) for view in views]

    def _view_key(self, view: View) -> str:
        return caching.make_key(
            self._vae_cache_key,
            view.image.content_hash,
            view.fit.resized_size,
            view.fit.bucket,
            view.crop_left,
            view.crop_top,
            view.is_flipped,
        )

    def _caption_key(self, caption: str) -> str:
        return caching.make_key(self._text_cache_key, caption)

    def _encode_caption(self, model: LoadedModel, caption: str) -> Tensors:
        options = self.plan.options
        token_ids = text_encoding.tokenize(model.tokenizers, [caption], options.num_chunks)
        prompt_embeds, pooled = text_encoding.encode_tokens(
            self._family, model.text_encoders, token_ids, options.clip_skip
        )
        tensors = {"rows": prompt_embeds[0]}
        if pooled is not None:
            tensors["pooled"] = pooled[0]
        return tensors

    def _load_cached(self, key: str, description: str) -> Tensors:
        tensors = self._cache.get(key)
        if tensors is None:
            raise BadFile(
                f"The cached data of {description:.200} is missing from the disk; start again to "
                "recreate it."
            )
        return tensors


def image_to_tensor(image: Image.Image, view: View) -> torch.Tensor:
    """Resize, crop and flip an image into the autoencoder's (3, height, width) in -1 … 1."""
    resized_size = view.fit.resized_size
    if image.size != resized_size:
        # Means of areas where it shrinks, as kohya does it.
        is_smaller = resized_size[0] <= image.width and resized_size[1] <= image.height
        resampling = Image.Resampling.BOX if is_smaller else Image.Resampling.LANCZOS
        image = image.resize(resized_size, resampling)
    width, height = view.fit.bucket
    right, bottom = view.crop_left + width, view.crop_top + height
    image = image.crop((view.crop_left, view.crop_top, right, bottom))
    if view.is_flipped:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    pixels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
    pixels = pixels.view(image.height, image.width, 3).permute(2, 0, 1)
    # Another layout in memory would take other kernels, hence contiguous.
    return pixels.contiguous().float() / 255 * 2 - 1


def _stack_rows(rows: list[Tensors], name: str) -> torch.Tensor | None:
    """Stack the tensors of a name, or return None where there are none."""
    if not rows or name not in rows[0]:
        return None
    return torch.stack([row[name] for row in rows])


def _load_views(views: list[View]) -> list[torch.Tensor]:
    """Decode one image and return the pixels of its views."""
    training_image = views[0].image
    name = training_image.path.name
    try:
        data = training_image.path.read_bytes()
    except OSError as error:
        raise DatasetError(f"{name} can no longer be read ({error.strerror or error}).") from None
    if hashlib.sha256(data).hexdigest() != training_image.content_hash:
        raise DatasetError(f"{name} has changed since the folder was read; start again.")
    image = decode.load_image(data, name).image
    return [image_to_tensor(image, view) for view in views]


def _encode_posterior(model: LoadedModel, view: View, pixels: torch.Tensor) -> Tensors:
    """Encode a view alone in its batch, so that no other view changes a bit of it."""
    batch = pixels[None].to(model.device.torch_device, model.vae.dtype)
    distribution = model.vae.encode(batch).latent_dist
    posterior = {"mean": distribution.mean[0], "std": distribution.std[0]}
    if not all(bool(torch.isfinite(tensor).all()) for tensor in posterior.values()):
        dtype_name = str(model.vae.dtype).removeprefix("torch.")
        raise DatasetError(
            f"{view.image.path.name}: the VAE of {model.info.name} returns invalid numbers for it "
            f"in {dtype_name}. Choose --precision float32, or exclude the image."
        )
    return posterior


def _get_latent_normalization(config: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the shift and scale that turn the autoencoder's latents into the U-Net's.

    It is the inverse of `LoadedModel.decode`.
    """
    scale = torch.tensor(float(config.scaling_factor))
    if config.get("latents_mean") is None or config.get("latents_std") is None:
        return torch.tensor(0.0), scale
    mean = torch.tensor(config.latents_mean).view(-1, 1, 1)
    std = torch.tensor(config.latents_std).view(-1, 1, 1)
    return mean, scale / std


def _prefetch(
    load: Callable[[list[View]], list[torch.Tensor]],
    groups: Iterable[list[View]],
) -> Generator[tuple[list[View], list[torch.Tensor]], None, None]:
    """Yield each group and its result in order, computed a little ahead in threads."""
    running: deque[tuple[list[View], Future[list[torch.Tensor]]]] = deque()
    with ThreadPoolExecutor(PREFETCH_IMAGES) as pool:
        try:
            for group in groups:
                running.append((group, pool.submit(load, group)))
                if len(running) > PREFETCH_IMAGES:
                    oldest, future = running.popleft()
                    yield oldest, future.result()
            while running:
                oldest, future = running.popleft()
                yield oldest, future.result()
        finally:
            for _, future in running:
                future.cancel()
