"""img2img and Inpaint without a browser: the easel's pixels, what the page reads and fills, many pictures, what is sent on."""

from __future__ import annotations

import base64
import io
from contextlib import suppress
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
import pytest
from gradio.utils import get_upload_folder
from hypothesis import HealthCheck, given
from hypothesis import settings as trying
from hypothesis import strategies as st
from PIL import Image, ImageChops

from studio.core.base import validate
from studio.core.generation.request import GenerationRequest, ResolvedRequest
from studio.errors import BadPicture, InvalidSpec, StudioError
from studio.services.submission import Services
from studio.services.visitor import Visitor
from studio.storage.gallery import GeneratedImage
from studio.ui.components.before_after import load_before_image
from studio.ui.components.denoise_strip import DenoiseStrip
from studio.ui.components.mask_editor import SourceImage
from studio.ui.tabs.gallery import GalleryTab
from studio.ui.tabs.generation import GenerationTab
from studio.ui.tabs.img2img import Img2Img, render_effective_steps
from studio.ui.tabs.img2img_batch import render_batch
from studio.ui.tabs.inpaint import INPAINT, OUTPAINT, SIDE_FIELDS, Inpaint
from studio.ui.tabs.sweep.tab import SweepTab
from support.examples import examples
from support.sentences import check_sentence, refused
from support.unopened_page import unopened_page

OWNER, ANN = Visitor("owner", is_guest=False), Visitor("ann", is_guest=True)
HOSTILE = '"><img src=x onerror=alert(1)>.png'
NOBODY = gr.Request()  # not from HTTP: a guest without a name


@pytest.fixture
def desk(desk: Services, monkeypatch: pytest.MonkeyPatch) -> Services:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(desk.home.settings.home / "uploads"))
    return desk


@pytest.fixture
def img2img(desk: Services) -> Img2Img:
    with unopened_page():
        return Img2Img(desk)


@pytest.fixture
def inpaint(desk: Services) -> Inpaint:
    with unopened_page():
        return Inpaint(desk)


def noise(width: int, height: int, seed: int = 0, channels: int = 3) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)
    return Image.fromarray(pixels)


def upload(image: Image.Image | bytes, name: str = "picture.png", **how: Any) -> dict[str, Any]:
    """A file as a browser has sent it, for an easel's event and for a file component."""
    folder = Path(get_upload_folder()) / f"sent-{np.random.default_rng().integers(1e12)}"
    folder.mkdir(parents=True)
    path = folder / "sent.png"
    if isinstance(image, bytes):
        path.write_bytes(image)
    else:
        image.save(path, how.pop("format", "PNG"), **how)
    return {"path": str(path), "name": name, "orig_name": name}


def layer(image: Image.Image) -> str:
    out = io.BytesIO()
    image.save(out, "PNG")
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()


def page(
    tab: GenerationTab, updates: dict[Any, Any] | None = None, **fields: Any
) -> dict[Any, Any]:
    """What the browser would send, after these updates of an empty page and with these fields."""
    sent = {part: part.value for part in tab.inputs}
    for part, update in (updates or {}).items():
        if part in sent and (
            not isinstance(update, gr.components.Component) or "value" in update.constructor_args
        ):
            sent[part] = (
                getattr(update, "value", update)
                if isinstance(update, gr.components.Component)
                else update
            )
    return sent | {tab.form[name]: value for name, value in fields.items()}


def on(tab: Any, image: Image.Image, **fields: Any) -> tuple[dict[Any, Any], SourceImage]:
    """The page with that picture on its easel."""
    source = tab.editor.import_image(Path(upload(image)["path"]), "picture.png")
    return page(tab, tab.editor.show_image(source), **fields), source


def kept(
    desk: Services, request: GenerationRequest, image: Image.Image | None = None
) -> GeneratedImage:
    """A picture in the gallery as if it had been made so."""
    return desk.home.gallery.save(
        image or noise(128, 128, 5),
        request.resolve(128, 7),
        digest="d" * 64,
        content_hashes={"model": "x"},
        seconds=1.0,
        owner="owner",
    )


# ---- what is drawn --------------------------------------------------------------------------------------------------


