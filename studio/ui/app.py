"""The page: its tabs, what they send each other, how it is served.

Knows: TABS, the style, gradio's launch settings. Does not know: what is on a tab; torch; what a worker does with a job.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # before gradio: no telemetry, no version check

import gradio as gr

from studio.core.generation.request import GenerationRequest
from studio.core.sweeps.spec import SweepSpec
from studio.core.training.config import TrainingConfig
from studio.settings import Settings, shipped
from studio.storage.datasets.training_set import Datasets
from studio.storage.gallery import Gallery
from studio.storage.jobs import Jobs
from studio.storage.models.library import Library
from studio.storage.presets import Presets
from studio.storage.sweeps import Sweeps
from studio.storage.training.runs import Runs
from studio.ui import api, guard
from studio.ui.shelf import Shelf
from studio.ui.tabs import gallery, img2img, inpaint, models, queue, txt2img
from studio.ui.tabs.captioning import tab as captioning
from studio.ui.tabs.sweep import tab as sweep
from studio.ui.tabs.training import tab as training
from studio.ui.widgets import SHORT, Desk, Tab, Updates

# By id, in the order of the page: the title and what builds it.
TABS: dict[str, tuple[str, Callable[[Desk], Tab]]] = {
    "txt2img": ("txt2img", txt2img.build),
    "img2img": ("img2img", img2img.build),
    "inpaint": ("Inpaint", inpaint.build),
    "sweep": ("Sweep", sweep.build),
    "captioning": ("Captions", captioning.build),
    "training": ("Training", training.build),
    "gallery": ("Gallery", gallery.build),
    "models": ("Models", models.build),
    "queue": ("Queue", queue.build),
}
LOOK = Path(__file__).with_name("static") / "style.css"
KEYS = Path(__file__).with_name("static") / "shortcuts.js"
IDLE = 0.01  # seconds between two looks for an event; gradio's 0.001 takes a tenth of a core while nobody asks for anything
# On a phone gradio's edge is too wide; a style sheet reaches only what is inside of it.
EDGE = (
    "<style>@media (max-width: 640px) { .main.app.app { padding: 16px 12px !important } }</style>"
)


def build(desk: Desk) -> gr.Blocks:
    """The page, not yet served."""
    page: gr.Blocks = gr.Blocks(title="Studio", delete_cache=(3600, 86400), fill_width=True)
    page.queue(max_size=64)  # while it is empty: gradio makes the whole app anew for it
    page._queue.sleep_when_free = IDLE
    with page:
        gr.HTML(
            "<header><h1>Studio</h1><p>Say it, see it, compare it.</p></header>", elem_id="head"
        )
        tabs, places = [], []
        with gr.Tabs(elem_id="tabs") as bar:
            for name, (title, build_tab) in TABS.items():
                with gr.Tab(title, id=name, elem_id=f"tab-{name}") as place:
                    tabs.append(build_tab(desk))
                places.append(place)
        seen: dict[str, gr.State] = {
            tab.id: gr.State(tab is tabs[0]) for tab in tabs
        }  # inside gr.Tabs they would shift its titles
        for source in tabs:
            for target in tabs:
                if (
                    source.picked
                    and source.send
                    and target.form
                    and (source is not target or source.source)
                ):
                    _send(desk, source, target, bar, seen[target.id])
                if source.picked and source.send and target.enlarged:
                    _send(desk, source, target, bar, seen[target.id], enlarge=True)
        for source in tabs:
            for target in tabs:
                if (
                    source.asks and target.take and not target.source
                ):  # nobody hands those anything but pictures
                    _hand_over(source, target, bar, seen[target.id])
        page.load(_opening(tabs[0]), None, tabs[0].outputs, **SHORT)
        for tab, place in zip(tabs[1:], places[1:], strict=True):
            if tab.form or tab.typed:  # nothing is filled again where somebody may be typing
                filling = place.select(
                    _first(tab, seen[tab.id]),
                    seen[tab.id],
                    [seen[tab.id], *tab.outputs],
                    js=_inert(tab, "!('seen' in panel.dataset)"),
                    **SHORT,
                )
                filling.then(None, None, None, js=_inert(tab, "false"), **SHORT)
            else:
                place.select(_opening(tab), None, tab.outputs, **SHORT)
        bar.change(
            None, None, None, js="() => window.scrollTo(0, 0)", **SHORT
        )  # what another tab hands over is seen from its top
        api.publish(desk)
    return page


def _opening(tab: Tab) -> Callable[[gr.Request], Updates]:
    def opened(request: gr.Request) -> Updates:
        return _opened(tab, guard.who(request))

    return opened


def _first(tab: Tab, seen: gr.State) -> Callable[[bool, gr.Request], Updates]:
    """Fill a tab when it is first seen.

    gradio's page looks through all components for each that an event changes: to fill every tab at once would take seconds.
    """

    def first(known: bool, request: gr.Request) -> Updates:
        return {seen: gr.skip()} if known else {seen: True, **_opened(tab, guard.who(request))}

    return first


def _inert(tab: Tab, when: str) -> str:
    """While a tab is filled for the first time nobody types there what would be lost."""
    return (
        f"(...values) => {{ const panel = document.getElementById('tab-{tab.id}'); if (panel) "
        f"{{ panel.inert = {when}; panel.dataset.seen = '' }} return values }}"
    )


def _opened(tab: Tab, visitor: guard.Visitor) -> Updates:
    return tab.opened(visitor) if tab.opened else {}


def _handed(target: Tab, known: bool, filled: Updates, visitor: guard.Visitor) -> Updates:
    """What is put into a tab, over what it would have been filled with if it was never seen."""
    return filled if known else {**_opened(target, visitor), **filled}


def _send(
    desk: Desk, source: Tab, target: Tab, bar: gr.Tabs, seen: gr.State, enlarge: bool = False
) -> None:
    """A button under the picture of one tab that fills the form of another and goes there."""
    assert source.send
    assert source.picked
    assert target.form
    form, taking = target.form, target.enlarged if enlarge else target.sent
    title = (
        "Enlarge" if enlarge else "Work on this" if source is target else f"Send to {target.title}"
    )
    with source.send:
        button = gr.Button(
            title,
            size="sm",
            elem_id=f"enlarge-{source.id}" if enlarge else f"send-{source.id}-{target.id}",
        )

    def send(path: str | None, known: bool, request: gr.Request) -> Updates:
        visitor, picture = guard.who(request), desk.gallery.get(path) if path else None
        if picture is None:
            return {bar: gr.skip()}
        filled = taking(picture, visitor) if taking else form.fill(picture.request)
        return {
            **_handed(target, known, filled, visitor),
            seen: True,
            bar: gr.Tabs(selected=target.id),
        }

    outputs = [bar, seen, *target.outputs, *(target.filled if taking else form.outputs)]
    button.click(send, [source.picked, seen], list(dict.fromkeys(outputs)), **SHORT)


def _hand_over(source: Tab, target: Tab, bar: gr.Tabs, seen: gr.State) -> None:
    """The buttons in a block of one tab that go to another with something in hand."""
    assert source.asks
    block, asked = source.asks

    def go(known: bool, event: gr.EventData, request: gr.Request) -> Updates:
        visitor = guard.who(request)
        wanted = asked(event, visitor)
        if wanted is None or wanted[0] != target.id or target.take is None:
            return {bar: gr.skip()}
        filled = target.take(wanted[1], visitor)
        return {
            **_handed(target, known, filled, visitor),
            seen: True,
            bar: gr.Tabs(selected=target.id),
        }

    block.click(go, seen, [bar, seen, *target.outputs], **SHORT)


def theme() -> Any:
    """Calm greys and one accent; fonts that are in the wheel, so that no other host is asked."""
    calm = gr.themes.Soft(
        primary_hue="indigo",
        secondary_hue="indigo",
        neutral_hue="slate",
        spacing_size="md",
        radius_size="md",
        font=["ui-sans-serif", "system-ui", "sans-serif"],
        font_mono=["ui-monospace", "monospace"],
    )
    line = "*border_color_primary"  # a thin line in place of shadows
    return calm.set(
        block_title_background_fill="none",
        block_title_text_color="*body_text_color",
        block_title_padding="0",
        block_label_background_fill="none",
        block_title_text_weight="600",
        block_padding="*spacing_xl 0",
        block_background_fill="*body_background_fill",
        block_background_fill_dark="*body_background_fill",
        input_background_fill_dark="*neutral_900",
        shadow_drop="none",
        shadow_drop_lg="none",
        input_border_width="1px",
        input_border_color=line,
        button_secondary_border_color=line,
        checkbox_border_color="*neutral_300",
        checkbox_label_border_color_selected="*primary_500",
        input_border_color_focus="*primary_400",
    )


def desk_of(settings: Settings, jobs: Jobs) -> Desk:
    """Everything that the tabs work with, with the gallery's index brought up to date."""
    pictures = Gallery(settings)
    pictures.sync()
    return Desk(
        settings,
        jobs,
        pictures,
        Library(settings),
        Presets(GenerationRequest, shipped("presets") / "pictures", settings.presets / "pictures"),
        Sweeps(settings),
        Presets(SweepSpec, shipped("presets") / "sweeps", settings.presets / "sweeps"),
        Runs(settings),
        Datasets(settings),
        Presets(TrainingConfig, shipped("presets") / "training", settings.presets / "training"),
        Shelf(settings),
    )


