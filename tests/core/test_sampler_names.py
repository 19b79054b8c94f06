"""Samplers and schedules under every program's names, as their menus and files have them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from studio.core.catalog import MODEL_DEFAULT, NOT_AVAILABLE, SCHEDULERS
from studio.core.generation.recipes.sampler_names import read_sampler


@pytest.mark.parametrize(
    ("sampler", "schedule", "expected"),
    [
        ("DPM++ 2M Karras", "", ("DPM++ 2M", "Karras")),  # A1111 before 1.9
        ("dpm++ 2m karras", "", ("DPM++ 2M", "Karras")),
        ("DPM++ 2M SDE Exponential", "", ("DPM++ 2M SDE", "Exponential")),
        ("DPM2 a Karras", "", ("DPM2 a", "Karras")),
        ("Euler a", "Automatic", ("Euler a", None)),
        ("Euler", "SGM Uniform", ("Euler", "SGM Uniform")),
        ("Euler Ancestral", "", ("Euler a", None)),  # Stability Matrix
        ("DPM++ 2M SGM Uniform", "", ("DPM++ 2M", "SGM Uniform")),
        ("euler_ancestral", "simple", ("Euler a", "Simple")),  # ComfyUI
        ("dpmpp_2m", "karras", ("DPM++ 2M", "Karras")),
        ("dpmpp_2m_sde_gpu", "exponential", ("DPM++ 2M SDE", "Exponential")),
        ("dpm_2", "karras", ("DPM2", "Karras")),
        ("uni_pc", "sgm_uniform", ("UniPC", "SGM Uniform")),
        ("dpmpp_2m_k", "", ("DPM++ 2M", "Karras")),  # InvokeAI 3 to 5
        ("kdpm_2_a_k", "", ("DPM2 a", "Karras")),
        ("dpmpp_sde_k", "", ("DPM++ SDE", "Karras")),
        ("euler_k", "", ("Euler", "Karras")),
        ("pndm", "", ("PLMS", None)),
        ("k_euler_a", "", ("Euler a", None)),  # InvokeAI 2
        ("k_lms", "", ("LMS", None)),
        ("k_euler_ancestral", "native", ("Euler a", MODEL_DEFAULT)),  # NovelAI
        ("k_dpmpp_2m", "karras", ("DPM++ 2M", "Karras")),
        ("SA Solver", "", ("SA-Solver", None)),  # SD.Next
        ("KDPM2 a", "", ("DPM2 a", None)),
        ("Euler A Trailing", "", ("Euler a", None)),  # Draw Things
        ("DDIM Trailing", "", ("DDIM", "Simple")),
    ],
)
def test_spellings(sampler: str, schedule: str, expected: tuple[str, str | None]) -> None:
    reading = read_sampler(sampler, schedule)
    assert (reading.scheduler, reading.noise_schedule) == expected
    assert bool(reading.notes) == (sampler == "Euler A Trailing")


def test_every_pair_of_the_catalog_under_its_own_name() -> None:
    for scheduler, info in SCHEDULERS.items():
        for schedule in info.noise_schedules:
            if schedule == "Automatic":  # says nothing about the levels
                continue
            reading = read_sampler(scheduler.upper(), schedule.replace(" ", "_"))
            assert (reading.scheduler, reading.noise_schedule) == (scheduler, schedule)
            assert not reading.notes


@pytest.mark.parametrize("sampler", ["dpm_adaptive", "Restart", "euler_cfg_pp", "what a sampler"])
def test_what_the_studio_lacks_is_named(sampler: str) -> None:
    reading = read_sampler(sampler, "karras")
    assert reading.scheduler is reading.noise_schedule is None
    (note,) = reading.notes
    assert "is not available here" in note
    assert note.endswith("; the sampler is left unchanged.")


def test_a_schedule_that_does_not_go_with_the_sampler_is_named() -> None:
    reading = read_sampler("LCM", "karras")
    assert (reading.scheduler, reading.noise_schedule) == ("LCM", "Automatic")
    assert reading.notes == (
        "Schedule type 'karras' does not work with LCM here; Automatic is used.",
    )


def test_no_name_says_nothing() -> None:
    assert read_sampler(" ").notes == ()
    assert read_sampler("", "Karras").scheduler is None


def test_why_a_sampler_is_not_here() -> None:
    for name, reason in NOT_AVAILABLE.items():
        assert reason in read_sampler(name.upper()).notes[0]


@given(st.text(), st.text())
def test_any_text_is_read_or_named(sampler: str, schedule: str) -> None:
    reading = read_sampler(sampler, schedule)
    assert reading.scheduler or reading.notes or not sampler.strip()