@trying(
    max_examples=examples(25),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(width=st.integers(8, 40), height=st.integers(8, 40), seed=st.integers(0, 2**31))
def test_a_drawing_changes_the_pixels_under_it_and_no_other(
    img2img: Img2Img, width: int, height: int, seed: int
) -> None:
    below, over = noise(width, height, seed), noise(width, height, seed + 1, 4)
    pixels = np.array(over)
    pixels[..., 3] = np.random.default_rng(seed).choice(
        [0, 255, 128, 2], (height, width)
    )  # 2: what a guarded browser may add
    sent, source = on(img2img, below)
    sent[img2img.editor.html] = {"drawn": layer(Image.fromarray(pixels))}
    made = np.array(img2img.services.home.library.inputs.load(img2img.extra_fields(sent)["image"]))
    clear, full, half = (pixels[..., 3] == alpha for alpha in (0, 255, 128))
    clear |= pixels[..., 3] == 2
    assert (made[clear] == np.array(below)[clear]).all()
    assert (made[full] == pixels[..., :3][full]).all()
    mixed = (pixels[..., :3].astype(float) * 128 + np.array(below).astype(float) * 127) / 255
    assert np.abs(made[half].astype(float) - mixed[half]).max(initial=0) <= 2
    assert source.size == (width, height)


def test_without_a_stroke_it_is_the_picture_itself(img2img: Img2Img) -> None:
    sent, source = on(img2img, noise(64, 64))
    assert img2img.parse_request(sent).image == source.image
    sent[img2img.editor.html] = {
        "drawn": layer(Image.new("RGBA", (64, 64)))
    }  # drawn, and all taken away again
    assert img2img.parse_request(sent).image == source.image


def test_a_blank_sheet_is_white_and_as_large_as_the_form_says(img2img: Img2Img) -> None:
    sent = page(img2img, width=96, height=64)
    updates = img2img.handle_editor_event(sent, gr.EventData(None, {"action": "blank"}), NOBODY)
    source = updates[img2img.editor.source]
    assert source.size == (96, 64)
    assert img2img.services.home.library.inputs.load(source.image).getcolors() == [
        (96 * 64, (255, 255, 255))
    ]
    updates = img2img.handle_editor_event(
        sent | {img2img.editor.source: source}, gr.EventData(None, {"action": "remove"}), NOBODY
    )
    assert updates[img2img.editor.source] is None
    assert "url" not in updates[img2img.editor.html].value


# ---- masks ----------------------------------------------------------------------------------------------------------


def test_a_mask_comes_back_as_it_was_painted(inpaint: Inpaint) -> None:
    mask = Image.new("RGB", (64, 48))
    mask.paste((255, 255, 255), (10, 10, 30, 30))
    sent, source = on(inpaint, noise(64, 48))
    farbled = np.array(mask)
    farbled[0, 0], farbled[11, 11] = 2, 254  # a guarded browser
    sent[inpaint.editor.html] = {"drawn": layer(Image.fromarray(farbled)), "invert": False}
    request = inpaint.parse_request(sent)
    assert request.task == "inpaint"
    assert request.image == source.image
    assert not request.invert_mask
    assert (
        np.array(inpaint.services.home.library.inputs.load_mask(request.mask))
        == np.array(mask.convert("L"))
    ).all()
    sent[inpaint.editor.html]["invert"] = True
    assert inpaint.parse_request(sent).invert_mask
    assert inpaint.parse_request(sent).mask == request.mask


@pytest.mark.parametrize(("shade", "invert"), [(0, False), (255, True), (3, False)])
def test_where_nothing_is_to_be_painted_it_says_so(
    inpaint: Inpaint, shade: int, invert: bool
) -> None:
    sent, _ = on(inpaint, noise(64, 64))
    sent[inpaint.editor.html] = {"drawn": layer(Image.new("L", (64, 64), shade)), "invert": invert}
    with refused(InvalidSpec, "Mask"):
        inpaint.parse_request(sent)


@pytest.mark.parametrize(
    "value",
    [
        {"drawn": "data:image/png;base64,AAAA"},
        {"drawn": "data:image/png;base64,%%%"},
        {"drawn": "http://evil/mask.png"},
        {"drawn": 5},
        {"drawn": ["x"]},
        {"drawn": layer(Image.new("L", (32, 64), 255))},
        {"drawn": "file:///etc/passwd"},
    ],
    ids=["no picture", "no base64", "address", "number", "list", "another size", "file"],
)
def test_a_layer_that_is_none_is_a_sentence(value: Any, inpaint: Inpaint, img2img: Img2Img) -> None:
    for tab in (inpaint, img2img):
        sent, _ = on(tab, noise(64, 64), steps=0)
        sent[tab.editor.html] = value
        with refused(InvalidSpec) as caught:
            tab.parse_request(sent)
        assert len(caught.value.faults) == 2
        assert caught.value.faults[1].startswith("Steps: ")  # and what else is wrong


@pytest.mark.parametrize(
    "value", [None, 5, "x", [], {"invert": "yes"}, {"url": "/etc/passwd", "key": 1}], ids=str
)
def test_an_easel_that_sends_no_layer_is_as_it_was_shown(value: Any, inpaint: Inpaint) -> None:
    sent, source = on(inpaint, noise(64, 64))
    mask = inpaint.services.home.library.inputs.add_mask(Image.new("L", (64, 64), 255)).sha256
    sent |= {
        inpaint.editor.html: value,
        inpaint.editor.source: SourceImage(**{**vars(source), "mask": mask}),
    }
    if value == {
        "invert": "yes"
    }:  # it says that it was turned: all white, inverted, is nothing; the mask is taken as it is
        assert inpaint.parse_request(sent).invert_mask
    else:
        assert inpaint.parse_request(sent).mask == mask


def test_a_mask_from_a_file_and_from_transparency(inpaint: Inpaint) -> None:
    cut = noise(64, 64).convert("RGBA")
    cut.putalpha(Image.new("L", (64, 64), 255))
    cut.paste((0, 0, 0, 0), (0, 0, 20, 64))
    press = inpaint.editor.apply_action
    source = press({"action": "picture", **upload(cut)}, None, (64, 64))
    assert source
    assert source.alpha_mask
    assert not source.mask
    masked = press({"action": "alpha"}, source, (64, 64))
    assert masked
    seen = np.array(inpaint.services.home.library.inputs.load_mask(masked.mask))
    assert (seen[:, :20] == 255).all()
    assert not seen[:, 20:].any()
    again = press(
        {"action": "mask", **upload(Image.new("L", (64, 64), 255), "white.png")}, masked, (64, 64)
    )
    assert again
    assert again.mask != masked.mask
    assert again.image == source.image
    with refused(BadPicture):
        press(
            {"action": "mask", **upload(Image.new("L", (32, 64), 255), "white.png")},
            masked,
            (64, 64),
        )
    for what in ("mask", "picture"):
        with refused(Exception):
            press({"action": what, "path": "/etc/passwd", "name": "x"}, masked, (64, 64))
    for odd in ({"action": "alpha"}, {"action": "explode"}, {}, None, "x"):
        assert press(odd, None, (64, 64)) is None


def test_what_a_guest_puts_on_an_easel_is_theirs_alone(
    img2img: Img2Img, inpaint: Inpaint, desk: Services
) -> None:
    inputs, me = desk.home.library.inputs, "api"  # who NOBODY is
    see_through = noise(64, 64, 3, 4)
    for tab in (img2img, inpaint):
        source = tab.handle_editor_event(
            page(tab), gr.EventData(None, {"action": "picture", **upload(see_through)}), NOBODY
        )[tab.editor.source]
        sent = page(tab, tab.editor.show_image(source)) | {
            tab.editor.html: {"drawn": layer(noise(64, 64, 9))},
            tab.editor.source: source,
        }
        request = tab.parse_request(sent)
        named = [source.image, source.alpha_mask, request.image, request.mask]
        blank = tab.handle_editor_event(sent, gr.EventData(None, {"action": "blank"}), NOBODY)[
            tab.editor.source
        ].image
        mask = {"action": "mask", **upload(noise(64, 64, 7))}
        masked = tab.handle_editor_event(sent, gr.EventData(None, mask), NOBODY)[
            tab.editor.source
        ].mask
        made = desk.home.gallery.save(
            noise(64, 64, 4),
            ResolvedRequest(width=64, height=64, seed=1),
            digest="d" * 64,
            content_hashes={},
            seconds=1.0,
            owner=me,
        )
        again = page(tab, tab.receive_image(made, Visitor(me, is_guest=True)))[
            tab.editor.source
        ].image
        for digest in filter(None, (*named, blank, masked, again)):
            assert inputs.get_path(digest, me).is_file()
            with refused(BadPicture):
                inputs.get_path(digest, "ann")
        assert (
            page(tab, tab.load_request(request, Visitor(me, is_guest=True)))[
                tab.editor.source
            ].image
            == request.image
        )
        with pytest.warns(UserWarning, match=".") as warned:
            assert tab.load_request(request, ANN)[tab.editor.source] is None
        check_sentence(str(warned.pop(UserWarning).message))
        assert page(tab, tab.load_request(request, OWNER))[tab.editor.source].image == request.image
    img2img.batch_panel.submit_batch(
        {part: part.value for part in img2img.form.inputs}
        | {
            img2img.batch_panel.files: [upload(noise(64, 64, 11))],
            img2img.batch_panel.native_sizes: True,
        },
        NOBODY,
    )
    assert inputs.get_path(desk.home.jobs.list_open(me)[0].spec["image"], me).is_file()


FRAMES: tuple[dict[str, Any], ...] = (
    {"mask_padding": 0, "mask_blur": 0},
    {"mask_padding": 32, "mask_blur": 4},
    {"mask_grow": 9, "mask_blur": 12},
    {"mask_grow": -4, "mask_padding": 8, "width": 192, "height": 64},
    {"invert": True, "mask_blur": 2},
    {"sides": (0, 8, 64, 0), "seam_blur": 6, "mask_padding": 16},
)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_frame_on_the_easel_is_what_the_engine_paints(inpaint: Inpaint, desk: Services) -> None:
    from studio.engine.context import WorkerContext
    from studio.engine.generation.trajectory_runner import prepare_task
    from studio.engine.models.prompt_encoding import encode_prompts

    drawn = Image.new("L", (200, 120))
    drawn.paste(255, (60, 40, 90, 70))
    drawn.paste(255, (95, 52, 100, 58))
    bench = WorkerContext.open(desk.home.settings)
    with bench.pipelines.borrow(GenerationRequest()) as parts:
        for case in FRAMES:
            fields = {
                name: value for name, value in case.items() if name not in ("invert", "sides")
            }
            invert, sides = case.get("invert", False), case.get("sides", ())
            sent, _ = on(inpaint, noise(200, 120), inpaint_area="only masked", **fields)
            sent |= {inpaint.form[name]: side for name, side in zip(SIDE_FIELDS, sides)} | {
                inpaint.task_choice: OUTPAINT if sides else INPAINT
            }
            mask = ImageChops.invert(drawn) if invert else drawn
            sent[inpaint.editor.html] = {"key": "k", "drawn": layer(mask), "invert": invert}
            before = set(desk.home.settings.inputs.iterdir())
            told = inpaint.draw_area_frame(sent)[inpaint.editor.html].constructor_args["box"]
            assert set(desk.home.settings.inputs.iterdir()) == before  # a look keeps nothing
            request = desk.home.library.inputs.resolve(
                inpaint.parse_request(sent), parts.info.native_size, 7
            )
            window = prepare_task(
                parts, request, encode_prompts(parts, request), desk.home.library.inputs
            ).window
            assert window, case
            assert told == {"key": "k", "at": list(window.box)}, case
            assert window.box != (0, 0, 200, 120), case
    bench.home.gallery.close()


@pytest.mark.parametrize(
    "value",
    [
        None,
        5,
        "x",
        [],
        {"drawn": "x"},
        {"drawn": layer(Image.new("L", (9, 9), 255))},
        {"drawn": layer(Image.new("L", (64, 64)))},
    ],
    ids=str,
)
def test_where_no_frame_can_be_there_is_none(value: Any, inpaint: Inpaint) -> None:
    white = {"drawn": layer(Image.new("L", (64, 64), 255)), "key": "k"}
    sent, _ = on(inpaint, noise(64, 64), inpaint_area="only masked", prompt="a (cat:2000)")
    assert inpaint.find_painted_box(sent | {inpaint.editor.html: white}) == (
        0,
        0,
        64,
        64,
    )  # other settings may be wrong
    assert (
        inpaint.draw_area_frame(sent | {inpaint.editor.html: value})[
            inpaint.editor.html
        ].constructor_args["box"]
        == {}
    )
    wrong: dict[str, Any] = {
        "mask_padding": "x",
        "mask_blur": float("nan"),
        "width": 63,
        "model": [],
        "inpaint_area": "whole picture",
    }
    for name, other in wrong.items():
        assert (
            inpaint.find_painted_box(sent | {inpaint.editor.html: white, inpaint.form[name]: other})
            is None
        ), name
    assert (
        inpaint.find_painted_box(sent | {inpaint.editor.html: white, inpaint.task_choice: OUTPAINT})
        is None
    )  # nothing is added yet
    assert inpaint.find_painted_box(page(inpaint) | {inpaint.editor.html: white}) is None


# ---- pictures that come in -------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_hostile_pictures_are_taken_upright_or_refused_in_a_sentence(
    inpaint: Inpaint, capsys: pytest.CaptureFixture[str]
) -> None:
    def taken(image: Image.Image | bytes, name: str = "a.png", **how: Any) -> SourceImage:
        source = inpaint.editor.apply_action(
            {"action": "picture", **upload(image, name, **how)}, None, (64, 64)
        )
        assert source
        return source

    turned = Image.Exif()
    turned[0x0112] = 6
    assert taken(noise(60, 40), format="JPEG", exif=turned).size == (40, 60)
    assert taken(noise(40, 40, channels=4).convert("CMYK"), format="JPEG").size == (40, 40)
    assert taken(Image.new("I;16", (40, 40), 30000)).size == (40, 40)
    frames = [noise(40, 40, k) for k in range(3)]
    assert taken(frames[0], format="GIF", save_all=True, append_images=frames[1:]).size == (40, 40)
    assert "first frame" in capsys.readouterr().out
    large = taken(Image.new("RGB", (5000, 2500)), HOSTILE)
    assert large.size == (4096, 2048)
    said = capsys.readouterr().out
    assert "5000 × 2500" in said
    assert "<img" not in said
    out = io.BytesIO()
    noise(64, 64).save(out, "PNG")
    with refused(BadPicture):
        taken(out.getvalue()[:2000])
    for bad in (b"", b"hello", b"\x89PNG\r\n"):
        with refused(BadPicture):
            taken(bad)
    with refused(BadPicture):
        taken(Image.new("RGB", (7, 7)))
    with refused(BadPicture):
        taken(Image.new("1", (13000, 13000)))


