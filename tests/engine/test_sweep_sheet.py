"""Contact sheets: whole, under their limits, every label and every picture where it belongs; and the index beside them."""

from __future__ import annotations

import csv
import io
import json
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from studio.engine.sweeps.results import (
    Table,
    TableAxis,
    TableCell,
    Verdict,
    build_index_csv,
    build_index_json,
    format_number,
)
from studio.engine.sweeps.sheet import (
    ERROR_BORDER_COLOR,
    ERROR_FILL_COLOR,
    MISSING_FILL_COLOR,
    render_sheet,
    write_sheets,
)
from studio.engine.sweeps.sheet_text import load_font, wrap_text
from studio.errors import BadFile
from studio.imaging import decode
from studio.storage.verdicts import parse_exported_verdicts


def colour(at: tuple[int, ...]) -> tuple[int, int, int]:
    """One that nothing else on a sheet has."""
    return (
        3 + at[0] * 7,
        200 - (at[1] if len(at) > 1 else 0) * 7,
        77 + (at[2] if len(at) > 2 else 0) * 5,
    )


def table(folder: Path, *counts: int, size: tuple[int, int] = (96, 64), **more: object) -> Table:
    """A frame in a colour of its own around noise, for every cell."""
    cells = {}
    for at in product(*map(range, counts)):
        noise = np.random.default_rng(sum(at)).integers(
            210, 255, (size[1], size[0], 3), dtype=np.uint8
        )
        noise[[0, -1]] = noise[:, [0, -1]] = colour(at)
        path = folder / f"{'-'.join(map(str, at))}.png"
        Image.fromarray(noise).save(path)
        cells[at] = TableCell(path, seed=at[0], settings="a\nSteps: 3", metrics={"seconds": 1.5})
    axes = tuple(
        TableAxis(f"axis {k}", tuple(f"value {n}" for n in range(count)))
        for k, count in enumerate(counts)
    )
    return Table("it", "A title", axes, cells, (("Steps", "20"),), "exact", **more)  # type: ignore[arg-type]


def place(page: Image.Image, at: tuple[int, ...]) -> tuple[int, int, int, int] | None:
    """Where the frame of a cell is: left, top, right, bottom."""
    rows, columns = np.nonzero((np.asarray(page) == colour(at)).all(-1))
    return (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) if len(rows) else None


def has(page: Image.Image, ink: str) -> int:
    return int((np.asarray(page) == tuple(bytes.fromhex(ink[1:]))).all(-1).sum())


def test_every_pixel_of_every_picture_is_in_its_place(tmp_path: Path) -> None:
    whole = table(tmp_path, 3, 4)
    (page,) = render_sheet(whole)
    boxes = {at: place(page, at) for at in whole.cells}
    for at, cell in whole.cells.items():
        assert cell.image_path
        assert (box := boxes[at])
        assert np.array_equal(np.asarray(page.crop(box)), np.asarray(Image.open(cell.image_path)))
        assert (box[0], box[1]) == (boxes[at[0], 0][0], boxes[0, at[1]][1])  # type: ignore[index]  # columns and rows line up
    (turned,) = render_sheet(whole, x_axis=1, y_axis=0)
    assert place(turned, (0, 1))[0] > place(turned, (0, 0))[0]
    assert place(page, (0, 1))[0] == place(page, (0, 0))[0]  # type: ignore[index]


def test_a_third_axis_makes_pages_or_rows(tmp_path: Path) -> None:
    whole = table(tmp_path, 2, 2, 3)
    first, *others = render_sheet(whole)
    assert len(others) == 2
    assert place(first, (1, 1, 0))
    assert not place(first, (1, 1, 1))
    assert place(others[1], (1, 1, 2))
    (nested,) = render_sheet(whole, x_axis=0, y_axis=1, page_axes=())
    tops = [place(nested, at)[1] for at in ((0, 0, 0), (0, 0, 1), (0, 0, 2), (0, 1, 0))]  # type: ignore[index]
    assert tops == sorted(set(tops))
    assert len(render_sheet(whole, page_axes=(1, 2))) == 6
    for wrong in ({"x_axis": 0, "y_axis": 0}, {"x_axis": 0, "page_axes": 0}):
        with pytest.raises(ValueError, match="axis"):
            render_sheet(whole, **wrong)


