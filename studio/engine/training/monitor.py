"""What happens beside the steps of a training: its word to the outside, log, validation, samples, checkpoints.

Knows: when each is due, how a sample is painted by the model as it is at that moment. Does not know: how a step is taken (loop.py).
"""

from __future__ import annotations

import io
import time
from typing import Any

from PIL.PngImagePlugin import PngInfo

from studio.core.generation import infotext
from studio.core.generation.request import GenerationRequest
from studio.engine.context import Bench
from studio.engine.generation.batcher import Batcher
from studio.engine.generation.job import decode
from studio.engine.generation.trajectory import Trajectory
from studio.engine.models.prompt_encoding import condition
from studio.engine.training.checkpoint import Keeper
from studio.engine.training.data_loader import Data
from studio.engine.training.prepare import Report, Setup
from studio.engine.training.trainer import Broken, Trainer
from studio.errors import StudioError
from studio.storage import atomic
from studio.storage.jobs import Progress
from studio.storage.training.runs import Run, sample_seed

LEVELS = (0.125, 0.375, 0.625, 0.875)  # of noise, at which the validation loss is measured
TOGETHER = 4  # samples that are painted in one U-Net call, if memory allows


class Watcher:
    """One run's watch (see loop.Watch). `working` are the bytes that its steps need."""

    def __init__(
        self,
        bench: Bench,
        run: Run,
        setup: Setup,
        keeper: Keeper,
        held: Data | None,
        report: Report,
        working: int,
    ) -> None:
        self.bench, self.run, self.setup, self.keeper, self.held, self.report = (
            bench,
            run,
            setup,
            keeper,
            held,
            report,
        )
        self.working = working
        self.numbers: dict[str, float] = {}
        self.first: dict[str, Any] | None = (
            None  # weights, memory: of a run that has no checkpoint to go back to
        )
        config, epoch = setup.config, setup.per_epoch
        self._sampled = config.sample_every or (config.sample_every_epochs or 0) * epoch
        self._saved = config.checkpoint_every or (config.checkpoint_every_epochs or 0) * epoch
        self._validated = (config.validate_every or epoch) if held else 0
        self._pace: tuple[float, int] | None = (
            None  # since when, and from which step, steps are counted
        )

    def say(self, step: int, note: str) -> None:
        """Raises Cancelled where a stop was asked for."""
        left = None
        if self._pace and step > self._pace[1]:
            left = round(
                (time.perf_counter() - self._pace[0])
                / (step - self._pace[1])
                * (self.setup.total - step),
                1,
            )
        self.report(Progress(step, self.setup.total, note, left, numbers=dict(self.numbers)))

    def ready(self, trainer: Trainer) -> None:
        if self._pace is None:
            self._pace = time.perf_counter(), trainer.done
        self.say(trainer.done, "Training")
        began = time.perf_counter()
        if self.bench.between(self.working):
            self._wait(time.perf_counter() - began)

    def due(self, step: int) -> bool:
        return step in (0, self.setup.total) or any(
            every and not step % every for every in (self._sampled, self._saved, self._validated)
        )

    def rows(self, rows: list[dict[str, float]]) -> None:
        if rows:
            self.bench.runs.append(self.run.id, rows)
            self.numbers |= {name: value for name, value in rows[-1].items() if name != "step"}

    def reached(self, trainer: Trainer) -> None:
        began, step, total = time.perf_counter(), trainer.done, self.setup.total
        if self.held and (step in (0, total) or not step % self._validated):
            known = [
                row
                for row in self.bench.runs.log(self.run.id, step - 1)
                if "validation" in row and row["step"] == step
            ]
            if not known:
                self.say(step, "Validating")
                loss = trainer.validate(self.held, LEVELS)
                self.bench.runs.append(self.run.id, [{"step": step, "validation": loss}])
                self.numbers["validation"] = loss
        if step and (step == total or (self._saved and not step % self._saved)):
            self.save(trainer)
        if self._sampled and (step in (0, total) or not step % self._sampled):
            self._paint(trainer)
        self._wait(time.perf_counter() - began)

    def save(self, trainer: Trainer) -> None:
        self.keeper.save(trainer)

    def back(self, trainer: Trainer, broken: Broken) -> None:
        """To the newest whole checkpoint, or to the beginning."""
        one, _ = self.keeper.newest()
        if one is not None:
            self.keeper.restore(trainer, one)
        elif self.first is not None:
            restart(trainer, self.first)
        self.bench.runs.restart(self.run.id, trainer.done)
        self.bench.runs.append(
            self.run.id, [{"step": trainer.done, "broke": broken.step, "pictures": broken.pictures}]
        )
        self.say(
            trainer.done,
            f"Step {broken.step} came to no numbers (pictures {', '.join(broken.pictures[:3])}); "
            f"back to step {trainer.done}, and on without it",
        )

    def _wait(self, seconds: float) -> None:
        """What is no training is not counted in what is left."""
        if self._pace:
            self._pace = self._pace[0] + seconds, self._pace[1]

    def _paint(self, trainer: Trainer) -> None:
        """The sample prompts that are not painted yet for this step."""
        config, step = self.setup.config, trainer.done
        folder = self.run.folder / "samples"
        wanted = [
            number
            for number in range(len(config.samples))
            if not _path(folder, step, number).is_file()
        ]
        if not wanted:
            return
        self.say(step, f"Painting samples of step {step}")
        with trainer.network.showing() as parts:
            requests = [
                GenerationRequest(
                    prompt=config.samples[number],
                    model=config.model,
                    seed=sample_seed(config, number),
                )
                .resolved(parts.info.side, 0)
                .model_copy(update={"loras": ()})
                for number in wanted
            ]
            each = [Trajectory(parts, one, condition(parts, one)) for one in requests]
            number_of = dict(zip(each, wanted))
            most = self.bench.pipelines.room // max(1, 8 * parts.info.working * parts.info.side**2)
            batcher = Batcher(parts, max(1, min(TOGETHER, most)))
            for trajectory, latents, _ in batcher.paint(
                each, lambda: self.say(step, f"Painting samples of step {step}")
            ):
                if isinstance(latents, StudioError):
                    raise latents
                info, out = PngInfo(), io.BytesIO()
                info.add_itxt("parameters", infotext.write(trajectory.request, self.setup.content))
                decode(parts, latents).save(out, "PNG", pnginfo=info)
                atomic.write(_path(folder, step, number_of[trajectory]), out.getvalue())


def beginning(trainer: Trainer) -> dict[str, Any]:
    """What `restart` needs: a copy of the LoRA as it began."""
    return {name: tensor.clone() for name, tensor in trainer.network.tensors().items()}


def restart(trainer: Trainer, first: dict[str, Any]) -> None:
    """Put a trainer back to its beginning."""
    trainer.network.set(first)
    trainer.optimizer.state.clear()
    trainer.optimizer.zero_grad(set_to_none=True)
    trainer.done, trainer.smoothed = 0, 0.0


def _path(folder: Any, step: int, number: int) -> Any:
    return folder / f"{step:08d}-{number}.png"
