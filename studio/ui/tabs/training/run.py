"""The open training: how far it is, its curve, samples, checkpoints and files; stop, resume, begin anew.

Knows: everything on the right side of the Training tab. Does not know: the form, how a training is asked for, how it is done.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gradio as gr

from studio.core.base import check
from studio.core.generation.lora_use import LoraUse
from studio.core.generation.request import GenerationRequest
from studio.core.sweeps.spec import SweepSpec
from studio.errors import BadFile, StudioError
from studio.storage.jobs import Job
from studio.storage.training.runs import Run
from studio.ui import show
from studio.ui.guard import Visitor, who
from studio.ui.views import evaluation
from studio.ui.views import training as curves
from studio.ui.widgets import BUTTONS, SHORT, SILENT, Desk, Updates

KINDS = ("train", "export_checkpoint", "report")
SWEEP = (
    {"field": "lora_weight", "values": "0, 0.4, 0.7, 1"},
    {"field": "scheduler", "values": ["DPM++ 2M", "Euler a", "DDIM"]},
)
STARTS = (
    ("moon-pocket", "The Moon, in a few minutes"),
    ("plush-pocket", "One plush toy by its name"),
)  # presets to begin with


class OpenRun:
    """One build of it. `current` is the id of the run that is looked at; `stop` is the form's."""

    def __init__(self, desk: Desk, stop: gr.Button) -> None:
        self.desk, self.stop = desk, stop
        self.current: gr.State = gr.State("")
        self.seen: gr.State = gr.State("")
        self.drawn: gr.State = gr.State({})
        self.clock = gr.Timer(0.7, active=False)  # the page asks, so a slow line skips frames
        self.head = gr.HTML(elem_id="run-head")
        with gr.Row(elem_classes="second run-do"):
            self.resume = gr.Button(
                "Resume", variant="primary", size="sm", visible=False, elem_id="run-resume"
            )
            self.anew = gr.Button("Start anew", size="sm", visible=False, elem_id="run-anew")
            self.sure = gr.Button(
                "Yes, forget its steps and begin again",
                size="sm",
                variant="stop",
                visible=False,
                elem_id="run-sure",
            )
        self.curve = gr.HTML(elem_id="run-curve")
        self.strips = gr.HTML(elem_id="run-samples")
        self.files = gr.HTML(js_on_load=BUTTONS, elem_id="run-files")
        self.empty = gr.HTML(self.invitation(), js_on_load=BUTTONS, elem_id="run-empty")

    def invitation(self) -> str:
        return curves.empty(
            [start for start in STARTS if start[0] in self.desk.training_presets.names()]
        )

    @property
    def blocks(self) -> list[gr.HTML]:
        """What is drawn anew only where it has changed."""
        return [self.head, self.curve, self.strips, self.files]

    @property
    def watched(self) -> list[Any]:
        """What changes while it runs."""
        return [
            self.seen,
            self.drawn,
            self.clock,
            self.stop,
            self.resume,
            self.anew,
            self.sure,
            *self.blocks,
        ]

    @property
    def outputs(self) -> list[Any]:
        return [*self.watched, self.current, self.empty]

    def wire(self) -> None:
        self.clock.tick(self.look, [self.current, self.seen, self.drawn], self.watched, **SILENT)
        self.stop.click(self.cancel, self.current, None, **SHORT)
        self.resume.click(self.go_on, self.current, self.outputs, **SHORT)
        self.sure.click(self.begin_again, self.current, self.outputs, **SHORT)
        self.anew.click(
            lambda: {self.anew: gr.Button(visible=False), self.sure: gr.Button(visible=True)},
            None,
            [self.anew, self.sure],
            **SHORT,
        )
        self.files.click(self.act, self.current, self.watched, **SHORT)

    # ---- as it runs ---------------------------------------------------------------------------------------------

    def look(self, id: str, seen: str, drawn: dict[str, str], request: gr.Request) -> Updates:
        """What the open run is doing, as updates of the page; nothing if nothing has changed."""
        visitor = who(request)
        run = self.mine(id, visitor)
        if run is None:
            return {self.clock: gr.Timer(active=False)}
        return (
            {self.seen: gr.skip()}
            if self._state(visitor, id) == seen
            else self._shown(visitor, run, drawn)
        )

    def _state(self, visitor: Visitor, id: str) -> str:
        return repr([(job.id, job.state, job.beat) for job in self.jobs(visitor, id)])

    def _shown(self, visitor: Visitor, run: Run, drawn: Mapping[str, str]) -> Updates:
        """All that says how far a run is; a block only where it differs from the one `drawn`."""
        seen, jobs = self._state(visitor, run.id), self.jobs(visitor, run.id)
        training = next((job for job in jobs if job.kind == "train"), None)
        rows = self.desk.runs.log(run.id)
        last, kept = self._last(visitor, run.id), self.desk.runs.checkpoints(run.id)
        state = training.state if training else state_of(run, last)
        at = max([row["step"] for row in rows] + [one.step for one in kept], default=0)
        words, share = _doing(training) if training else (_ended(run, state, last, at), None)
        total = int(
            run.about.get("steps")
            or (training.progress.total if training else 0)
            or run.config.steps
            or 0
        )
        expected = (
            "Samples are painted at the start and on the way."
            if run.config.samples and training
            else ""
        )
        said = curves.notes(
            [*map(str, run.about.get("notes") or ()), *map(str, run.about.get("left_aside") or ())]
        )
        texts = [
            curves.head(run, words, share, state, _numbers(rows, training, at, total)) + said,
            curves.curve(rows, total),
            curves.samples(self.desk.runs.samples(run.id), show.address, expected),
            self._files(run, jobs, kept),
        ]
        now = {str(k): str(hash(text)) for k, text in enumerate(texts)}
        changed = {
            block: text
            for k, (block, text) in enumerate(zip(self.blocks, texts))
            if drawn.get(str(k)) != now[str(k)]
        }
        stopped = training is None and state != "done"
        return {
            self.seen: seen,
            self.drawn: now,
            self.clock: gr.Timer(active=bool(jobs)),
            self.stop: gr.Button(interactive=training is not None),
            self.sure: gr.Button(visible=False),
            self.resume: gr.Button(_resume(at), visible=stopped),
            self.anew: gr.Button(visible=training is None and at > 0),
            **changed,
        }

    def open(self, visitor: Visitor, id: str) -> Updates:
        """A run is shown from now on."""
        return {
            self.current: id,
            self.empty: gr.HTML(visible=False),
            **self._shown(visitor, self.must(id, visitor), {}),
        }

    def close(self) -> Updates:
        """No run is open."""
        hidden = gr.Button(visible=False)
        return {
            self.current: "",
            self.drawn: {},
            self.empty: gr.HTML(self.invitation(), visible=True),
            self.resume: hidden,
            self.anew: hidden,
            self.sure: hidden,
            **dict.fromkeys(self.blocks, ""),
        }

    def cancel(self, id: str, request: gr.Request) -> None:
        for job in self.jobs(who(request), id):
            self.desk.jobs.cancel(job.id)

    def go_on(self, id: str, request: gr.Request) -> Updates:
        """From where it was."""
        return self._again(id, who(request), anew=False)

    def begin_again(self, id: str, request: gr.Request) -> Updates:
        """From step 0, with the same settings and seed."""
        return self._again(id, who(request), anew=True)

    def _again(self, id: str, visitor: Visitor, anew: bool) -> Updates:
        with show.said():
            self.desk.submit_training(None, visitor, self.must(id, visitor).id, anew)
            return self.open(visitor, id)

    # ---- its files ----------------------------------------------------------------------------------------------

    def act(self, id: str, event: gr.EventData, request: gr.Request) -> Updates:
        """A button among the files; what it says comes from the browser, so it is only words."""
        with show.said():
            visitor, data = who(request), event._data or {}
            run = self.must(id, visitor)
            match data.get("what"), str(data.get("subject")):
                case "try" | "sweep" | "compare", _:
                    return {self.seen: gr.skip()}  # goes to another tab: `wanted`
                case "report", _:
                    self.desk.submit_report(run.id, visitor)
                    return self._shown(visitor, run, {})
                case "export", step if step.isascii() and step.isdigit() and len(step) < 9:
                    self.desk.submit_checkpoint(run.id, int(step), visitor)
                    return self._shown(visitor, run, {})
            raise BadFile("The page asked for something that the studio does not know.")

    def wanted(self, event: gr.EventData, visitor: Visitor) -> tuple[str, Any] | None:
        """What a button hands to another tab: a LoRA with its trigger in the prompt, a sweep of it, or the report's comparison."""
        verb, subject = ((event._data or {}).get(key) for key in ("what", "subject"))
        if verb not in ("try", "sweep", "compare"):
            return None
        if verb == "compare":
            return "sweep", str(subject)
        with show.said():
            asked = self._asked(str(subject), visitor)
            if verb == "try":
                return "txt2img", asked
            base, title = (
                asked.model_dump() | {"schedule": "As shipped"},
                f"{asked.loras[0].name}: weight and scheduler",
            )
            return "sweep", check(
                SweepSpec, {"base": base, "axes": list(SWEEP), "title": title}
            )  # a schedule that suits all

    def _asked(self, lora: str, visitor: Visitor) -> GenerationRequest:
        """A picture with a LoRA: its model, its trigger in the prompt, a seed that stays, the weight that its report recommends."""
        name = self.desk.library.lora(lora).name
        run = next(
            (run for run in self.desk.runs.listing(visitor.sees) if name in _made(run)), None
        )
        if run is None:
            raise BadFile("The training of that LoRA is gone; choose the LoRA in txt2img.")
        config, model = run.config, self.desk.library.model(run.config.model)
        called = " ".join(part for part in (config.trigger, config.class_word) if part)
        first = next(iter(config.samples), f"a photo of a {called}" if called else "")
        best = self.desk.runs.report(run.id).get("best") or {}
        weight = float(best["weight"]) if best.get("lora") == name else 1.0
        return GenerationRequest(
            model=config.model,
            prompt=first,
            width=model.side,
            height=model.side,
            seed=config.seed,
            loras=(LoraUse(name=name, unet=weight, text_encoder=weight),),
        )

    def _files(self, run: Run, jobs: list[Job], kept: list[Any]) -> str:
        waiting = [
            int(job.spec.get("step") or 0) for job in jobs if job.kind == "export_checkpoint"
        ]
        made = []
        for name, step in sorted(_made(run).items(), key=lambda one: -one[1]):
            path = self.desk.settings.loras / f"{name}.safetensors"
            if path.is_file():
                made.append((name, show.address(path), path.stat().st_size, step))
        return (self._worth(run, jobs) if kept else "") + curves.files(made, waiting, kept)

    def _worth(self, run: Run, jobs: list[Job]) -> str:
        """Whether it was worth it: the report, how far it is, or the button that asks for it."""
        judging = next((job for job in jobs if job.kind == "report"), None)
        if judging:
            at = judging.progress
            left = f" · about {show.duration(at.left)} left" if at.left is not None else ""
            return evaluation.going(f"{at.note or 'Waiting for its turn'}{left}", at.step, at.total)
        found = self.desk.runs.report(run.id)
        said = next(
            (
                job.error
                for job in self.desk.jobs.history(50, run.owner)
                if job.kind == "report" and job.spec.get("run") == run.id
            ),
            "",
        )
        if any(job.kind == "train" for job in jobs):
            return ""
        if not found:
            return evaluation.invitation(run.id, said or "")
        pictures = {
            path: picture
            for pair in found["pairs"]
            for path in (pair["before"], pair["after"])
            if (picture := self.desk.gallery.get(path))
        }
        shown = {
            path: (show.address(one.thumb), show.address(one.path))
            for path, one in pictures.items()
        }
        best = found["best"] or max(found["points"], key=lambda one: one["concept"])
        card = [
            path
            for ending in ("md", "png")
            if (path := self.desk.settings.loras / f"{best['lora']}.{ending}").is_file()
        ]
        return evaluation.told(
            run.id, found, shown, [(path.name, show.address(path)) for path in card]
        )

    # ---- what is whose ------------------------------------------------------------------------------------------

    def mine(self, id: str, visitor: Visitor) -> Run | None:
        """A run that this visitor may see."""
        run = self.desk.runs.get(id) if id else None
        return run if run and visitor.sees in (None, run.owner) else None

    def must(self, id: str, visitor: Visitor) -> Run:
        """Raises BadFile where there is none."""
        run = self.mine(id, visitor)
        if run is None:
            raise BadFile("There is no such training any more; start one, or open an earlier one.")
        return run

    def jobs(self, visitor: Visitor, id: str) -> list[Job]:
        """What is still to be done for a run."""
        return [
            job
            for job in self.desk.jobs.waiting(visitor.sees)
            if job.kind in KINDS and job.spec.get("run") == id
        ]

    def _last(self, visitor: Visitor, id: str) -> Job | None:
        every = self.desk.jobs.history(200, visitor.sees)
        return next(
            (
                job
                for job in every
                if job.kind == "train" and job.spec.get("run") == id and not job.open
            ),
            None,
        )


