"""Named, typed endpoints for programs, the only public ones: `generate`, `img2img`, `inpaint`, `outpaint`, `sweep`, `train`,
`dataset`, `caption`, `search`, `inspect`, `jobs`.

Knows: how a model becomes a function's signature. Does not know: the page.
"""

from __future__ import annotations

import asyncio
import inspect as reflection
from collections.abc import Awaitable, Callable, Container, Mapping
from pathlib import Path
from typing import Any

import gradio as gr
from gradio import FileData
from gradio.data_classes import FileDataDict
from gradio.events import api as endpoint_for
from pydantic import BaseModel

from studio.core.base import check, schema
from studio.core.captions.clip_query import SeeSpec
from studio.core.captions.lint import DatasetRules
from studio.core.captions.spec import CaptionSpec
from studio.core.generation.request import GenerationRequest
from studio.core.generation.rules import SIDES
from studio.core.sweeps.spec import SweepSpec, plan
from studio.core.training.config import TrainingConfig
from studio.errors import InvalidSpec, StudioError
from studio.storage import gallery
from studio.storage.datasets.summary import summary
from studio.storage.jobs import Job
from studio.ui import show
from studio.ui.guard import Visitor, uploaded, who
from studio.ui.widgets import Desk


def publish(desk: Desk) -> None:
    """Call inside the Blocks. Everything else on the page is api_visibility="private"; these alone are listed."""

    async def generate(
        request: GenerationRequest, visitor: Visitor
    ) -> tuple[list[FileDataDict], dict[str, Any]]:
        request.check_used()
        id = desk.submit(request, visitor)
        job = await _done(desk, id)
        made = job.result["pictures"]
        told = [
            {
                "file": Path(one["path"]).name,
                **{name: one[name] for name in ("seed", "digest", "seconds")},
            }
            for one in made
        ]
        return [_file(one["path"]) for one in made], {"job": id, **job.result, "pictures": told}

    async def sweep(spec: SweepSpec, visitor: Visitor) -> tuple[list[FileDataDict], dict[str, Any]]:
        id, job_id = desk.submit_sweep(spec, visitor)
        job = await _done(desk, job_id)
        kept, stored = desk.sweeps.cells(id), desk.sweeps.get(id)
        cells = [(cell, kept[cell.key]) for cell in plan(stored.spec).cells] if stored else []
        told = [
            {
                "labels": list(cell.labels),
                "file": one.path.name if one.path else None,
                "seed": cell.request.seed,
                "digest": one.digest,
                "seconds": one.seconds,
                "error": one.error,
            }
            for cell, one in cells
        ]
        paths = [*(one.path for _, one in cells if one.path), *desk.sweeps.files(id)]
        return [_file(str(path)) for path in paths], {"job": job_id, **job.result, "pictures": told}

    async def caption(spec: CaptionSpec, visitor: Visitor) -> dict[str, Any]:
        id = desk.submit_caption(spec, visitor)
        job = await _done(desk, id)
        return {"job": id, **job.result}

    async def dataset(asked: DatasetRules, visitor: Visitor) -> dict[str, Any]:
        album = desk.shelf.open(asked.dataset, visitor)
        told = await asyncio.to_thread(summary, album, asked)  # it may decode thousands of pictures
        return {
            name: value for name, value in told.items() if name != "folder" or not visitor.guest
        }

    async def search(spec: SeeSpec, visitor: Visitor) -> dict[str, Any]:
        id = desk.submit_see(spec, visitor)
        job = await _done(desk, id)
        return {"job": id, **job.result}

    async def train(
        config: TrainingConfig, visitor: Visitor
    ) -> tuple[list[FileDataDict], dict[str, Any]]:
        run, id = desk.submit_training(config, visitor)
        job = await _done(desk, id)
        path = desk.settings.loras / f"{job.result['lora']}.safetensors"
        return [_file(str(path)), *(_file(str(one.path)) for one in desk.runs.samples(run))], {
            "job": id,
            **job.result,
        }

    def inspect(file: FileData) -> dict[str, Any]:
        """Read the settings that a picture file carries.

        Args:
            file: A PNG, JPEG or WebP made here, in A1111 or in Forge.
        """
        with show.said(plain=True):
            found = gallery.recipe(*uploaded(file))
            return {
                "kind": "picture",
                "source": found.source,
                "request": dict(found.values),
                "text": found.text,
                "notes": list(found.notes),
            }

    def jobs(request: gr.Request, limit: int = 20) -> list[dict[str, Any]]:
        """The latest jobs, newest first.

        Args:
            limit: How many at most, 1 to 200.
        """
        with show.said(plain=True):
            if not isinstance(limit, int) or not 1 <= limit <= 200:
                raise InvalidSpec(
                    [f"limit: has to be a whole number from 1 to 200 (not {limit!r:.60})."]
                )
            rows = desk.jobs.history(limit, who(request).sees)
            return [
                {
                    "id": job.id,
                    "kind": job.kind,
                    "state": job.state,
                    "step": job.progress.step,
                    "total": job.progress.total,
                    "error": job.error,
                    "pictures": [Path(made["path"]).name for made in show.pictures_of(job)],
                }
                for job in rows
            ]

    described = typed(
        GenerationRequest,
        generate,
        "Make pictures from a description; return them and their settings.",
    )
    grids = typed(
        SweepSpec,
        sweep,
        "Make a grid of pictures; return them in the order of the axes, then sheet, viewer and index.",
    )
    trainings = typed(
        TrainingConfig,
        train,
        "Train a LoRA on a dataset of the studio; return its file and the sample pictures.",
    )
    captions = typed(
        CaptionSpec,
        caption,
        "Caption the pictures of a dataset; return each with its caption before and after.",
    )
    sets = typed(DatasetRules, dataset, "Say what is in a dataset and what could spoil a training.")
    searches = typed(
        SeeSpec,
        search,
        "Find pictures of a dataset that are like words, or like a picture; return their scores.",
        only=("dataset", "words", "like", "limit", "clip", "pictures"),
    )
    for work, name in (
        (described, "generate"),
        *_on_pictures(desk, generate),
        (grids, "sweep"),
        (trainings, "train"),
        (sets, "dataset"),
        (captions, "caption"),
        (searches, "search"),
        (inspect, "inspect"),
        (jobs, "jobs"),
    ):
        endpoint_for(work, api_name=name, queue=False, concurrency_limit=None)


