"""The folded group of a form for noise, solvers and forms of guidance.

Knows: which settings it has, and that only those are in view that change something. Does not know:
when that is (core/generation/rules.py), what they do.
"""

from __future__ import annotations

import gradio as gr

from studio.core.base import validate
from studio.core.generation.request import GenerationRequest
from studio.errors import InvalidSpec
from studio.ui.events import UNQUEUED_EVENT_OPTIONS, Updates
from studio.ui.form import Form

ROWS = (
    ("noise_source", "ensd"),
    ("variation_strength", "variation_seed"),
    ("seed_resize_width", "seed_resize_height"),
    ("guidance_start", "guidance_end"),
    ("guidance_method", "guidance_zero_steps"),
    ("apg_eta", "apg_threshold", "apg_momentum"),
    ("eta",),
    ("s_churn", "s_noise"),
    ("s_tmin", "s_tmax"),
    ("sigma_min", "sigma_max", "rho"),
)
# What decides which of them are in view.
SWITCHES = (
    "scheduler",
    "noise_schedule",
    "guidance",
    "guidance_method",
    "s_churn",
    "eta",
    "variation_strength",
)


class NoiseAndSolver:
    """The settings of `ROWS`, in a part that can be opened."""

    def __init__(self, form: Form[GenerationRequest], elem_id: str) -> None:
        """Place them; the form has to have the other `SWITCHES` by then."""
        self.form = form
        hidden = GenerationRequest().inactive_fields
        with gr.Accordion("Noise and sampler details", open=False, elem_id=elem_id):
            for row in ROWS:
                with gr.Row(elem_classes="pair"):
                    for name in row:
                        form.add(name, min_width=120, visible=name not in hidden)

    @property
    def fields(self) -> list[str]:
        """Names of its settings, one by one."""
        return [name for row in ROWS for name in row]

    def wire(self) -> None:
        """Connect what decides which settings are in view."""
        gr.on(
            [self.form[name].change for name in SWITCHES],
            self.update_visibility,
            {self.form[name] for name in SWITCHES},
            [self.form[name] for name in self.fields],
            preprocess=False,
            trigger_mode="always_last",
            **UNQUEUED_EVENT_OPTIONS,
        )

    def update_visibility(self, values: Updates) -> Updates:
        """Show the settings that change something with what is chosen, and hide the others."""
        chosen = {name: values[self.form[name]] for name in SWITCHES}
        if chosen["eta"] == "":
            chosen["eta"] = None
        try:
            inactive = validate(GenerationRequest, chosen).inactive_fields
        except InvalidSpec:  # a number half typed
            return {self.form["ensd"]: gr.skip()}
        return {self.form[name]: gr.update(visible=name not in inactive) for name in self.fields}
