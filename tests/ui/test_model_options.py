"""What the owner decides about a model on the page, and what is noted of it there."""

from __future__ import annotations

from typing import Any

import gradio as gr
import pytest

from studio.core.generation.request import GenerationRequest
from studio.services.submission import Services
from studio.storage.models.model_options import ModelOptions
from studio.ui.components.model_options import ModelOptionsPanel
from studio.ui.tabs.models import ModelsTab
from studio.ui.tabs.txt2img import Txt2Img
from support.ldm_files import toy_shapes
from support.sentences import refused
from support.unopened_page import unopened_page
from support.visitors import ANN, OWNER, Asked
from support.weights import write_weights


@pytest.fixture
def panel(desk: Services, by: Any) -> ModelOptionsPanel:
    write_weights(desk.home.settings.models / "xl-vpred.safetensors", toy_shapes("sdxl"))
    with unopened_page():
        return ModelOptionsPanel(desk)


def choose(panel: ModelOptionsPanel, **values: str) -> Any:
    return {
        panel.model: "xl-vpred",
        panel.prediction: values.get("prediction", ""),
        panel.zero_snr: values.get("zero_snr", ""),
        panel.vae: values.get("vae", ""),
        **dict.fromkeys(panel.text_encoders.values(), ""),
    }


def test_what_is_chosen_is_kept_and_shown(panel: ModelOptionsPanel, desk: Services) -> None:
    owner: Any = Asked(OWNER)
    shown = panel.show_model("xl-vpred", owner)
    assert "v_prediction" in shown[panel.notes]
    chosen = choose(panel, prediction="v_prediction", zero_snr="yes")
    shown = panel.save_options(chosen, owner)
    assert (shown[panel.prediction], shown[panel.zero_snr]) == ("v_prediction", "yes")
    assert shown[panel.notes] == ""
    model = desk.home.library.get_model("xl-vpred")
    assert (model.prediction_type, model.is_zero_snr) == ("v_prediction", True)
    shown = panel.reset_options({panel.model: "xl-vpred"}, owner)
    assert (shown[panel.prediction], shown[panel.zero_snr]) == ("", "")
    assert desk.home.library.get_model("xl-vpred").prediction_type == "epsilon"


def test_cards_are_drawn_anew_once_something_is_saved(desk: Services, by: Any) -> None:
    write_weights(desk.home.settings.models / "xl-vpred.safetensors", toy_shapes("sdxl"))
    owner: Any = Asked(OWNER)
    with gr.Blocks():
        tab = ModelsTab(desk)
    stamps = [
        tab.options.save_options(choose(tab.options, prediction=prediction), owner)[
            tab.options.saved
        ]
        for prediction in ("v_prediction", "epsilon")
    ]
    stamps.append(
        tab.options.reset_options({tab.options.model: "xl-vpred"}, owner)[tab.options.saved]
    )
    assert len(set(stamps)) == 3  # each is a change that the page hears of
    values: Any = dict.fromkeys((tab.search, tab.kind, tab.family, tab.favourites))
    values |= {tab.page: 0, tab.shown_revision: None, tab.download_bar.last_done: 0}
    for stamp in stamps:
        updates = tab.poll(values | {tab.options.saved: stamp}, owner)
        assert tab.cards in updates
        values[tab.shown_revision] = updates[tab.shown_revision]


@pytest.mark.parametrize("visitor", [ANN])
def test_a_guest_decides_nothing(panel: ModelOptionsPanel, desk: Services, visitor: Any) -> None:
    asked: Any = Asked(visitor)
    for act in (
        lambda: panel.show_model("xl-vpred", asked),
        lambda: panel.save_options(choose(panel, prediction="v_prediction"), asked),
        lambda: panel.reset_options({panel.model: "xl-vpred"}, asked),
    ):
        with refused(gr.Error):
            act()
    assert panel.on_open(visitor)[panel.accordion].visible is False
    assert not (desk.home.settings.home / "model_settings.json").exists()


@pytest.mark.parametrize("values", [{"prediction": "velocity"}, {"vae": "no such"}])
def test_nonsense_is_refused(
    panel: ModelOptionsPanel, desk: Services, values: dict[str, str]
) -> None:
    owner: Any = Asked(OWNER)
    with refused(gr.Error):
        panel.save_options(choose(panel, **values), owner)
    info = desk.home.library.get_model("xl-vpred")
    assert desk.home.library.get_options(info) == ModelOptions()


def test_cards_and_generate_say_what_is_to_be_known(desk: Services) -> None:
    models = desk.home.settings.models
    write_weights(models / "xl-vpred_lightning_4step.safetensors", toy_shapes("sdxl"))
    with unopened_page():
        library_tab = ModelsTab(desk)
        assert "v_prediction" in library_tab.render(ANN)[library_tab.cards]
        tab = Txt2Img(desk)
    model = tab.find_model("xl-vpred_lightning_4step")
    updates = tab.model_note.refresh(model)
    assert "v_prediction" in updates[tab.model_note.notes]
    button = updates[tab.model_note.apply_button]
    assert button.visible
    assert "4 steps" in button.value
    request = GenerationRequest(model=model.name if model else "")
    assert tab.form.fill(request)[tab.form["steps"]] == 20  # nothing is set by itself
    assert tab.model_note.apply_suggestion(request.model) == {
        tab.form["steps"]: 4,
        tab.form["guidance"]: 1.5,
    }
    updates = tab.model_note.refresh(tab.find_model("pocket"))
    assert updates[tab.model_note.notes] == ""
    assert not updates[tab.model_note.apply_button].visible


def test_the_vae_is_chosen_among_the_files(desk: Services) -> None:
    prefix, shapes = "first_stage_model.", toy_shapes("sd1")
    vae = {n.removeprefix(prefix): s for n, s in shapes.items() if n.startswith(prefix)}
    write_weights(desk.home.settings.vaes / "anime.safetensors", vae)
    with unopened_page():
        tab = Txt2Img(desk)
    assert tab.list_vae_choices() == [("Model default", ""), ("anime", "anime")]
    updates = tab.load_request(GenerationRequest(vae="anime"), OWNER)
    assert updates[tab.form["vae"]].value == "anime"
