"""The advanced settings of a training: all that are not basic, in groups and searchable.

Knows: where each setting stands and which component suits it.
Does not know: what the settings do, the basic ones (tab.py).
"""

from __future__ import annotations

from typing import Any

import gradio as gr

from studio.core.base import field_schemas
from studio.core.training.config import BASIC_FIELDS, TrainingConfig
from studio.ui.form import Form
from studio.ui.views.templates import render_macro

# A setting that is neither here nor basic stands in a last group, so that none can be forgotten.
FIELD_GROUPS = (
    ("Length", ("epochs", "train_batch_size", "gradient_accumulation_steps", "repeats")),
    (
        "The LoRA",
        (
            "alpha",
            "use_rslora",
            "lokr_factor",
            "lokr_factors",
            "dropout",
            "rank_dropout",
            "module_dropout",
            "scale_weight_norms",
            "targets",
            "target_modules",
            "conv_rank",
            "conv_alpha",
            "train_norm",
            "train_unet",
            "train_text_encoder",
        ),
    ),
    (
        "Learning",
        (
            "text_encoder_lr",
            "optimizer",
            "lr_scheduler",
            "lr_warmup",
            "lr_scheduler_num_cycles",
            "lr_scheduler_power",
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
            "num_class_images",
            "prior_loss_weight",
            "caption_dropout",
            "shuffle_caption",
            "keep_tokens",
            "clip_skip",
        ),
    ),
    (
        "Images",
        (
            "random_flip",
            "crop",
            "buckets",
            "bucket_min",
            "bucket_max",
            "bucket_step",
            "bucket_no_upscale",
        ),
    ),
    (
        "Monitoring",
        (
            "sample_prompts",
            "sample_every",
            "sample_every_epochs",
            "checkpoint_every",
            "checkpoint_every_epochs",
            "checkpoints_total_limit",
            "validation_split",
            "validate_every",
        ),
    ),
    ("Machine", ("precision", "save_precision", "gradient_checkpointing", "cache_latents", "seed")),
)
# Shows only the settings whose name, title or help has all the words.
SEARCH_JS = """element.addEventListener('input', event => {
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


def build_layout(form: Form[TrainingConfig]) -> None:
    """Add the advanced settings to `form`, inside the Blocks that is being built."""
    grouped_names = {name for _, names in FIELD_GROUPS for name in names}
    remaining_names = tuple(
        name
        for name in TrainingConfig.model_fields
        if name not in grouped_names and name not in BASIC_FIELDS
    )
    num_settings = len(TrainingConfig.model_fields) - len(BASIC_FIELDS)
    with gr.Accordion(f"All other settings ({num_settings})", open=False, elem_id="train-rest"):
        gr.HTML(
            '<input type="search" class="find" placeholder="Search: warm-up, buckets, samples …" '
            'aria-label="Search the settings">',
            js_on_load=SEARCH_JS,
            elem_id="train-find",
        )
        for title, names in (*FIELD_GROUPS, ("More", remaining_names)):
            if names:
                with gr.Column(elem_classes="training-group"):
                    gr.HTML(render_macro("training.html", "group_heading", text=title))
                    for name in names:
                        _add_field(form, name)


def _add_field(form: Form[TrainingConfig], name: str) -> None:
    """Add a field; only shares (numbers with a step) get a slider."""
    schema = field_schemas(TrainingConfig)[name]
    types = {variant.get("type") for variant in (schema, *schema.get("anyOf", ()))}
    kwargs: dict[str, Any] = {"min_width": 140}
    takes_text = False
    if types & {"number", "integer"}:
        takes_text = "integer" in types or not schema.get("step")
        if takes_text:
            kwargs["slider"] = False
        if "number" in types and not schema.get("step"):
            kwargs["step"] = 0.0001
    elif "string" in types and "enum" not in schema:
        takes_text = True
        kwargs["lines"] = 3 if name == "sample_prompts" else 1
    if takes_text and "null" in types:
        kwargs["placeholder"] = "automatic"
    form.add(name, **kwargs)
