"""Captioners, ready to be asked: loaded on the device, or an endpoint.

Knows: what a captioner's captions depend on, and what they are signed with.
Does not know: how a captioner works (git.py, blip.py, florence2.py, openai_endpoint.py), datasets.
"""

from __future__ import annotations

import hashlib
import importlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from studio.core.captions.spec import CaptionSpec
from studio.core.catalog import CAPTIONERS, ENDPOINT
from studio.engine.captioning.captioner import Captioner
from studio.engine.context import WorkerContext
from studio.engine.progress import ProgressCallback
from studio.storage.jobs import Progress


@dataclass(frozen=True)
class LoadedCaptioner:
    """A captioner, ready.

    Attributes:
        captioner: What is asked.
        label: What its captions are signed with.
        cache_key: The key of its captions in the cache: what they depend on.
        size_bytes: About what a call takes on the device.
    """

    captioner: Captioner
    label: str
    cache_key: str
    size_bytes: int


@contextmanager
def borrow_captioner(
    context: WorkerContext, spec: CaptionSpec, report: ProgressCallback
) -> Iterator[LoadedCaptioner]:
    """Lend the captioner of a spec; one of this machine is loaded if it is not yet."""
    if spec.captioner == ENDPOINT:
        module = import_captioner(ENDPOINT)
        instruction = spec.instruction or module.DEFAULT_INSTRUCTION
        yield LoadedCaptioner(
            captioner=module.Captioner(spec.address),
            label=f"{spec.model} at {spec.address}",
            cache_key=_hash_settings(
                [ENDPOINT, spec.address, spec.model, instruction, spec.tokens]
            ),
            size_bytes=0,
        )
        return
    models = context.pipelines.transformers_models
    device = context.pipelines.device
    info = models.get_captioner(spec.captioner)
    spec.check_captioner_kind(info.model_type)
    module = import_captioner(info.model_type)
    content_hash = models.get_content_hash(info)
    model_key = f"captioner {content_hash} {device.dtype_name}"
    max_tokens = spec.tokens or CAPTIONERS[info.model_type].max_tokens
    report(Progress(0, 0, "Loading the captioning model"))
    with context.pipelines.lend(
        model_key,
        lambda: module.Captioner.load(info, device),
        2 * info.size_bytes,
        f"Captioner {info.name}",
    ) as captioner:
        yield LoadedCaptioner(
            captioner=captioner,
            label=f"{info.name} ({content_hash[:12]})",
            cache_key=_hash_settings([model_key, spec.instruction, max_tokens]),
            size_bytes=info.size_bytes,
        )


def import_captioner(kind: str) -> Any:
    """Import the module that CAPTIONERS names."""
    return importlib.import_module(f"studio.engine.captioning.{CAPTIONERS[kind].module or kind}")


def _hash_settings(settings: Any) -> str:
    return hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:32]