NONSENSE: tuple[Any, ...] = (
    None,
    [],
    {"a": {}},
    float("nan"),
    float("inf"),
    10**400,
    -1,
    0.5,
    "1e309",
    "\0\ud800",
    [["x"]],
)


@pytest.mark.parametrize("kind", [Img2Img, Inpaint])
@pytest.mark.parametrize(
    "every",
    [
        pytest.param(len(NONSENSE), id="each field one value"),
        pytest.param(1, id="each field all values", marks=pytest.mark.slow),
    ],
)
def test_whatever_a_browser_sends_is_a_sentence_at_most(
    kind: type[Any], every: int, desk: Services, caplog: pytest.LogCaptureFixture
) -> None:
    """Every field of the page, every event of the easel: a value no page sends is refused in words or passed over."""
    with unopened_page():
        tab = kind(desk)
    sent, _ = on(tab, noise(64, 64))
    sent |= {
        tab.editor.html: {"drawn": layer(Image.new("L", (64, 64), 255)), "key": "k"},
        tab.size_choice: tab.NATIVE_SIZE_LABEL,
    }
    sent |= {tab.form["inpaint_area"]: "only masked"} if kind is Inpaint else {tab.scale: 1}
    looks = (
        tab.parse_request,
        tab.apply_model_size,
        tab.apply_model,
        tab.apply_size_choice,
        *(
            [tab.update_task_view, tab.draw_area_frame]
            if kind is Inpaint
            else [tab.update_estimate, tab.apply_scale]
        ),
    )
    parts = [part for part in sent if part is not tab.editor.source]
    for k, value in enumerate(NONSENSE):
        for part in parts[k % every :: every]:
            for look in looks:
                with suppress(StudioError):  # anything else is no sentence
                    look(sent | {part: value})
        files: Any = {"action": "picture", "path": value, "name": value}
        for event in (
            value,
            {"action": value},
            files,
            {**files, "action": "mask"},
            {"action": "blank", "path": value},
        ):
            with suppress(gr.Error):
                tab.handle_editor_event(sent, gr.EventData(None, event), NOBODY)
        assert (
            tab.result_panel.select_image(
                ["/a.png"], gr.SelectData(None, {"index": value, "value": value})
            )[tab.result_panel.selected_path]
            is None
        )
        tab.update_schedule({tab.form["scheduler"]: value, tab.form["noise_schedule"]: value})
    assert not caplog.records  # where what is no sentence is written down


