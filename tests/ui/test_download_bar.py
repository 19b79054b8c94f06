"""The download bar and the first steps without a browser: a link looked up, fetched, stopped; nothing for guests."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import gradio as gr
import pytest

from studio.services.downloads import STARTING_POINTS, Downloads
from studio.services.submission import Services
from studio.storage.downloads.network import Network
from studio.storage.jobs import Progress
from studio.ui.tabs.models import ModelsTab
from support.ldm_files import toy_shapes
from support.sentences import refused
from support.sites import (
    HUB,
    OTHER,
    STORAGE,
    Sites,
    add_repository,
    make_large_lora,
    make_weights,
)
from support.unopened_page import unopened_page
from support.visitors import ANN, HOSTILE, OWNER, Asked, pressed
from support.weights import write_weights

LORA = f"https://{OTHER}/files/moon.safetensors"
UPSCALER = {"conv_first.weight": [64, 3, 3, 3], "body.0.rdb1.conv1.weight": [32, 64, 3, 3]}
INDEX = {
    "_class_name": "StableDiffusionPipeline",
    "unet": ["diffusers", "UNet2DConditionModel"],
}


@pytest.fixture
def tab(desk: Services, by: Any, sites: Sites) -> Iterator[ModelsTab]:
    with unopened_page():
        tab = ModelsTab(desk)
        yield tab


def look_up(tab: ModelsTab, link: str, visitor: Any = OWNER) -> Any:
    bar, asked = tab.download_bar, Asked(visitor)
    return bar.look_up({bar.link: link, bar.variant: "auto"}, asked)


def submit(tab: ModelsTab, shown: Any, name: str = "", trust: bool = False, by: Any = OWNER) -> Any:
    bar, asked = tab.download_bar, Asked(by)
    values = {bar.shown_spec: shown, bar.name: name, bar.is_confirmed: trust}
    return bar.submit(values, asked)


def poll(tab: ModelsTab, revision: Any = None, visitor: Any = OWNER) -> Any:
    bar, asked = tab.download_bar, Asked(visitor)
    return bar.poll({bar.shown_revision: revision}, asked)


def test_a_link_is_shown_before_anything_is_fetched(
    tab: ModelsTab, sites: Sites, tmp_path: Path
) -> None:
    lora = make_large_lora(tmp_path)
    add_repository(sites, "ann/moon", {"moon.safetensors": lora}, licence="cc-by-4.0", gated=True)
    updates = look_up(tab, "ann/moon")
    bar = tab.download_bar
    html = updates[bar.found]
    for text in ("ann/moon", "cc-by-4.0", "2.2 MB", "Hugging Face", "terms"):
        assert text in html
    assert updates[bar.name] == "moon"
    assert updates[bar.shown_spec]["version"].startswith("c0ffee")
    assert [call.host for call in sites.log] == [HUB]
    assert tab.services.home.jobs.list_open() == []


def test_what_was_shown_is_queued_under_its_name(
    tab: ModelsTab, sites: Sites, tmp_path: Path
) -> None:
    add_repository(sites, "ann/moon", {"moon.safetensors": make_large_lora(tmp_path)})
    shown = look_up(tab, "ann/moon")[tab.download_bar.shown_spec]
    html = submit(tab, shown, name="silver")[tab.download_bar.list]
    assert "silver" in html
    (job,) = tab.services.home.jobs.list_open(kind="download")
    assert job.spec["version"].startswith("c0ffee")
    assert job.spec["name"] == "silver"
    assert not job.spec["is_host_confirmed"]


def test_another_site_has_a_question(tab: ModelsTab, sites: Sites) -> None:
    updates = look_up(tab, LORA)
    assert updates[tab.download_bar.is_confirmed].visible
    assert "does not know" in updates[tab.download_bar.found]
    submit(tab, updates[tab.download_bar.shown_spec], trust=True)
    (job,) = tab.services.home.jobs.list_open(kind="download")
    assert job.spec["is_host_confirmed"]
    assert sites.log == []


def test_what_was_shown_is_gone_when_another_link_fails(tab: ModelsTab, sites: Sites) -> None:
    """The page forgets the last answer before it asks; what fails then leaves it forgotten."""
    bar = tab.download_bar
    shown = look_up(tab, LORA)
    cleared = bar.clear()
    assert shown.keys() == cleared.keys()
    assert cleared[bar.found] == ""
    assert cleared[bar.shown_spec] is None
    assert not cleared[bar.choice].visible
    handlers = {handler.fn: handler for handler in gr.context.Context.root_block.fns.values()}
    first, then = handlers[bar.clear], handlers[bar.look_up]
    assert {target for _, target in first.targets} == {"click", "submit"}
    assert then.trigger_after == first._id


@pytest.mark.parametrize(
    "link",
    [
        "https://169.254.169.254/moon.safetensors",
        "https://localhost/moon.safetensors",
        "https://localhost/",
        "https://[::1]/moon.safetensors",
    ],
)
def test_a_private_address_is_refused_before_anything_is_offered(
    tab: ModelsTab, sites: Sites, monkeypatch: pytest.MonkeyPatch, link: str
) -> None:
    monkeypatch.setattr("studio.storage.downloads.safe_http.open_network", Network)
    with refused(gr.Error):
        look_up(tab, link)


def trust(tab: ModelsTab, updates: Any, name: str = "", tick: Any = True, by: Any = OWNER) -> Any:
    bar, asked = tab.download_bar, Asked(by)
    values = {bar.shown_spec: updates[bar.shown_spec], bar.name: name, bar.is_confirmed: tick}
    return bar.look_closer(values, asked)


def test_a_page_is_no_file(tab: ModelsTab, sites: Sites) -> None:
    page = f"https://{OTHER}/file/d/1/view"
    sites.on(
        page,
        lambda asked: asked.answer(200, b"<!doctype html>", **{"Content-Type": "text/html"}),
    )
    updates = look_up(tab, page)
    with refused(gr.Error):
        trust(tab, updates)


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ('attachment; filename="silver.safetensors"', "silver"),
        ('attachment; filename="../../x.pt"', "x"),
        ("", "7"),
    ],
)
def test_a_site_says_the_name_of_its_file(
    tab: ModelsTab, sites: Sites, header: str, name: str
) -> None:
    headers = {"Content-Disposition": header} if header else {}
    address = f"https://{OTHER}/download/7"
    sites.on(address, lambda asked: asked.answer(200, b"x" * 9, **headers))
    bar = tab.download_bar
    updates = look_up(tab, address)
    assert (updates[bar.name], updates[bar.is_confirmed].visible) == ("", True)
    assert "the site is not contacted" in updates[bar.found]
    trust(tab, updates, tick=False)
    trust(tab, updates, name="mine")
    assert sites.log == []  # before the site is trusted, or where its name is not needed
    closer = trust(tab, updates)
    assert closer[bar.name] == name
    assert "the site is not contacted" not in closer[bar.found]
    assert {call.host for call in sites.log} == {OTHER}


def test_a_program_is_refused_by_the_name_that_its_site_says(tab: ModelsTab, sites: Sites) -> None:
    address = f"https://{OTHER}/download/7"
    header = {"Content-Disposition": 'attachment; filename="setup.exe"'}
    sites.on(address, lambda asked: asked.answer(200, b"MZ", **header))
    updates = look_up(tab, address)
    with refused(gr.Error):
        trust(tab, updates)


def test_a_known_site_leads_to_no_other(tab: ModelsTab, sites: Sites) -> None:
    address = f"https://{STORAGE}/somewhere/7"
    sites.redirect(address, f"https://{OTHER}/download/7")
    with refused(gr.Error):
        look_up(tab, address)
    assert OTHER not in {call.host for call in sites.log}


@pytest.mark.parametrize("link", ["", "moon", HOSTILE, "http://example.org/a", None, "a/b\x00"])
def test_no_link(tab: ModelsTab, link: Any) -> None:
    with pytest.raises(gr.Error) as caught:
        look_up(tab, link)
    assert "<script" not in caught.value.message


@pytest.mark.parametrize("shown", [None, [], {"link": ""}, {"link": "a/b", "cheat": 1}])
def test_nothing_that_was_shown(tab: ModelsTab, shown: Any) -> None:
    with refused(gr.Error):
        submit(tab, shown)
    assert tab.services.home.jobs.list_open() == []


def test_offline_is_said(tab: ModelsTab, monkeypatch: pytest.MonkeyPatch, sites: Sites) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with refused(gr.Error):
        look_up(tab, "ann/moon")
    assert sites.log == []


def test_a_guest_sees_and_may_do_nothing(tab: ModelsTab, sites: Sites) -> None:
    job_id = tab.services.home.jobs.submit("download", {"link": LORA}, owner=OWNER.id)
    asked: Any = Asked(ANN)
    opened = tab.on_open(ANN)
    assert opened[tab.download_bar.list] == ""
    assert not opened[tab.download_bar.block].visible
    assert not opened[tab.first_steps.section].visible
    assert tab.download_bar.list not in poll(tab, visitor=ANN)
    for action in (
        lambda: look_up(tab, "ann/moon", ANN),
        lambda: submit(tab, {"link": LORA}, by=ANN),
        lambda: trust(tab, {tab.download_bar.shown_spec: {"link": LORA}}, by=ANN),
        lambda: tab.download_bar.handle_action(pressed("cancel", str(job_id)), asked),
        lambda: tab.first_steps.look_up(asked),
        lambda: tab.first_steps.submit({}, pressed("get", STARTING_POINTS[0].link), asked),
    ):
        with refused(gr.Error):
            action()
    assert sites.log == []
    job = tab.services.home.jobs.get(job_id)
    assert job
    assert job.state == "queued"


def test_the_list_shows_bytes_and_buttons(tab: ModelsTab, desk: Services) -> None:
    jobs = desk.home.jobs
    job_id = jobs.submit("download", {"link": LORA, "name": HOSTILE}, owner=OWNER.id)
    assert "waiting in the queue" in poll(tab)[tab.download_bar.list]
    jobs.claim("cpu", kinds=("download",))
    message = "1.20 GB of 6.94 GB, 23.0 MB/s"
    jobs.report_progress(job_id, Progress(12, 69, message, eta_seconds=249))
    html = poll(tab)[tab.download_bar.list]
    assert message in html
    assert "about 4 min left" in html
    assert "<script" not in html
    asked: Any = Asked(OWNER)
    tab.download_bar.handle_action(pressed("cancel", str(job_id)), asked)
    jobs.finish(job_id, "cancelled")
    updates = poll(tab)
    assert "kept" in updates[tab.download_bar.list]
    assert 'data-action="again"' in updates[tab.download_bar.list]
    tab.download_bar.handle_action(pressed("again", str(job_id)), asked)
    html = poll(tab)
    assert html[tab.download_bar.list].count("data-download") == 1  # the one that goes on
    (job,) = jobs.list_open(kind="download")
    assert job.spec["link"] == LORA


@pytest.mark.parametrize("state", ["failed", "cancelled", "done"])
def test_what_has_ended_leaves_the_list(tab: ModelsTab, desk: Services, state: str) -> None:
    jobs, bar = desk.home.jobs, tab.download_bar
    asked: Any = Asked(OWNER)
    job_id = jobs.submit("download", {"link": LORA}, owner=OWNER.id)
    with refused(gr.Error):
        bar.handle_action(pressed("remove", str(job_id)), asked)
    jobs.claim("cpu", kinds=("download",))
    jobs.finish(job_id, state, error="It is a page." if state == "failed" else None)
    html = poll(tab)[bar.list]
    assert 'data-action="remove"' in html
    assert ("Try again" in html) == (state == "failed")
    bar.handle_action(pressed("remove", str(job_id)), asked)
    html = poll(tab)[bar.list]
    assert "data-download" not in html
    assert jobs.get(job_id)
    again = jobs.submit("download", {"link": LORA}, owner=OWNER.id)  # the same link is seen again
    assert f'data-download="{again}"' in bar.render(OWNER)
    with refused(gr.Error):
        bar.handle_action(pressed("remove", str(job_id)), cast(Any, Asked(ANN)))


@pytest.mark.parametrize(("result", "may_help"), [(None, True), ({"is_final": True}, False)])
def test_another_try_is_offered_where_it_may_help(
    tab: ModelsTab, desk: Services, result: Any, may_help: bool
) -> None:
    jobs = desk.home.jobs
    job_id = jobs.submit("download", {"link": LORA}, owner=OWNER.id)
    jobs.claim("cpu", kinds=("download",))
    jobs.finish(job_id, "failed", result, error="It is a page.")
    html = poll(tab)[tab.download_bar.list]
    assert "It is a page." in html
    assert ("Try again" in html) == may_help
    assert ("Look up the link again" in html) != may_help


@pytest.mark.parametrize("target", ["", "abc", "9" * 30, "-1", "²", "1"])
def test_buttons_of_nothing(tab: ModelsTab, desk: Services, target: str) -> None:
    desk.home.jobs.submit("generate", {"prompt": "a boat"})  # number 1 is no download
    asked: Any = Asked(OWNER)
    with refused(gr.Error):
        tab.download_bar.handle_action(pressed("cancel", target), asked)


def test_a_download_that_ends_shows_the_library_anew(tab: ModelsTab, desk: Services) -> None:
    bar = tab.download_bar
    asked: Any = Asked(OWNER)
    values: Any = dict.fromkeys((tab.search, tab.kind, tab.family, tab.favourites))
    values |= {tab.page: 0, tab.options.saved: 0, tab.shown_revision: None}

    def look(last_done: Any) -> bool:
        """Look at the library; true if it is shown anew."""
        updates = tab.poll(values | {bar.last_done: last_done}, asked)
        values[tab.shown_revision] = updates[tab.shown_revision]
        return tab.cards in updates

    first = poll(tab)
    assert look(first[bar.last_done])
    seen = values[tab.shown_revision]
    assert not look(first[bar.last_done])
    values[tab.shown_revision] = seen
    job_id = desk.home.jobs.submit("download", {"link": LORA}, owner=OWNER.id)
    desk.home.jobs.claim("cpu", kinds=("download",))
    desk.home.jobs.finish(job_id, "done", {"name": "moon", "folder": "loras"})
    then = poll(tab, first[bar.shown_revision])
    assert "moon in loras/ is ready to use." in then[bar.list]
    assert look(then[bar.last_done])


def test_first_steps_stand_out_while_there_is_no_model(tab: ModelsTab, desk: Services) -> None:
    section = tab.first_steps.section
    opened = tab.on_open(OWNER)[section]
    assert opened.elem_classes == ["beckons"]
    assert not opened._constructor_args[0].get("open")
    write_weights(desk.home.settings.models / "own.safetensors", toy_shapes("sdxl"))
    assert tab.on_open(OWNER)[section].elem_classes == []


def test_first_steps_are_asked_for_when_they_are_opened(
    tab: ModelsTab, sites: Sites, tmp_path: Path
) -> None:
    tab.on_open(OWNER)
    assert sites.log == []
    few = make_weights(tmp_path)
    for point in STARTING_POINTS:
        name = "/".join(point.link.split("/")[:2])
        files = {
            "model_index.json": json.dumps(INDEX).encode(),
            "unet/config.json": b"{}",
            "unet/diffusion_pytorch_model.safetensors": few,
        }
        if point.link != name:
            files = {point.link.removeprefix(f"{name}/"): make_weights(tmp_path, UPSCALER)}
        add_repository(sites, name, files, licence=f"licence-of-{name.split('/')[0]}")
    steps = tab.first_steps
    asked: Any = Asked(OWNER)
    updates = steps.look_up(asked)
    html = updates[steps.cards]
    for point in STARTING_POINTS:
        assert f"licence-of-{point.link.split('/')[0]}" in html
        assert f'data-action="get" data-target="{point.link}"' in html
    assert html.count("<dt>card</dt>") == len(STARTING_POINTS) - 1  # the upscaler paints nothing
    steps.submit(updates[steps.versions], pressed("get", STARTING_POINTS[1].link), asked)
    (job,) = tab.services.home.jobs.list_open(kind="download")
    assert job.spec["link"] == STARTING_POINTS[1].link
    assert job.spec["version"].startswith("c0ffee")
    with refused(gr.Error):
        steps.submit({}, pressed("get", "evil/model"), asked)


def test_first_steps_say_that_nobody_answers_and_ask_once(tab: ModelsTab, sites: Sites) -> None:
    sites.names[HUB] = []
    looks: list[str] = []
    resolve = sites.network.resolve

    def count(host: str, port: int) -> Any:
        looks.append(host)
        if host == HUB:
            raise OSError
        return resolve(host, port)

    facts = Downloads(tab.services.home.settings)
    with pytest.MonkeyPatch.context() as patch:
        from dataclasses import replace

        network = replace(sites.network, resolve=count)
        patch.setattr("studio.storage.downloads.safe_http.open_network", lambda: network)
        said = facts.describe_starting_points(OWNER)
    assert len(looks) == 2
    assert len({entry.problem for entry in said}) == 1
    assert "online" in said[0].problem
