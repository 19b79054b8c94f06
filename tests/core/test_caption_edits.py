"""Edits, filters and lint as pure functions: what each does to a caption, what it refuses, and that no pattern hangs."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from studio.core.captions import edits, filter
from studio.core.captions import text as caption_text
from studio.core.captions.edits import (
    EDITS,
    CaptionRow,
    SetAside,
    SetCaptions,
    describe_edit,
    edit_captions,
    parse_edit,
)
from studio.core.captions.lint import LintRules, combine_fixes, lint
from studio.errors import InvalidSpec
from studio.storage.models.token_counter import TokenCounter
from support.examples import examples
from support.limits import hang_limit
from support.sentences import refused

CAPTION = st.text("ab, BČ月\\.1", max_size=30)


def one(caption: str, kind: str, **fields: object) -> str:
    """What an edit makes of one caption."""
    rows = [CaptionRow("x.png", caption)]
    edit = parse_edit({"kind": kind, **fields})
    return edit_captions(edit, rows, rows, lambda text: len(text.split())).get("x.png", caption)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("before", "kind", "fields", "after"),
    [
        ("a boat, a boathouse", "replace", {"find": "boat", "to": "ship"}, "a ship, a shiphouse"),
        (
            "a boat, a boathouse",
            "replace",
            {"find": "boat", "to": "ship", "words": True},
            "a ship, a boathouse",
        ),
        ("A Boat", "replace", {"find": "boat", "to": "x"}, "A Boat"),
        ("A Boat", "replace", {"find": "boat", "to": "x", "capitals": False}, "A x"),
        ("a (boat)", "replace", {"find": "(boat)", "to": r"\1"}, r"a \1"),
        ("a  boat", "replace", {"find": "zzz", "to": ""}, "a  boat"),
        (
            "red boat",
            "replace",
            {"find": r"(\w+) (\w+)", "to": r"\2 \1", "pattern": True},
            "boat red",
        ),
        (
            "red boat",
            "replace",
            {"find": r"(?<c>red)", "to": r"\g<c>dish", "pattern": True},
            "reddish boat",
        ),
        ("a, b, a", "rename_tags", {"tags": ["A"], "to": "c"}, "c, b"),
        ("a, b, c", "rename_tags", {"tags": ["a", "c"], "to": "b"}, "b"),
        ("a,b", "rename_tags", {"tags": ["x"], "to": "b"}, "a,b"),
        ("a boat, Lake, x", "delete_tags", {"tags": ["lake", "boat"]}, "a boat, x"),
        ("a,b", "add_tags", {"tags": ["B", "c"]}, "a, b, c"),
        ("a", "add_tags", {"tags": ["b", "c"], "first": True}, "b, c, a"),
        ("t, c, b, a", "sort_tags", {"by": "name", "keep": 1}, "t, a, b, c"),
        ("t, c, b, a", "sort_tags", {"by": "reverse", "keep": 2}, "t, c, a, b"),
        ("a, B, b, A", "dedupe_tags", {}, "a, B"),
        ("a, b, c", "keep_tags", {"count": 2}, "a, b"),
        (
            "moon",
            "dress",
            {"prefix": "a photo of ", "suffix": ", night", "trigger": "mysks"},
            "mysks, a photo of moon, night",
        ),
        (
            "mysks, a photo of moon, night",
            "dress",
            {"prefix": "a photo of ", "trigger": "mysks"},
            "a photo of mysks, a photo of moon, night",
        ),
        ("A MYSKS toy", "dress", {"trigger": "mysks"}, "A MYSKS toy"),
        ("mysksy toy", "dress", {"trigger": "mysks"}, "mysks, mysksy toy"),
        ("", "dress", {"trigger": " mysks "}, "mysks"),
        (" a  b ,, c ", "clean", {}, "a b, c"),
        ("one two, three four, five", "shorten", {"tokens": 4}, "one two, three four"),
        ("one two three four five", "shorten", {"tokens": 3}, "one two three"),
        ("old", "put", {"texts": {"x.png": "new"}, "mode": "fill"}, "old"),
        ("", "put", {"texts": {"x.png": "new"}, "mode": "fill"}, "new"),
        ("old", "put", {"texts": {"x.png": "new"}, "mode": "append"}, "old, new"),
        ("old, new", "put", {"texts": {"x.png": "new"}, "mode": "append"}, "old, new"),
        ("old", "put", {"texts": {"y.png": "new"}}, "old"),
        ("old", "put", {"texts": {"x.png": "a\nb"}}, "a b"),
    ],
)
def test_what_each_edit_does(before: str, kind: str, fields: dict[str, object], after: str) -> None:
    assert one(before, kind, **fields) == after


def test_by_count() -> None:
    rows = [CaptionRow("a", "x, y, z"), CaptionRow("b", "z"), CaptionRow("c", "z, y")]
    assert edit_captions(parse_edit({"kind": "sort_tags"}), rows[:1], rows) == {"a": "z, y, x"}  # type: ignore[arg-type]
    assert caption_text.count_tags(row.caption for row in rows) == [("z", 3), ("y", 2), ("x", 1)]
    assert caption_text.count_tags(["Boat, boat", "Boat", "lake"]) == [("Boat", 2), ("lake", 1)]


def test_lines_are_joined() -> None:
    row = CaptionRow("a", "one", extra_lines="two three")
    assert edit_captions(parse_edit({"kind": "join_lines"}), [row]) == {"a": "one two three"}  # type: ignore[arg-type]


def test_every_kind_has_a_title_and_comes_back_from_json() -> None:
    fields: dict[str, dict[str, object]] = {
        "put": {"texts": {"a.png": "x"}},
        "replace": {"find": "a"},
        "rename_tags": {"tags": ["a"], "to": "b"},
        "delete_tags": {"tags": ["a"]},
        "add_tags": {"tags": ["a"]},
        "set_aside": {"keys": ["a"]},
        "set_repeats": {"folder": "10_moon", "repeats": 3},
    }
    for kind in EDITS:
        edit = parse_edit({"kind": kind, **fields.get(kind, {})})
        assert describe_edit(edit)
        assert parse_edit(edit.model_dump(mode="json")) == edit


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"kind": ["replace"]},
        {"kind": "replace", "find": ""},
        {"kind": "replace", "find": "(", "pattern": True},
        {"kind": "replace", "find": "a", "to": r"\2", "pattern": True},
        {"kind": "replace", "find": "a" * 2000},
        {"kind": "keep_tags", "count": 0},
        {"kind": "set_repeats", "folder": "", "repeats": 0},
        {"kind": "sort_tags", "by": "x", "keep": -1},
        {"kind": "clean", "more": 1},
    ],
    ids=[
        "no kind",
        "a list",
        "no find",
        "no pattern",
        "no group",
        "long",
        "no count",
        "no repeats",
        "keep",
        "more",
    ],
)
def test_what_is_refused(values: dict[str, object]) -> None:
    with refused(InvalidSpec):
        parse_edit(values)


@pytest.mark.parametrize(
    "find",
    [r"(a|a)*$", r"(a|aa)+$", r"(\w+\s?)*!", r"((a*)*)*b", r"(?:a?){40}a{40}$", r"(.*?,){30}X"],
)
def test_no_pattern_hangs(find: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edits, "PATTERN_TIMEOUT_SECONDS", 0.3)
    rows = [CaptionRow(f"{k}.png", "a" * 60 + "a, " * 200 + "a" * 40 + "?") for k in range(50)]
    edit = parse_edit({"kind": "replace", "find": find, "to": "", "pattern": True})
    with suppress(InvalidSpec), hang_limit():
        edit_captions(edit, rows)  # type: ignore[arg-type]


def test_the_time_limit_is_of_all_captions_together(monkeypatch: pytest.MonkeyPatch) -> None:
    now, timeouts = [100.0], []

    class SlowPattern:
        def sub(self, replacement: str, caption: str, timeout: float, concurrent: bool) -> str:
            timeouts.append(timeout)
            now[0] += 2
            return caption

    monkeypatch.setattr(edits.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(edits.safe_regex, "compile_pattern", lambda *_: SlowPattern())
    edit = parse_edit({"kind": "replace", "find": "a", "to": ""})
    with refused(InvalidSpec):
        edit_captions(edit, [CaptionRow(f"{k}.png", "a") for k in range(50)])  # type: ignore[arg-type]
    assert timeouts == [5, 3, 1]


@pytest.mark.parametrize(
    "find",
    [
        "(((((a{1000}){1000}){1000}){1000}){1000})",
        "a{99999999999999999999}",
        "(" * 450 + "a" + ")" * 450,
        "(?R)*",
        "(?<n>a(?&n))",
        "(a(?1))",
        "(?:aaaa){e<=9}z",
        "{red}",
        "a{}",
    ],
    ids=lambda find: find[:20],
)
def test_patterns_that_could_eat_all_memory(find: str, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = []
    real = edits.safe_regex.regex.compile
    monkeypatch.setattr(
        edits.safe_regex.regex,
        "compile",
        lambda text, *flags: compiled.append(text) or real(text, *flags),
    )
    with refused(InvalidSpec), hang_limit():
        one("a" * 300, "replace", find=find, to="", pattern=True)
    assert compiled == (
        [find] if find.startswith("((((((") else []
    )  # nesting is the library's limit


@pytest.mark.parametrize(
    ("find", "after"),
    [
        (r"\p{Lu}", "b {c} aa"),
        (r"\{c\}", "Ab  aa"),
        ("a{2}", "Ab {c} "),
        ("a{1,2}$", "Ab {c} "),
        (r"\x41|a{2,}", "b {c} "),
    ],
)
def test_braces_that_are_fine(find: str, after: str) -> None:
    assert one("Ab {c} aa", "replace", find=find, to="", pattern=True) == " ".join(after.split())


def test_a_hanging_pattern_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edits, "PATTERN_TIMEOUT_SECONDS", 0.2)
    with refused(InvalidSpec) as caught:
        one("a" * 50 + "!", "replace", find="(a|a)*$", to="", pattern=True)
    assert "'(a|a)*$'" in str(caught.value)
    assert "x.png" in str(caught.value)


def test_a_caption_cannot_grow_without_end() -> None:
    with refused(InvalidSpec):
        one("a" * 100, "replace", find="a", to="b" * 900)


@given(
    st.lists(CAPTION, max_size=5),
    st.sampled_from(
        [
            {"kind": "dedupe_tags"},
            {"kind": "clean"},
            {"kind": "sort_tags", "by": "name"},
            {"kind": "sort_tags", "by": "count", "keep": 1},
            {"kind": "dress", "trigger": "mysks"},
            {"kind": "dress", "suffix": ", x"},
            {"kind": "add_tags", "tags": ["a", "q"]},
            {"kind": "delete_tags", "tags": ["a"]},
            {"kind": "keep_tags", "count": 2},
            {"kind": "shorten", "tokens": 4},
            {"kind": "rename_tags", "tags": ["a"], "to": "z"},
        ]
    ),
)
def test_twice_is_once(captions: list[str], values: dict[str, object]) -> None:
    """These edits say what shall be, so doing them again changes nothing; tags are never invented or lost but by name."""
    rows = [CaptionRow(str(k), " ".join(caption.split())) for k, caption in enumerate(captions)]
    edit = parse_edit(values)
    count = lambda text: len(text.split())  # noqa: E731
    first = edit_captions(edit, rows, rows, count)  # type: ignore[arg-type]
    after = [replace(row, caption=first.get(row.key, row.caption)) for row in rows]
    assert not edit_captions(edit, after, after, count)  # type: ignore[arg-type]
    if values["kind"] == "sort_tags":
        assert [sorted(caption_text.split_tags(row.caption)) for row in rows] == [
            sorted(caption_text.split_tags(row.caption)) for row in after
        ]


ROWS = [
    CaptionRow("boats/a.png", "a red boat, lake", "boats", 10, 512, 768, 900, token_count=80),
    CaptionRow("boats/b.png", "A Blue boat, red", "boats", 10, 100, 90, 50, token_count=5),
    CaptionRow("c.png", "", "", 1, 64, 64, 10, token_count=2, image_error="is damaged."),
    CaptionRow("d.png", "lake", token_count=3),
]


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("", "abcd"),
        ("boat", "ab"),
        ("boat lake", "a"),
        ("boat AND lake", "a"),
        ("boat or lake", "abd"),
        ("-boat", "cd"),
        ("not boat", "cd"),
        ('"red boat"', "a"),
        ("tag:red", "b"),
        ("tag:*boat", "ab"),
        ('tag:"a red boat"', "a"),
        ("name:boats/*", "ab"),
        ("name:b.png", "b"),
        ("tokens:>77", "a"),
        ("tokens:3-5", "bd"),
        ("tags:2", "ab"),
        ("tags:0", "c"),
        ("words:<2", "cd"),
        ("chars:4", "d"),
        ("width:<=100", "bcd"),
        ("side:>=90", "ab"),
        ("height:768", "a"),
        ("repeats:10", "ab"),
        ("bytes:>100", "a"),
        ("is:missing", "c"),
        ("is:captioned", "abd"),
        ("is:broken", "c"),
        ("concept:boats", "ab"),
        ("caption:blue", "b"),
        ("(boat OR lake) -tag:red", "ad"),
        ("not (boat or lake)", "c"),
        ("not not boat", "ab"),
        ("boat lake OR is:missing", "ac"),
        ("--boat", "ab"),
        ('""', "abcd"),
        ("tokens:=5", "b"),
    ],
)
def test_filters(text: str, keys: str) -> None:
    assert "".join(row.key[-5] for row in ROWS if filter.parse_filter(text).matches(row)) == keys


@pytest.mark.parametrize(
    "text",
    [
        "(",
        ")",
        "(boat",
        "boat)",
        '"open',
        "OR",
        "boat OR",
        "AND boat",
        "not",
        "tokens:",
        "tokens:x",
        "tokens:>>3",
        "is:",
        "is:what",
        "colour:red",
        "()",
        "((((" * 20 + "a",
        "-" * 100 + "a",
        "x" * 3000,
    ],
    ids=lambda text: text[:20],
)
def test_filters_that_are_none(text: str) -> None:
    with refused(InvalidSpec, "Filter"):
        filter.parse_filter(text)


@hypothesis_settings(max_examples=examples(300))
@given(st.text('ab()"-:<>=39 ORANDnotistagken*?[]\\', max_size=40))
def test_any_text_is_a_filter_or_refused_in_words(text: str) -> None:
    said = ""
    try:
        found = filter.parse_filter(text)
    except InvalidSpec as error:
        said = str(error)
    assert (
        said.startswith("Filter: ")
        if said
        else all(found.matches(row) in (True, False) for row in ROWS)
    )


def test_lint() -> None:
    good = "a photo of mysks in a field"
    rows = [
        CaptionRow("a", good + " one", content_hash="1", width=100, height=100, token_count=9),
        CaptionRow("b", good + " two", content_hash="1", width=100, height=100, token_count=9),
        CaptionRow("c", "", content_hash="2", width=100, height=100),
        CaptionRow("d", "mysks", content_hash="3", width=64, height=100, token_count=3),
        CaptionRow(
            "e",
            "a toy in a field",
            content_hash="4",
            width=100,
            height=100,
            token_count=80,
            extra_lines="more",
        ),
        CaptionRow("f", "mysks a, b, b,, c", content_hash="5", width=100, height=100),
        CaptionRow("g", image_error="is damaged."),
        CaptionRow(
            "h",
            good,
            content_hash="6",
            width=100,
            height=100,
            caption_error="its caption h.txt is not encoded in UTF-8; save it as UTF-8.",
        ),
        CaptionRow(
            "i", "", content_hash="2", width=100, height=100, concept="moon", has_caption_file=False
        ),
        CaptionRow("j", "mysks in it", content_hash="2", width=100, height=100),
    ]
    found = lint(rows, LintRules(trigger="mysks", resolution=90))
    assert [(one.kind, one.file) for one in found] == [
        ("duplicate", "b"),
        ("duplicate", "c"),
        ("missing", "c"),
        ("small", "d"),
        ("short", "d"),
        ("trigger", "e"),
        ("long", "e"),
        ("lines", "e"),
        ("twice", "f"),
        ("untidy", "f"),
        ("broken", "g"),
        ("unreadable", "h"),
        ("duplicate", "i"),
        ("missing", "i"),
    ]
    assert "moon" in next(one for one in found if one.file == "i" and one.kind == "missing").message
    assert found[0].to_dict() == {
        "kind": "duplicate",
        "file": "b",
        "says": "is the same file as a.",
        "mend": {"kind": "set_aside", "keys": ["b"]},
    }
    assert next(one for one in found if one.kind == "missing").to_dict()["mend"] == "caption"
    edit, keys = combine_fixes([one for one in found if one.kind == "duplicate"]) or (None, [])
    assert isinstance(edit, SetAside)
    assert edit.keys == ("b", "c", "i")
    assert keys == ["b", "c", "i"]
    assert combine_fixes(found) is None
    assert combine_fixes([]) is None
    for finding in found:  # each click mends what it says
        if finding.fix != "caption" and not isinstance(finding.fix, SetAside):
            row = next(row for row in rows if row.key == finding.file)
            new = edit_captions(
                finding.fix,
                [row],
                rows,
                lambda text, row=row: row.token_count * (text == row.caption),
            )  # type: ignore[misc]
            mended = replace(row, caption=new[row.key], extra_lines="", token_count=3)
            assert finding.kind not in [
                one.kind for one in lint([mended], LintRules(trigger="mysks", resolution=90))
            ]
    assert not lint(rows[:1], LintRules())
    assert not lint([], LintRules())


def test_captions_that_are_all_the_same() -> None:
    rows = [
        CaptionRow(str(k), "a photo of it", content_hash=str(k), width=9, height=9)
        for k in range(4)
    ] + [CaptionRow("x", "something else here", content_hash="x", width=9, height=9)]
    assert [one.kind for one in lint(rows, LintRules())] == ["same"] * 4
    assert not lint(rows[2:], LintRules())


def test_tokens_are_those_of_the_models_own_tokenizer(tmp_path: object) -> None:
    from transformers import CLIPTokenizer

    from support.models import POCKET

    stock = CLIPTokenizer.from_pretrained(POCKET, subfolder="tokenizer")
    texts = [
        "",
        "a red boat",
        "a photo of mysks, <|endoftext|> čaj 月 it's 2024!!",
        "x " * 200,
        "A  BOAT\tin\nlines",
        "don't",
    ]
    count = TokenCounter(POCKET)
    count.count_batch(texts[:3])
    assert [count(text) for text in texts] == [len(stock(text).input_ids) for text in texts]


def test_tokenizers_of_older_folders(tmp_path_factory: pytest.TempPathFactory) -> None:
    """vocab.json and merges.txt alone, as most SD 1.5 folders have it."""
    import shutil

    from studio.errors import BadFile
    from support.models import POCKET

    model = tmp_path_factory.mktemp("model")
    (model / "tokenizer").mkdir()
    with refused(BadFile):
        TokenCounter(model)
    for name in ("vocab.json", "merges.txt"):
        shutil.copy(POCKET / "tokenizer" / name, model / "tokenizer")
    old, new = TokenCounter(model), TokenCounter(POCKET)
    for text in ("a red boat on a lake", "mysks čaj 月!!", "", "a photo, of it's 12"):
        assert old(text) == new(text)


def test_put_is_for_any_text() -> None:
    assert edit_captions(
        SetCaptions(texts={"a": ""}), [CaptionRow("a", "x"), CaptionRow("b", "y")]
    ) == {"a": ""}
    assert edit_captions(
        SetCaptions(texts={"a": ""}), [CaptionRow("a", "", has_caption_file=False)]
    ) == {"a": ""}