def test_the_strip_of_another_picture_goes_when_a_new_one_comes(
    desk: Services, img2img: Img2Img
) -> None:
    made, stage = kept(desk, GenerationRequest(prompt="a boat")), img2img.result_panel
    id = desk.home.jobs.submit(
        "generate",
        GenerationRequest(prompt="a boat", image="a" * 64).model_dump(mode="json"),
        owner=OWNER.id,
    )
    assert stage.strip.sheet not in stage.render(OWNER, (), "/another.png")  # nothing has come yet
    assert desk.home.jobs.claim("cpu")
    desk.home.jobs.finish(id, "done", {"pictures": [{"path": str(made.path)}]})
    came = stage.render(OWNER, (), "/another.png")
    assert came[stage.selected_path] == str(made.path)
    assert came[stage.strip.sheet] == ""
    assert came[stage.strip.job_id] == 0
    assert {stage.strip.sheet, stage.strip.job_id} <= set(stage.refresh_outputs)
    assert stage.strip.sheet not in stage.render(OWNER, (), str(made.path))  # its own stays


def test_how_many_steps_of_a_strip_is_a_number(desk: Services) -> None:
    made = kept(desk, GenerationRequest(prompt="a boat", steps=12))
    with unopened_page():
        pane, selected = DenoiseStrip(desk, "trial"), gr.State()
        pane.wire(selected)
    sent = {selected: str(made.path), pane.interval: 4}
    for every in (*NONSENSE, True, 51, 1.5):
        with refused(gr.Error):
            pane.submit(sent | {pane.interval: every}, NOBODY)
    assert not desk.home.jobs.list_open()
    assert pane.submit(sent | {pane.interval: 3.0}, NOBODY)[pane.job_id]