def test_axes_that_go_hand_in_hand_are_one(tmp_path: Path) -> None:
    whole = table(tmp_path, 2, 2, 3)
    zipped = Table(
        "it",
        "",
        whole.axes,
        {at: cell for at, cell in whole.cells.items() if at[0] == at[1]},
        axis_groups=((0, 1),),
    )
    folded, where = zipped.merge_axis_groups()
    assert where == (0, 0, 1)
    assert folded.axes[0] == TableAxis(
        "axis 0 + axis 1", ("value 0 · value 0", "value 1 · value 1")
    )
    (page,) = render_sheet(zipped)
    assert all(place(page, at) for at in zipped.cells)
    assert has(page, MISSING_FILL_COLOR) < 50


@pytest.mark.slow
def test_pages_stay_under_the_limits_and_lose_nothing(tmp_path: Path) -> None:
    whole = table(tmp_path, 12, 9)
    for limits in (
        {"max_side_px": 500},
        {"max_pixels": 200_000},
        {"max_side_px": 700, "max_pixels": 250_000},
    ):
        pages = render_sheet(whole, **limits)  # type: ignore[arg-type]
        assert len(pages) > 1
        for page in pages:
            assert max(page.size) <= limits.get("max_side_px", 10**9)
            assert page.width * page.height <= limits.get("max_pixels", 10**9)
        inks = [
            {ink for _, ink in page.getcolors(page.width * page.height) or []} for page in pages
        ]
        assert all(sum(colour(at) in ink for ink in inks) == 1 for at in whole.cells)
    with pytest.raises(ValueError, match="nothing fits"):
        render_sheet(whole, max_side_px=40)


@pytest.mark.slow
def test_large_pictures_become_smaller_before_the_page_is_split(tmp_path: Path) -> None:
    whole = table(tmp_path, 3, 2, size=(900, 600))
    assert render_sheet(whole)[0].width > 2700
    (page,) = render_sheet(whole, max_side_px=1500)
    assert 1300 < page.width <= 1500
    (path,) = write_sheets(whole, tmp_path / "out", "mine: one")
    assert path.name == "mine- one.png"
    assert decode.load_image(path).image.width > 2700  # the studio reads its own sheets
    assert [path.name for path in write_sheets(table(tmp_path, 2, 2, 2), tmp_path / "out")] == [
        "sheet-01.png",
        "sheet-02.png",
    ]
    write_sheets(table(tmp_path, 2, 2), tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "mine- one.png",
        "sheet.png",
    ]  # no page of an older sheet


def test_labels_wrap_and_nothing_of_them_is_lost(tmp_path: Path) -> None:
    face = load_font(14)
    text = (
        "masterpiece, a boat on " + "averylongwordwithoutanyspace" * 4 + " and Ελληνικά и Кириллица"
    )
    lines = wrap_text(text, face, 130)
    assert all(face.getlength(line) <= 130 for line in lines)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")
    assert wrap_text(text, face, 130, 2)[1].endswith("…")
    assert wrap_text("a\x00\x1bb", face, 99) == ("a b",)
    short = table(tmp_path, 2, 2)
    long = Table(
        "it", "", (TableAxis("X", ("word " * 30, "b")), TableAxis("Y", ("c", "d"))), short.cells
    )
    assert place(render_sheet(long)[0], (0, 0))[1] > place(render_sheet(short)[0], (0, 0))[1] + 50  # type: ignore[index]


def test_latin_greek_and_cyrillic_are_no_boxes() -> None:
    letters = [
        *(
            chr(k)
            for first, last in ((0x21, 0x7F), (0xC0, 0x180), (0x400, 0x460))
            for k in range(first, last)
        )
    ]
    for bold in (False, True):
        box = bytes(load_font(24, bold).getmask("\uffff"))
        assert not [
            letter
            for letter in (*letters, *"ΑΒΓΔΩαβγδωάέήίόύώ★☆–…×·")
            if bytes(load_font(24, bold).getmask(letter)) == box
        ]


def test_what_failed_and_what_is_missing_is_drawn_as_such(tmp_path: Path) -> None:
    whole = table(tmp_path, 2, 2, size=(160, 160))
    (page,) = render_sheet(whole)
    assert has(page, ERROR_FILL_COLOR) < 50
    assert has(page, MISSING_FILL_COLOR) < 50

    def with_cell(cell: TableCell | None) -> Image.Image:
        cells = {at: old for at, old in whole.cells.items() if at != (1, 1)} | (
            {(1, 1): cell} if cell else {}
        )
        (page,) = render_sheet(Table("it", "A title", whole.axes, cells))
        assert not place(page, (1, 1))
        assert place(page, (1, 0))
        return page

    one, two = (
        with_cell(TableCell(error=words))
        for words in ("Out of memory.", "No such model: <b>x</b>, " + "long " * 900)
    )
    assert has(one, ERROR_FILL_COLOR) > 9000
    assert has(one, ERROR_BORDER_COLOR)
    assert np.asarray(one).tobytes() != np.asarray(two).tobytes()
    assert has(with_cell(TableCell(tmp_path / "gone.png")), ERROR_FILL_COLOR) > 9000
    (tmp_path / "broken.png").write_bytes(b"no picture")
    assert has(with_cell(TableCell(tmp_path / "broken.png")), ERROR_FILL_COLOR) > 9000
    assert has(with_cell(None), MISSING_FILL_COLOR) > 9000


