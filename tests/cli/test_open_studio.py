"""Commands beside a studio that is open: it takes the work, and no second one opens."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from studio.storage.jobs import Jobs
from support.sentences import check_sentence
from support.served import Served


@pytest.mark.slow
def test_an_open_studio_takes_the_job_into_its_queue(served: Served) -> None:
    words = ("--prompt", "a red ball", "--steps", "2", "--json", "--device", "cpu")
    command = [sys.executable, "-m", "studio", "generate", "--home", str(served.home), *words]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    job = Jobs(served.home / "jobs.sqlite").list_recent(1)[0]
    assert (job.owner, job.state) == ("command-line", "done")
    assert [picture["path"] for picture in job.result["pictures"]] == [
        json.loads(made.stdout)["path"]
    ]


@pytest.mark.slow
def test_a_second_studio_is_refused(served: Served) -> None:
    command = [sys.executable, "-m", "studio", "--port", "0", "--home", str(served.home)]
    second = subprocess.run(command, capture_output=True, text=True, check=False)
    assert second.returncode == 1
    assert "Traceback" not in second.stderr
    check_sentence(second.stderr)
