"""The settings of a training that are no basics: all of them, in groups, and searchable.

Knows: where each stands and which widget suits it. Does not know: what they do, the basics.
"""

from __future__ import annotations

from typing import Any

import gradio as gr

from studio.core.base import schema
from studio.core.training.config import BASICS, TrainingConfig
from studio.ui.form import Form

# Where the settings that are no basics stand. One that is named nowhere comes last, so that none can be forgotten.
GROUPS = (
    ("Length", ("epochs", "batch", "accumulation", "repeats")),
    (
        "The LoRA",
        (
            "alpha",
            "dropout",
            "targets",
            "patterns",
            "conv_rank",
            "conv_alpha",
            "train_unet",
            "train_text_encoder",
        ),
    ),
    (
        "Learning",
        (
            "text_encoder_rate",
            "optimizer",
            "schedule",
            "warmup",
            "cycles",
            "power",
            "weight_decay",
            "beta1",
            "beta2",
            "eps",
            "scale_parameter",
            "max_grad_norm",
            "min_snr_gamma",
            "noise_offset",
        ),
    ),
    (
        "Captions and class",
        (
            "class_word",
            "class_pictures",
            "prior_weight",
            "caption_dropout",
            "shuffle_caption",
            "keep_tokens",
            "clip_skip",
        ),
    ),
    (
        "Pictures",
        ("flip", "crop", "buckets", "bucket_min", "bucket_max", "bucket_step", "bucket_no_upscale"),
    ),
    (
        "Watching",
        (
            "sample_prompts",
            "sample_every",
            "sample_every_epochs",
            "checkpoint_every",
            "checkpoint_every_epochs",
            "keep_checkpoints",
            "validation_share",
            "validate_every",
        ),
    ),
    ("Machine", ("precision", "save_precision", "gradient_checkpointing", "cache_latents", "seed")),
)
# Shows only the settings whose name, title or help has all the words.
FIND = """element.addEventListener('input', event => {
  const wanted = event.target.value.toLowerCase().split(/\\s+/).filter(Boolean);
  for (const group of document.querySelectorAll('.training-group')) {
    let some = false;
    for (const field of group.querySelectorAll('[id^=training-]')) {
      const text = (field.id.slice(9) + ' ' + field.textContent).toLowerCase();
      const fits = wanted.every(word => text.includes(word));
      field.style.display = fits ? '' : 'none';
      some ||= fits;
    }
    group.style.display = some ? '' : 'none';
  }
});"""


def lay_out(form: Form[TrainingConfig]) -> None:
    """Put them into the Blocks that is being built."""
    named = {name for _, names in GROUPS for name in names}
    others = tuple(
        name for name in TrainingConfig.model_fields if name not in named and name not in BASICS
    )
    many = len(TrainingConfig.model_fields) - len(BASICS)
    with gr.Accordion(f"All other settings ({many})", open=False, elem_id="train-rest"):
        gr.HTML(
            '<input type="search" class="find" placeholder="Search: warm-up, buckets, samples …" '
            'aria-label="Search the settings">',
            js_on_load=FIND,
            elem_id="train-find",
        )
        for title, names in (*GROUPS, ("More", others)):
            if names:
                with gr.Column(elem_classes="training-group"):
                    gr.HTML(f"<h4>{title}</h4>")
                    for name in names:
                        _field(form, name)


def _field(form: Form[TrainingConfig], name: str) -> None:
    told = schema(TrainingConfig)[name]
    kinds = {kind.get("type") for kind in (told, *told.get("anyOf", ()))}
    settings: dict[str, Any] = {"min_width": 140}
    if "null" in kinds:
        settings["placeholder"] = "by itself"
    if kinds & {"number", "integer"}:  # a slider only for shares
        settings |= {"slider": False} if "integer" in kinds or not told.get("step") else {}
        settings |= {"step": 0.0001} if "number" in kinds and not told.get("step") else {}
        if settings.get("slider", True):
            settings.pop("placeholder", None)
    elif "string" in kinds and "enum" not in told:
        settings["lines"] = 3 if name == "sample_prompts" else 1
    else:
        settings.pop("placeholder", None)
    form.add(name, **settings)
