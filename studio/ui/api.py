"""Named, typed endpoints for programs, the only public ones.

`generate`, `img2img`, `inpaint`, `outpaint`, `upscale`, `sweep`, `train`, `dataset`, `caption`,
`search`, `export`, `inspect`, `jobs`, `models`.

Knows: how a spec becomes a function's signature. Does not know: the page.
"""

from __future__ import annotations

import inspect as reflection
from collections.abc import Awaitable, Callable, Container, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import gradio as gr
from anyio.to_thread import run_sync
from gradio import FileData
from gradio.data_classes import FileDataDict
from gradio.events import api as endpoint_for
from pydantic import BaseModel

from studio.core.base import PLACEHOLDER_SHA256, field_schemas, former_names, validate
from studio.core.captions.clip_query import ClipQuerySpec
from studio.core.captions.lint import DatasetLintRules
from studio.core.captions.spec import CaptionSpec
from studio.core.generation.export_spec import PictureExportSpec
from studio.core.generation.recipes.report import report_recipe
from studio.core.generation.request import GenerationRequest
from studio.core.generation.rules import EXTEND_FIELDS
from studio.core.generation.upscaling import UpscaleSpec
from studio.core.sweeps.spec import SweepSpec, plan_sweep
from studio.core.training.config import TrainingConfig
from studio.errors import BadFile, InvalidSpec, StudioError, quote
from studio.services.model_catalog import CatalogFilter, report_entry
from studio.services.recipe_files import look_up_files
from studio.services.submission import Services
from studio.services.visitor import Visitor
from studio.storage import gallery
from studio.storage.datasets.summary import summarize_dataset
from studio.storage.jobs import Job
from studio.storage.picture_exports import export_image
from studio.ui.errors import report_errors
from studio.ui.events import resolve_upload, visitor_from_request, write_handed_file
from studio.ui.views.jobs import list_job_images

FilesAndReport = tuple[list[FileDataDict], dict[str, Any]]
SpecT = TypeVar("SpecT")
ResultT = TypeVar("ResultT")
Handler = Callable[[Any, Visitor], Awaitable[Any]]  # a validated spec and who asks → the answer

MAX_LISTED_JOBS = 200
MAX_LISTED_MODELS = 10_000
SEARCH_FIELDS = ("dataset", "words", "like", "limit", "clip", "pictures")
SWEEP_FIELDS = ("title", "fast", "base", "axes")  # what models take is filled in for them
FILE_FIELDS = {
    "image": "The image to start from.",
    "mask": "White where the image is repainted; must have the image's size.",
}
# Each with all that its settings need to change anything.
_EXAMPLE_REQUESTS: dict[str, dict[str, Any]] = {
    "img2img": {
        "image": PLACEHOLDER_SHA256,
        "hires_scale": 2,
        "hires_tile": 512,
    },
    "inpaint": {
        "image": PLACEHOLDER_SHA256,
        "mask": PLACEHOLDER_SHA256,
        "inpaint_area": "only masked",
    },
    "outpaint": {
        "image": PLACEHOLDER_SHA256,
        **dict.fromkeys(EXTEND_FIELDS, 8),
        "inpaint_area": "only masked",
        "extend_fill": "colour",
    },
}


def _list_active_fields(example: Mapping[str, Any]) -> frozenset[str]:
    inactive = validate(GenerationRequest, example).inactive_fields
    return frozenset(GenerationRequest.model_fields) - inactive


TASK_FIELDS = {task: _list_active_fields(example) for task, example in _EXAMPLE_REQUESTS.items()}