# ---- the form --------------------------------------------------------------------------------------------------------


def test_without_a_picture_all_faults_are_said_at_once(img2img: Img2Img, inpaint: Inpaint) -> None:
    for tab in (img2img, inpaint):
        with refused(InvalidSpec, "Image", "Prompt", "Steps"):
            tab.parse_request(page(tab, steps="many", prompt="a (cat:2000)"))


@pytest.mark.parametrize(
    "wanted",
    [
        {"strength": 0.35, "resize_mode": "crop", "width": 96, "height": 64},
        {
            "strength": 0.0,
            "hires_scale": 2.0,
            "hires_strength": 0.3,
            "hires_steps": 9,
            "hires_tile": 128,
            "hires_overlap": 16,
        },
        {
            "mask": True,
            "invert_mask": True,
            "mask_blur": 9,
            "mask_grow": -3,
            "masked_content": "latent noise",
            "inpaint_area": "only masked",
            "mask_padding": 16,
            "width": 128,
            "height": 128,
        },
        {
            "extend_left": 64,
            "extend_bottom": 8,
            "extend_fill": "colour",
            "extend_colour": "#102030",
            "seam_blur": 2,
        },
    ],
    ids=lambda wanted: ",".join(wanted),
)
def test_a_request_survives_the_page(
    wanted: dict[str, Any], img2img: Img2Img, inpaint: Inpaint, desk: Services
) -> None:
    inputs = desk.home.library.inputs
    image = inputs.add(noise(128, 96)).sha256
    mask = {"mask": inputs.add_mask(noise(128, 96, 3)).sha256} if wanted.get("mask") else {}
    request = validate(
        GenerationRequest,
        {"prompt": "a cat", "seed": 9, "steps": 11, **wanted, "image": image, **mask},
    )
    tab: Any = img2img if request.task == "img2img" else inpaint
    assert tab.parse_request(page(tab, tab.load_request(request, OWNER))) == request


