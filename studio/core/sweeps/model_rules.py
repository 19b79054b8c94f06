"""What the models of a sweep make of its cells: settings of their own, and what they cannot do.

Knows: the sweep, its plan, families. Does not know: which models are installed (their families and
recommended settings are handed in).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from studio.core.base import validate
from studio.core.families.family import Family
from studio.core.generation.family_rules import find_family_faults
from studio.core.generation.request import GenerationRequest
from studio.core.sweeps.spec import (
    ModelSetting,
    SweepPlan,
    SweepSpec,
    format_cell_name,
    group_faults,
)

__all__ = ["apply_recommended_settings", "find_unsuitable_cells"]


def apply_recommended_settings(
    spec: SweepSpec, recommended: Mapping[str, Mapping[str, Any]]
) -> SweepSpec:
    """Return a sweep in which what was left open is what each model's authors recommend.

    With one model the base has the settings, with an axis of models `model_settings` has them for
    each. What the base says, and what an axis decides, stays.

    Args:
        spec: The sweep, its base with nothing set but what was given.
        recommended: Settings by the names of models.
    """
    given = set(spec.base.model_fields_set)
    given |= {setting for axis in spec.axes for setting in axis.affected_settings}
    open_settings = [
        ModelSetting(model=model, field=name, value=value)
        for model, settings in recommended.items()
        for name, value in settings.items()
        if name not in given
    ]
    if not open_settings:
        return spec
    if spec.models != (spec.base.model,):
        return spec.model_copy(update={"model_settings": (*open_settings, *spec.model_settings)})
    values = spec.base.model_dump(exclude_unset=True)
    values |= {setting.field: setting.value for setting in open_settings}
    return spec.model_copy(update={"base": validate(GenerationRequest, values)})


def find_unsuitable_cells(plan: SweepPlan, families: Mapping[str, Family]) -> list[str]:
    """Return a sentence for each kind of cell that its model cannot make.

    Args:
        plan: The plan.
        families: The family of each model of the plan.
    """
    faults = [
        (format_cell_name(cell.coordinates, cell.labels), fault)
        for cell in plan.cells
        for fault in find_family_faults(cell.request, families[cell.request.model])
    ]
    return group_faults(faults)