def publish(services: Services) -> None:
    """Add the endpoints; call it inside the Blocks.

    Everything else on the page is api_visibility="private"; these alone are listed.
    """
    endpoints = Endpoints(services)
    functions = [
        make_endpoint(
            GenerationRequest,
            endpoints.generate,
            description="Generate images from a prompt; return them and their settings.",
        ),
        _make_image_endpoint(
            endpoints,
            endpoints.img2img,
            "Repaint an image, or enlarge it (strength 0 and a hires scale).",
        ),
        _make_image_endpoint(
            endpoints,
            endpoints.inpaint,
            "Repaint the masked part of an image; everything else stays bit for bit.",
        ),
        _make_image_endpoint(endpoints, endpoints.outpaint, "Extend an image beyond its edges."),
        make_endpoint(
            UpscaleSpec,
            endpoints.upscale,
            description="Enlarge an image as it is, without repainting it.",
            file_fields={"image": "The image to enlarge."},
            receive_file=partial(endpoints.receive_image, keeps_transparency=True),
        ),
        make_endpoint(
            SweepSpec,
            endpoints.sweep,
            description="Make a grid of images; return them in the order of the axes, then "
            "sheet, viewer and index.",
            field_names=SWEEP_FIELDS,
        ),
        make_endpoint(
            TrainingConfig,
            endpoints.train,
            description="Train a LoRA on a dataset of the studio; return its file and the sample "
            "images.",
        ),
        make_endpoint(
            DatasetLintRules,
            endpoints.dataset,
            description="Check a dataset: return what is in it and what could harm a training.",
        ),
        make_endpoint(
            CaptionSpec,
            endpoints.caption,
            description="Caption the images of a dataset; return each with its caption before "
            "and after.",
        ),
        make_endpoint(
            ClipQuerySpec,
            endpoints.search,
            description="Find images of a dataset by text or by a similar image; return their "
            "scores.",
            field_names=SEARCH_FIELDS,
        ),
        make_endpoint(
            PictureExportSpec,
            endpoints.export,
            description="Return an image of the gallery as another file type, and what that "
            "leaves out.",
        ),
        endpoints.inspect,
        endpoints.jobs,
        endpoints.models,
    ]
    for function in functions:
        endpoint_for(function, api_name=function.__name__, queue=False, concurrency_limit=None)


