"""A LoRA of some megabytes, and a way to fetch what is behind a link."""

from __future__ import annotations

from typing import Any

import pytest

from studio.core.downloads.plan import DownloadSpec
from studio.settings import Settings
from studio.storage.downloads.fetching import download
from studio.storage.downloads.placing import Placed
from studio.storage.downloads.safe_http import SafeClient
from studio.storage.downloads.sources import look_up
from support.downloads import Get
from support.sites import (
    Sites,
    make_large_lora,
)


@pytest.fixture(scope="module")
def lora(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return make_large_lora(tmp_path_factory.mktemp("weights"))


@pytest.fixture
def get(sites: Sites, settings: Settings) -> Get:
    """Look a link up and fetch it."""

    def get(link: str, on_progress: Any = lambda done, total: None, **values: Any) -> Placed:
        spec = DownloadSpec(link=link, is_host_confirmed=True, **values)
        client = SafeClient(sites.network)
        plan = look_up(client, spec)
        return download(settings, plan, client, is_confirmed=True, on_progress=on_progress)

    return get
