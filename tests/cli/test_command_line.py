"""The command line as a user types it: real processes, real status codes."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from studio.cli.doctor import describe_plan, outside_tested_range, read_tested_requirements
from studio.cli.main import main
from studio.cli.parser import build_parser
from studio.core.base import validate
from studio.core.generation.request import FIELD_REQUIRES, GenerationRequest
from studio.core.generation.rules import SWITCH_FIELDS
from studio.settings import load
from studio.storage.models.library import Library
from support.models import POCKET
from support.request_fields import OTHER_VALUES
from support.sentences import check_sentence

OTHER = OTHER_VALUES | {
    "loras": (
        {"name": "moon", "unet": 0.5, "text_encoder": 1.0},
        {"name": "sub/style", "unet": -0.25, "text_encoder": -0.25},
    ),
    "vae": "anime",
    "styles": ("Ink", "Oil"),
    "variation_strength": 0.4,
    "noise_source": "NV",
    "seed_resize_width": 128,
    "seed_resize_height": 192,
}
ON_A_PICTURE = {
    "image": "0123456789abcdef" * 4,
    "mask": "fedcba9876543210" * 4,
    "strength": 0.6,
    "mask_blur": 8,
    "mask_grow": -4,
    "invert_mask": True,
    "masked_content": "latent noise",
    "inpaint_area": "only masked",
    "mask_padding": 8,
}
Studio = Callable[..., subprocess.CompletedProcess[str]]
LORAS = ["--lora", "moon:1:0.5", "--lora", "sub/style:-0.25", "--style", "Ink", "--style", "Oil"]


def studio(*words: str, home: Path | None = None) -> subprocess.CompletedProcess[str]:
    where = ["--home", str(home)] if home else []
    command = [sys.executable, "-m", "studio", *words[:1], *where, *words[1:]]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.smoke
def test_help_answers_without_torch_and_gradio() -> None:
    code = (
        "import sys\nfrom studio.cli.main import main\ntry: main(['--help'])\nexcept SystemExit: pass\n"
        "assert not {'torch', 'gradio', 'diffusers', 'numpy'} & set(sys.modules), sorted(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "generate" in done.stdout


def test_every_field_survives_the_command_line() -> None:
    assert set(OTHER) | set(FIELD_REQUIRES) | set(SWITCH_FIELDS) == set(
        GenerationRequest.model_fields
    )
    plain = {
        name: value
        for name, value in (OTHER | ON_A_PICTURE).items()
        if name not in ("loras", "styles")
    }
    words = LORAS + [
        part
        for name, value in plain.items()
        for part in (f"--{name.replace('_', '-')}", str(value))
        if value is not True or part != "True"
    ]
    arguments = vars(build_parser().parse_args(["generate", *words]))
    request = validate(GenerationRequest, {name: arguments[name] for name in OTHER | ON_A_PICTURE})
    assert request.model_dump() == GenerationRequest().model_dump() | OTHER | ON_A_PICTURE
    assert (
        vars(build_parser().parse_args(["generate", "--invert-mask", "--steps", "3"]))[
            "invert_mask"
        ]
        is True
    )
    default = GenerationRequest()
    assert all(getattr(default, name) != value for name, value in OTHER.items())


@pytest.mark.smoke
def test_all_faults_in_one_message() -> None:
    done = studio("generate", "--steps", "500", "--width", "7", "--prompt", "a (b:2000)")
    assert done.returncode == 2
    assert not done.stdout
    assert all(name in done.stderr for name in ("Steps", "Width", "2000"))
    check_sentence(done.stderr)
    assert "Traceback" not in done.stderr
    assert studio("generate", "--nonsense", "1").returncode == 2


def test_one_plain_line_for_what_cannot_be(
    tmp_path: Path, here: Studio, run_command: Studio
) -> None:
    done = here("generate", "--model", "nowhere", home=tmp_path)
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 1
    assert "pocket" in done.stderr
    check_sentence(done.stderr)
    done = here("generate", "--lora", "lamp:0.5", home=tmp_path)
    assert done.returncode == 1
    check_sentence(done.stderr)
    done = here("generate", "--prompt", "a <lora:moon", "--lora", "a:x", home=tmp_path)
    assert done.returncode == 2
    check_sentence(done.stderr)
    missing = run_command("inspect", str(tmp_path / "nothing.png"))
    assert missing.returncode == 1
    check_sentence(missing.stderr)
    assert "Traceback" not in missing.stderr


@pytest.mark.slow
def test_a_picture_and_its_settings_back(tmp_path: Path, run_command: Studio) -> None:
    made = studio(
        "generate",
        "--prompt",
        "a red ball",
        "--steps",
        "2",
        "--seed",
        "7",
        "--count",
        "2",
        "--json",
        "--output",
        str(tmp_path / "out"),
        home=tmp_path / "home",
    )
    assert made.returncode == 0, made.stderr
    lines = [json.loads(line) for line in made.stdout.splitlines()]
    assert [line["request"]["seed"] for line in lines] == [7, 8]
    for line in lines:
        text = run_command("inspect", line["path"]).stdout
        assert Path(line["path"]).parent == tmp_path / "out"
        told = json.loads(text)
        assert told["kind"] == "picture"
        assert told["source"] == "studio"
        assert told["request"] == line["request"]
        assert told["text"].startswith("a red ball\nSteps: 2, Sampler: DPM++ 2M")


@pytest.fixture
def here(run_command: Studio) -> Studio:
    """The same in this process, where torch is loaded already."""
    return lambda *words, home: run_command(
        *words, "--home", str(home), "--device", "cpu", "--keep-free", "0"
    )


@pytest.mark.slow
def test_pictures_of_a_folder_and_a_strip(tmp_path: Path, here: Studio) -> None:
    """One of three is no picture: the others are made, and the command says which failed."""
    folder, quick = tmp_path / "in", ("--steps", "2", "--seed", "7", "--strength", "1")
    folder.mkdir()
    for name, alpha in (("a.png", 0), ("b.webp", 90)):
        image = Image.new("RGBA", (72, 64), (200, 60, 60, 255))
        image.paste((0, 0, 0, alpha), (16, 16, 48, 48))
        image.save(folder / name, lossless=True)
    (folder / "c.jpg").write_bytes(b"no picture")
    made = here(
        "generate",
        "--prompt",
        "a boat",
        "--image",
        str(folder),
        "--mask",
        "transparency",
        "--mask-blur",
        "0",
        *quick,
        home=tmp_path / "home",
    )
    assert made.returncode == 1
    assert "Traceback" not in made.stderr
    assert made.stderr.splitlines()[-2:] == [
        "studio: 1 of 3 images could not be made.",
        "c.jpg: c.jpg is not a readable image; use PNG, JPEG, WebP, AVIF, BMP or GIF.",
    ]
    for path in map(Path, made.stdout.splitlines()):
        pixels = np.asarray(Image.open(path))
        assert pixels.shape == (64, 72, 3)
        assert (pixels[:16] == [200, 60, 60]).all()
        assert pixels[16:48, 16:48].std() > 3
    assert len(made.stdout.splitlines()) == 2
    drawn = here(
        "generate",
        "--prompt",
        "a boat",
        "--strip",
        "1",
        *quick[:4],
        "--json",
        home=tmp_path / "home",
    )
    told = json.loads(drawn.stdout)
    assert Image.open(told["path"]).width > 3 * 128
    assert told["request"]["seed"] == 7


def test_what_cannot_be_done_to_a_picture_is_said_before_anything_is_loaded(
    tmp_path: Path, here: Studio
) -> None:
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    Image.new("L", (32, 32)).save(tmp_path / "mask.png")
    picture = ("--image", str(tmp_path / "a.png"))
    for words, status in (
        (("--strength", "0.4", "--mask-blur", "3"), 2),
        ((*picture, "--mask", str(tmp_path / "mask.png")), 2),
        ((*picture, "--mask", "transparency"), 1),
        (("--image", str(tmp_path / "b.png")), 1),
        (("--image", str(tmp_path / "home")), 1),
        (("--image", "0" * 64), 1),
    ):
        done = here("generate", *words, home=tmp_path / "home")
        assert done.returncode == status, (words, done.stderr)
        check_sentence(done.stderr)
        assert "Traceback" not in done.stderr


def test_inspect_a_model(run_command: Studio) -> None:
    told = json.loads(run_command("inspect", str(POCKET)).stdout)
    assert told["kind"] == "model"
    assert told["family"] == "sd1"
    assert told["dtype"] == "float16"
    assert told["side"] == 128


@pytest.mark.slow
def test_doctor(tmp_path: Path, run_command: Studio) -> None:
    examined = json.loads(run_command("doctor", "--json", "--home", str(tmp_path)).stdout)
    assert examined["untested"] == []
    assert examined["missing"] == []
    assert "cpu" in examined["devices"]["there"]
    assert examined["models"]["pocket"] == "sd1"
    assert examined["plans"] == {"pocket": "fits whole"}


def test_doctor_says_how_models_lie_in_memory(tmp_path: Path) -> None:
    model = Library(load(home=tmp_path)).get_model("pocket")
    card = {
        "memory": (2**30, 64 * 10**6),
        "dtype_bytes": 4,
        "vae_dtype_bytes": 4,
        "shares_memory": False,
        "stores_fp8": True,
    }
    titles = {
        memory: describe_plan(model, card, load(home=tmp_path, keep_free=0, memory=memory))
        for memory in ("auto", "low", "lowest")
    }
    assert titles == {
        "auto": "parts in turns",
        "low": "parts in turns, 8 bits",
        "lowest": "layer by layer",
    }
    kept = load(home=tmp_path, keep_free=1)
    assert describe_plan(model, card, kept) == "does not fit into the free memory"


def test_doctor_names_a_version_outside_the_tested_range() -> None:
    requirements = read_tested_requirements()
    versions: dict[str, str | None] = {item.name: None for item in requirements} | {
        "transformers": "99.1",
        "gradio": "6.31.0",
    }
    sentences = outside_tested_range(requirements, versions)
    assert len(sentences) == 1
    assert sentences[0].startswith(
        "transformers 99.1 is installed; this studio was tested with transformers<5."
    )


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "cp1252"])
def test_any_name_and_text_comes_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    """Half surrogates in a header, bytes in a name that are no text, a terminal without Unicode."""
    header: dict[str, Any] = {
        "__metadata__": {"a": "\ud800 月"},
        "b": {"dtype": "F16", "shape": [1], "data_offsets": [0, 2]},
    }
    data = json.dumps(header).encode()
    path = tmp_path / "月 é \udcff.safetensors"
    path.write_bytes(len(data).to_bytes(8, "little") + data + bytes(2))

    def inspect(name: str) -> tuple[int, str, str]:
        streams = {}
        for stream in ("stdout", "stderr"):
            streams[stream] = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
            monkeypatch.setattr(sys, stream, streams[stream])
        with pytest.raises(SystemExit) as ended:
            main(["inspect", name])
        written = []
        for wrapper in streams.values():
            wrapper.flush()
            buffer = wrapper.buffer
            assert isinstance(buffer, io.BytesIO)
            written.append(buffer.getvalue().decode(encoding))
        assert isinstance(ended.value.code, int)
        return ended.value.code, written[0], written[1]

    status, output, _ = inspect(str(path))
    assert status == 0
    assert json.loads(output)["metadata"] == {"a": "\ud800 月"}
    status, output, words = inspect(f"{path}.missing")
    assert status == 1
    assert words.startswith("studio: There is no file ")
