"""The sentences of errors: a test asks for the class and the fields, the English stands in sentences.toml.

Who mends a sentence edits no test, but runs `python -m pytest --write-sentences` and reads the diff of that file.
A plugin of pytest (see tests/conftest.py): its hooks know which test runs and which tests there are.
"""

from __future__ import annotations

import re
import tempfile
import tomllib
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import pytest
import tomli_w

FILE = Path(__file__).with_name("sentences.toml")
FOLDERS = {str(FILE.parents[2]): "<studio>"}
if Path.home().parts[1:]:  # in some containers it is /
    FOLDERS[str(Path.home())] = "<home>"
E = TypeVar("E", bound=BaseException)


class Snapshot:
    """The sentences of a file and those that tests meet, by the test and a running number in it."""

    def __init__(self, file: Path, is_writing: bool = False) -> None:
        self.file, self.is_writing = file, is_writing
        self.kept = self.read()
        self.met: dict[str, str] = {}
        self.passed: set[str] = set()
        self.tests: set[str] = set()  # all those of the files that are collected as a whole
        self.folders = FOLDERS
        self.enter("")

    def read(self) -> dict[str, str]:
        """Read the file, which there need not be yet."""
        return tomllib.loads(self.file.read_text("utf-8")) if self.file.is_file() else {}

    def enter(self, test: str, marks: str = "") -> None:
        """Begin the numbers anew for a test."""
        self.test, self.marks, self.number = test, marks, 0

    def check(self, text: str) -> None:
        """Fail unless the text stands in the file for this place in the running test."""
        __tracebackhide__ = True
        self.number += 1
        key = f"{self.test} {self.number}"
        self.met[key] = text = self.normalise(text)
        if not self.is_writing and text != (kept := self.kept.get(key)):
            pytest.fail(
                f"{self.file.name} has another sentence for {key}\n  there: {kept}\n  here:  {text}\n"
                f"If this is meant: python -m pytest --write-sentences{self.marks}"
                f" tests/{self.test.partition('::')[0]}, and read the diff of that file."
            )

    def normalise(self, text: str) -> str:
        """Put placeholders for what differs between machines and runs."""
        for folder, placeholder in self.folders.items():
            text = text.replace(folder, placeholder)
        text = re.sub(r"<tmp>/[\w.-]*?\d+(?![\w-])", "<tmp>", text)  # pytest numbers its folders
        text = re.sub(re.escape(tempfile.gettempdir()) + r"/[\w.-]+", "<tmp>", text)
        text = re.sub(r"\b([0-9a-f]{64}|[0-9a-f]{12})\b", "<digest>", text)
        text = re.sub(r"\b(127\.0\.0\.1|localhost):\d+", r"\1:<port>", text)
        text = re.sub(r"\b\d[\d.]* (GiB|threads?)\b", r"<number> \1", text)
        return text.encode("utf-8", "backslashreplace").decode()

    def write(self) -> None:
        """Write what was met; drop what passed tests no longer say and tests that are no more."""
        files = {test.partition("::")[0] for test in self.tests}
        table = self.met.copy()
        for key, text in self.read().items():
            test = key.rpartition(" ")[0]
            if test not in self.passed and (
                test in self.tests or test.partition("::")[0] not in files
            ):
                table.setdefault(key, text)
        places = sorted((key.rpartition(" ")[0], int(key.rpartition(" ")[2])) for key in table)
        ordered = {key: table[key] for key in (f"{test} {number}" for test, number in places)}
        self.file.write_text(tomli_w.dumps(ordered), "utf-8")


snapshot = Snapshot(FILE)


@contextmanager
def refused(
    error_class: type[E] | tuple[type[E], ...], *titles: str
) -> Iterator[pytest.ExceptionInfo[E]]:
    """Expect an error of this class from the block, in the words of the file.

    Args:
        error_class: As for `pytest.raises`.
        *titles: What every line of the message begins with, up to its first colon; none expect nothing of it.

    Yields:
        The error as `.value`, once the block is left.
    """
    __tracebackhide__ = True
    with pytest.raises(error_class) as caught:
        yield caught
    text = getattr(caught.value, "message", str(caught.value))  # gradio's own str adds quotes
    if titles:
        assert tuple(line.split(":")[0] for line in re.split(r"\n|<br>", text)) == titles
    snapshot.check(text)


def check_sentence(text: str) -> None:
    """Expect a sentence that comes otherwise, in an answer or as a warning, to be that of the file."""
    __tracebackhide__ = True
    snapshot.check(text)


# ---- hooks ----------------------------------------------------------------------------------------------------------


def name_test(nodeid: str) -> str:
    """Name a test in the file: its id without the folder of tests and the group that xdist appends."""
    return re.sub(r"@[^\]@]*$", "", nodeid).removeprefix("tests/")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that writes."""
    parser.addoption(
        "--write-sentences",
        action="store_true",
        help=f"write the sentences of errors that the tests meet to {FILE.name}",
    )


@pytest.hookimpl(wrapper=True)
def pytest_cmdline_main(config: pytest.Config) -> Generator[None, object, object]:
    """Let one process write the file; xdist starts others in this hook, which it surrounds."""
    snapshot.is_writing = config.option.write_sentences
    if snapshot.is_writing:
        config.option.numprocesses = 0
    return (yield)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Note the tests before `-m` and `-k` choose; a file of which tests are named is not whole."""
    if not getattr(config.option, "lf", False):  # no such option without the cache provider
        named = {arg.partition("::")[0] for arg in config.args if "::" in arg}
        snapshot.tests |= {
            name_test(item.nodeid) for item in items if item.nodeid.partition("::")[0] not in named
        }


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Note which test runs."""
    marks = [f" -m {mark}" for mark in ("slow", "gpu") if item.get_closest_marker(mark)]
    snapshot.enter(name_test(item.nodeid), "".join(marks[:1]))


@pytest.fixture(scope="session", autouse=True)
def _temporary_folders(tmp_path_factory: pytest.TempPathFactory) -> None:
    snapshot.folders = {str(tmp_path_factory.getbasetemp()): "<tmp>", **FOLDERS}


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Note which tests run to their end."""
    if report.when == "call" and report.passed:
        snapshot.passed.add(name_test(report.nodeid))


def pytest_sessionfinish() -> None:
    """Write the file where that is asked for."""
    if snapshot.is_writing:
        snapshot.write()
