"""Every text that a person reads is listed, and none uses a word that the studio does not use."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from studio.ui import texts

# One word a thing; in English as people speak it.
FORBIDDEN = {
    r"\bobedience\b": "say what it does",
    r"\blikest\b": "most similar",
    r"\bby itself\b": "automatic",
    r"\bAs shipped\b": "Default",
    r"(?<!whole )\bpictures?\b(?!-studio)": "image",
    r"\banew\b": "again",
    r"\b(has|have) to be\b": "must be",
    r"\b(is|are) needed\b(?! here)": "required",
    r"\(not \)": "(you entered …)",
    r"\bscheduler\b(?! config)": "sampler",
    r"\bany more\b": "no longer",
    r"\bTake (a|it|them) ": "load, import, remove …",
    r"\btick(ed)?\b": "select",
    r"\bset aside\b": "exclude",
    r"\bfor experts\b": "Advanced",
}
# Where such a word is another thing's name, or the texts of files that hold it.
ALLOWED = (
    "As shipped",  # what older files hold
    "whole picture",  # A1111's word, which files hold
    "--scheduler",
    "scheduler/scheduler_config.json",
    "use same scheduler",
    "scheduler_name",
)
# Whole lines that are no words for people: prompts of models, keys of other programs' files.
ALLOWED_LINES = {
    ("core/generation/recipes/other_programs.py", "Scheduler"),
    ("core/training/evaluation.py", "a picture"),
    ("core/training/evaluation.py", "a picture of {name}"),
    ("engine/clip_search/job.py", "a picture of a {}"),
    (
        "engine/captioning/openai_endpoint.py",
        "Describe this picture in one plain sentence, as a caption for training. "
        "Answer with the caption alone.",
    ),
}
EMBEDDED_WORLD = "pocket/"  # its captions say picture, and its models were trained on them


@pytest.fixture(scope="module")
def source_texts() -> texts.Texts:
    return texts.list_source_texts()


def find_forbidden(lines: list[str]) -> list[str]:
    return [
        f"{line} ({pattern}: {better})"
        for line in lines
        for pattern, better in FORBIDDEN.items()
        if re.search(pattern, re.sub(r"\{[^{}]*\}", "", line), re.IGNORECASE)
        and not any(part in line for part in ALLOWED)
    ]


@pytest.mark.smoke
def test_what_files_can_say_is_listed(source_texts: texts.Texts) -> None:
    assert "must be a multiple of {unit}" in source_texts["core/base.py"]
    assert "Choose an image to edit" in source_texts["ui/views/templates/components.html"]
    assert (
        "Paint over the area to replace (B)" in source_texts["ui/views/templates/components.html"]
    )
    assert "Nothing is running or waiting." in source_texts["ui/views/templates/jobs.html"]
    assert any("Ratings are kept" in line for line in source_texts["engine/sweeps/viewer.js"])
    assert "also copy the images into this folder" in source_texts["cli/parser.py"]
    assert "ui/texts.py" not in source_texts or "import" not in source_texts["ui/texts.py"]


@pytest.mark.smoke
def test_no_file_says_a_forbidden_word(source_texts: texts.Texts) -> None:
    found = {
        file: faults
        for file, lines in source_texts.items()
        if not file.startswith(EMBEDDED_WORLD)
        and (
            faults := find_forbidden([line for line in lines if (file, line) not in ALLOWED_LINES])
        )
    }
    assert found == {}


@pytest.mark.smoke
@pytest.mark.parametrize(
    "line",
    [
        "CFG scale: obedience.",
        "the likest first",
        "by itself",
        "Choose a picture",
        "Steps: has to be 1 or more",
        "Choose another scheduler.",
        "It is not here any more.",
        "Steps: must be less (not {steps}).",
        "Prompt: is needed for a sweep.",
        "Tick the box.",
    ],
)
def test_such_words_are_found(line: str) -> None:
    assert find_forbidden([line])


@pytest.mark.slow
def test_the_page_is_listed_by_tab() -> None:
    page = texts.list_page_texts()
    assert {"txt2img", "img2img", "Inpaint", "Upscale", "Sweep", "Gallery", "Models"} <= page.keys()
    for words in ("Generate", "Sampler", "CFG scale", "Load preset", "Describe the image."):
        assert any(line.startswith(words) for line in page["txt2img"]), words
    assert {"DPM++ 2M", "Upscale (Hires fix)", "Your image will appear here."} <= {*page["txt2img"]}
    assert {"+ Add axis", "Run sweep", "Exact: identical to single images"} <= {*page["Sweep"]}
    faults = {title: found for title, lines in page.items() if (found := find_forbidden(lines))}
    assert faults == {}


def test_texts_of_html_are_its_words_and_what_is_said_aloud() -> None:
    html = '<button title="Move &amp; see"><svg><title>x</title></svg>Go <b>on</b></button><style>a b</style>'
    assert texts.list_html_texts(html) == ["Go", "on", "Move & see"]


def test_no_docstring_and_no_code_is_listed(source_texts: texts.Texts) -> None:
    doc = Path(texts.__file__).read_text("utf-8").split('"""')[1].splitlines()[0]
    assert all(doc not in lines for lines in source_texts.values())
    assert not texts.reads_like_text("SELECT id FROM jobs WHERE state = 1")
    assert not texts.reads_like_text("const at = place; return at;")
    for words in (
        "image {first}",
        "an image's style",
        "a style",
        "as sweeps return it; the newest",
    ):
        assert texts.reads_like_text(words), words
