"""The kinds of work there are, as one table: who does it, what it is called, who may ask for it.

Knows: every kind with what page, API, command line, queue and worker have to know about it. Does
not know: the job table (storage/jobs.py); how any of it is done: a worker imports the function by
its name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

JobSpec = Mapping[str, Any]


@dataclass(frozen=True)
class JobKind:
    """One kind of work.

    Attributes:
        name: What the job table calls it.
        function: `module:function` of the work: (worker context, spec, progress callback) → result.
        describe: A job's spec → a few words for people, as they stand in the queue.
        owner_only: What a guest is told that only the owner may, such as "Searching a dataset";
            empty lets guests.
        is_short: The owner's go to the front of the queue, for somebody waits for the answer.
        is_preemptible: It lets short jobs in between its steps.
        is_interleavable: It is let in between, if it is short and fits into memory.
        is_background: It needs no device and is done beside the others, one at a time.
    """

    name: str
    function: str
    describe: Callable[[JobSpec], str]
    owner_only: str = ""
    is_short: bool = False
    is_preemptible: bool = False
    is_interleavable: bool = False
    is_background: bool = False


def _shorten(text: str, limit: int) -> str:
    return text if len(text) < limit else f"{text[: limit - 3]}…"


def _describe_generation(spec: JobSpec) -> str:
    num_images = int(spec.get("num_images", spec.get("count", 1)))  # `count` in older rows
    prompt = _shorten(str(spec.get("prompt") or "no prompt"), 120)
    return f"{prompt} × {num_images}" if num_images > 1 else prompt


def _describe_sweep(spec: JobSpec) -> str:
    title = _shorten(str(spec.get("title") or "without a title"), 100)
    return f"sweep of {spec.get('cells', '?')} cells: {title}"


def _describe_strip(spec: JobSpec) -> str:
    prompt = str((spec.get("request") or {}).get("prompt") or "no prompt")
    return f"denoise strip: {prompt:.100}"


def _describe_training(spec: JobSpec) -> str:
    name, steps, epochs = (spec.get(key) for key in ("name", "steps", "epochs"))
    length = f"{steps or '?'} steps"
    if epochs and not steps:
        length = "1 epoch" if epochs == 1 else f"{epochs} epochs"
    return f"training of {name or 'a LoRA'}: {length}"


def _describe_checkpoint(spec: JobSpec) -> str:
    return f"LoRA file of {spec.get('name') or 'a LoRA'} after {spec.get('step', '?')} steps"


def _describe_evaluation(spec: JobSpec) -> str:
    return f"evaluation of {spec.get('name') or 'a LoRA'}"


def _describe_dry_run(spec: JobSpec) -> str:
    return f"time estimate for {(spec.get('config') or {}).get('name') or 'a training'}"


def _describe_captioning(spec: JobSpec) -> str:
    subject = "caption preview for" if spec.get("dry_run") else "captions for"
    dataset, captioner = spec.get("dataset") or "a folder", spec.get("captioner") or "a model"
    return f"{subject} {dataset} by {captioner}"


def _describe_clip_search(spec: JobSpec) -> str:
    questions = {
        "search": "search in",
        "classes": "labels for",
        "duplicates": "near-duplicates in",
        "fit": "worst-matching captions in",
    }
    question = questions.get(str(spec.get("question")), "search in")
    words = f": {spec['words']}" if spec.get("words") else ""
    return f"{question} {spec.get('dataset') or 'a folder'}{words}"[:140]


def _describe_download(spec: JobSpec) -> str:
    subject = spec.get("name") or spec.get("link") or "a file"
    return f"download of {_shorten(str(subject), 100)}"


def _describe_upscale(spec: JobSpec) -> str:
    size = f"× {spec.get('scale', 0):g}" if spec.get("scale") else "an image"
    if spec.get("longer_side"):
        size = f"to {spec['longer_side']} px"
    return f"upscale {size} with {_shorten(str(spec.get('upscaler') or 'the best match'), 80)}"


def _describe_unload(spec: JobSpec) -> str:
    return "unload: " + ", ".join(map(str, spec.get("models", ())))


GENERATE = JobKind(
    "generate",
    "studio.engine.generation.job:generate",
    _describe_generation,
    is_interleavable=True,
)
DENOISE_STRIP = JobKind(
    "denoise_strip", "studio.engine.sweeps.denoise_strip:render_denoise_strip", _describe_strip
)
SWEEP = JobKind("sweep", "studio.engine.sweeps.job:run_sweep", _describe_sweep)
SWEEP_EXPORT = JobKind(
    "sweep_export",
    "studio.engine.sweeps.export:export_sweep",
    lambda _spec: "sheet and viewer of a sweep",
    is_short=True,
)
TRAIN = JobKind(
    "train", "studio.engine.training.job:train", _describe_training, is_preemptible=True
)
TRAINING_DRY_RUN = JobKind(
    "training_dry_run", "studio.engine.training.job:dry_run", _describe_dry_run, is_short=True
)
EXPORT_CHECKPOINT = JobKind(
    "export_checkpoint",
    "studio.engine.training.job:export_checkpoint",
    _describe_checkpoint,
    is_short=True,
)
TRAINING_EVALUATION = JobKind(
    "training_evaluation", "studio.engine.evaluation.job:evaluate_training", _describe_evaluation
)
CAPTION = JobKind(
    "caption",
    "studio.engine.captioning.job:caption_dataset",
    _describe_captioning,
    owner_only="Captioning a dataset",
    is_preemptible=True,
    is_interleavable=True,
)
CLIP_SEARCH = JobKind(
    "clip_search",
    "studio.engine.clip_search.job:search_dataset",
    _describe_clip_search,
    owner_only="Searching a dataset",
    is_short=True,
    is_interleavable=True,
)
UPSCALE = JobKind("upscale", "studio.engine.upscaling.job:upscale", _describe_upscale)
UNLOAD = JobKind(
    "unload",
    "studio.engine.worker:unload_models",
    _describe_unload,
    owner_only="Unloading a model",
)
READ_PICKLES = JobKind(
    "read_pickles",
    "studio.engine.models.pickle_job:read_pickles",
    lambda _spec: "reading embeddings and upscalers in older files",
    owner_only="Reading weights files",
    is_short=True,
)
DOWNLOAD = JobKind(
    "download",
    "studio.engine.downloads.job:download_model",
    _describe_download,
    owner_only="Downloading",
    is_background=True,
)

JOB_KINDS: dict[str, JobKind] = {
    kind.name: kind
    for kind in (
        GENERATE,
        DENOISE_STRIP,
        SWEEP,
        SWEEP_EXPORT,
        TRAIN,
        TRAINING_DRY_RUN,
        EXPORT_CHECKPOINT,
        TRAINING_EVALUATION,
        CAPTION,
        CLIP_SEARCH,
        UPSCALE,
        UNLOAD,
        READ_PICKLES,
        DOWNLOAD,
    )
}
BACKGROUND_KINDS = tuple(kind.name for kind in JOB_KINDS.values() if kind.is_background)


def describe_job(kind: str, spec: JobSpec) -> str:
    """Return a job in a few words; one of a later studio by the name of its kind."""
    return JOB_KINDS[kind].describe(spec) if kind in JOB_KINDS else kind
