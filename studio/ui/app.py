"""The page: its tabs, what they send each other, how it is served.

Knows: TABS, the style, gradio's launch settings. Does not know: what is on a tab; torch; what a
worker does with a job.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from typing import Any, Literal

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # before gradio: no telemetry, no version check

import gradio as gr
from starlette.middleware import Middleware

from studio.services.logins import Logins, choose_logins
from studio.services.submission import Services
from studio.services.visitor import Visitor
from studio.storage import atomic
from studio.storage.home import Home
from studio.ui import api
from studio.ui.components.job_line import JobLine
from studio.ui.components.notice import Notice
from studio.ui.errors import report_errors, show_warning
from studio.ui.events import EVENT_OPTIONS, Updates, visitor_from_request
from studio.ui.gradio_styles import bundle_styles
from studio.ui.hidden_paths import RevealedFilesMiddleware
from studio.ui.limits import build_limits
from studio.ui.middleware import build_middleware, check_port_free, format_host
from studio.ui.page_building import remember_signatures
from studio.ui.private_gradio import (
    Page,
    serve_own_scripts,
    serve_quick_script,
    serve_styles,
    set_queue_poll_seconds,
)
from studio.ui.tab import Handoff, Tab
from studio.ui.tabs import gallery, img2img, inpaint, models, queue, txt2img, upscale
from studio.ui.tabs.captioning import tab as captioning
from studio.ui.tabs.sweep import tab as sweep
from studio.ui.tabs.training import tab as training
from studio.ui.views.templates import render_macro

# By id, in the order of the page: the title and what builds it.
TABS: dict[str, tuple[str, Callable[[Services], Tab]]] = {
    "txt2img": ("txt2img", txt2img.build),
    "img2img": ("img2img", img2img.build),
    "inpaint": ("Inpaint", inpaint.build),
    "upscale": ("Upscale", upscale.build),
    "sweep": ("Sweep", sweep.build),
    "captioning": ("Captions", captioning.build),
    "training": ("Training", training.build),
    "gallery": ("Gallery", gallery.build),
    "models": ("Models", models.build),
    "queue": ("Queue", queue.build),
}
# On a wide screen panes scroll, on a narrow one the page.
SCROLL_UP_JS = (
    "() => { scrollTo(0, 0); document.querySelectorAll('.workspace > *, .tabitem')"
    ".forEach(pane => pane.scrollTo(0, 0)) }"
)
# Between two polls for events; gradio's 0.001 takes a tenth of a core while nobody does anything.
EVENT_POLL_SECONDS = 0.01
WAKE_SECONDS = 1.0  # on Windows a longer sleep does not hear Ctrl + C


def build_page(services: Services, get_problem: Callable[[], str] = str) -> Page:
    """Return the page, not yet served; `get_problem` says why nothing runs, or is empty."""
    page = Page(
        services.guests,
        services.home.uploads,
        title="Studio",
        delete_cache=(3600, 86400),
        fill_width=True,
    )
    page.queue(max_size=64)
    set_queue_poll_seconds(page, EVENT_POLL_SECONDS)
    with remember_signatures(), page:
        api.publish(services)  # first: gradio gives a name to whoever asks for it first
        gr.HTML(render_macro("page.html", "header"), elem_id="head")
        titles = {name: title for name, (title, _) in TABS.items()}
        Notice(get_problem, lambda: services.home.notices, JobLine(services.home, titles))
        tabs, tab_blocks = [], []
        with gr.Tabs(elem_id="tabs") as tab_bar:
            for name, (title, build_tab) in TABS.items():
                with gr.Tab(title, id=name, elem_id=f"tab-{name}") as tab_block:
                    tab = build_tab(services)
                tab.id = name
                tab.title = title
                tabs.append(tab)
                tab_blocks.append(tab_block)
        # Whether a tab was seen; inside gr.Tabs these would shift its titles.
        loaded_states = {tab.id: gr.State(tab is tabs[0]) for tab in tabs}
        _wire_tabs(services, tabs, tab_bar, loaded_states)
        _wire_first_tab(page, tabs[0])
        for tab, tab_block in zip(tabs[1:], tab_blocks[1:], strict=True):
            _wire_opening(tab, tab_block, loaded_states[tab.id])
        # What another tab hands over is seen from its top.
        tab_bar.change(None, None, None, js=SCROLL_UP_JS, **EVENT_OPTIONS)
    return page


def _wire_tabs(
    services: Services, tabs: Sequence[Tab], tab_bar: gr.Tabs, loaded_states: Mapping[str, gr.State]
) -> None:
    """Add the buttons that send images and settings from each tab to the others."""
    for source, target in product(tabs, tabs):
        if not (source.selected_path and source.send_row):
            continue
        place: dict[str, Any] = {"tab_bar": tab_bar, "loaded_state": loaded_states[target.id]}
        if target.form and (source is not target or source.source_image):
            _add_send_button(services, source, target, **place)
        if target.redraw_image:
            _add_send_button(services, source, target, **place, purpose="redraw")
        if target.upscale_image and source is not target:
            _add_send_button(services, source, target, **place, purpose="upscale")
    for source, target in product(tabs, tabs):
        if source.handoff and target.id in source.handoff.targets:
            _wire_handover_buttons(source.handoff, target, tab_bar, loaded_states[target.id])


def _wire_first_tab(page: gr.Blocks, tab: Tab) -> None:
    """Fill the tab that a page opens with."""
    if tab.memory is None:
        page.load(_make_open_handler(tab), None, tab.outputs, **EVENT_OPTIONS)
        return
    memory = tab.memory

    def open_tab(kept: Any, request: gr.Request) -> Updates:
        return _open_tab(tab, visitor_from_request(request), kept)

    filling = page.load(
        open_tab, memory.block, tab.outputs, js=f"() => [{memory.read_js}]", **EVENT_OPTIONS
    )
    filling.then(None, None, None, js=f"() => {memory.begin_js}", **EVENT_OPTIONS)


def _wire_opening(tab: Tab, tab_block: gr.Tab, loaded_state: gr.State) -> None:
    """Fill a tab when it is selected: each time, or once where somebody may be typing."""
    if not (tab.form or tab.has_text_input):
        tab_block.select(_make_open_handler(tab), None, tab.outputs, **EVENT_OPTIONS)
        return
    inputs = [loaded_state, *([tab.memory.block] if tab.memory else [])]
    filling = tab_block.select(
        _make_first_open_handler(tab, loaded_state),
        inputs,
        [loaded_state, *tab.outputs],
        js=_make_inert_script(tab, "!('seen' in panel.dataset)"),
        **EVENT_OPTIONS,
    )
    filling.then(None, None, None, js=_make_inert_script(tab, "false"), **EVENT_OPTIONS)


def _make_open_handler(tab: Tab) -> Callable[[gr.Request], Updates]:
    def open_tab(request: gr.Request) -> Updates:
        return _open_tab(tab, visitor_from_request(request))

    return open_tab


def _make_first_open_handler(tab: Tab, loaded_state: gr.State) -> Callable[..., Updates]:
    """Fill a tab when it is first seen.

    gradio's page looks through all components for each that an event changes: to fill every tab at
    once would take seconds.
    """

    def open_first_time(is_loaded: bool, kept: Any, request: gr.Request) -> Updates:
        if is_loaded:
            return {loaded_state: gr.skip()}
        return {loaded_state: True, **_open_tab(tab, visitor_from_request(request), kept)}

    def open_without_memory(is_loaded: bool, request: gr.Request) -> Updates:
        return open_first_time(is_loaded, None, request)

    return open_first_time if tab.memory else open_without_memory


def _make_inert_script(tab: Tab, condition: str) -> str:
    """Return JavaScript that keeps people from typing what would be lost while a tab is filled.

    What the browser keeps of the tab's form is sent along, and kept on once it is filled.
    """
    memory = ""
    if tab.memory:
        memory = (
            f"if (values.length) values[1] = isNew ? {tab.memory.read_js} : ''; "
            f"else {tab.memory.begin_js};"
        )
    return (
        f"(...values) => {{ const panel = document.getElementById('tab-{tab.id}'); "
        "const isNew = panel && !('seen' in panel.dataset); if (panel) "
        f"{{ panel.inert = {condition}; panel.dataset.seen = '' }} {memory} return values }}"
    )


def _open_tab(tab: Tab, visitor: Visitor, kept: Any = None) -> Updates:
    updates = tab.on_open(visitor) if tab.on_open else {}
    return updates | (tab.restore(kept, visitor) if tab.restore and kept else {})


def _fill_target(target: Tab, is_loaded: bool, updates: Updates, visitor: Visitor) -> Updates:
    """Return what is put into a tab, over what it is filled with when it is first seen."""
    return updates if is_loaded else {**_open_tab(target, visitor), **updates}


def _add_send_button(
    services: Services,
    source: Tab,
    target: Tab,
    *,
    tab_bar: gr.Tabs,
    loaded_state: gr.State,
    purpose: Literal["work", "redraw", "upscale"] = "work",
) -> None:
    """Add a button under the image of one tab that fills another tab and goes there."""
    assert source.send_row
    assert source.selected_path
    form = target.form
    receive = target.receive_image
    title, elem_id = f"Send to {target.title}", f"send-{source.id}-{target.id}"
    if purpose == "redraw":
        receive = target.redraw_image
        title, elem_id = "Redraw larger", f"redraw-{source.id}"
    elif purpose == "upscale":
        receive = target.upscale_image
        title, elem_id = "Upscale", f"upscale-{source.id}"
    elif source is target:
        title = "Use as input"
    with source.send_row:
        button = gr.Button(title, size="sm", elem_id=elem_id)

    def send(values: Updates, request: gr.Request) -> Updates:
        visitor = visitor_from_request(request)
        path = values[source.selected_path]
        image = services.home.gallery.get(path) if path else None
        if image is None:
            return {tab_bar: gr.skip()}
        if receive:
            updates = receive(image, visitor)
        elif form and image.settings:
            updates = form.fill(image.settings)
        else:
            show_warning("There are no settings stored for that image.")
            return {tab_bar: gr.skip()}
        return {
            **_fill_target(target, values[loaded_state], updates, visitor),
            loaded_state: True,
            tab_bar: gr.Tabs(selected=target.id),
        }

    changed = form.outputs if form and not receive else target.form_outputs
    outputs = list(dict.fromkeys([tab_bar, loaded_state, *target.outputs, *changed]))
    button.click(send, {source.selected_path, loaded_state}, outputs, **EVENT_OPTIONS)


def _wire_handover_buttons(
    handoff: Handoff, target: Tab, tab_bar: gr.Tabs, loaded_state: gr.State
) -> None:
    """Wire the buttons in a block of one tab that go to another with something in hand."""

    def go(is_loaded: bool, event: gr.EventData, request: gr.Request) -> Updates:
        visitor = visitor_from_request(request)
        try:
            place, content = handoff.build(event, visitor) or ("", None)
        except gr.Error:
            if target.id == handoff.targets[0]:  # each target's event asks; one says what is wrong
                raise
            return {tab_bar: gr.skip()}
        if place != target.id:
            return {tab_bar: gr.skip()}
        if isinstance(content, dict) and target.receive_fields:
            with report_errors():
                updates = target.receive_fields(content, visitor)
        elif target.load_request:
            updates = target.load_request(content, visitor)
        else:
            return {tab_bar: gr.skip()}
        return {
            **_fill_target(target, is_loaded, updates, visitor),
            loaded_state: True,
            tab_bar: gr.Tabs(selected=target.id),
        }

    handoff.block.click(go, loaded_state, [tab_bar, loaded_state, *target.outputs], **EVENT_OPTIONS)


def build_theme() -> Any:
    """Return the theme: greys, one accent, and the system's fonts, so that no host is asked."""
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
        body_text_color_subdued="*neutral_600",  # on white 7.6 : 1; the theme's own is 2.6 : 1
        input_placeholder_color="*neutral_500",
        block_title_background_fill="none",
        block_title_text_color="*body_text_color",
        block_title_padding="0",
        block_label_background_fill="none",
        block_title_text_weight="600",
        # Fields begin at one edge, close to each other: static/frame.css parts them by gaps.
        block_padding="0",
        block_title_text_size="*text_sm",
        form_gap_width="0px",
        layout_gap="*spacing_lg",
        input_padding="*spacing_md",
        input_text_size="*text_md",
        checkbox_label_padding="*spacing_sm *spacing_lg",
        section_header_text_size="*text_md",
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
        # White on the theme's own is 4.47 : 1, and its labels are 4.0 : 1; WCAG asks for 4.5.
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_hover="*primary_700",
        button_primary_background_fill_hover_dark="*primary_700",
        checkbox_label_background_fill_selected="*primary_600",
        block_label_text_color="*primary_700",
        input_border_color_focus="*primary_400",
    )


