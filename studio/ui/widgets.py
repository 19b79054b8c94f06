"""What several tabs share: the desk they work at, what a tab is to the others, settings that events have in common.

Knows: how tabs hand pictures to each other. Does not know: what is on any particular tab.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import gradio as gr

from studio.core.captions.clip_query import SeeSpec
from studio.core.captions.spec import CaptionSpec
from studio.core.generation.request import MOST_SEEDS, GenerationRequest
from studio.core.sweeps.spec import Rates, SweepSpec, plan
from studio.core.training.config import TrainingConfig
from studio.core.training.rules import for_family
from studio.errors import BadFile, Busy, DatasetError, InvalidSpec
from studio.settings import Settings
from studio.storage import timings as measured
from studio.storage.datasets.training_set import Dataset, Datasets
from studio.storage.gallery import Gallery, Picture
from studio.storage.jobs import Jobs
from studio.storage.models.library import Library
from studio.storage.presets import Presets
from studio.storage.sweeps import Sweeps
from studio.storage.training.runs import Runs
from studio.ui.form import Form
from studio.ui.guard import Visitor
from studio.ui.shelf import Shelf
from studio.ui.views.sweep import title_of

Updates = dict[Any, Any]
GUEST_JOBS = 8  # open at once
# Every handler is short, for the work is a job: so none is limited, and none shows gradio's own spinner.
# Its page would still keep a status for each component that an event changes, and look through all components for each of those.
SHORT: dict[str, Any] = {
    "show_progress": "hidden",
    "show_progress_on": [],
    "api_visibility": "private",
    "concurrency_limit": None,
}
SILENT: dict[str, Any] = SHORT | {
    "queue": False
}  # a plain POST; but a gr.Error is not shown: only for looking
# A list of rows with buttons is one HTML block; its buttons say what to do with what.
BUTTONS = """element.addEventListener('click', event => {
  const button = event.target.closest('button[data-do]');
  if (button) trigger('click', {what: button.dataset.do, subject: button.dataset.subject});
});"""


def while_seen(seconds: float) -> str:
    """JavaScript of an HTML block: its event `submit` each so many seconds, while its tab is in view. A gr.Timer would go on."""
    return f"setInterval(() => {{ if (element.offsetParent && !document.hidden) trigger('submit'); }}, {seconds * 1000:.0f});"


@dataclass(frozen=True)
class Desk:
    """What the tabs work with."""

    settings: Settings
    jobs: Jobs
    gallery: Gallery
    library: Library
    presets: Presets[GenerationRequest]
    sweeps: Sweeps
    sweep_presets: Presets[SweepSpec]
    runs: Runs
    datasets: Datasets
    training_presets: Presets[TrainingConfig]
    shelf: Shelf

    def submit(self, request: GenerationRequest, visitor: Visitor, key: str | None = None) -> int:
        """Queue a picture. Raises InvalidSpec for what this visitor may not ask, BadPicture for a picture that this visitor
        never brought, and what Library.check raises."""
        visitor.must_have(self.library.inputs, request)
        if visitor.guest:
            request.check_guest()
            self._may_wait(visitor)
        model = self.library.check(request)
        if visitor.guest and request.width is None and model.side > 1024:
            raise InvalidSpec(
                [
                    f"Width: {model.name} is made for {model.side} px; guests may ask for 1024 at most."
                ]
            )
        return self.jobs.submit(
            "generate", request.model_dump(mode="json"), owner=visitor.id, key=key
        )

    def submit_strip(self, request: GenerationRequest, every: int, visitor: Visitor) -> int:
        """Queue the denoise strip of a picture, with every `every`-th step. Raises what `submit` raises."""
        visitor.must_have(self.library.inputs, request)
        if visitor.guest:
            request.check_guest()
            self._may_wait(visitor)
        self.library.check(request)
        return self.jobs.submit(
            "strip", {"request": request.model_dump(mode="json"), "every": every}, owner=visitor.id
        )

    def submit_sweep(self, spec: SweepSpec, visitor: Visitor, sweep: str = "") -> tuple[str, int]:
        """Store a sweep, or the new spec of one of this visitor's, and queue it; its id and the job's.

        Raises InvalidSpec with all that is wrong in any cell, and what `submit` raises.
        """
        visitor.must_have(self.library.inputs, spec)
        if visitor.guest:
            spec.check_guest()
            self._may_wait(visitor)
        planned = plan(spec, seed=secrets.randbelow(MOST_SEEDS))
        if visitor.guest:
            planned.check_guest()
        for request in planned.named:
            self.library.check(request)
        before = self.sweeps.get(sweep) if sweep else None
        if before and before.owner != visitor.id:
            visitor.must_own("Changing others' sweeps")
        id = self.sweeps.add(planned.spec, visitor.id, sweep)
        told = {
            "sweep": id,
            "title": title_of(spec),
            "cells": len(planned.cells),
            "guest": visitor.guest,
        }
        return id, self.jobs.submit("sweep", told, owner=visitor.id)

    def submit_export(self, spec: dict[str, Any], visitor: Visitor) -> int:
        """Queue the sheet, viewer and index of a sweep that this visitor may see; the owner's come first in line."""
        return self._short("export", spec, visitor)

    def dataset(self, name: str, visitor: Visitor) -> Dataset:
        """One to train on. Raises DatasetError; guests are shown only what came with the studio, for the rest is private."""
        if visitor.guest and name not in self.datasets_of(visitor):
            raise DatasetError(
                f"There is no dataset {name!r:.80} that guests may train on; there is "
                f"{', '.join(self.datasets_of(visitor)) or 'none'}."
            )
        return self.datasets.open(name)

    def datasets_of(self, visitor: Visitor) -> list[str]:
        """Names of what a visitor may train on."""
        return self.shelf.names(visitor)

    def check_training(self, config: TrainingConfig, visitor: Visitor) -> Dataset:
        """The pictures of a training that can begin. Raises what Library.model and `dataset` raise, and InvalidSpec."""
        if visitor.guest:
            config.check_guest()
        model = self.library.model(config.model)
        for_family(config, model.family, model.inpainting)
        return self.dataset(config.dataset, visitor)

    def submit_training(
        self, config: TrainingConfig | None, visitor: Visitor, run: str = "", anew: bool = False
    ) -> tuple[str, int]:
        """Store a training and queue it, or take up this visitor's `run`, from its beginning if `anew`; its id and the job's.

        Raises Busy if the run is open already, and what `check_training` raises.
        """
        if visitor.guest:
            self._may_wait(visitor)
        if run:
            stored = self.runs.get(run)
            if stored is None or visitor.sees not in (None, stored.owner):
                raise BadFile("There is no such training any more.")
            if any(
                job.kind == "train" and job.spec.get("run") == run for job in self.jobs.waiting()
            ):
                raise Busy("That training runs or waits already; stop it first.")
            config = stored.config
        assert config
        self.check_training(config, visitor)
        id = run or self.runs.add(config, visitor.id)
        told = {
            "run": id,
            "resume": not anew,
            "name": config.name,
            "steps": config.steps or f"{config.epochs} epochs of",
        }
        return id, self.jobs.submit("train", told, owner=visitor.id)

    def submit_probe(self, config: TrainingConfig, visitor: Visitor) -> int:
        """Queue a short try of a training, which says what it will take; the owner's come first in line."""
        self.check_training(config, visitor)
        return self._short("probe", {"config": config.model_dump(mode="json")}, visitor)

    def submit_report(self, run: str, visitor: Visitor) -> int:
        """Queue the judgement of a run that this visitor may see: whether it was worth it."""
        stored = self.runs.get(run)
        if stored is None or visitor.sees not in (None, stored.owner):
            raise BadFile("There is no such training any more.")
        if visitor.guest:
            self._may_wait(visitor)
        return self.jobs.submit(
            "report",
            {"run": run, "name": stored.config.name, "guest": visitor.guest},
            owner=visitor.id,
        )

    def submit_caption(self, spec: CaptionSpec, visitor: Visitor) -> int:
        """Queue the captioning of a dataset. Raises DatasetError, and NotAllowed for guests."""
        visitor.must_own("Captioning a dataset")
        self.datasets.folder(spec.dataset)  # says which there are
        return self.jobs.submit("caption", spec.model_dump(mode="json"), owner=visitor.id)

    def submit_see(self, spec: SeeSpec, visitor: Visitor) -> int:
        """Queue a question about a dataset, before the others in line. Raises DatasetError, and NotAllowed for guests."""
        visitor.must_own("Searching a dataset")
        self.datasets.folder(spec.dataset)
        return self._short("see", spec.model_dump(mode="json"), visitor)

    def submit_checkpoint(self, run: str, step: int, visitor: Visitor) -> int:
        """Queue the LoRA file of a checkpoint of a run that this visitor may see."""
        stored = self.runs.get(run)
        if stored is None or visitor.sees not in (None, stored.owner):
            raise BadFile("There is no such training any more.")
        return self._short(
            "export_checkpoint", {"run": run, "step": step, "name": stored.config.name}, visitor
        )

    def _short(self, kind: str, spec: dict[str, Any], visitor: Visitor) -> int:
        if visitor.guest:
            self._may_wait(visitor)
        id = self.jobs.submit(kind, spec, owner=visitor.id)
        if not visitor.guest:
            self.jobs.first(id)
        return id

    def _may_wait(self, visitor: Visitor) -> None:
        if len(self.jobs.waiting(visitor.id)) >= GUEST_JOBS:
            raise Busy(
                f"You have {GUEST_JOBS} jobs waiting already, which is all that a guest may have; wait for one."
            )