class Endpoints:
    """What the endpoints do, each under its published name, with a validated spec."""

    def __init__(self, services: Services) -> None:
        self.services = services

    async def generate(self, request: GenerationRequest, visitor: Visitor) -> FilesAndReport:
        """Make images; return their files, and seeds and digests with the job's result."""
        request.reject_inactive()
        job_id = await self._run(visitor, self.services.submit_generation, request)
        job = await self._wait_for_job(job_id)
        images = job.result["pictures"]
        entries = [
            {
                "file": Path(image["path"]).name,
                "seed": image["seed"],
                "digest": image["digest"],
                "seconds": image["seconds"],
            }
            for image in images
        ]
        files = [_to_file_data(image["path"]) for image in images]
        return files, {**_report_result(job), "pictures": entries}

    async def img2img(self, request: GenerationRequest, visitor: Visitor) -> FilesAndReport:
        """Repaint an image."""
        return await self.generate(request, visitor)

    async def inpaint(self, request: GenerationRequest, visitor: Visitor) -> FilesAndReport:
        """Repaint the masked part of an image."""
        return await self.generate(request, visitor)

    async def outpaint(self, request: GenerationRequest, visitor: Visitor) -> FilesAndReport:
        """Extend an image. Raises InvalidSpec where no side is extended."""
        if not any(request.extension):
            raise InvalidSpec(["Extend left, top, right, bottom: add pixels on at least one side."])
        return await self.generate(request, visitor)

    async def upscale(self, spec: UpscaleSpec, visitor: Visitor) -> FilesAndReport:
        """Make an image larger; return its file, and the job's result."""
        job_id = await self._run(visitor, self.services.submit_upscale, spec)
        job = await self._wait_for_job(job_id)
        (image,) = job.result["pictures"]
        entry = {"file": Path(image["path"]).name, "digest": image["digest"]}
        return [_to_file_data(image["path"])], {**_report_result(job), "pictures": [entry]}

    async def sweep(self, spec: SweepSpec, visitor: Visitor) -> FilesAndReport:
        """Run a sweep; return the cells' images and its files, and an entry for each cell."""
        sweeps = self.services.home.sweeps
        sweep_id, job_id = await self._run(visitor, self.services.submit_sweep, spec)
        job = await self._wait_for_job(job_id)
        results = sweeps.load_cell_results(sweep_id)
        stored = sweeps.get(sweep_id)
        cells = plan_sweep(stored.spec).cells if stored else []
        paths = []
        entries = []
        for cell in cells:
            result = results[cell.key]
            path = None if result.is_binned else result.path
            if path:
                paths.append(path)
            entry = {
                "labels": list(cell.labels),
                "file": path.name if path else None,
                "seed": cell.request.seed,
                "digest": result.digest,
                "seconds": result.seconds,
                "error": result.error,
                "binned": result.is_binned,
            }
            entries.append(entry)
        paths += sweeps.list_files(sweep_id)
        files = [_to_file_data(str(path)) for path in paths]
        return files, {**_report_result(job), "pictures": entries}

    async def train(self, config: TrainingConfig, visitor: Visitor) -> FilesAndReport:
        """Train a LoRA; return its file and the samples, and the job's result."""
        home = self.services.home
        run_id, job_id = await self._run(visitor, self.services.submit_training, config)
        job = await self._wait_for_job(job_id)
        paths = [home.settings.loras / f"{job.result['lora']}.safetensors"]
        paths += [sample.path for sample in home.runs.list_samples(run_id)]
        return [_to_file_data(str(path)) for path in paths], _report_result(job)

    async def dataset(self, rules: DatasetLintRules, visitor: Visitor) -> dict[str, Any]:
        """Return what is in a dataset; guests are not told where it lies."""
        summary = await self._run(visitor, self._summarize_dataset, rules)
        if not visitor.is_guest:
            return dict(summary)
        return {name: value for name, value in summary.items() if name != "folder"}

    async def caption(self, spec: CaptionSpec, visitor: Visitor) -> dict[str, Any]:
        """Caption a dataset; return the job's result."""
        job_id = await self._run(visitor, self.services.submit_captioning, spec)
        job = await self._wait_for_job(job_id)
        return _report_result(job)

    async def search(self, spec: ClipQuerySpec, visitor: Visitor) -> dict[str, Any]:
        """Search a dataset; return the job's result."""
        job_id = await self._run(visitor, self.services.submit_clip_search, spec)
        job = await self._wait_for_job(job_id)
        return _report_result(job)

    async def export(self, spec: PictureExportSpec, visitor: Visitor) -> FilesAndReport:
        """Return a picture of the gallery as another kind of file."""
        path, notes = await self._run(visitor, self._export_image, spec)
        return [_to_file_data(str(path))], {"file": path.name, "notes": list(notes)}

    # The docstrings of these three are published, and so are their parameters' names.

    def inspect(self, request: gr.Request, file: FileData) -> dict[str, Any]:
        """Read the settings that a picture file carries.

        Args:
            file: A PNG, JPEG, WebP, AVIF or GIF of any program, or its text or JSON alone.
        """
        with report_errors(plain_text=True):
            guest_id = visitor_from_request(request).owner_filter
            max_pixels = self.services.home.inputs.max_pixels(guest_id)
            recipe = gallery.read_image_settings(*resolve_upload(file), max_pixels)
            return report_recipe(look_up_files(self.services.home.library, recipe)[0])

    def jobs(self, request: gr.Request, limit: int = 20) -> list[dict[str, Any]]:
        """List the latest jobs, newest first.

        Args:
            limit: How many at most, 1 to 200.
        """
        with report_errors(plain_text=True):
            _check_count("limit", limit, 1, MAX_LISTED_JOBS)
            owner = visitor_from_request(request).owner_filter
            return [
                {
                    "id": job.id,
                    "kind": job.kind,
                    "state": job.state,
                    "step": job.progress.step,
                    "total": job.progress.total,
                    "error": job.error,
                    "pictures": [Path(image["path"]).name for image in list_job_images(job)],
                }
                for job in self.services.home.jobs.list_recent(limit, owner)
            ]

    def models(
        self,
        request: gr.Request,
        search: str = "",
        kind: str = "",
        family: str = "",
        limit: int = 100,
    ) -> dict[str, Any]:
        """List what the library has: models, LoRAs, VAEs, embeddings, upscalers.

        Args:
            search: Words that have to occur in a name, family, base model or trigger word.
            kind: model, lora, vae, embedding, upscaler or text encoder; empty is any.
            family: sd1, sd2, sdxl, z-image; empty is any.
            limit: How many at most, 1 to 10000.
        """
        with report_errors(plain_text=True):
            _check_count("limit", limit, 1, MAX_LISTED_MODELS)
            visitor = visitor_from_request(request)
            wanted = CatalogFilter(str(search)[:200], str(kind), str(family))
            entries = wanted.select(self.services.model_catalog.list_entries(visitor))
            return {
                "total": len(entries),
                "models": [report_entry(entry, visitor) for entry in entries[:limit]],
            }

    async def receive_image(
        self, field_name: str, file: Any, visitor: Visitor, *, keeps_transparency: bool = False
    ) -> str:
        """Take in a file that was sent for `image` or `mask`; return its sha256."""
        inputs = self.services.home.library.inputs
        add_image = partial(inputs.add, keeps_transparency=keeps_transparency)
        add_file = inputs.add_mask if field_name == "mask" else add_image
        path, name = resolve_upload(file)

        def take(_request: None, visitor: Visitor) -> str:
            return add_file(path, name, visitor.owner_filter).sha256

        return await self._run(visitor, take, None)

    def _export_image(
        self, spec: PictureExportSpec, visitor: Visitor
    ) -> tuple[Path, tuple[str, ...]]:
        gallery = self.services.home.gallery
        image = gallery.find_by_digest(spec.digest, visitor.owner_filter)
        if image is None:
            raise BadFile(f"Digest: your gallery has no image with the digest {spec.digest[:12]}…")
        exported = export_image(gallery, image.path, spec)
        return write_handed_file(exported.name, exported.data), exported.notes

    def _summarize_dataset(self, rules: DatasetLintRules, visitor: Visitor) -> dict[str, Any]:
        dataset = self.services.dataset_registry.open(rules.dataset, visitor)
        return dict(summarize_dataset(dataset, rules))

    async def _run(
        self, visitor: Visitor, function: Callable[[SpecT, Visitor], ResultT], spec: SpecT
    ) -> ResultT:
        """Call what reads files and decodes images in a thread, when it is this visitor's turn."""
        async with self.services.guests.turns.take(visitor):
            return await run_sync(function, spec, visitor)

    async def _wait_for_job(self, job_id: int) -> Job:
        """Return a job when it is done. Raises StudioError if it does not come to that."""
        [*_, job] = [job async for job in self.services.home.jobs.watch(job_id)]
        if job.state != "done":
            verb = "failed" if job.state == "failed" else f"was {job.state}"
            raise StudioError(f"The job {verb}: {job.error or 'it was stopped'}")
        return job