def test_a_picture_that_is_gone_is_said(img2img: Img2Img, desk: Services) -> None:
    with pytest.warns(UserWarning, match=".") as warned:
        updates = img2img.load_request(validate(GenerationRequest, {"image": "a" * 64}), OWNER)
    check_sentence(str(warned.pop(UserWarning).message))
    assert updates[img2img.editor.source] is None


def test_a_preset_leaves_the_picture_where_it_is(inpaint: Inpaint) -> None:
    updates = inpaint.load_request(GenerationRequest(prompt="a preset", mask_blur=9), OWNER)
    assert inpaint.editor.source not in updates
    assert updates[inpaint.form["mask_blur"]] == 9
    assert inpaint.form["prompt"] in updates


def test_outpainting_needs_a_side_and_forgets_the_mask(inpaint: Inpaint) -> None:
    sent, _ = on(inpaint, noise(64, 64))
    sent[inpaint.editor.html] = {"drawn": layer(Image.new("L", (64, 64), 255))}
    with refused(InvalidSpec):
        inpaint.parse_request(sent | {inpaint.task_choice: OUTPAINT})
    sent[inpaint.form["extend_right"]] = 32
    request = inpaint.parse_request(sent | {inpaint.task_choice: OUTPAINT})
    assert request.task == "outpaint"
    assert request.extension == (0, 0, 32, 0)
    assert not request.mask
    assert (
        inpaint.parse_request(sent).task == "inpaint"
    )  # the sides are there, but another way was chosen
    told = inpaint.update_task_view({**sent, inpaint.task_choice: OUTPAINT})[inpaint.editor.html]
    assert told.constructor_args["options"] == {"extend": [0, 0, 32, 0], "paint": False, "area": []}
    assert inpaint.default_size({**sent, inpaint.task_choice: OUTPAINT}) == (96, 64)
    assert inpaint.default_size({**sent, inpaint.form["inpaint_area"]: "only masked"}) == (128, 128)


@pytest.mark.parametrize(
    ("steps", "strength", "words"),
    [
        (20, 0.75, "15 of 20 steps"),
        (20, 1, "20 of 20"),
        (3, 0.5, "1 of 3"),
        (1, 0.5, "No steps run; choose more"),
        (20, 0, "only enlarged"),
        (None, 0.5, ""),
        (20, None, ""),
        (10**400, 0.5, ""),
        ("20", "x", ""),
        (20, float("nan"), ""),
        (True, 1, ""),
        (20, 7, ""),
    ],
    ids=str,
)
def test_the_steps_that_really_run_are_said(steps: Any, strength: Any, words: str) -> None:
    assert words in render_effective_steps(steps, strength)
    assert bool(words) == bool(render_effective_steps(steps, strength))


def test_resize_by_computes_width_and_height(img2img: Img2Img) -> None:
    sent, _ = on(img2img, noise(130, 90))
    for times, size in ((1, (128, 88)), (1.5, (192, 136)), (0.25, (64, 64)), (4, (520, 360))):
        updates = img2img.apply_scale({**sent, img2img.scale: times})
        assert (updates[img2img.form["width"]], updates[img2img.form["height"]]) == size, times
    for odd in ("x", float("nan"), float("inf"), 10**400, 0, -1):
        assert list(img2img.apply_scale({**sent, img2img.scale: odd})) == [img2img.form["width"]]
    assert (
        "15 steps" in img2img.update_estimate(sent)[img2img.estimate]
    )  # of 20, for a strength of 0.75


# ---- sent on ---------------------------------------------------------------------------------------------------------


