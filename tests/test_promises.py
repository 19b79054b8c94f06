"""What is promised of every setting, and in README: a new field without a case here fails."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import io
import re
import runpy
import shlex
import sys
import tomllib
from argparse import ArgumentParser
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import gradio as gr
import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from PIL import Image

from studio.cli.parser import build_parser
from studio.core.base import validate
from studio.core.generation.request import (
    DIGEST_EXCLUDED_FIELDS,
    GenerationRequest,
    ResolvedRequest,
)
from studio.engine.context import WorkerContext
from studio.engine.generation.job import generate
from studio.settings import Settings
from studio.storage.gallery import Gallery, read_image_settings
from studio.storage.presets import Presets
from studio.ui.api import make_endpoint
from support import lora_makers as makers
from support.ldm_files import rename_vae, write_checkpoint
from support.models import POCKET
from support.request_fields import IMAGE_TASK_VALUES, MASK_SHA, OTHER_VALUES, SHA

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
ROOT = Path(__file__).resolve().parent.parent
FIELDS = list(GenerationRequest.model_fields)
BASE: dict[str, Any] = {"prompt": "a red ball", "width": 64, "height": 64, "steps": 3, "seed": 7}
CHANGED: dict[str, Any] = (
    OTHER_VALUES
    | {  # what is really painted: small, of models that are there
        "model": "toy-sd2",
        "width": 72,
        "height": 72,
        "num_images": 2,
    }
)
SHAPE, AMOUNT = (
    {"width", "height"},
    {"num_images", "batch_size"},
)  # these decide the size, how many and how; all others the pixels
LARGER = {
    "extend_left": (128, 64),
    "extend_top": (64, 128),
    "extend_right": (128, 64),
    "extend_bottom": (64, 128),
    "hires_scale": (128, 128),
}

# Fields that a quick test of their own compares with a stock library; here they are slow tests.
COMPARED_IN = (
    *("test_guidance.py", "test_guidance_methods.py", "test_solver_settings.py"),
    *("test_image_tasks.py", "test_hires_upscaler.py"),
)
COMPARED = {
    *("apg_eta", "apg_threshold", "apg_momentum", "guidance_zero_steps", "guidance_rescale"),
    *("guidance_start", "guidance_end", "s_churn", "s_noise", "s_tmin", "eta"),
    *("hires_tile", "hires_steps", "hires_upscaler", "hires_resize"),
}


@pytest.fixture
def known(bench: WorkerContext) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """The same settings with real inputs for picture and mask."""
    picture = Image.radial_gradient("L").resize((64, 64)).convert("RGB")
    mask = Image.new("L", (64, 64))
    mask.paste(255, (16, 16, 48, 40))
    there = {
        SHA: bench.home.library.inputs.add(picture).sha256,
        MASK_SHA: bench.home.library.inputs.add_mask(mask).sha256,
    }
    return lambda spec: {
        name: there.get(value, value) if isinstance(value, str) else value
        for name, value in spec.items()
    }


@pytest.fixture(scope="module", autouse=True)
def moon(bench: WorkerContext) -> Iterator[None]:
    """A LoRA for pocket; afterwards it is taken off again."""
    path = makers.kohya(
        bench.settings.loras / "moon.safetensors", makers.add(makers.stock(POCKET)), 2
    )
    yield
    path.unlink()
    bench.pipelines.unload("LoRA moon")


@pytest.fixture(scope="module", autouse=True)
def anime(bench: WorkerContext) -> Iterator[None]:
    """A VAE for pocket, which makes pictures darker."""
    own = AutoencoderKL.from_pretrained(POCKET, subfolder="vae")
    with torch.no_grad():
        own.decoder.conv_out.bias -= 0.3
    path = write_checkpoint(
        bench.settings.vaes / "anime.safetensors",
        rename_vae(own.state_dict(), levels=4, prefix=""),
        torch.float32,
    )
    yield
    path.unlink()


@pytest.fixture(scope="module", autouse=True)
def ink(bench: WorkerContext) -> Iterator[None]:
    """A style."""
    path = bench.settings.home / "styles.csv"
    path.write_text("name,prompt,negative_prompt\nInk,ink drawing of {prompt},photo\n")
    yield
    path.unlink()


def resolved(spec: dict[str, Any]) -> ResolvedRequest:
    size = (64, 64) if "image" in spec else None
    return validate(GenerationRequest, spec).resolve(64, 0, size)


def unet_calls(bench: WorkerContext, **spec: Any) -> int:
    """How often the U-Net is called for a request: the rows of a batch go through it together."""
    calls: list[None] = []
    with bench.pipelines.borrow(validate(GenerationRequest, spec)) as parts:
        hook = parts.denoiser.register_forward_pre_hook(lambda module, given: calls.append(None))
    try:
        generate(bench, spec, lambda progress: None)
    finally:
        hook.remove()
    return len(calls)


@pytest.fixture(scope="module")
def painted_first() -> dict[str, tuple[dict[str, Any], Any]]:
    """What requests came to, by how they read; each was painted once."""
    return {}


@pytest.fixture
def paint_once(
    paint: Callable[..., Any], painted_first: dict[str, tuple[dict[str, Any], Any]]
) -> Callable[..., Any]:
    """Paint what other tests compare with too."""

    def paint_once(**spec: Any) -> Any:
        if repr(spec) not in painted_first:
            painted_first[repr(spec)] = spec, paint(**spec)
        return painted_first[repr(spec)][1]

    return paint_once


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if name in COMPARED else ())
        for name in IMAGE_TASK_VALUES
    ],
)
def test_a_field_of_work_on_a_picture_changes_something(
    name: str,
    paint: Callable[..., Any],
    paint_once: Callable[..., Any],
    known: Callable[[dict[str, Any]], dict[str, Any]],
) -> None:
    needed, value = IMAGE_TASK_VALUES[name]
    base = known({**BASE, **needed})
    changed = known({**BASE, **needed, name: value})
    before, after = paint_once(**base), paint(**changed)
    if name in LARGER:
        assert after.shape[1::-1] == LARGER[name] != before.shape[1::-1]
    else:
        assert before.shape == after.shape
        assert np.abs(before.astype(int) - after.astype(int)).mean() > 0.1
    assert resolved(changed).digest({}) != resolved(base).digest({})


@pytest.mark.parametrize("name", CHANGED)
def test_a_field_changes_something(
    name: str, bench: WorkerContext, paint: Callable[..., Any], paint_once: Callable[..., Any]
) -> None:
    changed = {**BASE, name: CHANGED[name]}
    if name == "batch_size":
        assert unet_calls(bench, **BASE, num_images=2, batch_size=1) == 2 * unet_calls(
            bench, **BASE, num_images=2, batch_size=2
        )
    elif name == "num_images":
        first, second = paint(**changed)
        assert np.array_equal(first, paint_once(**BASE))
        assert np.array_equal(second, paint(**BASE | {"seed": 8}))
    elif name in SHAPE:
        height, width, _ = paint(**changed).shape
        assert {"width": width, "height": height} == {key: changed[key] for key in SHAPE}
    else:
        before, after = paint_once(**BASE), paint(**changed)
        assert before.shape == after.shape
        assert np.abs(before.astype(int) - after.astype(int)).mean() > 0.1
    same = resolved(changed).digest({}) == resolved(BASE).digest({})
    assert same is (name in DIGEST_EXCLUDED_FIELDS)


@pytest.mark.slow
def test_it_is_the_same_picture_whatever_was_painted_meanwhile(
    paint: Callable[..., Any],
    paint_once: Callable[..., Any],
    painted_first: dict[str, tuple[dict[str, Any], Any]],
) -> None:
    """Every request that the tests above changed a field of, once more after all of them."""
    paint_once(**BASE)
    for spec, pixels in painted_first.values():
        assert np.array_equal(paint(**spec), pixels), spec


def test_every_field_has_a_case() -> None:
    assert [*CHANGED, *IMAGE_TASK_VALUES] == FIELDS, "another value for each, in the fields' order"
    assert CHANGED.keys() >= SHAPE | AMOUNT
    default = GenerationRequest()
    assert all(getattr(default, name) != value for name, value in CHANGED.items())
    assert all(getattr(default, name) != value for name, (_, value) in IMAGE_TASK_VALUES.items())
    folder = ROOT / "tests" / "engine"
    compared = "".join((folder / name).read_text("utf-8") for name in COMPARED_IN)
    assert [name for name in COMPARED if not re.search(rf"\b{name}\b", compared)] == []


ONE_BY_ONE = [
    *({name: CHANGED[name]} for name in CHANGED),
    *({**needed, name: value} for name, (needed, value) in IMAGE_TASK_VALUES.items()),
]


@pytest.fixture(scope="module")
def parser() -> ArgumentParser:
    return build_parser()


@pytest.fixture(scope="module")
def endpoint() -> Callable[..., Any]:
    """One that answers with what was asked."""

    async def work(asked: GenerationRequest, visitor: Any) -> GenerationRequest:
        return asked

    return make_endpoint(GenerationRequest, work, description="A trial.")


def flag(name: str, value: Any) -> tuple[str, ...]:
    """As it is said on the command line."""
    return (f"--{name.replace('_', '-')}", *(() if value is True else (str(value),)))


@pytest.mark.parametrize(
    "values",
    [CHANGED, {}, *ONE_BY_ONE],
    ids=lambda values: "+".join(values) if len(values) < 2 else "all",
)
def test_every_field_survives(
    values: dict[str, Any], settings: Settings, parser: ArgumentParser, endpoint: Callable[..., Any]
) -> None:
    request = GenerationRequest(**values)
    gallery = Gallery(settings)
    picture = gallery.save(
        Image.new("RGB", (64, 64)),
        request.resolve(64, 5),
        digest="0" * 64,
        content_hashes={},
        seconds=1.0,
        owner="ann",
    )
    assert read_image_settings(picture.path).values == request.resolve(64, 5).model_dump(
        mode="json"
    )
    assert gallery.search()[0].request == request.resolve(64, 5)
    gallery.close()

    presets = Presets(GenerationRequest, settings.home / "none", settings.presets)
    presets.save("mine", request)
    assert presets.load("mine") == request

    listed = {
        "loras": [("--lora", str(use)) for use in request.loras],
        "styles": [("--style", name) for name in request.styles],
    }
    words = [
        part
        for name, value in values.items()
        for pair in listed.get(name, [flag(name, value)])
        for part in pair
        if value is not None
    ]
    given = vars(parser.parse_args(["generate", *words]))
    assert (
        validate(GenerationRequest, {name: given[name] for name in FIELDS if name in given})
        == request
    )

    assert asyncio.run(endpoint(gr.Request(), *request.model_dump().values())) == request


# ---- README ---------------------------------------------------------------------------------------------------------


README = (ROOT / "README.md").read_text("utf-8")
FENCED = re.findall(r"^```\w*\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


def commands() -> list[list[str]]:
    """Every `studio …` and `python -m …` in README's code, as words."""
    prose = re.sub(r"^```.*?^```", "", README, flags=re.DOTALL | re.MULTILINE)
    blocks = "\n".join(FENCED).replace("\\\n", " ").splitlines()
    code = [
        *blocks,
        *re.findall(r"`([^`\n]+)`", prose),
        *re.findall(r"^ {4}(.+)", prose, re.MULTILINE),
    ]
    found = []
    for part in (part for line in code for part in re.split(r"&&|\||;", line)):
        try:
            words = [
                word for word in shlex.split(part, comments=True) if word not in ("$", "…", "...")
            ]
        except ValueError:
            continue  # no command: half a quotation
        if words and Path(words[0]).name == "studio":
            found.append(["studio", *words[1:]])
        elif len(words) > 2 and Path(words[0]).name.startswith("python") and words[1] == "-m":
            found.append(words[2:])
    return found


