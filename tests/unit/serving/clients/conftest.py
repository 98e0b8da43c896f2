"""Clients that phone nowhere: what they would fetch or report is turned off, and every connection is looked at."""

from __future__ import annotations

import ipaddress
import os
import sys
from collections.abc import Iterator
from typing import Any

import pytest

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # read as litellm is imported; it would fetch its prices
os.environ["LANGSMITH_TRACING"] = "false"

_CONNECTED: list[str] = []


def _look(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "socket.connect" and isinstance(arguments[1], tuple):
        _CONNECTED.append(str(arguments[1][0]))


sys.addaudithook(_look)


@pytest.fixture(autouse=True)
def nothing_leaves_this_machine() -> Iterator[None]:
    _CONNECTED.clear()
    yield
    assert all(host == "localhost" or ipaddress.ip_address(host).is_loopback for host in _CONNECTED)
