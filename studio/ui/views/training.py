"""A training as HTML: loss curve, samples, numbers, checkpoints, files, earlier runs, plan, import.

Knows: how a training looks on the page (templates/training.html). Does not know: gradio, where on
the page it stands, whose it is.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from studio.core.training.config import TrainingConfig
from studio.core.training.kohya.reader import Notice
from studio.storage.datasets.training_set import TrainingSet
from studio.storage.training.checkpoints import Checkpoint
from studio.storage.training.runs import Run, Sample
from studio.ui.views.templates import render_macro, render_nothing

MAX_POINTS = 400  # of a line that are drawn
MAX_DOTS = 60  # validation losses that can be pointed at
MAX_NOTES = 6  # sentences that are shown of many
CURVE_WIDTH = 1000  # of the SVG's view box
CURVE_HEIGHT = 300
CURVE_OVERHANG = 10  # how far a line may leave the view box
# What became of a key, what matters first, and its name on the page.
NOTICE_LABELS = {
    "conflicting": "conflicting",
    "unsupported": "unsupported",
    "unknown": "not in file",
    "inert": "no effect",
    "taken": "imported",
}
MetricsRow = Mapping[str, Any]
Point = tuple[float, float]


def render_placeholder(presets: Sequence[tuple[str, str]]) -> str:
    """Render the empty state, with a button for each preset (name, what it is about)."""
    return _render("placeholder", presets=presets)


# ---- the curve ----------------------------------------------------------------------------------


def render_loss_curve(rows: Sequence[MetricsRow], total_steps: int) -> str:
    """Render the loss of each step, smoothed, and on images that are not trained on.

    Args:
        rows: What was measured, each with a `step` and `loss`, `smoothed` or `validation`.
        total_steps: Number of steps of the whole training.
    """
    losses = _extract_series(rows, "loss")
    smoothed_losses = _extract_series(rows, "smoothed")
    validation_losses = _extract_series(rows, "validation")
    if not losses and not validation_losses:
        return ""
    low, high = _compute_loss_range(losses, [*smoothed_losses, *validation_losses])
    total_steps = max(total_steps, 1)

    def top_percent(loss: float) -> float:
        return (high - loss) / (high - low) * 100

    lines = []
    for css_class, legend, series in (
        ("raw", "loss per step", losses),
        ("smooth", "smoothed", smoothed_losses),
        ("held", "validation (held-out images)", validation_losses),
    ):
        if series:
            points = _format_points(downsample(series), low, high, total_steps)
            lines.append((css_class, legend, points))
    dots = [
        (step / total_steps * 100, top_percent(loss), f"step {step:g}: {loss:.4f}")
        for step, loss in validation_losses[-MAX_DOTS:]
    ]
    latest_series = smoothed_losses or validation_losses
    return _render(
        "loss_curve",
        lines=lines,
        dots=dots,
        ticks=[(top_percent(tick), f"{tick:.3g}") for tick in _compute_ticks(low, high)],
        total_steps=total_steps,
        last_loss=f"{latest_series[-1][1]:.3g}" if latest_series else "",
    )


def _format_points(series: Sequence[Point], low: float, high: float, total_steps: int) -> str:
    """Return a line's points in the SVG's coordinates, kept near its view box."""
    points = []
    for step, loss in series:
        x = step / total_steps * CURVE_WIDTH
        y = (high - loss) / (high - low) * CURVE_HEIGHT
        clipped_y = min(CURVE_HEIGHT + CURVE_OVERHANG, max(-CURVE_OVERHANG, y))
        points.append(f"{x:.1f},{clipped_y:.1f}")
    return " ".join(points)


def downsample(series: Sequence[Point], max_points: int = MAX_POINTS) -> list[Point]:
    """Return at most `max_points` points: lowest and highest of each stretch, so peaks stay."""
    if len(series) <= max_points:
        return list(series)
    stretch = math.ceil(2 * len(series) / max_points)
    points: list[Point] = []
    for start in range(0, len(series), stretch):
        part = series[start : start + stretch]
        lowest = min(part, key=lambda point: point[1])
        highest = max(part, key=lambda point: point[1])
        points += sorted({lowest, highest})
    return points


def _extract_series(rows: Sequence[MetricsRow], name: str) -> list[Point]:
    """Return (step, value) of each row that has a finite value of this name."""
    return [
        (float(row["step"]), float(row[name]))
        for row in rows
        if isinstance(row.get(name), int | float) and math.isfinite(row[name])
    ]


def _compute_loss_range(losses: Sequence[Point], unclipped: Sequence[Point]) -> tuple[float, float]:
    """Return lowest and highest with a margin, without the wildest 2 % of `losses` at each end."""
    values = sorted(loss for _, loss in losses)
    num_clipped = len(values) // 50
    typical_values = values[num_clipped : len(values) - num_clipped] or values
    extremes = typical_values[:1] + typical_values[-1:]
    extremes += [loss for _, loss in unclipped]
    low = min(extremes)
    high = max(extremes)
    margin = (high - low) * 0.06 or max(abs(high), 1e-3) * 0.1
    return low - margin, high + margin


def _compute_ticks(low: float, high: float) -> list[float]:
    """Return three to eight round values between `low` and `high`."""
    rough_step = (high - low) / 4
    power = 10 ** math.floor(math.log10(rough_step))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough_step)
    return [k * step for k in range(math.ceil(low / step), math.floor(high / step) + 1)]


# ---- the open run -------------------------------------------------------------------------------


def render_header(
    run: Run, message: str, fraction: float | None, state: str, metrics: Sequence[tuple[str, str]]
) -> str:
    """Render what stands over a run: its name, how far it is, its numbers.

    Args:
        run: The training.
        message: What is being done, in words.
        fraction: Progress from 0 to 1; None without a bar.
        state: The state of its job, for the style sheet.
        metrics: Numbers as (name, value).
    """
    config = run.config
    return _render(
        "header",
        run_id=run.id,
        title=f"Run “{config.name}”",
        about=(
            f"{config.dataset} → {config.model} · rank {config.rank} · seed {config.seed} · "
            f"started {time.strftime('%d %b %H:%M', time.localtime(run.created))}"
        ),
        message=message,
        fraction=fraction,
        state=state,
        metrics=metrics,
    )


def render_samples(
    samples: Sequence[Sample], file_url: Callable[[Path], str], placeholder: str
) -> str:
    """Render each prompt's images in a row, from the beginning to now.

    Args:
        samples: The images.
        file_url: Gives an image's address.
        placeholder: Text for where there are no samples yet; may be empty.
    """
    if not samples:
        return render_nothing(placeholder) if placeholder else ""
    samples_by_prompt: dict[int, list[Sample]] = {}
    for sample in samples:
        samples_by_prompt.setdefault(sample.prompt_index, []).append(sample)
    strips = []
    for _, prompt_samples in sorted(samples_by_prompt.items()):
        images = [
            (_get_sample_url(sample, file_url), sample.step)
            for sample in sorted(prompt_samples, key=lambda sample: sample.step)
        ]
        strips.append((prompt_samples[0].prompt, prompt_samples[0].seed, images))
    return _render("samples", strips=strips)


def _get_sample_url(sample: Sample, file_url: Callable[[Path], str]) -> str:
    """Return an address that changes with the file: a restarted run writes the same names again."""
    try:
        modified_ns = sample.path.stat().st_mtime_ns
    except OSError:
        modified_ns = 0
    return f"{file_url(sample.path)}?v={modified_ns}"


def render_files(
    lora_files: Sequence[tuple[str, str, int, int]],
    pending_steps: Sequence[int],
    checkpoints: Sequence[Checkpoint],
) -> str:
    """Render the LoRA files and checkpoints of a run.

    Args:
        lora_files: Name, URL, size in bytes and step of each, the latest first.
        pending_steps: Steps whose LoRA file is being written.
        checkpoints: What can be exported.
    """
    exported_steps = {step for *_, step in lora_files}
    checkpoint_rows = []
    for checkpoint in checkpoints:
        export_state = ""
        if checkpoint.step in exported_steps:
            export_state = "exported"
        elif checkpoint.step in pending_steps:
            export_state = "exporting"
        checkpoint_rows.append((checkpoint, export_state))
    return _render("files", lora_files=lora_files, checkpoints=checkpoint_rows)


def render_notes(notes: Sequence[str], title: str = "Worth knowing") -> str:
    """Render sentences that go with a run, folded up under a title."""
    return _render("notes", sentences=notes, title=title, max_notes=MAX_NOTES)


def render_run_list(rows: Sequence[tuple[Run, str, int, bool]], confirm_id: str = "") -> str:
    """Render earlier trainings.

    Args:
        rows: For each the run, its state in words, its last step, and whether the page has it open.
        confirm_id: Id of the run that is to be deleted when somebody confirms it.
    """
    listed_rows = []
    for run, state, step, is_open in rows:
        date = time.strftime("%d %b %H:%M", time.localtime(run.created))
        total_steps = run.start_info.get("steps") or run.config.steps or "?"
        details = f"{state} · step {step:,} of {total_steps} · {run.config.dataset} · {date}"
        listed_rows.append((run.id, run.config.name, details, is_open))
    return _render("run_list", rows=listed_rows, confirm_id=confirm_id)


# ---- before it begins ---------------------------------------------------------------------------


def render_dataset(training_set: TrainingSet, thumbnails: Sequence[tuple[str, str]]) -> str:
    """Render what is in a dataset: how many images, some of them, what is wrong.

    Args:
        training_set: The dataset.
        thumbnails: Some of its images as (URL, caption).
    """
    num_images = len(training_set.images)
    num_captioned = sum(bool(image.caption) for image in training_set.images)
    about = ""
    if training_set.images_per_epoch != num_images:
        about += f" · {training_set.images_per_epoch} with repeats"
    if num_captioned == num_images:
        about += " · all captioned"
    else:
        about += f" · {num_captioned} captioned, {num_images - num_captioned} without a caption"
    return _render(
        "dataset",
        num_images=num_images,
        about=about,
        thumbnails=thumbnails,
        broken_files=training_set.broken,
        sentences=training_set.notes,
        max_notes=MAX_NOTES,
    )


def render_plan(
    config: TrainingConfig,
    num_images: int,
    *,
    num_validation: int,
    total_steps: int,
    layers: str,
    cost: str,
    is_estimate: bool,
) -> str:
    """Render how long a training will be, as a product that can be followed.

    Args:
        config: The training.
        num_images: Number of images that are trained on.
        num_validation: Number of images that are kept back.
        total_steps: Number of optimizer steps.
        layers: Kind, layers, numbers and file size in words.
        cost: Time and memory in words, from a dry run.
        is_estimate: Whether buckets may need a few steps more.
    """
    images_per_step = config.train_batch_size * config.gradient_accumulation_steps
    epochs = total_steps * images_per_step / max(1, num_images * config.repeats)
    repeats = "repeat" if config.repeats == 1 else "repeats"
    divisors = f"÷ batch {config.train_batch_size}"
    if config.gradient_accumulation_steps > 1:
        divisors += f" ÷ {config.gradient_accumulation_steps} accumulated"
    remarks = ""
    if is_estimate:
        remarks += " (a few more if images differ in shape)"
    if num_validation:
        remarks += f" · {num_validation} held out for validation"
    return _render(
        "plan",
        product=(
            f"{num_images:,} images × {config.repeats} {repeats} {divisors} × {epochs:.3g} epochs"
        ),
        total_steps=total_steps,
        remarks=remarks,
        layers=layers,
        cost=cost,
    )


def render_import_notices(file_name: str, notices: Sequence[Notice], faults: Sequence[str]) -> str:
    """Render how each key of an imported file was read, what matters first.

    Args:
        file_name: Name of the file.
        notices: One for each key.
        faults: What the file leaves open.
    """
    order = list(NOTICE_LABELS)
    kinds = [notice.kind for notice in notices]
    counts = [(kind, kinds.count(kind)) for kind in NOTICE_LABELS if kind in kinds]
    return _render(
        "import_notices",
        file_name=file_name,
        counts=counts,
        notices=sorted(notices, key=lambda notice: order.index(notice.kind)),
        labels=NOTICE_LABELS,
        sentences=faults,
    )


def _render(macro_name: str, **arguments: Any) -> str:
    return render_macro("training.html", macro_name, **arguments)