def test_a_picture_goes_with_its_settings_to_every_tab(
    img2img: Img2Img, inpaint: Inpaint, desk: Services
) -> None:
    before = desk.home.library.inputs.add(noise(128, 128, 8)).sha256
    made = kept(
        desk,
        validate(
            GenerationRequest,
            {"prompt": "a red boat", "steps": 9, "image": before, "strength": 0.4},
        ),
    )
    for tab in (img2img, inpaint):
        updates = tab.receive_image(made, OWNER)
        sent = page(tab, updates)
        source = sent[tab.editor.source]
        assert (
            np.array(desk.home.library.inputs.load(source.image)) == np.array(Image.open(made.path))
        ).all()
        assert source.image != before
        assert not source.mask
        raw = tab.form.read_raw(sent)
        assert (raw["prompt"], raw["steps"], raw["strength"]) == ("a red boat", 9, 0.4)
    with unopened_page():
        sweep = SweepTab(desk)
    filled = sweep.load_base(made.request)
    sent = {part: part.value for part in sweep.inputs} | {
        part: value.value if isinstance(value, gr.Dropdown) else value
        for part, value in filled.items()
        if part in sweep.inputs
    }
    sent |= {sweep.axis_rows.rows[0].text: "0.3, 0.6"}
    base = {**sweep.carried_settings.read_raw(sent), **sweep.form.read_raw(sent)}
    assert (
        validate(ResolvedRequest, base) == made.request
    )  # nothing is lost, also what the form has no field for
    assert (
        sweep.carried_settings.fill(GenerationRequest())[sweep.carried_settings.carried_values]
        == {}
    )


def test_enlarging_asks_for_a_light_second_pass_alone(img2img: Img2Img, desk: Services) -> None:
    made = kept(desk, GenerationRequest(prompt="a boat"), noise(200, 120))
    request = img2img.parse_request(page(img2img, img2img.receive_for_redrawing(made, OWNER)))
    assert (request.strength, request.hires_scale, request.width, request.height) == (
        0,
        2,
        200,
        120,
    )
    assert request.effective_steps == 0
    assert request.hires_effective_steps
    assert not request.hires_tile
    large = img2img.parse_request(
        page(
            img2img,
            img2img.receive_for_redrawing(kept(desk, GenerationRequest(), noise(800, 400)), OWNER),
        )
    )
    assert large.hires_tile == 1024
    assert (large.width, large.height) == (800, 400)
    for steps, second in (
        (5, 0),
        (4, 5),
        (1, 5),
    ):  # of a distilled model: at least one step of the second pass has to run
        few = kept(
            desk,
            GenerationRequest(scheduler="LCM", noise_schedule="Model default", steps=steps),
            noise(64, 64),
        )
        request = img2img.parse_request(page(img2img, img2img.receive_for_redrawing(few, OWNER)))
        assert (request.hires_steps, request.hires_effective_steps) == (second, 1)


def test_before_is_laid_out_as_after(desk: Services) -> None:
    inputs = desk.home.library.inputs
    image = inputs.add(noise(128, 64)).sha256
    same = kept(
        desk,
        validate(GenerationRequest, {"image": image, "width": 256, "height": 128}),
        noise(256, 128),
    )
    assert load_before_image(desk, str(same.path)) == inputs.get_path(image)
    framed = load_before_image(
        desk,
        str(
            kept(
                desk,
                validate(GenerationRequest, {"image": image, "extend_left": 64}),
                noise(192, 64),
            ).path
        ),
    )
    assert isinstance(framed, Image.Image)
    assert framed.size == (192, 64)
    assert (np.array(framed)[:, 64:] == np.array(inputs.load(image))).all()
    for mode in ("stretch", "crop", "fill"):
        square = validate(
            GenerationRequest, {"image": image, "resize_mode": mode, "width": 128, "height": 128}
        )
        shown = load_before_image(desk, str(kept(desk, square, noise(128, 128)).path))
        assert isinstance(shown, Image.Image)
        assert shown.size == (128, 128)
    assert load_before_image(desk, None) is None
    assert load_before_image(desk, str(kept(desk, GenerationRequest()).path)) is None
    assert (
        load_before_image(
            desk, str(kept(desk, validate(GenerationRequest, {"image": "b" * 64})).path)
        )
        is None
    )  # gone from inputs


def test_two_pictures_of_the_gallery_are_compared(desk: Services) -> None:
    one, two = (
        kept(desk, GenerationRequest(prompt=words, seed=k), noise(64, 64, k))
        for k, words in enumerate(("a", HOSTILE))
    )
    with unopened_page():
        tab = GalleryTab(desk)
    pinned = tab.toggle_pin({tab.selected_path: str(one.path), tab.pinned_path: None})
    assert pinned[tab.pinned_path] == str(one.path)
    assert pinned[tab.compare.container].constructor_args["visible"] is False
    both = tab.render_image(str(two.path), str(one.path))
    assert both[tab.compare.slider] == (str(one.path), str(two.path))
    assert "<img" not in both[tab.compare.labels]
    assert "pinned: a" in both[tab.compare.labels]
    one.path.unlink()
    alone = tab.render_image(str(two.path), str(one.path))
    assert alone[tab.pinned_path] is None
    assert alone[tab.compare.container].constructor_args["visible"] is False


