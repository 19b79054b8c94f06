"""What the form takes over from a preset and from a dataset, and how far it has left the preset.

Knows: which settings belong to a dataset, and so are not kept when another one is chosen.
Does not know: components' places (tab.py), how captions become prompts (core/training/samples.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from studio.core.captions.text import guess_trigger
from studio.core.training.config import TrainingConfig
from studio.core.training.samples import DEFAULT_SAMPLE_INTERVAL, choose_sample_prompts
from studio.storage.datasets.training_set import TrainingSet
from studio.ui.form import Form
from studio.ui.views.templates import render_macro

# Settings that say what is learned; a preset's are of the preset's own dataset.
SUBJECT_FIELDS = ("name", "trigger", "class_word", "sample_prompts")
MAX_NAMED_CHANGES = 6


def build_subject_fields(training_set: TrainingSet, trigger: str | None = None) -> dict[str, Any]:
    """Return the settings that a dataset brings along, by field name.

    Args:
        training_set: The dataset.
        trigger: The trigger word; None guesses it from the captions.

    Returns:
        SUBJECT_FIELDS, with sample prompts made of captions; empty where it brings none.
    """
    captions = [image.caption for image in training_set.images]
    if trigger is None:
        trigger = guess_trigger(captions)
    return {
        "name": training_set.name,
        "trigger": trigger,
        "class_word": "",
        "sample_prompts": "\n".join(choose_sample_prompts(captions, trigger)),
    }


def add_sample_interval(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Add how often the sample prompts are painted: never where there are none."""
    interval = DEFAULT_SAMPLE_INTERVAL if fields["sample_prompts"] else None
    return {**fields, "sample_every": interval, "sample_every_epochs": None}


def select_followers(
    subject_fields: Mapping[str, Any], current: Mapping[str, Any], carried: Mapping[str, Any]
) -> dict[str, Any]:
    """Select the settings that go with a newly chosen dataset; what somebody typed stays.

    Args:
        subject_fields: What the dataset brings along.
        current: What is on the page.
        carried: What the page took over from a preset or another dataset, by field name.
    """
    followers = {}
    for name, value in subject_fields.items():
        text = str(current.get(name) or "")
        if name == "sample_prompts" and not (text and value):
            continue  # nobody asked for samples, or there is nothing to make them of
        if not text or text == str(carried.get(name) or ""):
            followers[name] = value
    return followers


def list_preset_changes(
    form: Form[TrainingConfig], preset: Mapping[str, Any], values: Mapping[Any, Any]
) -> list[str]:
    """List the titles of the settings on the page that are not the preset's.

    Args:
        form: The form.
        preset: Values as they were put into its components, by field name.
        values: What the browser sent.
    """
    return [
        str(TrainingConfig.model_fields[name].title)
        for name, value in form.read_raw(values).items()
        if name in preset and _normalize(value) != _normalize(preset[name])
    ]


def render_preset_note(preset_name: str, changed_titles: list[str]) -> str:
    """Render which settings have been changed since the preset was loaded; "" without any."""
    if not preset_name or not changed_titles:
        return ""
    titles = ", ".join(changed_titles[:MAX_NAMED_CHANGES])
    num_more = len(changed_titles) - MAX_NAMED_CHANGES
    if num_more > 0:
        titles += f" and {num_more} more"
    return render_macro("training.html", "preset_note", name=preset_name, titles=titles)


def _normalize(value: Any) -> Any:
    """Return a component's value as it can be compared: the page sends 4, 4.0 or "4" for one."""
    if value is None or value == "":
        return ""
    if isinstance(value, bool):
        return "on" if value else "off"
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return value.strip() if isinstance(value, str) else value
