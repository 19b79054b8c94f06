"""Presets: every shipped one loads, what is saved comes back, and what a person mistypes is named."""

from __future__ import annotations

import tempfile
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from studio.core.base import field_meta, validate_stored
from studio.core.catalog import DEFAULT_MODEL, SCHEDULERS
from studio.core.generation.request import GenerationRequest
from studio.errors import BadFile, InvalidSpec
from studio.settings import shipped
from studio.storage.models.library import read_model_info
from studio.storage.presets import Presets
from support.request_fields import IMAGE_TASK_VALUES, OTHER_VALUES
from support.sentences import refused

SHIPPED = shipped("presets") / "pictures"
NAMES = sorted(path.stem for path in SHIPPED.glob("*.toml"))
OTHER: dict[str, Any] = OTHER_VALUES | {
    "loras": [{"name": "moon", "unet": 0.5, "text_encoder": 0.75}],
}
# A preset may hold settings for pictures to come, without a picture; but no value at its default.
ON_A_PICTURE = {name: value for name, (_, value) in IMAGE_TASK_VALUES.items()}
# What a file means that does not name them is not the default.
ALWAYS_WRITTEN = {
    name: field.default
    for name, field in GenerationRequest.model_fields.items()
    if field_meta(GenerationRequest, name).get("default_before")
}
WORDS = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0()[]<.\\"), max_size=30
).filter(lambda text: "AND" not in text and "BREAK" not in text)
SIDES = st.none() | st.integers(8, 256).map(lambda eighth: eighth * 8)
PAIRS = st.sampled_from(
    [
        (scheduler, schedule)
        for scheduler, info in SCHEDULERS.items()
        for schedule in info.noise_schedules
    ]
)
REQUESTS = st.builds(
    lambda pair, **values: GenerationRequest(scheduler=pair[0], noise_schedule=pair[1], **values),
    pair=PAIRS,
    prompt=WORDS,
    negative_prompt=WORDS,
    model=st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20),
    width=SIDES,
    height=SIDES,
    steps=st.integers(1, 150),
    guidance=st.floats(1, 30),
    seed=st.integers(-1, 2**32 - 1),
    num_images=st.integers(1, 100),
    batch_size=st.integers(1, 16),
    clip_skip=st.integers(1, 12),
)


@pytest.fixture
def presets(tmp_path: Path) -> Presets[GenerationRequest]:
    return Presets(GenerationRequest, SHIPPED, tmp_path / "own")


def write(presets: Presets[GenerationRequest], name: str, text: str | bytes) -> None:
    presets.user_folder.mkdir(parents=True, exist_ok=True)
    (presets.user_folder / f"{name}.toml").write_bytes(
        text if isinstance(text, bytes) else text.encode()
    )


@pytest.mark.smoke
@pytest.mark.parametrize("name", NAMES)
def test_every_shipped_preset_loads(name: str, presets: Presets[GenerationRequest]) -> None:
    request = presets.load(name)
    written = tomllib.loads((SHIPPED / f"{name}.toml").read_text("utf-8"))
    assert written
    assert request.model_dump(include=set(written)) == written
    assert (
        request.model == DEFAULT_MODEL or "model" not in written
    )  # the only model that everybody has


def test_the_shipped_ones_are_listed_and_fit_the_embedded_model(
    presets: Presets[GenerationRequest],
) -> None:
    assert presets.list_names() == NAMES
    assert len(NAMES) >= 3
    first = presets.load("Pocket - first image")
    assert first.width == first.height == read_model_info(shipped("assets") / "pocket").native_size


@given(REQUESTS)
@example(GenerationRequest(**OTHER))
@example(GenerationRequest(prompt="\x01" * 10_000, negative_prompt="\U0001f680" * 10_000))
@example(GenerationRequest(prompt="\"\"\"\n\r\n''' # [x] = \t\x7f ", model='a"b\\'))
def test_what_is_saved_comes_back(request: GenerationRequest) -> None:
    with tempfile.TemporaryDirectory() as folder:
        presets = Presets(GenerationRequest, SHIPPED, Path(folder) / "own")
        assert presets.load(presets.save("Mine", request).stem) == request
        assert presets.list_names() == sorted([*NAMES, "Mine"])


def test_only_what_differs_is_kept(presets: Presets[GenerationRequest]) -> None:
    assert tomllib.loads(presets.save("all", GenerationRequest()).read_text()) == ALWAYS_WRITTEN
    assert set(OTHER) | set(ON_A_PICTURE) == set(GenerationRequest.model_fields)
    written = tomllib.loads(presets.save("all", GenerationRequest(**OTHER)).read_text())
    assert written == ALWAYS_WRITTEN | OTHER