def serve(home: Home, get_problem: Callable[[], str], open_browser: bool = False) -> None:
    """Show the page until the process is ended.

    Args:
        home: The stores.
        get_problem: Says why nothing runs; empty while all is well.
        open_browser: Whether to open the page in a browser.

    Raises InvalidSpec for a login that is none, Busy for a taken port or a host that is none,
    DiskError.
    """
    settings = home.settings
    logins = choose_logins(settings)
    home.gallery.sync()
    for folder in ("uploads", "empty"):
        atomic.make_folder(settings.home / folder)
    # uvicorn would take the address that any X-Forwarded-For says for the visitor's.
    os.environ["FORWARDED_ALLOW_IPS"] = ""
    os.environ["GRADIO_TEMP_DIR"] = str(settings.home / "uploads")
    # gradio would publish any file of the working folder that a handler names.
    os.chdir(settings.home / "empty")
    # Images and LoRA files go out by path, in place, byte for byte; the middleware decides to whom.
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
    services = Services(home)
    home.library.shelf.index.read_in_background()
    page = build_page(services, get_problem)
    gradio_styles = bundle_styles({block.get_block_name() for block in page.blocks.values()})
    check_port_free(settings)
    if logins and not (settings.auth or settings.guests):
        print(
            f"Visitors log in as {logins[0].name} with the password {logins[0].password}",
            flush=True,
        )
    page.launch(
        server_name=format_host(settings.host),
        server_port=settings.port or None,
        share=settings.share,
        inbrowser=open_browser,
        max_file_size=None,  # limits.py knows who sends and what is free
        ssr_mode=False,
        run_history=False,
        enable_monitoring=False,
        footer_links=[],
        show_error=False,
        quiet=True,
        theme=build_theme(),
        prevent_thread_lock=True,
        app_kwargs={
            "middleware": [
                *build_middleware(
                    home, Logins(logins, home.login_sessions, home.secret), gradio_styles
                ),
                *build_limits(page, services),
                Middleware(RevealedFilesMiddleware, settings=settings),
            ]
        },
    )
    serve_own_scripts(page)
    serve_quick_script(page)
    if gradio_styles:
        serve_styles(page, gradio_styles)
    addresses = [f"http://{format_host(settings.host)}:{page.server_port}{settings.root_path}"]
    if page.share_url:
        addresses.append(page.share_url)
    print(f"The studio is open at {' and '.join(addresses)}", flush=True)
    while True:  # a signal ends it; gradio's own `block_thread` would make a clean end of it
        time.sleep(WAKE_SECONDS)