def test_numbers_verdicts_and_a_single_axis(tmp_path: Path) -> None:
    whole = table(tmp_path, 14)
    (page,) = render_sheet(whole)
    tops = [place(page, (k,))[1] for k in range(14)]  # type: ignore[index]
    assert 1 < len(set(tops)) < 5
    assert tops == sorted(tops)  # flows like text
    assert render_sheet(whole, metric_names=["seconds"])[0].height > page.height
    cells = {
        at: TableCell(cell.image_path, verdict=Verdict(4, "good"))
        for at, cell in whole.cells.items()
    }
    judged = Table("it", "A title", whole.axes, cells, whole.fixed_settings, whole.mode)
    assert (
        render_sheet(judged)[0].height
        > render_sheet(judged, show_verdicts=False)[0].height
        == page.height
    )
    assert [
        format_number(value) for value in (1.0, 0.3, 12.345, 4e-6, 0.0, 1234.5, 20, float("nan"))
    ] == [
        "1.00",
        "0.300",
        "12.3",
        "4.0e-06",
        "0.000",
        "1,234",
        "20",
        "–",
    ]
    assert render_sheet(Table("it", "", (), {}))[0].width  # nothing at all is still a page


def test_the_index_keeps_all_and_computes_nothing(tmp_path: Path) -> None:
    hostile = '=HYPERLINK("http://x")'
    cells = {
        (0,): TableCell(
            tmp_path / "a" / "1.png",
            seed=7,
            settings=hostile,
            metrics={"fit": float("nan"), "seconds": 2.0},
            verdict=Verdict(3, "@note", True),
        ),
        (1,): TableCell(error="-1+cmd|x"),
        (2,): TableCell(),
    }
    whole = Table(
        "it",
        "T",
        (TableAxis("+weight", ("-0.5", "=1+1", 'Ж, "x"')),),
        cells,
        (("a", "b"),),
        "fast (within 4e-6)",
    )
    read = json.loads(build_index_json(whole, tmp_path))
    assert read["axes"][0]["labels"][2] == 'Ж, "x"'
    assert read["mode"] == "fast (within 4e-6)"
    first, second, third = read["cells"]
    assert first["picture"] == "a/1.png"
    assert first["settings"] == hostile
    assert first["numbers"] == {"fit": None, "seconds": 2.0}
    assert (first["verdict"], second["state"], third["state"]) == (
        {"stars": 3, "note": "@note", "best": True},
        "failed",
        "missing",
    )
    head, one, two, three = csv.reader(io.StringIO(build_index_csv(whole, tmp_path)))
    row = dict(zip(head, one))
    assert head[0] == "'+weight"
    assert row["'+weight"] == "-0.5"
    assert row["settings"] == f"'{hostile}"
    assert row["note"] == "'@note"
    assert (row["seconds"], row["stars"], row["best"], two[0], three[0]) == (
        "2.0",
        "3",
        "yes",
        "'=1+1",
        'Ж, "x"',
    )
    assert dict(zip(head, two))["error"] == "'-1+cmd|x"


def test_exported_verdicts_come_back() -> None:
    said_so = {
        "sweep": "it",
        "verdicts": [{"key": "k", "stars": 5, "note": "x", "best": True}, {"key": "gone"}],
    }
    assert parse_exported_verdicts(json.dumps(said_so), "it") == {
        "k": Verdict(5, "x", True),
        "gone": Verdict(),
    }
    for bad in (
        "",
        "[]",
        "{}",
        "[" * 5000,
        '{"sweep": "else", "verdicts": []}',
        '{"sweep": "it", "verdicts": [4]}',
        '{"sweep": "it", "verdicts": [{"key": "k", "stars": 6}]}',
        '{"sweep": "it", "verdicts": [{"stars": 1}]}',
        '{"sweep": "it", "verdicts": [{"key": "k", "stars": 1e999}]}',
    ):
        with pytest.raises(BadFile):
            parse_exported_verdicts(bad, "it")
