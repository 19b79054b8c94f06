"""Named, typed endpoints for programs: `generate`, `inspect`, `jobs`; the only public ones.

Knows: how a model becomes a function's signature. Does not know: the page.
"""

from __future__ import annotations

import inspect as reflection
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import gradio as gr
from gradio import FileData
from gradio.events import api as endpoint_for
from pydantic import BaseModel

from studio.errors import BadFile
from studio.spec.request import GenerationRequest
from studio.spec.value import check
from studio.store import gallery
from studio.ui import show
from studio.ui.guard import current
from studio.ui.widgets import Desk


def publish(desk: Desk) -> None:
    """Call inside the Blocks. Everything else on the page is api_visibility="private"; these alone are listed."""

    async def generate(request: GenerationRequest) -> tuple[list[FileData], dict[str, Any]]:
        id = desk.submit(request, current())
        [*_, job] = [job async for job in desk.jobs.watch(id)]
        if job.state != "done":
            raise gr.Error(f"{job.state}: {job.error or ''}", print_exception=False)
        return [_file(made["path"]) for made in job.result["pictures"]], {"job": id, **job.result}

    def inspect(file: FileData) -> dict[str, Any]:
        """Read the settings that a picture file carries.

        Args:
            file: A PNG, JPEG or WebP made here, in A1111 or in Forge.
        """
        with show.said():
            if not isinstance(file, dict) or not isinstance(file.get("path"), str):
                raise BadFile("Send a file.")
            found = gallery.recipe(Path(file["path"]), str(file.get("orig_name") or ""))
            return {"kind": "picture", "source": found.source, "request": dict(found.values), "text": found.text,
                    "notes": list(found.notes)}

    def jobs(limit: int = 20) -> list[dict[str, Any]]:
        """The latest jobs, newest first.

        Args:
            limit: How many at most, 1 to 200.
        """
        visitor = current()
        rows = desk.jobs.history(max(1, min(int(limit), 200)), visitor.sees)
        return [{"id": job.id, "kind": job.kind, "state": job.state, "step": job.progress.step, "total": job.progress.total,
                 "error": job.error, "pictures": [Path(made["path"]).name for made in show.pictures_of(job)]} for job in rows]

    described = typed(GenerationRequest, generate, "Make pictures from a description; return them and their settings.")
    for work, name in ((described, "generate"), (inspect, "inspect"), (jobs, "jobs")):
        endpoint_for(work, api_name=name, queue=False, concurrency_limit=None)


def _file(path: str) -> FileData:
    """What gradio_client downloads: the file itself, not its path."""
    return FileData(path=path, orig_name=Path(path).name, meta={"_type": "gradio.FileData"})


def typed(model: type[BaseModel], work: Callable[[Any], Awaitable[Any]], about: str) -> Callable[..., Awaitable[Any]]:
    """`work(request)` as a function of the request's fields: names, types, defaults and help come from the model."""
    fields = model.model_fields

    async def endpoint(*values: Any) -> Any:
        with show.said():
            return await work(check(model, dict(zip(fields, values, strict=True))))

    either = reflection.Parameter.POSITIONAL_OR_KEYWORD
    endpoint.__signature__ = reflection.Signature(  # type: ignore[attr-defined]
        [reflection.Parameter(name, either, default=field.get_default(), annotation=field.annotation)
         for name, field in fields.items()],
        return_annotation=reflection.signature(work, eval_str=True).return_annotation)
    endpoint.__annotations__ = {name: field.annotation for name, field in fields.items()}
    endpoint.__name__ = work.__name__  # gradio names MCP tools after the function, not after api_name
    help = "\n".join(f"    {name}: {field.description}{_limits(model, name)}" for name, field in fields.items())
    endpoint.__doc__ = f"{about}\n\nArgs:\n{help}\n"
    return endpoint


def _limits(model: type[BaseModel], name: str) -> str:
    """A field's range in words: gradio's schema does not carry it."""
    told = model.model_json_schema()["properties"][name]
    told = {**told, **next((kind for kind in told.get("anyOf", ()) if kind.get("type") != "null"), {})}
    return f" ({told['minimum']} to {told['maximum']})" if {"minimum", "maximum"} <= set(told) else ""
