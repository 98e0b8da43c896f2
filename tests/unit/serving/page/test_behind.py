"""The playground through what stands in front of a server: the local platform's proxy, a cluster's gateway."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

from tests.chromium import needs_browser
from tests.gateway import run_gateway
from tests.unit.local.proxied import start_proxy
from tests.unit.operator.world import NAMESPACE, POLICY_SPEC
from tests.unit.serving.page.browser import Opener, Writer, say
from tests.unit.serving.standin import DIGEST, MODEL, WAIT, Server
from tests.waiting import wait_for
from tunegate.api.codec import to_json
from tunegate.api.policy import ClusterPolicy
from tunegate.local.route import Backend, Route
from tunegate.processes import answers, free_port
from tunegate_operator import manifests

if TYPE_CHECKING:
    from playwright.sync_api import Page

expect = needs_browser().expect
PUBLIC = {"name": "public", "namespace": "gateways"}


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
        expect(page.get_by_role("heading", name=f"Talk to {MODEL}")).to_be_visible()
        assert_streams(page, engine, "canary shop-run-2, step 1")


@pytest.mark.parametrize(("prefix", "path"), [("/", "/"), ("/shop", "/shop/"), ("/shop", "/shop/playground")])
def test_it_works_behind_the_route_that_the_operator_writes(
    open_page: Opener, engine: Writer, server: Server, prefix: str, path: str
) -> None:
    engine.deltas = ["First", WAIT, " half"]
    policy = msgspec.convert({**POLICY_SPEC, "traffic": {"gateway": PUBLIC, "pathPrefix": prefix}}, ClusterPolicy)
    route = manifests.http_route(NAMESPACE, policy, "shop", {DIGEST: 100}, step="shop-run-2/1")
    endpoints = {f"{manifests.server_name('shop', DIGEST)}-predictor": [server.url]}
    with run_gateway(route, endpoints=endpoints) as gateway, open_page() as page:
        page.goto(gateway.url + path)
        assert_streams(page, engine, "canary shop-run-2, step 2")
        assert f"'{gateway.url}{prefix.rstrip('/')}/v1/chat/completions'" in page.locator("#curl").inner_text()


def assert_streams(page: Page, engine: Writer, step: str) -> None:
    say(page)
    expect(page.locator(".answer .text")).to_have_text("First")
    engine.go_on.set()
    expect(page.locator(".answer .text")).to_have_text("First half")
    expect(page.locator(".badge.canary")).to_have_text(step)
    page.get_by_role("button", name="Good answer").click()
    page.get_by_role("button", name="Send verdict").click()
    expect(page.get_by_text("Kept, thank you.")).to_be_visible()
