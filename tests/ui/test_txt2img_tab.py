"""The tab txt2img: what choosing a model changes."""

from __future__ import annotations

from typing import Any

import pytest

from studio.core.families.z_image import Z_IMAGE
from studio.core.generation.request import GenerationRequest
from studio.errors import InvalidSpec
from studio.services.submission import Services
from studio.services.visitor import Visitor
from studio.settings import load
from studio.storage.home import Home
from studio.ui.components.noise_and_solver import SWITCHES
from studio.ui.tabs.txt2img import Txt2Img
from support.models import make_toy_z_image
from support.sentences import refused
from support.unopened_page import unopened_page


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Txt2Img:
    settings = load(home=tmp_path_factory.mktemp("home"), device="cpu")
    make_toy_z_image(settings.models / "turbo")
    with unopened_page():
        return Txt2Img(Services(Home(settings)))


def choose(tab: Txt2Img, **values: Any) -> dict[str, Any]:
    """Return what the page shows after a model was chosen on a form with these values."""
    form = dict.fromkeys(tab.estimate_inputs)
    default = GenerationRequest()
    form |= {tab.form[name]: getattr(default, name) for name in tab.form.components}
    form |= {tab.form[name]: value for name, value in values.items()}
    updates = tab.apply_model(form)
    return {name: updates.get(tab.form[name]) for name in tab.form.components}


def test_a_flow_model_brings_its_schedulers_and_settings(tab: Txt2Img) -> None:
    shown = choose(tab, model="turbo")
    assert [name for name, _ in shown["scheduler"].choices] == list(Z_IMAGE.list_schedulers())
    assert shown["scheduler"].value == "Euler"
    assert shown["noise_schedule"].value == "Automatic"
    assert ("Automatic (Model default)", "Automatic") in shown["noise_schedule"].choices
    assert (shown["steps"], shown["guidance"]) == (8, 1.0)
    assert (shown["width"], shown["height"]) == (1024, 1024)


def test_settings_that_suit_stay(tab: Txt2Img) -> None:
    for model in ("turbo", "pocket"):
        chosen = {"scheduler": "Euler", "noise_schedule": "Karras"}
        shown = choose(tab, model=model, steps=13, guidance=2.5, **chosen)
        assert shown["scheduler"].value == "Euler"
        assert shown["noise_schedule"].value == "Karras"
        assert shown["steps"] is None
        assert shown["guidance"] is None


def test_a_scheduler_offers_what_it_runs_on_with_the_model(tab: Txt2Img) -> None:
    values = {tab.form["noise_schedule"]: "Karras", tab.form["scheduler"]: "Heun"}
    schedule = tab.form["noise_schedule"]
    offered = {
        model: tab.update_schedule({**values, tab.form["model"]: model})[schedule]
        for model in ("turbo", "pocket", "gone")
    }
    assert [value for _, value in offered["turbo"].choices] == ["Automatic", "Model default"]
    assert offered["turbo"].value == "Automatic"
    assert offered["pocket"].choices[0] == ("Automatic (Uniform)", "Automatic")
    assert offered["pocket"].value == offered["gone"].value == "Karras"
    nonsense = tab.update_schedule({**values, tab.form["model"]: ["no", "name"]})
    assert nonsense[schedule].value == "Karras"


def test_every_scheduler_remembers_its_schedule(tab: Txt2Img) -> None:
    shown = {tab.form["model"]: "pocket", tab.schedules: {}}
    schedule = tab.form["noise_schedule"]

    def choose_schedule(name: str) -> None:
        shown[schedule] = name
        shown[tab.schedules] = tab.remember_schedule(shown)

    def choose_scheduler(name: str) -> str:
        shown[tab.form["scheduler"]] = name
        updates = tab.update_schedule(shown)
        shown[schedule], shown[tab.schedules] = updates[schedule].value, updates[tab.schedules]
        return str(shown[schedule])

    # From a preset, so that nobody chose it: what Euler a cannot run comes back all the same.
    shown[schedule] = "Karras"
    assert choose_scheduler("DPM++ 2M") == "Karras"
    assert choose_scheduler("Euler a") == "Automatic"
    assert choose_scheduler("DPM++ 2M") == "Karras"
    choose_scheduler("Euler a")
    choose_schedule("Simple")
    assert choose_scheduler("Heun") == "Simple"
    choose_schedule("Exponential")
    assert choose_scheduler("Euler a") == "Simple"
    assert choose_scheduler("Heun") == "Exponential"
    assert set(tab.update_schedule({**shown, tab.form["scheduler"]: ["x"]})) == {tab.schedules}


def test_no_guidance_is_said(tab: Txt2Img) -> None:
    off, on = (tab.estimate_text(GenerationRequest(guidance=value)) for value in (1, 2))
    assert "the negative prompt has no effect" in off
    assert "has no effect" not in on


def test_what_does_not_fit_is_refused_before_a_job_is_queued(tab: Txt2Img) -> None:
    request = GenerationRequest(model="turbo", scheduler="DDIM", noise_schedule="Uniform")
    with refused(InvalidSpec, "Sampler"):
        tab.services.prepare_generation(request, Visitor("ann", is_guest=False))


def test_settings_that_change_nothing_are_out_of_view(tab: Txt2Img) -> None:
    group = tab.noise_and_solver
    default = GenerationRequest()

    def view(**chosen: Any) -> set[str]:
        values = {tab.form[name]: chosen.get(name, getattr(default, name)) for name in SWITCHES}
        updates = group.update_visibility(values)
        return {name for name in group.fields if updates[tab.form[name]]["visible"]}

    always = {"noise_source", "variation_strength", "seed_resize_width", "seed_resize_height"}
    guided = {"guidance_start", "guidance_end", "guidance_method"}
    assert view() == always | guided
    assert {name for name in group.fields if tab.form[name].visible} == view()
    assert view(guidance=1) == always
    assert view(scheduler="DDIM", eta="") == always | guided | {"eta"}
    assert view(scheduler="DDIM", eta=0.5) == always | guided | {"eta", "ensd"}
    churned = view(scheduler="Euler", noise_schedule="Karras", s_churn=3)
    assert churned > {"s_churn", "s_noise", "s_tmin", "s_tmax", "sigma_min", "sigma_max", "rho"}
    assert view(guidance_method="APG") > {"apg_eta", "apg_threshold", "apg_momentum"}
    assert "variation_seed" in view(variation_strength=0.5)
    half_typed = {tab.form[name]: "much" for name in SWITCHES}
    assert set(group.update_visibility(half_typed)) == {tab.form["ensd"]}
