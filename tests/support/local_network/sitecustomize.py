"""Loaded by Python in processes that a test starts with this folder on PYTHONPATH: they see the test's sites and no others."""

from __future__ import annotations

import os
import ssl

from studio.storage.downloads import network

PORT, CERTIFICATE = os.environ["STUDIO_TEST_SITES"].split(",")


def _open() -> network.Network:
    return network.Network(
        resolve=lambda host, port: [("127.0.0.1", int(PORT))],
        is_allowed=lambda address: address == "127.0.0.1",
        create_context=lambda: ssl.create_default_context(cafile=CERTIFICATE),
    )


network.open_network = _open
