"""Wildcards and styles of a home: which files are read, and that none leads outside or hides another."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from studio.core.generation.templates.prompt_files import Style, WildcardLine
from studio.errors import BadFile, InvalidSpec
from studio.storage.prompt_files import HomePromptFiles
from support.sentences import check_sentence, refused


@pytest.fixture
def files(tmp_path: Path) -> HomePromptFiles:
    (tmp_path / "home" / "wildcards" / "animals").mkdir(parents=True)
    return HomePromptFiles(tmp_path / "home")


def write(files: HomePromptFiles, name: str, content: str | bytes) -> Path:
    path = files.wildcards_folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def read(files: HomePromptFiles, name: str) -> list[str]:
    return [line.text for line in files.read_wildcard(name)]


def test_no_folder_is_no_list(tmp_path: Path) -> None:
    assert HomePromptFiles(tmp_path / "none").list_wildcards() == []


@pytest.mark.parametrize(
    "content",
    [
        b"# a comment\nred\n\n  blue \n",
        b"\xef\xbb\xbfred\r\nblue\r\n",
        b"red\rblue",
        b"red\0\nblue",
    ],
)
def test_text_lists(files: HomePromptFiles, content: bytes) -> None:
    write(files, "colours.txt", content)
    assert read(files, "colours") == ["red", "blue"]


def test_old_windows_text(files: HomePromptFiles) -> None:
    write(files, "a.txt", "café".encode("cp1252"))
    assert read(files, "a") == ["café"]


def test_weights(files: HomePromptFiles) -> None:
    write(files, "a.txt", "0.5::red\nb::c\n2::\n")
    assert files.read_wildcard("a") == [
        WildcardLine("red", 0.5),
        WildcardLine("b::c"),
        WildcardLine("2::"),
    ]


NESTED = [
    (
        "x.yaml",
        "colours:\n  warm: [red, 0.3::orange]\n  cold:\n    - blue\n    - {text: teal, weight: 2}\n",
    ),
    (
        "x.json",
        '{"colours": {"warm": ["red", "0.3::orange"], "cold": ["blue", {"text": "teal", "weight": 2}]}}',
    ),
]


@pytest.mark.parametrize(("name", "content"), NESTED)
def test_maps_are_folders(files: HomePromptFiles, name: str, content: str) -> None:
    write(files, f"more/{name}", content)
    assert files.list_wildcards() == ["more/colours/cold", "more/colours/warm"]
    assert files.read_wildcard("more/colours/warm") == [
        WildcardLine("red"),
        WildcardLine("orange", 0.3),
    ]
    assert files.read_wildcard("more/colours/cold")[1] == WildcardLine("teal", 2.0)


def test_a_list_alone_has_the_files_name(files: HomePromptFiles) -> None:
    write(files, "a.json", '["x", 3, null, {"weight": 1}, true]')
    assert read(files, "a") == ["x", "3"]


def test_a_changed_file_is_read_anew(files: HomePromptFiles) -> None:
    path = write(files, "a.txt", "red")
    assert read(files, "a") == ["red"]
    path.write_text("green and blue")
    assert read(files, "a") == ["green and blue"]
    path.unlink()
    assert files.list_wildcards() == []


# ---- odd files -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("x.yaml", "a: [1, 2"),
        ("x.yaml", "a: &a [x]\nb: *a\n"),
        ("x.yaml", "!!python/object/apply:os.system ['true']"),
        ("x.yaml", "[" * 500),
        ("x.json", "[" * 100_000),
        ("x.json", '{"a": '),
        ("x.json", '{"a":' * 40 + '["x"]' + "}" * 40),
        ("x.yaml", "a:\n" + "- x\n" * 300_000),
    ],
)
def test_an_odd_file_hides_no_other(files: HomePromptFiles, name: str, content: str) -> None:
    write(files, "good.txt", "red")
    write(files, name, content)
    assert files.list_wildcards() == ["good"]
    assert len(files.list_faults()) == 1
    check_sentence(files.list_faults()[0])


def test_a_file_of_a_gigabyte_is_not_read(files: HomePromptFiles) -> None:
    write(files, "good.txt", "red")
    path = write(files, "huge.txt", "")
    os.truncate(path, 2**30)
    assert files.list_wildcards() == ["good"]
    check_sentence(files.list_faults()[0])


def test_links_lead_nowhere_outside(files: HomePromptFiles, tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("secret")
    write(files, "good.txt", "red")
    (files.wildcards_folder / "leak.txt").symlink_to(secret)
    (files.wildcards_folder / "folder").symlink_to(tmp_path, target_is_directory=True)
    (files.wildcards_folder / "inner.txt").symlink_to(files.wildcards_folder / "good.txt")
    (files.wildcards_folder / "loop").symlink_to(files.wildcards_folder, target_is_directory=True)
    (files.wildcards_folder / "gone.txt").symlink_to(files.wildcards_folder / "nothing.txt")
    assert files.list_wildcards() == ["good", "inner"]
    assert any("leak" in fault for fault in files.list_faults())


def test_no_pipe_is_waited_for(files: HomePromptFiles) -> None:
    os.mkfifo(files.wildcards_folder / "pipe.txt")
    write(files, "good.txt", "red")
    assert files.list_wildcards() == ["good"]


def test_odd_names(files: HomePromptFiles) -> None:
    for name in ("ü ö.txt", ".hidden.txt", "a.TXT", "b.txt.bak", "no_ending"):
        write(files, name, "x")
    path = os.fsencode(files.wildcards_folder) + b"/\xff.txt"
    Path(os.fsdecode(path)).write_text("x")
    assert files.list_wildcards() == ["?", "a", "ü ö"]


# ---- styles --------------------------------------------------------------------------------------


STYLES = [
    b'name,prompt,negative_prompt\nInk,"ink of {prompt}, fine",blurry\n',
    b'\xef\xbb\xbfname,prompt,negative_prompt\r\n"Ink","ink of {prompt}, fine","blurry"\r\n',
    b'name,text\nInk,"ink of {prompt}, fine"\n',
    b'negative_prompt,name,prompt\nblurry,Ink,"ink of {prompt}, fine"\n',
    b'name,prompt,negative_prompt\n# ----,,\n,,\n\nInk,"ink of {prompt}, fine",blurry\n',
    b'Ink,"ink of {prompt}, fine",blurry',
    b'name,prompt,negative_prompt\nInk, "ink of {prompt}, fine",blurry,more,cells\n',
]


@pytest.mark.parametrize("content", STYLES)
def test_styles_as_people_have_them(files: HomePromptFiles, content: bytes) -> None:
    (files.home / "styles.csv").write_bytes(content)
    assert files.list_styles() == ["Ink"]
    assert files.get_style("Ink").prompt == "ink of {prompt}, fine"
    assert files.list_faults() == []


def test_an_open_quote_is_said_and_hides_no_style_before_it(files: HomePromptFiles) -> None:
    rows = "".join(f"S{k},words {k},\n" for k in range(2000))
    (files.home / "styles.csv").write_text(f'name,prompt\nInk,"a\nb"\nBad,"open,\n{rows}')
    assert files.list_styles() == ["Ink"]
    assert files.get_style("Ink").prompt == "a\nb"
    check_sentence("\n".join(files.list_faults()))


def test_several_files(files: HomePromptFiles) -> None:
    (files.home / "styles").mkdir()
    (files.home / "styles.csv").write_text("name,prompt\nInk,first\n")
    (files.home / "styles_more.csv").write_text("name,prompt\nInk,second\nOil,oil\n")
    (files.home / "styles" / "mine.csv").write_text("name,prompt\nNight,night\n")
    assert files.list_styles() == ["Ink", "Oil", "Night"]
    assert files.get_style("Ink").prompt == "first"


def test_a_saved_style_is_read_back(files: HomePromptFiles) -> None:
    (files.home / "styles.csv").write_bytes(STYLES[0])
    style = Style("My style", 'a "quoted", {prompt}\nsecond line', "fog")
    files.save_style(style)
    assert files.get_style("My style") == style
    files.save_style(Style("Ink", "new"))
    assert files.list_styles() == ["Ink", "My style"]
    assert files.get_style("Ink") == Style("Ink", "new")


@pytest.mark.parametrize(
    "style", [Style("", "a"), Style("#x", "a"), Style("x" * 300, "a"), Style("x")]
)
def test_what_is_no_style(files: HomePromptFiles, style: Style) -> None:
    with refused(InvalidSpec, "Style"):
        files.save_style(style)
    assert not files.own_styles_file.exists()


def test_a_file_that_cannot_be_read_is_not_written(files: HomePromptFiles) -> None:
    content = 'name,prompt\nBad,"' + "x" * 20_000
    files.own_styles_file.write_text(content)
    with refused(BadFile):
        files.save_style(Style("Ink", "ink"))
    assert files.own_styles_file.read_text() == content