def _check_count(name: str, value: Any, minimum: int, maximum: int) -> None:
    """Raise InvalidSpec unless a program sent a whole number in a range."""
    if not isinstance(value, int) or not minimum <= value <= maximum:
        raise InvalidSpec(
            [
                f"{name}: must be a whole number from {minimum} to {maximum} (you entered "
                f"{quote(value)})."
            ]
        )


def _report_result(job: Job) -> dict[str, Any]:
    return {"job": job.id, **job.result}


def _to_file_data(path: str) -> FileDataDict:
    """Return what gradio_client downloads: the file itself.

    It takes any dict with a `path` for a file, and drops all else in it.
    """
    return {
        "path": path,
        "orig_name": Path(path).name,
        "is_stream": False,
        "meta": {"_type": "gradio.FileData"},
    }


@dataclass(frozen=True)
class _Parameter:
    """One parameter of an endpoint, as it is published."""

    name: str
    annotation: Any
    help: str
    default: Any = reflection.Parameter.empty

    @property
    def is_required(self) -> bool:
        return self.default is reflection.Parameter.empty

    def to_signature_parameter(self) -> reflection.Parameter:
        return reflection.Parameter(
            self.name,
            reflection.Parameter.POSITIONAL_OR_KEYWORD,
            annotation=self.annotation,
            default=self.default,
        )