def rates(desk: Desk, models: Iterable[str], together: bool) -> dict[str, Rates]:
    """What was measured here with these models; one that is in memory loads in no time."""
    there = {
        item["name"] for said in desk.jobs.workers().values() for item in said.get("loaded", ())
    }
    found = measured.rates(desk.settings, desk.gallery, desk.library, models, together)
    return {
        name: told.model_copy(update={"load": 0.0}) if name in there else told
        for name, told in found.items()
    }


@dataclass
class Tab:
    """What a built tab is to the others.

    `form` makes it a place that pictures can be sent to; `picked` (the path of the picture in view) and `send` (where the buttons
    go) make it a place they come from. `opened` runs when it is first seen, or each time if nobody types there: visitor → updates.
    `take` shows what another tab hands over, `sent` a picture that is sent there, `enlarged` one that is to be made larger; `asks`
    is a block whose buttons hand something over: which tab, and what.
    """

    id: str
    title: str
    form: Form[GenerationRequest] | None = None
    picked: gr.State | None = None
    send: gr.Row | None = None
    opened: Callable[[Visitor], Updates] | None = None
    take: Callable[[Any, Visitor], Updates] | None = None
    sent: Callable[[Picture, Visitor], Updates] | None = None
    enlarged: Callable[[Picture, Visitor], Updates] | None = None
    asks: tuple[Any, Callable[[gr.EventData, Visitor], tuple[str, Any] | None]] | None = None
    outputs: list[Any] = field(default_factory=list)  # what `opened` and `take` change
    filled: list[Any] = field(default_factory=list)  # what `sent` and `enlarged` change
    source: gr.State | None = (
        None  # the picture that it works on: its own results can be worked on again
    )
    typed: bool = (
        False  # has something that people type into, which coming back to the tab is not to change
    )