def state_of(run: Run, last: Job | None) -> str:
    """How a run that nobody works on came out."""
    return last.state if last else "done" if "lora" in run.result else "cancelled"


def _doing(job: Job) -> tuple[str, float]:
    if job.state == "queued":
        return "waiting for its turn", 0.0
    at = job.progress
    left = f" · about {show.duration(at.left)} left" if at.left is not None else ""
    return (at.note or "Getting ready") + left, at.step / at.total if at.total else 0.0


def _ended(run: Run, state: str, last: Job | None, at: int) -> str:
    match state:
        case "done":
            took = last.result.get("seconds") if last and isinstance(last.result, dict) else None
            return (
                f"Finished in {show.duration(took)}; try it below."
                if took
                else "Finished; try it below."
            )
        case "cancelled":
            return (
                f"Stopped after step {at:,}. All is kept: Resume goes on from there."
                if at
                else "Stopped before its first step."
            )
        case "interrupted":
            return f"Interrupted ({last.error if last else ''}). Resume goes on from the newest checkpoint."
    return (last.error if last else "") or "It failed."


def _numbers(
    rows: list[dict[str, Any]], job: Job | None, at: int, total: int
) -> list[tuple[str, str]]:
    """The latest of each."""
    now: dict[str, float] = {}
    for row in rows:
        now |= {
            name: row[name] for name in ("smoothed", "rate", "speed", "validation") if name in row
        }
    step = job.progress.step if job and job.progress.total else at
    said = [("Step", f"{step:,} of {total:,}" if total else f"{step:,}")]
    named = (
        ("Loss, smoothed", "smoothed", ".4f"),
        ("Learning rate", "rate", ".3g"),
        ("Pictures a second", "speed", ".3g"),
        ("Validation loss", "validation", ".4f"),
    )
    return said + [
        (title, format(now[name], form))
        for title, name, form in named
        if isinstance(now.get(name), int | float)
    ]


def _resume(at: int) -> str:
    return f"Resume from step {at:,}" if at else "Start it again"


def _made(run: Run) -> dict[str, int]:
    """The LoRA files of a run: name → step."""
    found: dict[str, int] = {}
    for known in run.result.values():
        try:
            found.setdefault(str(known["lora"]), int(known["step"]))
        except (TypeError, KeyError, ValueError):
            continue
    return found


def sentences(error: StudioError) -> list[str]:
    """All that is wrong, one sentence each."""
    return list(getattr(error, "faults", ())) or [str(error)]