def _make_image_endpoint(
    endpoints: Endpoints, handler: Handler, description: str
) -> Callable[..., Awaitable[Any]]:
    """Return an endpoint to which an image is sent, with the settings that its task uses."""
    field_names = TASK_FIELDS[handler.__name__]
    return make_endpoint(
        GenerationRequest,
        handler,
        description=description,
        file_fields={name: text for name, text in FILE_FIELDS.items() if name in field_names},
        receive_file=endpoints.receive_image,
        field_names=field_names,
    )


def make_endpoint(
    spec_class: type[BaseModel],
    handler: Handler,
    *,
    description: str,
    file_fields: Mapping[str, str] | None = None,
    receive_file: Callable[[str, Any, Visitor], Awaitable[Any]] | None = None,
    field_names: Container[str] | None = None,
) -> Callable[..., Awaitable[Any]]:
    """Return a handler as a function of a spec's fields: names, types, defaults and help.

    Args:
        spec_class: What the arguments are validated as.
        handler: Does the work; the endpoint gets its name.
        description: The first line of the published help.
        file_fields: Fields that are sent as files, each with its help.
        receive_file: (field, file, visitor) → the field's value.
        field_names: The only fields that are offered; None is all.
    """
    file_fields = file_fields or {}
    parameters = _list_parameters(spec_class, file_fields, field_names)
    names = [parameter.name for parameter in parameters]
    former = former_names(spec_class)

    async def endpoint(request: gr.Request, *values: Any) -> Any:
        with report_errors(plain_text=True):
            arguments = dict(zip(names, values, strict=False))  # the last may be missing
            for old_name, name in former.items():
                value = arguments.pop(old_name, None)
                if value is not None:
                    arguments[name] = value
            if file_fields:  # settings are judged before a file is taken in
                validate(spec_class, arguments | dict.fromkeys(file_fields, PLACEHOLDER_SHA256))
            visitor = visitor_from_request(request)
            for name in file_fields:
                if receive_file:
                    arguments[name] = await receive_file(name, arguments[name], visitor)
            return await handler(validate(spec_class, arguments), visitor)

    # gradio fills in the request, and names MCP tools after the function, not after api_name.
    request = _Parameter("request", gr.Request, "")
    endpoint.__signature__ = reflection.Signature(  # type: ignore[attr-defined]
        [parameter.to_signature_parameter() for parameter in (request, *parameters)],
        return_annotation=reflection.signature(handler, eval_str=True).return_annotation,
    )
    endpoint.__annotations__ = {
        parameter.name: parameter.annotation for parameter in (request, *parameters)
    }
    endpoint.__name__ = handler.__name__
    lines = [f"    {parameter.name}: {parameter.help}\n" for parameter in parameters]
    endpoint.__doc__ = f"{description}\n\nArgs:\n" + "".join(lines)
    return endpoint


def _list_parameters(
    spec_class: type[BaseModel],
    file_fields: Mapping[str, str],
    field_names: Container[str] | None,
) -> list[_Parameter]:
    """Return an endpoint's parameters: the required ones, the optional ones, former names."""
    parameters = []
    for name, field in spec_class.model_fields.items():
        if name in file_fields:
            parameters.append(_Parameter(name, FileData, file_fields[name]))
        elif field_names is None or name in field_names:
            text = f"{field.description}{_format_range(spec_class, name)}"
            default = _Parameter.default if field.is_required() else field.get_default()
            parameters.append(_Parameter(name, field.annotation, text, default))
    parameters.sort(key=lambda parameter: not parameter.is_required)
    annotations = {parameter.name: parameter.annotation for parameter in parameters}
    for old_name, name in former_names(spec_class).items():
        if name in annotations:
            text = f"The former name of {name}."
            parameters.append(_Parameter(old_name, annotations[name] | None, text, None))
    return parameters


def _format_range(spec_class: type[BaseModel], field_name: str) -> str:
    """Return a field's range in words: gradio's schema does not carry it."""
    schema = field_schemas(spec_class)[field_name]
    for variant in schema.get("anyOf", ()):
        if variant.get("type") != "null":
            schema = {**schema, **variant}
            break
    if "minimum" not in schema or "maximum" not in schema:
        return ""
    return f" ({schema['minimum']} to {schema['maximum']})"
