"""TOML from anybody: read as tomllib reads it, refused where that would take long."""

from __future__ import annotations

import tomllib

import pytest

from studio.core.toml_text import MAX_KEY_PARTS, load_toml
from studio.core.training.kohya.importer import import_config
from studio.errors import InvalidSpec
from studio.settings import shipped
from support.limits import count_calls
from support.sentences import refused

HOSTILE = {
    "a table of many parts": "[" + ".".join("a" * 60_000) + "]",
    "spaced": "[" + " . ".join("a" * 10_000) + "]",
    "in quotes": ".".join(['"a"'] * 10_000) + " = 1",
    "deep": "x = " + "[" * 30_000,
    "inline": "x = " + "{a = " * 9_000,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_would_take_long_is_refused_at_once(name: str) -> None:
    with count_calls() as count, pytest.raises(ValueError, match=r"parts|deeply"):
        load_toml(HOSTILE[name])
    assert count.calls < 10_000


@pytest.mark.parametrize(
    "text", ["a" * 60_000, "a " * 30_000, "a" * 30_000 + " " * 30_000, "." * 60_000]
)
def test_the_look_at_keys_is_quick_itself(text: str) -> None:
    with pytest.raises(ValueError, match=r"line|end of document"):
        load_toml(text)


def test_all_else_is_as_tomllib_reads_it() -> None:
    parts = ".".join(["a-1", '"b c"', "'d.e'", *"f" * (MAX_KEY_PARTS - 3)])
    texts = [
        f"{parts} = 1",
        'x = "a.b.c.d.e.f.g.h ... and so on. And on. 1.2.3.4.5.6.7.8"',
        "y = '''\n......................\na. b. c. d. e. f. g. h. i. j.\n'''",
        *(path.read_text("utf-8") for path in shipped("presets").rglob("*.toml")),
    ]
    for text in texts:
        assert load_toml(text) == tomllib.loads(text)


def test_a_training_file_that_would_take_long_is_refused_in_words() -> None:
    for text in (HOSTILE["a table of many parts"], HOSTILE["deep"], "a = 1\n" * 12_000):
        with refused(InvalidSpec):
            import_config(text)
