"""Named, typed endpoints for programs: `generate`, `sweep`, `train`, `caption`, `inspect`, `jobs`; the only public ones.

Knows: how a model becomes a function's signature. Does not know: the page.
"""

from __future__ import annotations

import inspect as reflection
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import gradio as gr
from gradio import FileData
from gradio.data_classes import FileDataDict
from gradio.events import api as endpoint_for
from pydantic import BaseModel

from studio.errors import InvalidSpec, StudioError
from studio.spec.caption import CaptionSpec
from studio.spec.request import GenerationRequest
from studio.spec.sweep import SweepSpec, plan
from studio.spec.training import TrainingConfig
from studio.spec.value import check
from studio.store import gallery
from studio.ui import show
from studio.ui.guard import Visitor, uploaded, who
from studio.ui.widgets import Desk


def publish(desk: Desk) -> None:
    """Call inside the Blocks. Everything else on the page is api_visibility="private"; these alone are listed."""

    async def generate(request: GenerationRequest, visitor: Visitor) -> tuple[list[FileDataDict], dict[str, Any]]:
        id = desk.submit(request, visitor)
        [*_, job] = [job async for job in desk.jobs.watch(id)]
        if job.state != "done":
            raise StudioError(f"The job was {job.state}: {job.error or 'somebody stopped it'}")
        made = job.result["pictures"]
        told = [{"file": Path(one["path"]).name, **{name: one[name] for name in ("seed", "digest", "seconds")}} for one in made]
        return [_file(one["path"]) for one in made], {"job": id, **job.result, "pictures": told}

    async def sweep(spec: SweepSpec, visitor: Visitor) -> tuple[list[FileDataDict], dict[str, Any]]:
        id, job_id = desk.submit_sweep(spec, visitor)
        [*_, job] = [job async for job in desk.jobs.watch(job_id)]
        if job.state != "done":
            raise StudioError(f"The job was {job.state}: {job.error or 'somebody stopped it'}")
        kept, stored = desk.sweeps.cells(id), desk.sweeps.get(id)
        cells = [(cell, kept[cell.key]) for cell in plan(stored.spec).cells] if stored else []
        told = [{"labels": list(cell.labels), "file": one.path.name if one.path else None, "seed": cell.request.seed,
                 "digest": one.digest, "seconds": one.seconds, "error": one.error} for cell, one in cells]
        paths = [*(one.path for _, one in cells if one.path), *desk.sweeps.files(id)]
        return [_file(str(path)) for path in paths], {"job": job_id, **job.result, "pictures": told}

    async def caption(spec: CaptionSpec, visitor: Visitor) -> dict[str, Any]:
        id = desk.submit_caption(spec, visitor)
        [*_, job] = [job async for job in desk.jobs.watch(id)]
        if job.state != "done":
            raise StudioError(f"The job was {job.state}: {job.error or 'somebody stopped it'}")
        return {"job": id, **job.result}

    async def train(config: TrainingConfig, visitor: Visitor) -> tuple[list[FileDataDict], dict[str, Any]]:
        run, id = desk.submit_training(config, visitor)
        [*_, job] = [job async for job in desk.jobs.watch(id)]
        if job.state != "done":
            raise StudioError(f"The job was {job.state}: {job.error or 'somebody stopped it'}")
        path = desk.settings.loras / f"{job.result['lora']}.safetensors"
        return [_file(str(path)), *(_file(str(one.path)) for one in desk.runs.samples(run))], {"job": id, **job.result}

    def inspect(file: FileData) -> dict[str, Any]:
        """Read the settings that a picture file carries.

        Args:
            file: A PNG, JPEG or WebP made here, in A1111 or in Forge.
        """
        with show.said(plain=True):
            found = gallery.recipe(*uploaded(file))
            return {"kind": "picture", "source": found.source, "request": dict(found.values), "text": found.text,
                    "notes": list(found.notes)}

    def jobs(request: gr.Request, limit: int = 20) -> list[dict[str, Any]]:
        """The latest jobs, newest first.

        Args:
            limit: How many at most, 1 to 200.
        """
        with show.said(plain=True):
            if not isinstance(limit, int) or not 1 <= limit <= 200:
                raise InvalidSpec([f"limit: has to be a whole number from 1 to 200 (not {limit!r:.60})."])
            rows = desk.jobs.history(limit, who(request).sees)
            return [{"id": job.id, "kind": job.kind, "state": job.state, "step": job.progress.step, "total": job.progress.total,
                     "error": job.error, "pictures": [Path(made["path"]).name for made in show.pictures_of(job)]} for job in rows]

    described = typed(GenerationRequest, generate, "Make pictures from a description; return them and their settings.")
    grids = typed(SweepSpec, sweep, "Make a grid of pictures; return them in the order of the axes, then sheet, viewer and index.")
    trainings = typed(TrainingConfig, train, "Train a LoRA on a dataset of the studio; return its file and the sample pictures.")
    captions = typed(CaptionSpec, caption, "Caption the pictures of a dataset; return each with its caption before and after.")
    for work, name in ((described, "generate"), (grids, "sweep"), (trainings, "train"), (captions, "caption"), (inspect, "inspect"),
                       (jobs, "jobs")):
        endpoint_for(work, api_name=name, queue=False, concurrency_limit=None)


def _file(path: str) -> FileDataDict:
    """What gradio_client downloads: the file itself. (It takes any dict with a `path` for one, and drops all else in it.)"""
    return {"path": path, "orig_name": Path(path).name, "is_stream": False, "meta": {"_type": "gradio.FileData"}}


def typed(model: type[BaseModel], work: Callable[[Any, Visitor], Awaitable[Any]], about: str) -> Callable[..., Awaitable[Any]]:
    """`work(value, visitor)` as a function of the model's fields: names, types, defaults and help come from them."""
    fields = dict(sorted(model.model_fields.items(), key=lambda field: not field[1].is_required()))

    async def endpoint(asked: gr.Request, *values: Any) -> Any:
        with show.said(plain=True):
            return await work(check(model, dict(zip(fields, values, strict=True))), who(asked))

    either = reflection.Parameter.POSITIONAL_OR_KEYWORD
    endpoint.__signature__ = reflection.Signature(  # type: ignore[attr-defined]
        [reflection.Parameter("asked", either, annotation=gr.Request),  # gradio fills this one in
         *(reflection.Parameter(name, either, annotation=field.annotation,
                                default=reflection.Parameter.empty if field.is_required() else field.get_default())
           for name, field in fields.items())],
        return_annotation=reflection.signature(work, eval_str=True).return_annotation)
    endpoint.__annotations__ = {"asked": gr.Request} | {name: field.annotation for name, field in fields.items()}
    endpoint.__name__ = work.__name__  # gradio names MCP tools after the function, not after api_name
    help = "\n".join(f"    {name}: {field.description}{_limits(model, name)}" for name, field in fields.items())
    endpoint.__doc__ = f"{about}\n\nArgs:\n{help}\n"
    return endpoint


def _limits(model: type[BaseModel], name: str) -> str:
    """A field's range in words: gradio's schema does not carry it."""
    told = model.model_json_schema()["properties"][name]
    told = {**told, **next((kind for kind in told.get("anyOf", ()) if kind.get("type") != "null"), {})}
    return f" ({told['minimum']} to {told['maximum']})" if {"minimum", "maximum"} <= set(told) else ""