def serve(settings: Settings, jobs: Jobs, open_browser: bool = False) -> None:
    """Show the page until the process is ended. Raises InvalidSpec for a login that is none, Busy for a taken port."""
    login = guard.login(settings)
    desk = desk_of(settings, jobs)
    for folder in ("uploads", "empty"):
        (settings.home / folder).mkdir(mode=0o700, exist_ok=True)
    os.environ["GRADIO_TEMP_DIR"] = str(settings.home / "uploads")
    os.chdir(
        settings.home / "empty"
    )  # gradio would publish any file of the working folder that a handler names
    # pictures and LoRA files go out by path, in place, byte for byte; the guard decides to whom
    gr.set_static_paths(
        [
            settings.outputs,
            settings.thumbs,
            settings.inputs,
            settings.sweeps,
            settings.runs,
            settings.loras,
        ]
    )
    page = build(desk)
    guard.free_port(settings)
    if login and not settings.auth:
        print(f"Visitors log in as {login[0]} with the password {login[1]}", flush=True)
    page.launch(
        server_name=settings.host,
        server_port=settings.port or None,
        share=settings.share,
        auth=login,
        inbrowser=open_browser,
        max_file_size="64mb",
        ssr_mode=False,
        run_history=False,
        enable_monitoring=False,
        footer_links=[],
        show_error=False,
        quiet=True,
        head=f"{EDGE}<script type='module'>{KEYS.read_text('utf-8')}</script>",
        css_paths=[LOOK],
        theme=theme(),
        prevent_thread_lock=True,
        app_kwargs={"middleware": guard.middleware(settings, desk.gallery, desk.sweeps, desk.runs)},
    )
    shown = f"[{settings.host}]" if ":" in settings.host else settings.host
    places = [f"http://{shown}:{page.server_port}", *([page.share_url] if page.share_url else [])]
    print(f"The studio is open at {' and '.join(places)}", flush=True)
    page.block_thread()
