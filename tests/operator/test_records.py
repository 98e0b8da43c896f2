"""Decision records of the real operator on a real API server and a real store: written, named in statuses, verified."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tests.answering import listening, serving
from tests.operator.running import Shop
from tests.waiting import wait_for
from tunegate.api.errors import NotFoundError, UsageError
from tunegate.api.versions import ModelVersion
from tunegate.cli import root
from tunegate.records.signing import new_key
from tunegate_operator import kinds
from tunegate_operator.types import object_name

pytestmark = pytest.mark.usefixtures("tunegate_crds")


@pytest.fixture
def key(tmp_path: Path) -> Path:
    file = tmp_path / "signing.key"
    file.write_bytes(new_key())
    file.chmod(stat.S_IRUSR | stat.S_IWUSR)
    return file


def say(shop: Shop, verb: str, version: ModelVersion, *words: str, store: bool = True) -> Result:
    where = ["--store", shop.store.uri, "--endpoint-url", str(shop.store.endpoint_url)] if store else []
    return CliRunner().invoke(root, ["promotions", verb, object_name(version), "-n", shop.namespace, *where, *words])


def test_a_promotion_is_recorded_verified_and_leaves(
    shop: Shop, prometheus: str, key: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.start_policy(steps=[{"weight": 50, "minVerdicts": 5}], bakingSeconds=1)
    first = shop.publish("run-1")
    shop.start_prometheus(prometheus, shop.base, first)
    shop.start_operator("operator-0", None, "--no-lease", "--signing-key", str(key))
    shop.until(first, "Paused")
    shop.vote(first, up=60)
    shop.vote(shop.base, up=60)
    shop.until(first, "Succeeded")

    def record(version: ModelVersion) -> dict[str, str]:
        found = shop.promotion(version)
        return dict((found or {}).get("status", {}).get("record", {}))

    wait_for(lambda: record(first), what="the record in the status")
    wait_for(lambda: shop.get(kinds.POLICY, "shop")["status"].get("recordKeys"), what="the key in the policy's status")
    (known,) = shop.get(kinds.POLICY, "shop")["status"]["recordKeys"]
    assert known["id"] == record(first)["signedBy"]

    with listening(serving(first.digest)) as url:
        held = say(shop, "verify", first, "--url", url)
        assert held.exit_code == 0, (held.output, held.exception)
        page = tmp_path / "why.html"
        assert say(shop, "explain", first, "--html", str(page)).exit_code == 0
        assert f"shop in namespace {shop.namespace}" in page.read_text()
    with listening(serving(shop.base.digest)) as url:
        assert "serving does not hold" in say(shop, "verify", first, "--url", url).output

    monkeypatch.delenv("TUNEGATE_STORE", raising=False)
    with pytest.raises(UsageError, match="Name the model store of the cluster with --store"):
        raise say(shop, "verify", first, store=False).exception or AssertionError
    # Nobody answers at the policy's own address, which only its gateway knows.
    assert "or give the address that can be reached from here with --url" in say(shop, "verify", first).output

    rotated = key.read_bytes()
    key.write_bytes(new_key())
    assert rotated != key.read_bytes()
    second = shop.publish("run-2", score=0.1)
    ended = shop.until(second, "Rejected")
    assert ended["status"]["decision"]["outcome"] == "Rejected"
    wait_for(lambda: record(second), what="the record of the rejected one")
    wait_for(lambda: len(shop.get(kinds.POLICY, "shop")["status"]["recordKeys"]) == 2, what="the second key")
    assert record(second)["signedBy"] != record(first)["signedBy"]
    with listening(serving(first.digest)) as url:
        for version in (first, second):
            held = say(shop, "verify", version, "--url", url)
            assert held.exit_code == 0, (held.output, held.exception)

    shop.server.kubectl("-n", shop.namespace, "delete", "promotionpolicy", "shop")
    missing = say(shop, "verify", first).exception
    assert isinstance(missing, NotFoundError)
    assert "is not there any more; create it again from its file" in str(missing)


def test_a_policy_without_an_address_wants_one(shop: Shop, key: Path) -> None:
    """Its route is not accepted by any gateway yet."""
    shop.hands.route = False
    shop.start_policy(traffic={"gateway": {"name": "nowhere"}})
    version = shop.publish("run-1", score=0.1)
    shop.start_operator("operator-0", None, "--no-lease", "--signing-key", str(key))
    shop.until(version, "Rejected")
    wait_for(lambda: (shop.promotion(version) or {})["status"].get("record"), what="the record")
    assert not shop.get(kinds.POLICY, "shop")["status"].get("url")
    assert "give the one of a port-forward with --url" in say(shop, "verify", version).output