async def _done(desk: Desk, id: int) -> Job:
    """The job when it is done. Raises StudioError if it does not come to that."""
    [*_, job] = [job async for job in desk.jobs.watch(id)]
    if job.state != "done":
        raise StudioError(f"The job was {job.state}: {job.error or 'somebody stopped it'}")
    return job


Made = tuple[list[FileDataDict], dict[str, Any]]


def _on_pictures(
    desk: Desk, generate: Callable[[GenerationRequest, Visitor], Awaitable[Made]]
) -> list[tuple[Callable[..., Awaitable[Any]], str]]:
    """The endpoints to which a picture is sent, each with its name."""

    async def img2img(request: GenerationRequest, visitor: Visitor) -> Made:
        return await generate(request, visitor)

    async def inpaint(request: GenerationRequest, visitor: Visitor) -> Made:
        return await generate(request, visitor)

    async def outpaint(request: GenerationRequest, visitor: Visitor) -> Made:
        if not any(request.extension):
            raise InvalidSpec(
                ["Extend left, top, right, bottom: say how many pixels to add, and where."]
            )
        return await generate(request, visitor)

    def taken(name: str, file: Any, visitor: Visitor) -> str:
        inputs = desk.library.inputs
        return (inputs.add_mask if name == "mask" else inputs.add)(
            *uploaded(file), visitor.sees
        ).sha256

    works = (
        (img2img, "Repaint a picture, or enlarge it (strength 0 and a hires scale)."),
        (inpaint, "Repaint what is masked of a picture; all else stays bit for bit."),
        (outpaint, "Paint on beyond a picture's edges."),
    )
    return [
        (
            typed(
                GenerationRequest,
                work,
                about,
                {name: FILES[name] for name in FILES if name in FOR[work.__name__]},
                taken,
                FOR[work.__name__],
            ),
            work.__name__,
        )
        for work, about in works
    ]


