"""What the Training tab takes over from presets and datasets: nothing of another dataset stays unseen."""

from __future__ import annotations

from typing import Any

import pytest
from PIL import Image

from studio.core.captions.text import has_words
from studio.core.sweeps.spec import SweepSpec
from studio.services.submission import Services
from studio.ui.tabs.training.tab import TrainingTab
from support.sentences import refused
from support.training_tab import config
from support.visitors import OWNER, pressed

TOY_CAPTIONS = ["a small white plush toy", "a plush toy on a sofa", "mysks, a plush toy by a lake"]


@pytest.fixture
def toy(desk: Services) -> str:
    folder = desk.home.settings.home / "datasets" / "my toy"
    folder.mkdir(parents=True)
    for number, caption in enumerate(TOY_CAPTIONS):
        Image.new("RGB", (64, 64), (number * 40, 90, 200)).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(caption)
    return folder.name


def on_page(tab: TrainingTab, *updates: dict[Any, Any]) -> dict[Any, Any]:
    """What the browser holds after updates: values of the form and the tab's states."""
    values = {component: component.value for component in tab.form.inputs}
    values |= {tab.carried: {}, tab.loaded_preset: {}}
    for update in updates:
        for component, value in update.items():
            if component in values:
                values[component] = getattr(value, "value", value)
    return values


def train_on(tab: TrainingTab, name: str, trigger: str) -> dict[Any, Any]:
    return tab.load_request({"dataset": name, "name": name, "trigger": trigger}, OWNER)


def test_train_on_this_asks_for_the_datasets_own_thing(tab: TrainingTab, toy: str, by: Any) -> None:
    """The smallest input of the fault: a starter preset, then own images with a trigger word."""
    preset = tab.load_starter_preset(pressed("preset", "moon-pocket"), by(OWNER))
    values = on_page(tab, preset, train_on(tab, toy, "mysks"))
    spec = tab.form.read(values)
    assert (spec.dataset, spec.name, spec.trigger, spec.class_word) == (toy, toy, "mysks", "")
    assert len(spec.sample_prompt_list) == 3
    assert all(has_words(prompt, "mysks") for prompt in spec.sample_prompt_list)
    assert "moon" not in spec.sample_prompts
    assert spec.rank == 16  # what the preset says of the training stays
    note = tab.update_plan(values, by(OWNER))[tab.preset_note]
    assert "moon-pocket, changed" in note
    for title in ("Dataset", "Name", "Trigger word", "Sample prompts"):
        assert title in note


def test_samples_are_asked_for_only_where_captions_give_some(
    tab: TrainingTab, toy: str, desk: Services
) -> None:
    for path in (desk.home.settings.home / "datasets" / toy).glob("*.txt"):
        path.unlink()
    spec = tab.form.read(on_page(tab, train_on(tab, toy, "")))
    assert (spec.sample_prompts, spec.sample_every) == ("", None)


def test_a_preset_that_is_loaded_again_is_not_changed(tab: TrainingTab, by: Any) -> None:
    preset = tab.load_preset("plush-pocket", by(OWNER))
    assert preset[tab.preset] == "plush-pocket"
    values = on_page(tab, preset)
    assert tab.update_plan(dict(values), by(OWNER))[tab.preset_note] == ""
    for same in (400.0, "400"):
        changed = {**values, tab.form["steps"]: same}
        assert tab.update_plan(changed, by(OWNER))[tab.preset_note] == ""
    changed = {**values, tab.form["steps"]: 40}
    assert (
        "plush-pocket, changed</b>: Steps" in tab.update_plan(changed, by(OWNER))[tab.preset_note]
    )
    # saved under a name of its own it is that preset, unchanged
    saved = tab.save_preset({**values, tab.form["steps"]: 40, tab.preset_name: "mine"}, by(OWNER))
    values = on_page(tab, preset, saved) | {tab.form["steps"]: 40}
    assert tab.update_plan(values, by(OWNER))[tab.preset_note] == ""