@pytest.mark.parametrize(
    "without", [("mask", "hires_scale", "hires_resize"), ("image", "hires_resize")]
)
def test_settings_of_work_on_a_picture_are_kept(
    presets: Presets[GenerationRequest], without: tuple[str, ...]
) -> None:
    kept = {name: value for name, value in ON_A_PICTURE.items() if name not in without}
    written = tomllib.loads(presets.save("all", GenerationRequest(**kept)).read_text())
    assert written == ALWAYS_WRITTEN | kept | {"styles": list(kept["styles"])}
    assert presets.load("all").model_dump(include=set(kept)) == kept


def test_own_presets_hide_shipped_ones_and_leave_them_alone(
    presets: Presets[GenerationRequest],
) -> None:
    before = (SHIPPED / f"{NAMES[0]}.toml").read_bytes()
    presets.save(NAMES[0], GenerationRequest(steps=99))
    assert presets.load(NAMES[0]).steps == 99
    assert presets.list_names() == NAMES
    assert (SHIPPED / f"{NAMES[0]}.toml").read_bytes() == before


@pytest.mark.parametrize(
    "name",
    [
        "../out",
        "/tmp/out",
        "a/../../b",
        "..\\out",
        "a\0b",
        "x" * 500,
        "Moon: 3/4?",
        ".hidden",
        "é" * 200,
    ],
)
def test_a_hostile_name_stays_in_its_folder(name: str, presets: Presets[GenerationRequest]) -> None:
    path = presets.save(name, GenerationRequest(steps=3))
    assert path.parent == presets.user_folder
    assert list(presets.user_folder.parent.rglob("*.toml")) == [path]
    assert presets.load(path.stem).steps == 3
    assert path.stem in presets.list_names()


@pytest.mark.parametrize("name", ["", "..", "/", "CON", "\0", " . "])
def test_no_name_is_refused(name: str, presets: Presets[GenerationRequest]) -> None:
    with refused(BadFile):
        presets.save(name, GenerationRequest())
    assert not presets.user_folder.exists()


def test_a_name_leads_nowhere_else(presets: Presets[GenerationRequest]) -> None:
    write(presets, "mine", "steps = 3")
    (presets.user_folder.parent / "secret.toml").write_text("steps = 4")
    for name in (
        "../secret",
        "..\\secret",
        str(presets.user_folder.parent / "secret"),
        "mine.toml",
        "",
        "*",
        "mine\0",
        "x" * 5000,
    ):
        with pytest.raises(BadFile) as caught:
            presets.load(name)
        assert "Moon thesis" in str(caught.value)
        assert len(str(caught.value)) < 300
    with refused(BadFile):
        presets.load("../secret")


def test_whatever_is_listed_can_be_loaded(presets: Presets[GenerationRequest]) -> None:
    """Files that a person named, in whatever way the system took."""
    for name in ("My: preset", "-x", "a?b", "x.", "größe", "v1.5"):
        write(presets, name, "steps = 3")
    write(presets, ".hidden", "steps = 3")
    (presets.user_folder / "folder.toml").mkdir()
    assert presets.list_names() == sorted(
        [*NAMES, "My: preset", "-x", "a?b", "x.", "größe", "v1.5"]
    )
    assert all(presets.load(name) for name in presets.list_names())


@pytest.mark.parametrize(
    "text",
    [
        "steps = ",
        "steps = 3\nsteps = 4",
        b"\xff\xfe",
        "a = " + "[" * 50_000,
        "seed = " + "9" * 5000,
        "# long\n" * 100_000,
        "{}",
        "<html>",
    ],
    ids=lambda text: f"{text[:8]!r}",
)
def test_broken_toml(text: str | bytes, presets: Presets[GenerationRequest]) -> None:
    write(presets, "mine", text)
    with refused(BadFile):
        presets.load("mine")


def test_as_notepad_writes_it(presets: Presets[GenerationRequest]) -> None:
    write(presets, "mine", b'\xef\xbb\xbfsteps = 3\r\nprompt = "a boat"\r\n')
    expected = validate_stored(GenerationRequest, {"steps": 3, "prompt": "a boat"})
    assert presets.load("mine") == expected


def test_all_bad_fields_are_named(presets: Presets[GenerationRequest]) -> None:
    write(
        presets,
        "mine",
        'steps = 2020-01-01\nseed = inf\nprompt = [1]\nwidth = {a = 1}\nstesp = 3\nscheduler = "Eiler"\n'
        "count = true",
    )
    with refused(InvalidSpec) as caught:
        presets.load("mine")
    assert all(fault.startswith("The preset mine: ") for fault in caught.value.faults)
    named = {fault.split(": ")[1] for fault in caught.value.faults}
    assert named == {"Steps", "Seed", "Prompt", "Width", "stesp", "Sampler", "Images"}