def _file(path: str) -> FileDataDict:
    """What gradio_client downloads: the file itself. (It takes any dict with a `path` for one, and drops all else in it.)"""
    return {
        "path": path,
        "orig_name": Path(path).name,
        "is_stream": False,
        "meta": {"_type": "gradio.FileData"},
    }


FILES = {
    "image": "The picture to work on.",
    "mask": "White where the picture is repainted; as large as the picture.",
}
_ANY = "0" * 64
_WHOLE: dict[str, dict[str, Any]] = {
    "img2img": {
        "image": _ANY,
        "hires_scale": 2,
        "hires_tile": 512,
    },  # each with all that its settings need
    "inpaint": {"image": _ANY, "mask": _ANY, "inpaint_area": "only masked"},
    "outpaint": {
        "image": _ANY,
        **dict.fromkeys(SIDES, 8),
        "inpaint_area": "only masked",
        "extend_fill": "colour",
    },
}
FOR = {
    task: frozenset(GenerationRequest.model_fields) - check(GenerationRequest, whole).idle
    for task, whole in _WHOLE.items()
}


def typed(
    model: type[BaseModel],
    work: Callable[[Any, Visitor], Awaitable[Any]],
    about: str,
    files: Mapping[str, str] | None = None,
    taken: Callable[[str, Any, Visitor], Any] = lambda name, file, visitor: file,
    only: Container[str] | None = None,
) -> Callable[..., Awaitable[Any]]:
    """`work(value, visitor)` as a function of the model's fields: names, types, defaults and help come from them.

    Those in `files` (with their help) are sent as files, and `taken(name, file, visitor)` is their value; `only` names the fields
    that there are.
    """
    files = files or {}
    every = {
        name: field
        for name, field in model.model_fields.items()
        if name in files or only is None or name in only
    }
    fields = dict(
        sorted(every.items(), key=lambda field: not (field[1].is_required() or field[0] in files))
    )
    kinds = {
        name: FileData if name in files else field.annotation for name, field in fields.items()
    }

    async def endpoint(asked: gr.Request, *values: Any) -> Any:
        with show.said(plain=True):
            given = dict(zip(fields, values, strict=True))
            if files:  # settings are judged before a file is taken in
                check(model, given | dict.fromkeys(files, _ANY))
            visitor = who(asked)
            given |= {name: taken(name, given[name], visitor) for name in files}
            return await work(check(model, given), visitor)

    either = reflection.Parameter.POSITIONAL_OR_KEYWORD
    endpoint.__signature__ = reflection.Signature(  # type: ignore[attr-defined]
        [
            reflection.Parameter(
                "asked", either, annotation=gr.Request
            ),  # gradio fills this one in
            *(
                reflection.Parameter(
                    name,
                    either,
                    annotation=kinds[name],
                    default=reflection.Parameter.empty
                    if field.is_required() or name in files
                    else field.get_default(),
                )
                for name, field in fields.items()
            ),
        ],
        return_annotation=reflection.signature(work, eval_str=True).return_annotation,
    )
    endpoint.__annotations__ = {"asked": gr.Request} | kinds
    endpoint.__name__ = (
        work.__name__
    )  # gradio names MCP tools after the function, not after api_name
    told = {
        name: files.get(name) or f"{field.description}{_limits(model, name)}"
        for name, field in fields.items()
    }
    endpoint.__doc__ = f"{about}\n\nArgs:\n" + "".join(
        f"    {name}: {text}\n" for name, text in told.items()
    )
    return endpoint


def _limits(model: type[BaseModel], name: str) -> str:
    """A field's range in words: gradio's schema does not carry it."""
    told = schema(model)[name]
    told = {
        **told,
        **next((kind for kind in told.get("anyOf", ()) if kind.get("type") != "null"), {}),
    }
    return (
        f" ({told['minimum']} to {told['maximum']})" if {"minimum", "maximum"} <= set(told) else ""
    )
