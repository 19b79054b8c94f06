"""Automatic is the schedule that suits the scheduler; what was made before keeps its schedule and its digest."""

from __future__ import annotations

from typing import Any, get_args

import pytest

from studio.core.base import validate, validate_stored
from studio.core.catalog import NOT_AVAILABLE, SCHEDULERS, NoiseSchedule, get_automatic_schedule
from studio.core.families.registry import FAMILIES
from studio.core.generation.family_rules import (
    find_family_faults,
    list_schedule_choices,
    resolve_noise_schedule,
)
from studio.core.generation.request import GenerationRequest, ResolvedRequest
from studio.core.sweeps.spec import SweepSpec, plan_sweep
from studio.errors import InvalidSpec

pytestmark = pytest.mark.smoke
# A1111's own table, and Uniform for every other sampler that has it.
A1111 = {
    "DPM++ 2M": "Karras",
    "DPM++ SDE": "Karras",
    "DPM2": "Karras",
    "DPM2 a": "Karras",
    "DPM++ 2M SDE": "Exponential",
    "DPM++ 2M SDE Heun": "Exponential",
    "Euler": "Uniform",
    "Euler a": "Uniform",
    "LMS": "Uniform",
    "Heun": "Uniform",
    "DDIM": "Uniform",
    "PLMS": "Uniform",
    "LCM": "Model default",
}


def digest(**values: Any) -> str:
    return validate(ResolvedRequest, {"width": 64, "height": 64, "seed": 1} | values).digest({})


@pytest.mark.parametrize("scheduler", A1111)
def test_what_suits_a_scheduler_is_a1111s(scheduler: Any) -> None:
    assert get_automatic_schedule(scheduler) == A1111[scheduler]


@pytest.mark.parametrize("family", FAMILIES)
def test_no_scheduler_is_refused_for_a_schedule_nobody_chose(family: str) -> None:
    for scheduler in FAMILIES[family].list_schedulers():
        request = GenerationRequest(scheduler=scheduler)
        assert request.noise_schedule == "Automatic"
        assert find_family_faults(request, FAMILIES[family]) == []
        meant = resolve_noise_schedule("Automatic", scheduler, FAMILIES[family])
        assert meant in FAMILIES[family].list_noise_schedules(scheduler)
        assert list_schedule_choices(scheduler, FAMILIES[family])[:2] == (
            "Automatic",
            "Model default",
        )
    assert resolve_noise_schedule("Karras", "Euler", FAMILIES[family]) == "Karras"


def test_a_flow_takes_the_models_own() -> None:
    flow = FAMILIES["z-image"]
    assert {resolve_noise_schedule("Automatic", name, flow) for name in flow.list_schedulers()} == {
        "Model default"
    }


def test_former_names_are_taken_and_count_as_they_did() -> None:
    old = validate(GenerationRequest, {"scheduler": "DDIM", "noise_schedule": "as shipped"})
    assert old.noise_schedule == "Model default"
    assert old.stable_dump()["schedule"] == "As shipped"
    assert digest(noise_schedule="Automatic") == digest(noise_schedule="Karras")
    assert digest(noise_schedule="Automatic") != digest(noise_schedule="Model default")
    assert digest(scheduler="Euler") == digest(scheduler="Euler", noise_schedule="Uniform")


@pytest.mark.parametrize("stored", [{}, {"scheduler": "dpm++ 2m"}, {"scheduler": "Heun"}])
def test_a_file_that_names_no_schedule_is_of_karras(stored: dict[str, Any]) -> None:
    assert validate_stored(GenerationRequest, stored).noise_schedule == "Karras"
    assert validate(GenerationRequest, stored).noise_schedule == "Automatic"


@pytest.mark.parametrize("scheduler", ["DDIM", "lcm", "TCD", "euler a"])
def test_a_file_gets_no_schedule_that_its_scheduler_cannot_run(scheduler: str) -> None:
    stored = validate_stored(GenerationRequest, {"scheduler": scheduler})
    assert stored.noise_schedule == "Automatic"
    named = {"scheduler": scheduler, "schedule": "Model default"}
    assert validate_stored(GenerationRequest, named).noise_schedule == "Model default"


def test_a_stored_request_is_read_back_as_it_was() -> None:
    for schedule in get_args(NoiseSchedule):
        request = GenerationRequest(scheduler="Euler", noise_schedule=schedule)
        assert validate_stored(GenerationRequest, request.dump_for_file()) == request


def test_what_is_not_there_is_not_there() -> None:
    folded = {name.casefold() for name in SCHEDULERS}
    assert not folded & {name.casefold() for name in NOT_AVAILABLE}
    for name in NOT_AVAILABLE:
        with pytest.raises(InvalidSpec, match="is not available: ") as caught:
            validate(GenerationRequest, {"scheduler": f" {name.lower()}"})
        assert NOT_AVAILABLE[name] in str(caught.value)
    assert all(reason and not reason.endswith(".") for reason in NOT_AVAILABLE.values())


def test_a_stored_sweep_of_schedulers_is_not_refused_for_its_schedule() -> None:
    def schedules(values: str) -> list[str]:
        axes = [{"field": "scheduler", "values": values}]
        spec = validate_stored(SweepSpec, {"base": {"steps": 3}, "axes": axes})
        assert spec.base.model_fields_set == {"steps"}  # the rest is open for a model's own
        return [cell.request.noise_schedule for cell in plan_sweep(spec, seed=1).cells]

    assert schedules("Euler, Heun") == ["Karras"] * 2  # as it was
    assert schedules("Euler, ddim") == ["Automatic"] * 2  # it could not be
