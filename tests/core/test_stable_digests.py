"""A digest outlives renamed and new fields, so that what was made before is found and not made again."""

from __future__ import annotations

from typing import Any

import pytest

from studio.core.base import Spec, former_names, spec_field, validate
from studio.core.generation.fields import RequestFields
from studio.core.generation.request import GenerationRequest, ResolvedRequest
from studio.core.sweeps.spec import SweepSpec
from studio.core.training.config import TrainingConfig
from studio.errors import InvalidSpec
from support.sentences import refused

pytestmark = pytest.mark.smoke

# The fields that the first version had; any other needs a neutral value.
FIRST_FIELDS = frozenset(
    [
        "prompt",
        "negative_prompt",
        "model",
        "width",
        "height",
        "steps",
        "guidance",
        "scheduler",
        "schedule",
        "seed",
        "count",
        "batch",
        "clip_skip",
        "loras",
        "image",
        "mask",
        "strength",
        "resize_mode",
        "mask_blur",
        "mask_grow",
        "invert_mask",
        "masked_content",
        "inpaint_area",
        "mask_padding",
        "extend_left",
        "extend_top",
        "extend_right",
        "extend_bottom",
        "extend_fill",
        "extend_colour",
        "seam_blur",
        "hires_scale",
        "hires_resize",
        "hires_steps",
        "hires_strength",
        "hires_tile",
        "hires_overlap",
    ]
)
# Computed by the first version for this request.
FIRST_DIGEST = "d41fa585ed802de12667a37d561073636ccd2dccd39908e8c0d215c33174e278"
REQUEST = {"prompt": "a boat", "width": 128, "height": 128, "seed": 7, "schedule": "Karras"}
HASHES = {"model": "m" * 64, "dtype": "float32", "device": "cpu"}


def resolved(**values: Any) -> ResolvedRequest:
    return validate(GenerationRequest, REQUEST | values).resolve(128, 0)


def test_a_digest_is_what_the_first_version_computed() -> None:
    assert resolved().digest(HASHES) == FIRST_DIGEST


def test_every_new_field_has_a_neutral_value() -> None:
    first_names = {name: former for former, name in former_names(RequestFields).items()}
    for name, field in RequestFields.model_fields.items():
        extra = field.json_schema_extra
        is_neutral = isinstance(extra, dict) and "neutral" in extra
        assert first_names.get(name, name) in FIRST_FIELDS or is_neutral, name


class Old(Spec):
    """A spec as it was."""

    count: int = spec_field(1, title="Count", help="How many.")


class New(Spec):
    """The same with a renamed field and a new one."""

    number: int = spec_field(1, title="Count", help="How many.", formerly="count")
    glow: float = spec_field(0.0, title="Glow", help="New.", neutral=0.0)
    tint: str | None = spec_field(None, title="Tint", help="New.", neutral=None)


def test_renamed_and_new_fields_change_no_digest() -> None:
    assert New(number=3).stable_dump() == Old(count=3).stable_dump() == {"count": 3}
    assert New(number=3, glow=0.5).stable_dump() == {"count": 3, "glow": 0.5}


def test_a_former_name_is_read() -> None:
    assert New.model_validate({"count": 3}) == New(number=3)


def test_both_names_at_once_are_refused() -> None:
    with refused(InvalidSpec, "count") as caught:
        validate(New, {"count": 3, "number": 4})
    assert "number" in str(caught.value)


def test_an_error_names_the_field_by_its_title() -> None:
    with refused(InvalidSpec, "Count"):
        validate(New, {"count": "many"})


def test_a_sweep_and_a_training_are_dumped_under_first_names() -> None:
    sweep = SweepSpec.model_validate(
        {"base": {"prompt": "a"}, "axes": [{"field": "schedule", "values": ["Karras"]}]}
    )
    dumped = sweep.stable_dump()
    assert dumped["axes"][0]["field"] == "schedule"
    assert dumped["base"]["schedule"] == "Karras"
    training = TrainingConfig.model_validate({"dataset": "d", "name": "n", "batch": 2})
    assert training.train_batch_size == 2
    assert training.stable_dump()["batch"] == 2


@pytest.mark.parametrize("number", [1, 3])
def test_split_gives_each_image_its_own_seed(number: int) -> None:
    requests = resolved(num_images=number, batch_size=2, seed=2**32 - 1).split()
    assert [request.seed for request in requests] == [2**32 - 1, 0, 1][:number]
    assert {request.num_images for request in requests} == {1}
    assert {request.batch_size for request in requests} == {min(2, number)}


def test_resolving_lifts_tags_and_leaves_nothing_open() -> None:
    request = validate(GenerationRequest, {"prompt": "a <lora:moon:0.5> b", "seed": -1})
    full = request.resolve(256, 5)
    assert (full.width, full.height, full.seed) == (256, 256, 5)
    assert [use.name for use in full.loras] == ["moon"]
    assert full.prompt == "a  b"
    assert full.with_inline_loras() is full
    assert full.key == request.model_copy(update={"width": 256, "height": 256, "seed": 5}).key
