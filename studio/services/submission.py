"""The rules of submission, shared by page, API and command line.

Knows: who may ask for what, guests' limits, what has to be true before a job is worth queueing, the
spec of each kind of job. Does not know: gradio, HTTP, how a job is done.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from studio.core import jobs as kinds
from studio.core.base import guest_limit_faults
from studio.core.captions.clip_query import ClipQuerySpec
from studio.core.captions.spec import CaptionSpec
from studio.core.downloads.plan import DownloadSpec
from studio.core.families.registry import FAMILIES
from studio.core.generation.request import SEED_LIMIT, GenerationRequest
from studio.core.generation.templates.prompt_files import PromptFiles, WildcardsAlone
from studio.core.generation.upscaling import UpscaleSpec
from studio.core.jobs import JobKind
from studio.core.sweeps.model_rules import apply_recommended_settings, find_unsuitable_cells
from studio.core.sweeps.spec import ModelTimings, SweepPlan, SweepSpec, plan_sweep
from studio.core.training.config import TrainingConfig
from studio.core.training.rules import check_family
from studio.errors import BadFile, Busy, DatasetError, InvalidSpec, StudioError, quote
from studio.services.budgets import Budgets, Guests
from studio.services.datasets import DatasetRegistry
from studio.services.downloads import require_known_site
from studio.services.model_catalog import ModelCatalog
from studio.services.visitor import Visitor
from studio.storage import timings
from studio.storage.datasets.caption_files import display_name
from studio.storage.datasets.training_set import TrainingSet
from studio.storage.home import Home
from studio.storage.jobs import Job
from studio.storage.models.library import ModelInfo
from studio.storage.models.model_options import ModelOptions
from studio.storage.models.prompt_tokens import PromptTokens
from studio.storage.training.runs import Run

MAX_GUEST_NATIVE_SIZE_PX = 1024
FALLBACK_NATIVE_SIZE_PX = 512  # of settings from elsewhere that do not say their size


@dataclass(frozen=True)
class PreparedJob:
    """A job that may be queued: it is checked, and its sweep or run is stored.

    `subject_id` is the id of that sweep or run.
    """

    kind: JobKind
    spec: dict[str, Any]
    subject_id: str = ""


class Services:
    """The home as people use it. One for the process; any thread may call."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self.dataset_registry = DatasetRegistry(home.datasets)
        self.model_catalog = ModelCatalog(home)
        self.guests = Guests(Budgets.from_settings(home.settings))
        self.prompt_tokens = PromptTokens(home.library)

    # ---- images ----------------------------------------------------------------------------------

    def prepare_generation(self, request: GenerationRequest, visitor: Visitor) -> PreparedJob:
        """Check a request for images.

        Args:
            request: What is asked for, not yet resolved.
            visitor: Who asks.

        Raises:
            InvalidSpec: This visitor may not ask for that, or the model cannot do it.
            BadPicture: It names an image that this visitor never brought.
            StudioError: What `Library.check_request` raises.
        """
        self._admit(kinds.GENERATE, visitor)
        return PreparedJob(
            kinds.GENERATE, self.check_generation(request, visitor).model_dump(mode="json")
        )

    def check_generation(self, request: GenerationRequest, visitor: Visitor) -> GenerationRequest:
        """Check a request as `prepare_generation` does; whether more may wait is left open.

        Returns:
            The request as it is to be queued.

        Raises what `prepare_generation` raises.
        """
        model, request = self._check_request(request, visitor)
        size = model.native_size
        if visitor.is_guest and request.width is None and size > MAX_GUEST_NATIVE_SIZE_PX:
            raise InvalidSpec(
                [
                    f"Width: {model.name} is made for {size} px; guests may ask for at most "
                    f"{MAX_GUEST_NATIVE_SIZE_PX}."
                ]
            )
        return request

    def submit_generation(
        self, request: GenerationRequest, visitor: Visitor, key: str | None = None
    ) -> int:
        """Queue a request for images; return the job's id. The same key twice is the same job.

        Raises what `prepare_generation` raises.
        """
        return self._queue(self.prepare_generation(request, visitor), visitor, key)

    def prepare_denoise_strip(
        self, request: GenerationRequest, step_interval: int, visitor: Visitor
    ) -> PreparedJob:
        """Check a request for the denoise strip of an image, with every `step_interval`-th step.

        Raises what `prepare_generation` raises.
        """
        self._admit(kinds.DENOISE_STRIP, visitor)
        _, request = self._check_request(request, visitor)
        spec = {"request": request.model_dump(mode="json"), "every": step_interval}
        return PreparedJob(kinds.DENOISE_STRIP, spec)

    def submit_denoise_strip(
        self, request: GenerationRequest, step_interval: int, visitor: Visitor
    ) -> int:
        """Queue the denoise strip of an image; return the job's id.

        Raises what `prepare_generation` raises.
        """
        return self._queue(self.prepare_denoise_strip(request, step_interval, visitor), visitor)

    def prepare_upscale(
        self, spec: UpscaleSpec, visitor: Visitor, settings: GenerationRequest | None = None
    ) -> PreparedJob:
        """Check what an image is to be made larger with.

        Args:
            spec: What is asked for; an upscaler is chosen where none is named.
            visitor: Who asks.
            settings: What the image was made with, if that is known: it stays with the result.

        Raises:
            InvalidSpec: It would be too large, or this visitor may not ask for that.
            BadPicture: It names an image that this visitor never brought.
            ModelNotFound: There is no such upscaler.
            BadFile: The upscaler cannot be used.
        """
        inputs = self.home.inputs
        inputs.get_path(spec.image, visitor.owner_filter)
        if visitor.is_guest and (faults := guest_limit_faults(spec)):
            raise InvalidSpec(faults)
        self._admit(kinds.UPSCALE, visitor)
        size = inputs.read_size(spec.image)
        spec.compute_size(size, visitor.is_guest)
        upscalers = self.home.library.upscalers
        upscaler = upscalers.get(
            spec.upscaler or upscalers.choose_default(settings, spec.compute_scale(size))
        )
        resolved = settings.resolve(FALLBACK_NATIVE_SIZE_PX, 0) if settings else None
        job_spec = spec.model_copy(update={"upscaler": upscaler.name}).model_dump(mode="json")
        job_spec["request"] = resolved.model_dump(mode="json") if resolved else None
        return PreparedJob(kinds.UPSCALE, job_spec)

    def submit_upscale(
        self, spec: UpscaleSpec, visitor: Visitor, settings: GenerationRequest | None = None
    ) -> int:
        """Queue a plain upscale; return the job's id. Raises what `prepare_upscale` raises."""
        return self._queue(self.prepare_upscale(spec, visitor, settings), visitor)

    # ---- sweeps ----------------------------------------------------------------------------------

    def prepare_sweep(
        self, spec: SweepSpec, visitor: Visitor, sweep_id: str = "", remake: Sequence[str] = ()
    ) -> PreparedJob:
        """Check a sweep and store it, or the new spec of one of this visitor's.

        Cells whose images are in the bin are left out, but for those whose keys are in `remake`.

        Raises:
            InvalidSpec: All that is wrong in any cell.
            NotAllowed: The sweep is somebody else's.
            StudioError: What `prepare_generation` raises.
        """
        visitor.require_inputs(self.home.inputs, spec)
        if visitor.is_guest:
            spec.validate_for_guest()
        self._admit(kinds.SWEEP, visitor)
        spec = self.apply_recommended_settings(spec)
        plan = plan_sweep(
            spec, seed=secrets.randbelow(SEED_LIMIT), files=self.get_prompt_files(visitor)
        )
        if visitor.is_guest:
            plan.validate_for_guest()
        self.check_plan(plan)
        stored = self.home.sweeps.get(sweep_id) if sweep_id else None
        if stored and stored.owner != visitor.id:
            visitor.require_owner("Changing other people's sweeps")
        sweep_id = self.home.sweeps.save(plan.spec, visitor.id, sweep_id)
        job_spec = {
            "sweep": sweep_id,
            "title": spec.title or " × ".join(axis.title for axis in spec.axes),
            "cells": len(plan.cells),
            "guest": visitor.is_guest,
        }
        if remake:
            job_spec["remake"] = list(remake)
        return PreparedJob(kinds.SWEEP, job_spec, sweep_id)

    def check_plan(self, plan: SweepPlan) -> None:
        """Check that every cell of a sweep can be made, before the first one is.

        Each model, LoRA and image is read once, however many cells name it.

        Raises:
            InvalidSpec: All cells whose settings their model's family cannot do.
            StudioError: What `Library.check_files` raises.
        """
        families = {}
        for request in plan.distinct_requests:
            model = self.home.library.check_files(request)
            families[request.model] = FAMILIES[model.family]
        faults = find_unsuitable_cells(plan, families)
        if faults:
            raise InvalidSpec(faults)

    def apply_recommended_settings(self, spec: SweepSpec) -> SweepSpec:
        """Return a sweep that has its models' own settings where it leaves them open."""
        models = {model.name: model for model in self.home.library.list_models()}
        recommended = {
            name: models[name].recommended_settings for name in spec.models if name in models
        }
        return apply_recommended_settings(spec, recommended)

    def submit_sweep(
        self, spec: SweepSpec, visitor: Visitor, sweep_id: str = "", remake: Sequence[str] = ()
    ) -> tuple[str, int]:
        """Store a sweep and queue it; return its id and the job's.

        Arguments as for `prepare_sweep`, which also says what is raised.
        """
        job = self.prepare_sweep(spec, visitor, sweep_id, remake)
        return job.subject_id, self._queue(job, visitor)

    def submit_sweep_export(self, spec: dict[str, Any], visitor: Visitor) -> int:
        """Queue the export of a sweep that this visitor may see; return the job's id."""
        self._admit(kinds.SWEEP_EXPORT, visitor)
        return self._queue(PreparedJob(kinds.SWEEP_EXPORT, spec), visitor)

    # ---- trainings -------------------------------------------------------------------------------

    def open_training_set(self, name: str, visitor: Visitor) -> TrainingSet:
        """Load a dataset to train on.

        Raises DatasetError; guests are shown only what came with the studio, for the rest is
        private.
        """
        if visitor.is_guest and name not in self.list_datasets(visitor):
            raise DatasetError(
                f"There is no dataset {quote(name)} that guests may train on; available: "
                f"{', '.join(self.list_datasets(visitor)) or 'none'}."
            )
        return self.home.training_sets.load_training_set(name)

    def list_datasets(self, visitor: Visitor) -> list[str]:
        """Return the names of what a visitor may train on."""
        return self.dataset_registry.list_names(visitor)

    def check_training(self, config: TrainingConfig, visitor: Visitor) -> TrainingSet:
        """Return the images of a training that can begin.

        Raises InvalidSpec, and what `Library.get_model` and `open_training_set` raise.
        """
        if visitor.is_guest:
            config.check_guest()
        model = self.home.library.get_model(config.model)
        check_family(config, model.family, model.is_inpainting)
        samples = [GenerationRequest(prompt=prompt) for prompt in config.sample_prompt_list]
        faults = self.home.library.index_embeddings(model).resolve(samples).faults
        if faults:
            title = TrainingConfig.model_fields["sample_prompts"].title
            raise InvalidSpec([fault.replace("Prompt", str(title), 1) for fault in faults])
        return self.open_training_set(config.dataset, visitor)

    def prepare_training(
        self,
        config: TrainingConfig | None,
        visitor: Visitor,
        run_id: str = "",
        *,
        restart: bool = False,
    ) -> PreparedJob:
        """Check a training and store it, or take up a run of this visitor.

        Args:
            config: The settings of a new run.
            visitor: Who asks.
            run_id: A stored run's, whose settings are then taken.
            restart: Whether that run begins anew.

        Raises:
            Busy: The run is open already.
            StudioError: What `check_training` raises.
        """
        self._admit(kinds.TRAIN, visitor)
        if run_id:
            config = self._get_run(run_id, visitor).config
            self._require_closed_run(run_id)
        assert config
        self.check_training(config, visitor)
        run_id = run_id or self.home.runs.add(config, visitor.id)
        spec = {
            "run": run_id,
            "resume": not restart,
            "name": config.name,
            "steps": config.steps,
            "epochs": config.epochs,
        }
        return PreparedJob(kinds.TRAIN, spec, run_id)

    def submit_training(
        self,
        config: TrainingConfig | None,
        visitor: Visitor,
        run_id: str = "",
        *,
        restart: bool = False,
    ) -> tuple[str, int]:
        """Store a training and queue it; return the run's id and the job's.

        Raises what `prepare_training` raises.
        """
        job = self.prepare_training(config, visitor, run_id, restart=restart)
        return job.subject_id, self._queue(job, visitor)

    def submit_training_dry_run(self, config: TrainingConfig, visitor: Visitor) -> int:
        """Queue a dry run, which measures what a training will take; return the job's id."""
        self.check_training(config, visitor)
        self._admit(kinds.TRAINING_DRY_RUN, visitor)
        spec = {"config": config.model_dump(mode="json")}
        return self._queue(PreparedJob(kinds.TRAINING_DRY_RUN, spec), visitor)

    def submit_training_evaluation(self, run_id: str, visitor: Visitor) -> int:
        """Queue the evaluation of a run that this visitor may see; return the job's id."""
        run = self._get_run(run_id, visitor)
        self._admit(kinds.TRAINING_EVALUATION, visitor)
        spec = {"run": run_id, "name": run.config.name, "guest": visitor.is_guest}
        return self._queue(PreparedJob(kinds.TRAINING_EVALUATION, spec), visitor)

    def submit_checkpoint_export(self, run_id: str, step: int, visitor: Visitor) -> int:
        """Queue the export of a checkpoint of a run that is visible here; return the job's id."""
        run = self._get_run(run_id, visitor)
        self._admit(kinds.EXPORT_CHECKPOINT, visitor)
        spec = {"run": run_id, "step": step, "name": run.config.name}
        return self._queue(PreparedJob(kinds.EXPORT_CHECKPOINT, spec), visitor)

    # ---- datasets and models ---------------------------------------------------------------------

    def prepare_captioning(
        self, spec: CaptionSpec, visitor: Visitor, folder: Path | None = None
    ) -> PreparedJob:
        """Check the captioning of a dataset, or of a folder elsewhere on this machine.

        Raises DatasetError, and NotAllowed for guests.
        """
        self._admit(kinds.CAPTION, visitor)
        if folder is None:
            self.home.training_sets.find_folder(spec.dataset)  # says which there are
            return PreparedJob(kinds.CAPTION, spec.model_dump(mode="json"))
        if not folder.is_dir():
            raise DatasetError(
                f"There is no folder {display_name(str(folder))}; choose one with images in it."
            )
        job_spec = spec.model_dump(mode="json") | {"folder": str(folder.resolve())}
        return PreparedJob(kinds.CAPTION, job_spec)

    def submit_captioning(self, spec: CaptionSpec, visitor: Visitor) -> int:
        """Queue the captioning of a dataset; return the job's id.

        Raises what `prepare_captioning` raises.
        """
        return self._queue(self.prepare_captioning(spec, visitor), visitor)

    def submit_clip_search(self, spec: ClipQuerySpec, visitor: Visitor) -> int:
        """Queue a question about a dataset; return the job's id.

        Raises DatasetError, and NotAllowed for guests.
        """
        self._admit(kinds.CLIP_SEARCH, visitor)
        self.home.training_sets.find_folder(spec.dataset)
        return self._queue(PreparedJob(kinds.CLIP_SEARCH, spec.model_dump(mode="json")), visitor)

    def submit_unload(self, model: str, visitor: Visitor) -> int:
        """Queue the unloading of a model; return the job's id.

        Raises ModelNotFound, and NotAllowed for guests.
        """
        self._admit(kinds.UNLOAD, visitor)
        spec = {"models": [self.home.library.get_model(model).name]}
        return self._queue(PreparedJob(kinds.UNLOAD, spec), visitor)

    def submit_pickle_reading(self, visitor: Visitor) -> int | None:
        """Queue the reading of pickles that were not read yet, if the owner looks.

        Returns:
            The job's id; None where there is nothing to read, it is queued already, or a guest
            looks.
        """
        if visitor.is_guest or not self.home.library.list_unread_pickles():
            return None
        if self.home.jobs.list_open(kind=kinds.READ_PICKLES.name):
            return None
        return self._queue(PreparedJob(kinds.READ_PICKLES, {}), visitor)

    def submit_download(self, spec: DownloadSpec, visitor: Visitor) -> int:
        """Queue a download; return the job's id. The same one that runs or waits is that one.

        Raises:
            NotAllowed: A guest asks.
            BadFile: It is no link.
            DownloadError: It leads to a site that nobody has said is meant.
        """
        self._admit(kinds.DOWNLOAD, visitor)
        require_known_site(spec)
        job_spec = spec.model_dump(mode="json")
        for job in self.home.jobs.list_open(kind=kinds.DOWNLOAD.name):
            if job.spec == job_spec:
                return job.id
        return self._queue(PreparedJob(kinds.DOWNLOAD, job_spec), visitor)

    def move_file(self, file: str, visitor: Visitor) -> Path:
        """Move a file of weights to the folder of the home where it belongs; return its new path.

        Raises NotAllowed for guests, and what `Library.move_file` raises.
        """
        visitor.require_owner("Moving files")
        return self.home.library.move_file(file)

    def save_model_options(self, name: str, options: ModelOptions, visitor: Visitor) -> ModelInfo:
        """Keep what the owner decides about a model; return the model as it is then.

        Raises NotAllowed for guests, and what `Library.save_options` raises.
        """
        visitor.require_owner("Changing model settings")
        return self.home.library.save_options(name, options)

    def load_current_timings(self, models: Iterable[str], batched: bool) -> dict[str, ModelTimings]:
        """Return what was measured with these models; one that is in memory loads in no time."""
        loaded = {
            model["name"]
            for status in self.home.jobs.get_worker_status().values()
            for model in status.get("loaded", ())
        }
        measured = timings.load_timings(
            self.home.settings, self.home.gallery, self.home.library, models, batched
        )
        for name in loaded & measured.keys():
            measured[name] = measured[name].model_copy(update={"load": 0.0})
        return measured

    # ---- any job ---------------------------------------------------------------------------------

    def retry_job(self, job: Job, visitor: Visitor) -> int | None:
        """Queue an ended job again, under the same rules as a new one.

        Returns:
            The new job's id; None for a job that has not ended.

        Raises:
            NotAllowed: The job is somebody else's, or of a kind that only owners may ask for.
            Busy: The guest has enough jobs, or the training is open already.
        """
        visitor.require_job_access(job)
        kind = kinds.JOB_KINDS.get(job.kind)
        if kind:
            self._admit(kind, visitor)
        if job.kind == kinds.TRAIN.name:
            self._require_closed_run(str(job.spec.get("run")))
        limits = self.guests.budgets.job_limits(visitor)
        tab = visitor.tab if visitor.id == job.owner else None
        return self.home.jobs.retry(job.id, tab=tab, guest_limits=limits)

    # ---- rules -----------------------------------------------------------------------------------

    def _admit(self, kind: JobKind, visitor: Visitor) -> None:
        """Raise NotAllowed for owners' work, Busy for a guest who has enough jobs waiting."""
        if kind.owner_only:
            visitor.require_owner(kind.owner_only)
        limits = self.guests.budgets.job_limits(visitor)
        if limits:
            self.home.jobs.check_guest_limits(visitor.id, limits)

    def _check_request(
        self, request: GenerationRequest, visitor: Visitor
    ) -> tuple[ModelInfo, GenerationRequest]:
        """Check a request; return its model, and the request as it is to be queued.

        The seed of a template is drawn here, so that all that comes out of it is checked now.
        """
        visitor.require_inputs(self.home.inputs, request)
        if visitor.is_guest:
            request.validate_for_guest()
        model = self.home.library.check_request(request)
        if request.is_open:
            if request.seed < 0:
                request = request.model_copy(update={"seed": secrets.randbelow(SEED_LIMIT)})
            self.check_wordings(request, visitor)
        return model, request

    def get_prompt_files(self, visitor: Visitor) -> PromptFiles:
        """Return the wildcards and styles that a visitor may use: styles are the owner's."""
        files = self.home.prompt_files
        return WildcardsAlone(files) if visitor.is_guest else files

    def check_wordings(self, request: GenerationRequest, visitor: Visitor) -> None:
        """Check all that a request's styles and templates come to with its seeds.

        Raises:
            NotAllowed: A guest asks for styles, which are the owner's.
            InvalidSpec: A style or wildcard is not there, or a wording cannot be painted.
            StudioError: What `Library.check_request` raises, with the words it is about.
        """
        if request.styles:
            visitor.require_owner("Using styles")
        for wording in request.write_out_each(self.get_prompt_files(visitor)):
            if visitor.is_guest:
                wording.validate_for_guest()
            try:
                self.home.library.check_request(wording)
            except StudioError as error:
                sentence = f"{error} The prompt became {quote(wording.prompt)}."
                raise InvalidSpec([sentence]) from None

    def _queue(self, job: PreparedJob, visitor: Visitor, key: str | None = None) -> int:
        limits = self.guests.budgets.job_limits(visitor)
        job_id = self.home.jobs.submit(
            job.kind.name,
            job.spec,
            owner=visitor.id,
            key=key,
            tab=visitor.tab,
            guest_limits=limits,
        )
        if job.kind.is_short and not visitor.is_guest:
            self.home.jobs.move_to_front(job_id)
        return job_id

    def _require_closed_run(self, run_id: str) -> None:
        open_jobs = self.home.jobs.list_open(kind=kinds.TRAIN.name)
        if any(job.spec.get("run") == run_id for job in open_jobs):
            raise Busy("That training is already running or waiting; stop it first.")

    def _get_run(self, run_id: str, visitor: Visitor) -> Run:
        run = self.home.runs.get(run_id)
        if run is None or not visitor.may_see(run.owner):
            raise BadFile("That training no longer exists.")
        return run
