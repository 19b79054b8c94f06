"""Settings that are possible and hardly meant: what the plan of a training warns about.

Knows: usual ranges. Does not know: what is refused (rules.py), what is in a dataset.
"""

from __future__ import annotations

from studio.core.training.config import TrainingConfig
from studio.core.training.samples import list_prompts_without_trigger

# Above it AdamW and Adafactor diverge: presets and the literature use 1e-5 to 2e-3.
MAX_USUAL_LEARNING_RATE = 0.01


def list_warnings(config: TrainingConfig) -> list[str]:
    """Return a sentence for each setting that is unlikely to be meant."""
    warnings = []
    for name in ("learning_rate", "text_encoder_lr"):
        rate = getattr(config, name)
        if rate is not None and rate > MAX_USUAL_LEARNING_RATE:
            title = TrainingConfig.model_fields[name].title
            warnings.append(
                f"{title} {rate:g} is very high and will probably ruin the LoRA; 0.0001 to "
                "0.002 is usual."
            )
    unasked = list_prompts_without_trigger(config)
    if unasked and len(unasked) == len(config.sample_prompt_list):
        warnings.append(
            f"No sample prompt contains the trigger word {config.trigger}, so the samples will not "
            "show what is learned."
        )
    return warnings
