"""Why nothing runs, on every page: all of it for the owner, that it is so for a guest."""

from __future__ import annotations

import errno
import os
from typing import Any

import gradio as gr
import pytest

from studio.storage.database import Database
from studio.ui.components.notice import Notice
from studio.ui.errors import report_errors
from support.faulty_disk import faulty_disk
from support.sentences import check_sentence, refused
from support.unopened_page import unopened_page
from support.visitors import ANN, OWNER

PROBLEM = "/home/ann/studio/worker-cpu.lock <cannot> be opened."


@pytest.fixture
def problems() -> list[str]:
    return [""]


@pytest.fixture
def notice(problems: list[str]) -> Notice:
    with unopened_page():
        return Notice(lambda: problems[-1])


def test_the_owner_reads_what_is_the_matter_and_a_guest_that_something_is(
    notice: Notice, problems: list[str], by: Any
) -> None:
    assert notice.poll("", by(OWNER)) == gr.skip()  # all is well, and nothing is sent
    problems.append(PROBLEM)
    owners = notice.poll("", by(OWNER))
    assert "/home/ann/studio/worker-cpu.lock &lt;cannot&gt; be opened." in owners
    guests = notice.poll("", by(ANN))
    assert "ann" not in guests
    check_sentence(guests)
    assert notice.poll(owners, by(OWNER)) == gr.skip()
    problems.append("")
    assert notice.poll(owners, by(OWNER)) == ""


def test_the_owner_reads_which_files_were_damaged(problems: list[str], by: Any) -> None:
    with unopened_page():
        notice = Notice(lambda: problems[-1], lambda: ["<gallery.sqlite> was damaged."])
    assert "&lt;gallery.sqlite&gt; was damaged." in notice.poll("", by(OWNER))
    assert notice.poll("", by(ANN)) == gr.skip()
    problems.append(PROBLEM)
    owners = notice.poll("", by(OWNER))
    assert owners.index("cannot") < owners.index("was damaged")


def test_a_full_disk_is_said_whichever_library_found_it() -> None:
    def write() -> None:
        with report_errors():
            try:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "deep/a.bin")
            except OSError as error:
                raise RuntimeError("the archive could not be finished") from error

    with refused(gr.Error):
        write()

    def write_weights() -> None:
        with report_errors():
            raise RuntimeError("I/O error: No space left on device (os error 28)")

    with refused(gr.Error):
        write_weights()


def test_what_the_page_asks_of_a_full_table_is_said(tmp_path: Any) -> None:
    with faulty_disk(tmp_path) as disk:
        database = Database(tmp_path / "notes.sqlite", ("CREATE TABLE notes (text TEXT)",))
        disk.arm_for_good()

        def insert() -> None:
            with report_errors():
                database.execute("INSERT INTO notes VALUES ('a')")

        with refused(gr.Error):
            insert()
        disk.disarm()
        insert()
        assert [row["text"] for row in database.execute("SELECT text FROM notes")] == ["a"]
        database.close()
