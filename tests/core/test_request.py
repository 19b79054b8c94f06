"""The request: one door that names every bad field, one picture per seed, a digest of all that decides the pixels."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from studio.core.base import validate
from studio.core.catalog import SCHEDULERS, NoiseSchedule, Scheduler
from studio.core.generation.request import (
    DIGEST_EXCLUDED_FIELDS,
    SEED_LIMIT,
    GenerationRequest,
    LoraUse,
    ResolvedRequest,
)
from studio.errors import InvalidSpec
from support.request_fields import IMAGE_TASK_VALUES, OTHER_VALUES, SHA
from support.sentences import refused

FULL = ResolvedRequest(prompt="a boat", negative_prompt="fog", width=128, height=192, seed=7)
PINNED = "da0b681381c1f897d18a845ee9ed159e7a07072aab5f0c6b129bbe3725755de4"
NUMBERS = [
    "width",
    "height",
    "steps",
    "guidance",
    "seed",
    "num_images",
    "batch_size",
    "clip_skip",
    "strength",
    "mask_blur",
    "mask_grow",
    "mask_padding",
    "extend_left",
    "seam_blur",
    "hires_scale",
    "hires_steps",
    "hires_strength",
    "hires_tile",
]
CONTENTS = {"model": "aa", "dtype": "float32", "device": "cpu"}


def faults(**values: Any) -> tuple[str, ...]:
    with pytest.raises(InvalidSpec) as caught:
        validate(GenerationRequest, values)
    return caught.value.faults


def refuse(*titles: str, **values: Any) -> str:
    """The one fault or the several, in the words of the file."""
    with refused(InvalidSpec, *titles) as caught:
        validate(GenerationRequest, values)
    return str(caught.value)


def title(name: str) -> str:
    return str(GenerationRequest.model_fields[name].title)


def test_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        FULL.steps = 3
    assert FULL.steps == 20
    assert hash(FULL) == hash(FULL.model_copy())


@pytest.mark.smoke
def test_every_bad_field_is_named_at_once() -> None:
    wrong = {
        "Prompt": {"prompt": "a (b:2000)"},
        "Model": {"model": ""},
        "Width": {"width": 130},
        "Steps": {"steps": 0},
        "CFG scale": {"guidance": "much"},
        "Sampler": {"scheduler": "Eiler"},
        "Seed": {"seed": 2**32},
        "colour": {"colour": "red"},
    }
    values = {name: value for fault in wrong.values() for name, value in fault.items()}
    by_title = dict(line.split(":", 1) for line in refuse(*wrong, **values).splitlines())
    assert "128 or 136" in by_title["Width"]
    assert "130" in by_title["Width"]
    assert "'Euler'" in by_title["Sampler"]
    assert "2000" in by_title["Prompt"]


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize(
    "value",
    [
        float("nan"),
        float("inf"),
        float("-inf"),
        "many",
        "",
        "9" * 5000,
        10**400 + 1,
        -(10**5000),
        10**5000,
        1e300,
        True,
        False,
        [1],
        {"a": 1},
        None,
    ],
    ids=lambda value: f"{type(value).__name__}",
)
def test_no_number_is_refused_with_the_fields_title(name: str, value: object) -> None:
    if value is None and name in ("width", "height"):
        assert (
            getattr(validate(GenerationRequest, {name: None}), name) is None
        )  # the model's own size
        return
    (fault,) = faults(**{name: value})
    assert fault.startswith(f"{title(name)}: ")
    assert len(fault) < 250


@pytest.mark.parametrize(
    "name", ["prompt", "negative_prompt", "model", "scheduler", "noise_schedule"]
)
@pytest.mark.parametrize("value", [None, 5, True, ["a"], "\ud800", "x" * 10_001], ids=ascii)
def test_no_text_is_refused_with_the_fields_title(name: str, value: object) -> None:
    (fault,) = faults(**{name: value})
    assert fault.startswith(f"{title(name)}: ")
    assert len(fault) < 400
    fault.encode()  # what is shown can be shown


@given(
    st.dictionaries(
        st.sampled_from([*GenerationRequest.model_fields, "extra"]),
        st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists),
    )
)
def test_any_value_is_taken_or_refused_in_words(values: dict[str, Any]) -> None:
    try:
        request = validate(GenerationRequest, values)
    except InvalidSpec:
        return
    assert validate(GenerationRequest, request.model_dump(mode="json")) == request


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_impossible_pairs_name_the_possible(scheduler: Scheduler) -> None:
    possible = SCHEDULERS[scheduler].noise_schedules
    every: tuple[NoiseSchedule, ...] = SCHEDULERS["Euler"].noise_schedules
    assert "Model default" in possible
    assert set(possible) <= set(every)
    for schedule in every:
        if schedule in possible:
            assert (
                validate(
                    GenerationRequest, {"scheduler": scheduler, "noise_schedule": schedule}
                ).noise_schedule
                == schedule
            )
        else:
            fault = refuse("Schedule", scheduler=scheduler, schedule=schedule)
            assert scheduler in fault
            assert schedule in fault
            assert ", ".join(possible) in fault


def test_names_in_any_case() -> None:
    assert (
        validate(
            GenerationRequest, {"scheduler": " euler A", "noise_schedule": "UNIFORM"}
        ).scheduler
        == "Euler a"
    )


@pytest.mark.smoke
def test_resolved_leaves_nothing_open() -> None:
    full = GenerationRequest(height=64).resolve(native_size=512, seed=SEED_LIMIT + 9)
    assert (full.width, full.height, full.seed) == (512, 64, 9)
    assert FULL.resolve(native_size=512, seed=1) == FULL  # what was given stays


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, (512, 512)),
        ({"image": SHA}, (200, 104)),
        ({"image": SHA, "width": 96}, (96, 64)),  # 48 would be too small
        ({"image": SHA, "height": 200}, (400, 200)),
        ({"image": SHA, "extend_right": 56}, (256, 104)),
        ({"image": SHA, "mask": SHA}, (200, 104)),
        ({"image": SHA, "mask": SHA, "inpaint_area": "only masked"}, (512, 512)),
        ({"image": SHA, "width": 64, "height": 64, "extend_top": 8}, (64, 64)),
    ],
)
def test_the_size_follows_the_picture(values: dict[str, Any], expected: tuple[int, int]) -> None:
    full = validate(GenerationRequest, values).resolve(512, 0, (200, 101))
    assert (full.width, full.height) == expected
    assert full.resolve(512, 0, (200, 101)) == full


@pytest.mark.parametrize(
    ("values", "field"),
    [
        (
            {"image": SHA, "strength": 0.04},
            "Denoising strength",
        ),
        ({"image": SHA, "strength": 0}, "Denoising strength"),
        ({"image": "SHA"}, "Image"),
        (
            {"image": SHA, "mask": SHA, "extend_left": 8},
            "Mask",
        ),
        (
            {"image": SHA, "mask": SHA, "hires_scale": 2},
            "Hires scale",
        ),
        (
            {"hires_scale": 2, "hires_strength": 0.3, "hires_steps": 2},
            "Hires strength",
        ),
        (
            {"hires_scale": 2, "hires_tile": 64, "hires_overlap": 40},
            "Hires tile",
        ),
        (
            {"hires_scale": 2, "hires_tile": 256, "hires_resize": "latent"},
            "Upscale in",
        ),
        (
            {"hires_scale": 4, "width": 2048, "height": 1024},
            "Hires scale",
        ),
        (
            {"hires_scale": 4, "width": 2048, "height": 2048, "hires_tile": 512},
            "Hires scale",
        ),
        ({"extend_colour": "red"}, "Extend colour"),
        ({"invert_mask": "perhaps"}, "Invert mask"),
        ({"extend_left": 12}, "Extend left"),
        ({"steps": None}, "Steps"),
        ({"guidance": ""}, "CFG scale"),
        ({"extend_left": -77}, "Extend left"),
    ],
)
def test_what_cannot_be_done_to_a_picture(values: dict[str, Any], field: str) -> None:
    refuse(field, **values)


def test_a_size_that_is_known_late_is_judged_then() -> None:
    request = validate(GenerationRequest, {"image": SHA, "hires_scale": 4, "strength": 0})
    assert request.resolve(512, 0, (904, 900)).width == 904
    with refused(InvalidSpec, "Hires scale"):
        request.resolve(512, 0, (1900, 900))


@given(st.integers(0, SEED_LIMIT - 1), st.integers(1, 100), st.integers(1, 16))
def test_split_gives_one_request_per_picture(seed: int, count: int, batch: int) -> None:
    pictures = FULL.model_copy(
        update={"seed": seed, "num_images": count, "batch_size": batch}
    ).split()
    assert [picture.seed for picture in pictures] == [(seed + k) % SEED_LIMIT for k in range(count)]
    assert all(
        picture.num_images == 1 and validate(ResolvedRequest, picture.model_dump()) == picture
        for picture in pictures
    )
    assert {picture.model_copy(update={"seed": 7, "batch_size": 1}) for picture in pictures} == {
        FULL
    }


@pytest.mark.smoke
def test_digest_counts_every_field_that_decides_pixels() -> None:
    fields = set(GenerationRequest.model_fields)
    assert set(OTHER_VALUES) | set(IMAGE_TASK_VALUES) == fields, (
        "each needs a value in support/request_fields.py"
    )
    digests = {
        name: FULL.model_copy(update={name: value}).digest(CONTENTS)
        for name, value in OTHER_VALUES.items()
    }
    same = {name for name, digest in digests.items() if digest == FULL.digest(CONTENTS)}
    assert same == DIGEST_EXCLUDED_FIELDS == {"model", "num_images"}
    decide = [digest for name, digest in digests.items() if name not in DIGEST_EXCLUDED_FIELDS]
    assert len(set(decide)) == len(decide)
    assert all(re.fullmatch("[0-9a-f]{64}", digest) for digest in decide)


def test_digest_leaves_out_what_changes_nothing() -> None:
    """So that pictures made before these settings came keep their digests: this one was computed then."""
    assert (
        FULL.digest(CONTENTS)
        == ResolvedRequest(
            prompt="a boat", negative_prompt="fog", width=128, height=192, seed=7
        ).digest(CONTENTS)
        == PINNED
    )
    for name, (needed, value) in IMAGE_TASK_VALUES.items():
        base = FULL.model_copy(update={k: v for k, v in needed.items() if v is not None})
        changed = validate(ResolvedRequest, base.model_dump() | {name: value})
        assert changed.digest(CONTENTS) != base.digest(CONTENTS), name
        assert name not in changed.inactive_fields
        if needed:
            with_it = FULL.model_copy(update={name: value})
            assert name in with_it.inactive_fields, name
            assert with_it.digest(CONTENTS) == FULL.digest(CONTENTS), name
            with refused(InvalidSpec, title(name)):
                with_it.reject_inactive()
        changed.reject_inactive()


def test_digest_counts_contents_and_no_order() -> None:
    digest = FULL.digest(CONTENTS)
    for name in CONTENTS:
        assert FULL.digest(CONTENTS | {name: "other"}) != digest
    backwards = validate(ResolvedRequest, dict(reversed(FULL.model_dump().items())))
    assert backwards.digest(dict(reversed(CONTENTS.items()))) == digest


def test_tags_and_the_field_are_the_same_thing() -> None:
    tagged = validate(
        GenerationRequest,
        {"prompt": "a boat <lora:moon:0.5:1>, <lora:b:te=2>", "loras": "<lora:c:0>", "seed": 3},
    )
    told = [(use.name, use.text_encoder, use.unet) for use in tagged.resolve(64, 0).loras]
    assert told == [("c", 0, 0), ("moon", 0.5, 1), ("b", 2, 2)]
    assert tagged.resolve(64, 0).prompt == "a boat ,"
    listed = validate(
        GenerationRequest,
        {
            "prompt": "a boat ,",
            "seed": 3,
            "loras": [
                "c:0",
                {"name": "moon", "text_encoder": 0.5},
                LoraUse(name="b", unet=2, text_encoder=2),
            ],
        },
    )
    assert tagged.with_inline_loras() == listed == listed.with_inline_loras()
    assert tagged.resolve(64, 0).split() == listed.resolve(64, 0).split()
    assert tagged.resolve(64, 0).digest(CONTENTS) == listed.resolve(64, 0).digest(CONTENTS)
    for use in listed.loras:
        assert (
            validate(GenerationRequest, {"loras": [str(use)]}).loras
            == validate(GenerationRequest, {"loras": use.tag}).loras
            == (use,)
        )


def test_loras_count_by_content_and_weight() -> None:
    def digest(*uses: str, **contents: str) -> str:
        found = {f"lora {name}": content for name, content in contents.items()}
        return FULL.model_copy(
            update={"loras": validate(GenerationRequest, {"loras": uses}).loras}
        ).digest(CONTENTS | found)

    assert (
        digest("moon:0.5", moon="aa")
        == digest("luna:0.5", luna="aa")
        != digest("moon:0.5", moon="bb")
    )
    assert (
        len(
            {
                digest("moon:0.5", moon="aa"),
                digest("moon:0.5:1", moon="aa"),
                digest("moon:1:0.5", moon="aa"),
                digest(),
            }
        )
        == 4
    )
    assert digest("moon:0", moon="aa") == digest() == FULL.digest(CONTENTS)


@pytest.mark.parametrize(
    "given",
    [
        5,
        None,
        "moon",
        [5],
        ["a", "b:x"],
        ["a:1:2:3"],
        ["a:te=1:te=2"],
        ["a:nan"],
        ["a:1e999"],
        ["a:4.5"],
        [{"name": "a", "unet": True}],
        [{"nam": "a"}],
        [{"name": "a<b"}],
        [{"name": " a"}],
        [""],
        [{3: 4}],
        ["a", "a:0.5"],
        [f"a{k}" for k in range(17)],
        "\ud800",
        [{"name": "\ud800"}],
    ],
    ids=ascii,
)
def test_loras_that_cannot_be_are_refused_in_words(given: object) -> None:
    fault = refuse("LoRAs", loras=given)
    assert len(fault) < 400
    fault.encode()


def test_a_tag_among_the_listed_counts_too() -> None:
    refuse("LoRAs", prompt="<lora:moon:1>", loras=["moon:0.5"])
    refuse("LoRAs", prompt="<lora:moon:1>", loras=[f"a{k}" for k in range(16)])
    refuse("Negative prompt", negative_prompt="x <lora:moon:1>")


def test_task() -> None:
    def task(**values: Any) -> str:
        return validate(GenerationRequest, values).task

    assert FULL.task == "txt2img" == task(mask=SHA) == task(extend_left=8) == task(hires_scale=2)
    assert task(image=SHA) == "img2img" == task(image=SHA, hires_scale=2, strength=0)
    assert task(image=SHA, mask=SHA) == "inpaint"
    assert task(image=SHA, extend_top=8) == "outpaint"
    assert FULL.is_guided
    assert not FULL.model_copy(update={"guidance": 1.0}).is_guided


def test_guests_may_ask_for_less() -> None:
    validate(
        GenerationRequest,
        {"width": 1024, "steps": 60, "num_images": 8, "loras": ["a", "b", "c", "d"]},
    ).validate_for_guest()
    with refused(InvalidSpec, "Width", "Steps", "Images", "Batch size", "LoRAs"):
        validate(
            GenerationRequest,
            {
                "width": 2048,
                "steps": 61,
                "num_images": 9,
                "batch_size": 5,
                "prompt": "<lora:e>",
                "loras": ["a", "b", "c", "d"],
            },
        ).validate_for_guest()


def test_guests_may_ask_for_smaller_work_on_pictures() -> None:
    validate(GenerationRequest, {"image": SHA, "extend_left": 512}).validate_for_guest()
    validate(
        GenerationRequest, {"hires_scale": 2, "hires_steps": 60, "hires_tile": 1024}
    ).validate_for_guest()
    with refused(InvalidSpec, "Extend left", "Extend bottom"):
        validate(
            GenerationRequest, {"image": SHA, "extend_left": 520, "extend_bottom": 1024}
        ).validate_for_guest()
    with refused(InvalidSpec, "Hires scale", "Hires steps", "Hires tile"):
        validate(
            GenerationRequest, {"hires_scale": 3, "hires_steps": 61, "hires_tile": 2048}
        ).validate_for_guest()


@pytest.mark.parametrize("scale", [1.0, 1.5])
def test_what_is_cached_is_no_setting(scale: float) -> None:
    """A request whose key was asked for resolves as one that is new."""
    asked, new = (GenerationRequest(hires_scale=scale, prompt="a <lora:moon:1>") for _ in range(2))
    assert asked.key
    assert asked.inactive_fields
    assert dict(asked) == dict(new)
    assert dict(asked).keys() == GenerationRequest.model_fields.keys()
    assert asked.resolve(64, 5) == new.resolve(64, 5)
    assert asked.resolve(64, 5).inactive_fields == new.resolve(64, 5).inactive_fields