def test_a_strip_is_a_job_and_shows_itself_to_whose_it_is(desk: Services) -> None:
    made = kept(desk, GenerationRequest(prompt="a boat", steps=12))
    with unopened_page():
        pane, selected = DenoiseStrip(desk, "trial"), gr.State()
        pane.wire(selected)
    sent = {selected: str(made.path), pane.interval: 4}
    updates = pane.submit(sent, NOBODY)
    job = desk.home.jobs.get(updates[pane.job_id])
    assert job
    assert job.kind == "denoise_strip"
    assert job.spec == {"request": made.request.model_dump(mode="json"), "every": 4}
    theirs = desk.submit_denoise_strip(made.request, 4, OWNER)
    assert pane.refresh(theirs, NOBODY)[pane.sheet] == ""
    with refused(gr.Error):
        pane.submit(sent | {selected: None}, NOBODY)


# ---- many pictures ---------------------------------------------------------------------------------------------------


def test_many_pictures_are_one_list_and_a_bad_one_stops_no_other(
    img2img: Img2Img, desk: Services
) -> None:
    many = img2img.batch_panel
    files = [
        upload(noise(64, 48, 1), "one.png"),
        upload(b"hello", HOSTILE),
        upload(noise(48, 64, 2), "two.png"),
        {"path": "/etc/passwd", "orig_name": "passwd"},
        None,
    ]
    sent = {part: part.value for part in img2img.form.inputs} | {
        many.files: files,
        many.native_sizes: True,
        img2img.form["strength"]: 0.4,
    }
    updates = many.submit_batch(dict(sent), NOBODY)
    waiting = desk.home.jobs.list_open(kind="generate")
    assert [job.spec["strength"] for job in waiting] == [0.4, 0.4]
    assert [desk.home.library.inputs.read_size(job.spec["image"]) for job in waiting] == [
        (64, 48),
        (48, 64),
    ]
    assert all(job.spec["width"] is None for job in waiting)
    shown = updates[many.job_list]
    assert "0 of 5 done · 3 failed" in shown
    assert "not a readable image" in shown
    assert "<img src=x" not in shown
    job = desk.home.jobs.claim("cpu")
    assert job
    desk.home.jobs.finish(job.id, "failed", error="<b>It</b> broke.")
    visitor = Visitor("api", is_guest=True)
    assert "4 failed" in many.render(visitor)[many.job_list]
    assert "&lt;b&gt;It" in many.render(visitor)[many.job_list]
    many.cancel_jobs(NOBODY)
    assert not desk.home.jobs.list_open(kind="generate")
    assert "stopped" in many.render(visitor)[many.job_list]
    assert many.render(ANN)[many.job_list] == render_batch([], {})  # nobody else's
    assert list(many.poll(many.render(visitor)[many.shown_revision], NOBODY)) == [
        many.shown_revision
    ]  # nothing new, nothing sent


def test_what_is_wrong_with_many_is_said_before_any_is_queued(
    img2img: Img2Img, desk: Services
) -> None:
    many = img2img.batch_panel
    sent = {part: part.value for part in img2img.form.inputs} | {
        many.files: [upload(noise(64, 64))],
        many.native_sizes: False,
    }
    for change in (
        {img2img.form["steps"]: 0},
        {many.files: None},
        {many.files: [None] * 501},
    ):
        with refused(gr.Error):
            many.submit_batch(sent | change, NOBODY)
    assert not desk.home.jobs.list_open()
    many.submit_batch(
        sent
        | {many.files: [upload(noise(64, 64, k)) for k in range(desk.guests.budgets.jobs + 1)]},
        NOBODY,
    )
    assert (
        len(desk.home.jobs.list_open()) == desk.guests.budgets.jobs
    )  # the last one's row says why it has to wait
    assert "the most a guest can have" in many.render(Visitor("api", is_guest=True))[many.job_list]


def test_a_tab_shows_its_own_jobs(img2img: Img2Img, inpaint: Inpaint, desk: Services) -> None:
    image = desk.home.library.inputs.add(noise(64, 64)).sha256
    first = desk.submit_generation(validate(GenerationRequest, {"image": image}), OWNER)
    second = desk.submit_generation(
        validate(GenerationRequest, {"image": image, "extend_left": 64}), OWNER
    )
    desk.submit_generation(GenerationRequest(prompt="neither"), OWNER)
    assert [job.id for job in img2img.result_panel.list_open_jobs(OWNER)] == [first]
    assert [job.id for job in inpaint.result_panel.list_open_jobs(OWNER)] == [second]
    desk.home.jobs.cancel(first)
    ended = img2img.result_panel.find_last_job(OWNER)
    assert ended
    assert ended.id == first
    assert inpaint.result_panel.find_last_job(OWNER) is None
