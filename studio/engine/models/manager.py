"""The pipeline manager: it lends loaded models to whoever computes with them.

Knows: what a request needs, what is loaded, what to say when memory does not suffice.
Does not know: what is done with what it lends.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from studio.core.generation.memory_policy import MemoryPlan
from studio.core.generation.request import UPSCALER_KEY, VAE_KEY, GenerationRequest
from studio.engine.models import devices, loaded_model
from studio.engine.models.adapters import lora
from studio.engine.models.cache import GIB, ModelCache
from studio.engine.models.devices import catch_out_of_memory
from studio.engine.models.embeddings import load_embeddings
from studio.engine.models.loaded_model import (
    DENOISER,
    TEXT_ENCODERS,
    VAE,
    LoadedModel,
    list_networks,
)
from studio.engine.models.memory_planner import MemoryPlanner
from studio.engine.models.part_placement import place_networks
from studio.errors import InvalidSpec, OutOfMemory
from studio.settings import Settings
from studio.storage import timings
from studio.storage.models.embedding_index import EmbeddingIndex
from studio.storage.models.library import Library, LoraInfo, ModelInfo
from studio.storage.models.model_bytes import count_pixels
from studio.storage.models.transformers_models import TransformersModels


class PipelineManager:
    """One per worker: it owns all that lies in the device's memory."""

    def __init__(
        self, settings: Settings, library: Library, on_change: Callable[[], None] = lambda: None
    ) -> None:
        """Choose the device; load nothing.

        Args:
            settings: Device, precision and the memory to keep free.
            library: Where models and LoRAs are looked up.
            on_change: Called whenever something was loaded, lent again or evicted.

        Raises:
            InvalidSpec: The settings' device is not on this machine.
        """
        self.device = devices.resolve(settings.device, settings.precision)
        self.transformers_models = TransformersModels(settings)
        self.on_change = on_change
        self._settings = settings
        self._library = library
        self._reserved_bytes = int(settings.keep_free * GIB)
        self._cache = ModelCache(
            self._get_cache_limit, lambda: self.on_change(), self.device.torch_device
        )
        self._planner = MemoryPlanner(settings, library, self.device, self._cache)
        self._models: dict[str, LoadedModel] = {}  # by content; most have no part in memory

    @property
    def loaded(self) -> list[dict[str, Any]]:
        """What is in memory: key, name, bytes, lent; the least recently used first.

        The parts of a model are one row, under the key of the last.
        """
        rows: dict[str, dict[str, Any]] = {}
        for resident in self._cache.list_residents():
            row = rows.pop(resident["name"], {"bytes": 0, "lent": False})
            rows[resident["name"]] = resident | {
                "bytes": row["bytes"] + resident["bytes"],
                "lent": row["lent"] or resident["lent"],
            }
        return list(rows.values())

    def plan_memory(
        self, request: GenerationRequest, *extra_requests: GenerationRequest
    ) -> MemoryPlan:
        """Return how a request's model will lie in memory; nothing is loaded.

        Args:
            request: The request.
            extra_requests: Others that the same loan is for.

        Raises:
            OutOfMemory: It cannot fit, whatever is done.
        """
        info = self._library.check_files(request)
        for model in self._models.values():
            if model.info == info and model.provider is not None:
                return model.plan  # that of whoever has it
        return self._planner.choose(info, (request, *extra_requests))

    def lower_plan(
        self, plan: MemoryPlan, request: GenerationRequest, *extra_requests: GenerationRequest
    ) -> MemoryPlan | None:
        """Return the next plan after one that turned out not to fit, and make room for it.

        Args:
            plan: The one that failed; the model is given back.
            request: The request.
            extra_requests: Others that the same loan is for.

        Returns:
            The plan; None if nothing takes less.
        """
        info = self._library.check_files(request)
        lower = self._planner.choose_below(info, (request, *extra_requests), plan)
        if lower is not None:
            self.unload(info.name)
        return lower

    @contextmanager
    def borrow(
        self,
        request: GenerationRequest,
        *extra_requests: GenerationRequest,
        plan: MemoryPlan | None = None,
    ) -> Iterator[LoadedModel]:
        """Yield a request's model, ready to run, with the request's LoRAs on.

        Args:
            request: Its model is lent.
            extra_requests: Others for the same model: their LoRAs are attached too, but off.
            plan: How it lies in memory, of `plan_memory`; None for what that says now.

        Raises:
            OutOfMemory: Also for torch's error inside the block; it says what to lower.
        """
        requests = (request, *extra_requests)
        with self._library.shelf.look_once():
            self._library.embeddings.read_named_pickles(requests)
            self._library.upscalers.read_named_pickles(requests)
            info = self._library.check_request(request)
            own_info = self._library.get_model(request.model) if request.vae else info
            model = self._open_model(own_info)
            if plan is None or model.provider is not None:
                plan = self.plan_memory(request, *extra_requests)
        with (
            self._translate_out_of_memory(self._describe_request(request, info), info.name),
            ExitStack() as stack,
        ):
            stack.callback(_restore_loan, model, vars(model).copy())
            model.provider, model.parts, model.plan = _Loans(self, model, stack), {}, plan
            self._choose_vae(model, info, request.vae)
            model.embeddings = load_embeddings(self._library, info, requests)
            with self._attach_loras(model, requests):
                yield model
            timings.record_timings(self._settings, info.name, encode=model.encode_seconds)

    def _choose_vae(self, model: LoadedModel, info: ModelInfo, name: str) -> None:
        """Give a borrowed model the autoencoder that a request names; its other parts stay.

        Args:
            model: The model.
            info: What it is with that autoencoder.
            name: The autoencoder's; empty for the model's own.
        """
        vae_hash = self._library.get_vae_hash(name) if name else ""
        if vae_hash != model.vae_hash:
            model.preview_matrix = None
        model.vae_info, model.vae_hash = (info if name else None), vae_hash

    @contextmanager
    def lend(
        self, key: str, load: Callable[[], Any], expected_bytes: int = 0, name: str = ""
    ) -> Iterator[Any]:
        """Yield anything else that has to lie on the device: a captioner, CLIP, a judge.

        Args:
            key: What identifies it in the cache.
            load: Loads it.
            expected_bytes: Room to make before loading.
            name: What people read; the key if empty.

        Raises:
            OutOfMemory: It does not fit, or what is computed with it does not.
        """
        with (
            self._translate_out_of_memory(name or key, name or key),
            self._cache.lend(key, load, expected_bytes=expected_bytes, name=name) as value,
        ):
            yield value

    def can_run_concurrently(self, request: GenerationRequest, required_bytes: int) -> bool:
        """Return whether a request's images can be made while everything that is lent stays.

        Args:
            request: The request.
            required_bytes: What the other user of the device still needs.
        """
        info = self._library.get_model(request.model)
        resolved = self._library.inputs.resolve(request, info.native_size, 0)
        first_plan = self._planner.list_plans(info, request)[0]
        # Second passes run one by one.
        batch_size = min(request.batch_size, request.num_images)
        pixels = resolved.width * resolved.height * batch_size
        image_bytes = first_plan.denoise_bytes // count_pixels(resolved)
        more_bytes = image_bytes * max(0, pixels - count_pixels(resolved))
        needed_bytes = first_plan.peak_bytes + more_bytes + required_bytes
        idle_bytes = sum(resident["bytes"] for resident in self.loaded if not resident["lent"])
        return needed_bytes <= self.free_bytes + idle_bytes

    def can_lend_concurrently(self, size_bytes: int, required_bytes: int) -> bool:
        """Return whether a model of a size can be lent while everything that is lent stays.

        Args:
            size_bytes: What it takes on the device.
            required_bytes: What the other users of the device still need.
        """
        idle_bytes = sum(resident["bytes"] for resident in self.loaded if not resident["lent"])
        return size_bytes + required_bytes <= self.free_bytes + idle_bytes

    def estimate_decode_bytes(self, info: ModelInfo, pixels: int) -> int:
        """Return the bytes that a model's autoencoder holds at its peak, for one image."""
        return info.decode_elements_per_pixel * pixels * self.device.vae_dtype.itemsize

    def unload(self, model_name: str) -> bool:
        """Evict all of that name; False if there was none, or it is lent."""
        named = [model for model in self._models.values() if model.info.name == model_name]
        if any(model.provider for model in named):
            return False
        residents = self._cache.list_residents()
        evicted = [
            self._cache.evict(resident["key"])
            for resident in residents
            if resident["name"] == model_name
        ]
        for model in named:
            self._forget(model)
        self.device.empty_cache()
        return any(evicted)

    def content_hashes(
        self, request: GenerationRequest, plan: MemoryPlan | None = None
    ) -> dict[str, str]:
        """Return what a request's digest is made over, without loading anything.

        Args:
            request: The request.
            plan: How its model lies in memory; None for what `plan_memory` says now.

        Returns:
            Hashes of the model ("model"), a VAE that was chosen ("vae"), each LoRA ("lora NAME"),
            each textual inversion that a prompt names ("embedding NAME") and the upscaler between
            the passes ("hires upscaler"); "dtype" and "device"; what of the plan changes the
            image.

        Raises:
            OutOfMemory: The model cannot fit.
        """
        with self._library.shelf.look_once():
            return self._hash_contents(request, plan)

    def _hash_contents(self, request: GenerationRequest, plan: MemoryPlan | None) -> dict[str, str]:
        self._library.embeddings.read_named_pickles([request])
        self._library.upscalers.read_named_pickles([request])
        model = self._library.check_files(request)
        if request.vae:  # it counts by itself
            model = self._library.get_model(request.model)
        hashes = {
            "model": self._library.get_content_hash(model),
            "dtype": self.device.dtype_name,
            "device": self.device.kind,
        }
        if request.vae:
            hashes[VAE_KEY] = self._library.get_vae_hash(request.vae)
        for use in request.with_inline_loras().loras:
            info = self._library.get_lora(use.name)
            hashes[f"lora {use.name}"] = self._library.get_content_hash(info)
        if request.active_upscaler:
            upscaler = self._library.upscalers.get(request.active_upscaler)
            hashes[UPSCALER_KEY] = upscaler.content_hash
        hashes |= (plan or self.plan_memory(request)).contents
        return hashes | self.embedding_hashes(
            request, self._library.index_embeddings(model, [request])
        )

    def embedding_hashes(self, request: GenerationRequest, index: EmbeddingIndex) -> dict[str, str]:
        """Return the part of `content_hashes` that the prompts decide.

        Args:
            request: The request.
            index: The embeddings as its model sees them.

        Raises:
            InvalidSpec: A prompt asks for one that is not there or does not fit.
        """
        uses = index.resolve([request])
        if uses.faults:
            raise InvalidSpec(uses.faults)
        return {
            f"embedding {name}": self._library.embeddings.get_content_hash(info)
            for name, info in uses.by_name.items()
        }

    @property
    def free_bytes(self) -> int:
        """Bytes free for computing, without those that other programs are to keep."""
        return max(0, self.device.get_memory()[1] - self._reserved_bytes)

    def evict_idle(self) -> bool:
        """Throw out all that is not lent; False if there is nothing such."""
        num_residents = len(self._cache.list_residents())
        self._cache.clear()
        self.device.empty_cache()
        return len(self._cache.list_residents()) < num_residents

    def lend_part(self, model: LoadedModel, name: str) -> AbstractContextManager[Any]:
        """Lend the text encoders, the denoiser or the autoencoder of a model."""
        return self._cache.lend(
            _part_key(model, name),
            lambda: self._load_part(model, name),
            expected_bytes=self._planner.measure_part(
                model.vae_info or model.info, name, model.plan
            ),
            name=model.info.name,
            on_evict=lambda _part: self._forget(model) if name == DENOISER else None,
            working_bytes=model.plan.get_working_bytes(name),
        )

    @contextmanager
    def _attach_loras(
        self, model: LoadedModel, requests: Sequence[GenerationRequest]
    ) -> Iterator[None]:
        """Attach each LoRA once, under its content; the first request's are on inside the block."""
        previous_adapters = model.adapters
        uses = dict.fromkeys(
            use for request in requests for use in request.with_inline_loras().loras
        )
        with ExitStack() as stack:
            adapters: dict[str, tuple[str, Any]] = {}
            for use in uses:
                info = self._library.get_lora(use.name)
                content_hash, adapter = adapters.get(use.name, ("", None))
                if not content_hash:
                    content_hash = self._library.get_content_hash(info)
                if adapter is None and not use.is_inactive:
                    adapter = stack.enter_context(self._lend_adapter(model, info, content_hash))
                adapters[use.name] = (content_hash, adapter)
            model.adapters = adapters
            stack.callback(setattr, model, "adapters", previous_adapters)
            with lora.use_adapters(model, lora.select_adapters(model, requests[0])):
                yield

    def _lend_adapter(
        self, model: LoadedModel, info: LoraInfo, content_hash: str
    ) -> AbstractContextManager[Any]:
        # The parts that it changes stay until the model is given back.
        parts = {
            DENOISER if network == model.family.denoiser else TEXT_ENCODERS
            for network in lora.hold_networks(model, info)
        }
        on = ", ".join(_part_key(model, name) for name in (TEXT_ENCODERS, DENOISER))
        key = f"lora {content_hash} on {on}"
        self._evict_twins(model, content_hash, key)
        return self._cache.lend(
            key,
            lambda: lora.attach(model, info, content_hash),
            expected_bytes=info.size_bytes,
            name=f"LoRA {info.name}",
            parent_keys=tuple(_part_key(model, name) for name in sorted(parts)),
            on_evict=lora.detach,
        )

    def _evict_twins(self, model: LoadedModel, content_hash: str, key: str) -> None:
        """Take a LoRA off where it is on parts of another form: those in common would have two."""
        for resident in self._cache.list_residents():
            is_twin = resident["key"].startswith(f"lora {content_hash} on ")
            if is_twin and model.content_hash in resident["key"] and resident["key"] != key:
                self._cache.evict(resident["key"])

    def _open_model(self, info: ModelInfo) -> LoadedModel:
        """Return what is known of a model; its parts are loaded when they are asked for."""
        content_hash = self._library.get_content_hash(info)
        model = self._models.get(content_hash)
        if model is None or model.info != info:
            model = loaded_model.open_model(info, content_hash, self.device)
            self._models[content_hash] = model
        return model

    def _forget(self, model: LoadedModel) -> None:
        """Let go the prompts and the preview of a model that nobody has at the moment."""
        if model.provider is None:
            self._models.pop(model.content_hash, None)

    def _load_part(self, model: LoadedModel, name: str) -> Any:
        start_time = time.perf_counter()
        self._planner.make_host_room(model.info, name, model.plan)
        part = model.load_part(name)
        place_networks(list_networks(part), name, model.plan, self.device)
        model.load_seconds[name] = time.perf_counter() - start_time
        seconds = sum(model.load_seconds.values())
        timings.record_timings(self._settings, model.info.name, load=seconds)
        return part

    def _describe_request(self, request: GenerationRequest, info: ModelInfo) -> str:
        resolved = self._library.inputs.resolve(request, info.native_size, 0)
        description = f"{request.model} at {resolved.width} × {resolved.height}"
        if resolved.has_hires_pass:
            description += f" and {resolved.hires_scale:g} times that"
        if request.batch_size > 1:
            description += f", {min(request.batch_size, request.num_images)} at once"
        return description

    def _get_cache_limit(self) -> int:
        """Return what the cache may take: what it takes now, and what is free for it."""
        return self._cache.used_bytes + self.device.get_memory()[1] - self._reserved_bytes

    @contextmanager
    def _translate_out_of_memory(self, description: str, name: str) -> Iterator[None]:
        """Say what to lower where torch runs out of memory inside the block.

        What was used in it stays loaded: a smaller size may do. Others that are idle make room.
        """
        with catch_out_of_memory() as memory:
            yield
        if not memory.is_full:
            return
        self._cache.clear(kept_name=name)
        self.device.empty_cache()
        raise OutOfMemory(
            f"{self.device.title} does not have enough memory for {description}. Choose a smaller "
            "size, a smaller batch size, a smaller model, a lower "
            f"--precision{self._planner.advice}."
        )


@dataclass(frozen=True)
class _Loans:
    """The parts of a model as the manager lends them for one borrow."""

    manager: PipelineManager
    model: LoadedModel
    stack: ExitStack

    def hold(self, name: str) -> Any:
        return self.stack.enter_context(self.manager.lend_part(self.model, name))

    def lend(self, name: str) -> AbstractContextManager[Any]:
        return self.manager.lend_part(self.model, name)

    def make_room(self) -> bool:
        return self.manager.evict_idle()


# What a borrow changes of a model.
_LENT_ATTRIBUTES = ("provider", "parts", "plan", "embeddings", "vae_info", "vae_hash")


def _restore_loan(model: LoadedModel, previous: Mapping[str, Any]) -> None:
    if model.vae_hash != previous["vae_hash"]:  # else it may have been fitted meanwhile
        model.preview_matrix = previous["preview_matrix"]
    for name in _LENT_ATTRIBUTES:
        setattr(model, name, previous[name])


def _part_key(model: LoadedModel, name: str) -> str:
    form = model.plan.describe_form(name)
    if name == VAE and model.vae_hash:
        name += f" {model.vae_hash}"
    key = f"{name} of {model.content_hash} {model.device.dtype_name}"
    return f"{key} {form}" if form else key