def test_a_run_that_is_opened_clears_the_preset(tab: TrainingTab, desk: Services, by: Any) -> None:
    tab.load_preset("moon-pocket", by(OWNER))
    filled = tab.fill_form(config(), OWNER)
    assert filled[tab.preset] is None
    assert filled[tab.loaded_preset] == {}


def test_another_dataset_takes_its_own_words_along_but_not_over_typed_ones(
    tab: TrainingTab, toy: str, by: Any
) -> None:
    preset = tab.load_preset("moon-pocket", by(OWNER))
    values = on_page(tab, preset) | {tab.form["dataset"]: toy}
    spec = tab.form.read(on_page(tab, values, tab.follow_dataset(values, by(OWNER))))
    assert (spec.name, spec.trigger) == (toy, "")
    assert spec.sample_prompt_list == tuple(TOY_CAPTIONS)
    assert spec.sample_every == 50
    typed = values | {tab.form["name"]: "plushy", tab.form["sample_prompts"]: "my own words"}
    spec = tab.form.read(on_page(tab, typed, tab.follow_dataset(typed, by(OWNER))))
    assert (spec.name, spec.sample_prompts) == ("plushy", "my own words")


def test_samples_without_the_trigger_are_warned_about(tab: TrainingTab, by: Any) -> None:
    fields = {"trigger": "mysks", "sample_prompts": "a moon", "sample_every": 10}
    assert "No sample prompt contains the trigger word mysks" in tab._render_plan(
        tab.form.fill(config(**fields)), OWNER
    )
    fields["sample_prompts"] = "a moon\na mysks"
    assert "No sample prompt" not in tab._render_plan(tab.form.fill(config(**fields)), OWNER)


@pytest.mark.parametrize("action", ["try", "sweep"])
def test_what_is_tried_has_the_trigger_though_the_samples_lack_it(
    tab: TrainingTab, desk: Services, toy: str, action: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = config(
        dataset=toy, name="toy", trigger="mysks", sample_prompts="a photo of a moon", sample_every=9
    )
    run_id = desk.home.runs.add(spec, OWNER.id)
    desk.home.runs.update_record(run_id, "result", lora={"what": "lora", "lora": "toy", "step": 9})
    monkeypatch.setattr(
        type(desk.home.library), "get_lora", lambda self, name: type("Lora", (), {"name": name})
    )
    handoff = tab.view.build_handoff(pressed(action, "toy"), OWNER)
    assert handoff
    base = handoff[1].base if isinstance(handoff[1], SweepSpec) else handoff[1]
    prompt = base["prompt"] if isinstance(base, dict) else base.prompt
    assert prompt == "mysks, a small white plush toy"


def test_a_past_run_opens_on_the_right_and_the_form_stays(
    tab: TrainingTab, desk: Services, by: Any
) -> None:
    run_id = desk.home.runs.add(config(name="old moon", steps=77), OWNER.id)
    opened = tab.handle_run_action("", pressed("open", run_id), by(OWNER))
    assert not set(opened) & tab.form.inputs
    assert "Run “old moon”" in opened[tab.view.head]
    assert opened[tab.view.load_settings].visible
    loaded = tab.load_run_settings(run_id, by(OWNER))
    assert loaded[tab.form["steps"]] == 77
    with refused(Exception):
        tab.load_run_settings("nowhere", by(OWNER))


def test_the_right_side_does_not_go_on_about_another_training(
    tab: TrainingTab, desk: Services, toy: str
) -> None:
    desk.home.runs.add(config(), OWNER.id)
    handed = train_on(tab, toy, "mysks")
    assert handed[tab.view.run_id] == ""
    assert handed[tab.view.head] == ""
    assert not handed[tab.view.load_settings].visible
    desk.submit_training(config(), OWNER)  # one that runs or waits stays in view, with its Stop
    assert tab.view.run_id not in train_on(tab, toy, "mysks")


def test_a_learning_rate_that_ruins_is_warned_about(tab: TrainingTab) -> None:
    assert "Learning rate 5 is very high" in tab._render_plan(
        tab.form.fill(config(learning_rate=5)), OWNER
    )
    assert "very high" not in tab._render_plan(tab.form.fill(config(learning_rate=2e-3)), OWNER)
