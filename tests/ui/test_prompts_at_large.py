"""Styles and lists of prompts beside a form, as the owner and as a guest."""

from __future__ import annotations

from typing import Any

import pytest

from studio.core.base import validate
from studio.core.generation.request import GenerationRequest
from studio.core.generation.templates.prompt_list import parse_prompt_list
from studio.errors import InvalidSpec, NotAllowed
from studio.services.submission import Services
from studio.services.visitor import Visitor
from studio.settings import load
from studio.storage.home import Home
from studio.ui.tabs.txt2img import Txt2Img
from support.sentences import check_sentence, refused
from support.unopened_page import unopened_page
from support.visitors import Asked

OWNER = Visitor("me", is_guest=False)
GUEST = Visitor("ann", is_guest=True)
STYLES = 'name,prompt,negative_prompt\nNight,"{prompt}, secret moonlight",fog\n'


@pytest.fixture
def tab(tmp_path_factory: pytest.TempPathFactory) -> Txt2Img:
    settings = load(home=tmp_path_factory.mktemp("home"), device="cpu")
    (settings.home / "styles.csv").write_text(STYLES)
    (settings.home / "wildcards").mkdir()
    (settings.home / "wildcards" / "season.txt").write_text("spring\nautumn\n")
    with unopened_page():
        return Txt2Img(Services(Home(settings)))


def page(tab: Txt2Img, **values: Any) -> dict[Any, Any]:
    """Return what the browser sends for a form with these values."""
    default = GenerationRequest()
    form = {tab.form[name]: getattr(default, name) for name in tab.form.components}
    return form | {tab.form[name]: value for name, value in values.items()}


def test_the_page_says_before_the_run_which_wildcard_is_not_there(tab: Txt2Img) -> None:
    shown = tab.update_estimate(page(tab, prompt="a __seasons__ day"))[tab.estimate]
    assert "seasons" in shown
    assert "available: season." in shown
    fine = tab.update_estimate(page(tab, prompt="a __season__ day"))[tab.estimate]
    assert "there is" not in fine


def test_chosen_styles_are_part_of_the_request(tab: Txt2Img) -> None:
    request = tab.form.read(page(tab, prompt="a boat", styles=["Night"]))
    assert request.styles == ("Night",)
    job = tab.services.prepare_generation(request, OWNER)
    assert job.spec["styles"] == ["Night"]


def test_settings_of_an_image_apply_no_style_twice(tab: Txt2Img) -> None:
    request = validate(GenerationRequest, {"prompt": "a boat", "styles": ["Night"], "seed": 1})
    image = request.resolve(64, 0, None, tab.services.home.prompt_files)
    shown = tab.form.fill(image)
    assert shown[tab.form["prompt"]] == "a boat, secret moonlight"
    assert not shown[tab.form["styles"]]


def test_guests_use_wildcards_and_no_styles(tab: Txt2Img) -> None:
    services = tab.services
    assert tab.styles.list_names(OWNER) == ["Night"]
    assert tab.styles.list_names(GUEST) == []
    assert services.prepare_generation(GenerationRequest(prompt="a __season__"), GUEST)
    with refused(NotAllowed):
        services.prepare_generation(GenerationRequest(styles=("Night",)), GUEST)


def test_the_estimate_names_no_style(tab: Txt2Img) -> None:
    shown = tab.update_estimate(page(tab, prompt="a boat", styles=["nothing"]))[tab.estimate]
    assert "Night" not in shown


def test_a_list_says_how_many_jobs_it_makes_and_what_is_wrong(tab: Txt2Img) -> None:
    box = tab.prompt_list
    shown = box.describe({box.text: "a\n--prompt b --n_iter 3\n", **page(tab)})
    assert "2 jobs, 4 images" in shown
    shown = box.describe({box.text: "a\n--foo 1\n--prompt b --steps 9999", **page(tab)})
    assert "Line 2" in shown
    assert box.describe({box.text: "  ", **page(tab)}) == ""


def test_a_list_becomes_jobs_in_order(tab: Txt2Img) -> None:
    box, services = tab.prompt_list, tab.services
    prompts = parse_prompt_list("a boat\n--prompt 'a {red|blue} house' --steps 3")
    box.queue_all(prompts, tab.form.read_raw(page(tab, steps=7)), OWNER)
    jobs = sorted(services.home.jobs.list_open(), key=lambda job: job.id)
    assert [(job.spec["prompt"], job.spec["steps"]) for job in jobs] == [
        ("a boat", 7),
        ("a {red|blue} house", 3),
    ]


def test_one_bad_line_queues_none(tab: Txt2Img) -> None:
    box = tab.prompt_list
    prompts = parse_prompt_list("a boat\na <lora:nothing:1>\na __nothing__")
    with pytest.raises(InvalidSpec) as caught:
        box.queue_all(prompts, tab.form.read_raw(page(tab)), OWNER)
    check_sentence(str(caught.value))
    assert tab.services.home.jobs.list_open() == []


def test_faults_of_the_files_are_listed_for_the_owner_alone(tab: Txt2Img, by: Any) -> None:
    home = tab.services.home.settings.home
    owner: Any = Asked(OWNER)
    guest: Any = Asked(GUEST)
    assert not tab.styles.show_faults(owner).visible
    (home / "wildcards" / "odd<b>.json").write_text("{")
    (home / "wildcards" / "long.yaml").write_text("[" * 500)
    listed = tab.styles.show_faults(owner)
    assert listed.visible
    assert "(2)" in str(listed.value)
    assert "odd&lt;b&gt;.json" in str(listed.value)
    assert "<b>" not in str(listed.value)
    assert not tab.styles.show_faults(guest).visible