@functools.cache
def help_of(module: str) -> str:
    """What `python -m module --help` prints, without another process for it."""
    printed, status = io.StringIO(), None
    with mock.patch.object(sys, "argv", [module, "--help"]), contextlib.redirect_stdout(printed):
        try:
            runpy.run_module(module, run_name="__main__", alter_sys=False)
        except SystemExit as end:  # one without options just runs to its end
            status = end.code
    assert status in (0, None)
    return printed.getvalue()


def test_readme_has_the_two_commands() -> None:
    both = [
        line
        for block in FENCED
        for line in block.replace("\\\n", " ").splitlines()
        if "pip install" in line
    ]
    assert any(re.search(r"-m venv .*bin/studio\b", line) for line in both), (
        "one fenced line installs and opens the page"
    )
    assert any(re.search(r"-m venv .*-m pytest\b", line) for line in both), (
        "one fenced line installs and tests"
    )
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    assert set(re.findall(r"\.\[([\w-]+)\]", README)) <= set(extras)


def test_every_command_in_readme_is_one(
    parser: ArgumentParser, capsys: pytest.CaptureFixture[str]
) -> None:
    named = commands()
    for command, *words in named:
        if command == "studio":
            said = 0
            try:
                parser.parse_args(words)
            except SystemExit as end:
                said = int(str(end.code))
            assert said == 0, f"studio {shlex.join(words)}: {capsys.readouterr().err}"
        elif command.startswith(("tests.", "studio.")):
            known = help_of(command)
            for word in words[:1] + [word for word in words if word.startswith("--")]:
                assert word.split("=")[0] in known, f"{command} does not know {word}"
    assert ["studio", "--open"] in named or ["studio"] in named
