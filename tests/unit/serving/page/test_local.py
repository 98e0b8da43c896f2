"""The playground through the proxy of the local platform."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.local.proxied import start_proxy
from tests.unit.serving.page.browser import WAIT, Opener, Writer, say
from tests.unit.serving.standin import DIGEST, MODEL, Server
from tests.waiting import wait_for
from tunegate.api.codec import to_json
from tunegate.local.route import Backend, Route
from tunegate.processes import answers, free_port

expect = pytest.importorskip("playwright.sync_api").expect


def test_it_appears_once_a_version_serves_and_streams(
    open_page: Opener, engine: Writer, server: Server, tmp_path: Path
) -> None:
    engine.deltas = ["First", WAIT, " half"]
    port = free_port()
    with open_page() as page, start_proxy(tmp_path, port):
        wait_for(lambda: answers(f"http://127.0.0.1:{port}/_tunegate/route"), what="the proxy")
        page.goto(f"http://127.0.0.1:{port}/")
        expect(page.get_by_text("No version is serving yet")).to_be_visible()

        backend = Backend(version=DIGEST, url=server.url, weight=100)
        (tmp_path / "route.json").write_bytes(to_json(Route(salt="", step="shop-run-2/0", backends=(backend,))))
        expect(page.get_by_role("heading", name=f"Talk to {MODEL}")).to_be_visible(timeout=15000)
        say(page)
        expect(page.locator(".answer .text")).to_have_text("First")
        engine.go_on.set()
        expect(page.locator(".answer .text")).to_have_text("First half")
        expect(page.locator(".badge.canary")).to_have_text("canary shop-run-2, step 1")
