"""`helm upgrade` from the chart of commit 2d11983 while a canary is live: no server is touched, and it is promoted."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.apiserver import ApiServer, call, foreign_crds_folder, new_api_server
from tests.chart.rendering import CHART, helm
from tests.kserve import pod_template
from tests.operator.kserve_webhook import defaulting
from tests.operator.running import Shop, keep_voting, open_shop
from tests.waiting import wait_for
from tunegate.api.versions import ModelVersion
from tunegate.kube.client import connect
from tunegate.store import Store
from tunegate_operator import kinds
from tunegate_operator.kinds import Kind, operator_cluster
from tunegate_operator.types import to_plain

Object = dict[str, Any]
# The chart as it was packaged at commit 2d11983.
BEFORE = CHART.parents[1] / "tests/chart/data/chart-2d11983.tgz"
# What the operator of that commit wrote on an API server with KServe's webhook, with a canary at 10 % of the traffic.
RECORDED = Path(__file__).with_name("data") / "canary-2d11983.json"
VALUES = CHART / "ci/minimal-values.yaml"
KINDS = {
    kind.kind: kind
    for kind in (kinds.POLICY, kinds.MODEL_VERSION, kinds.PROMOTION, kinds.INFERENCE_SERVICE, kinds.HTTP_ROUTE)
}
# What the chart tells the operator of servers.
FLAGS = ("--serving-runtime", "--vllm-runtime", "--serving-resources", "--vllm-resources", "--grace-seconds")


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiServer]:
    """With KServe, the Gateway API and the release of before."""
    folder = tmp_path / "api"
    folder.mkdir()
    foreign = foreign_crds_folder()
    with new_api_server(folder, [foreign]) as server, defaulting(server, folder):
        location = "kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION"
        monkeypatch.setattr(location, str(server.kubeconfig))
        server.kubectl("create", "namespace", "tunegate")
        release(server, "install", BEFORE)
        yield server


def release(server: ApiServer, verb: str, chart: Path) -> None:
    where = ["--kubeconfig", str(server.kubeconfig), "--namespace", "tunegate"]
    helm(verb, "tunegate", str(chart), "--values", str(VALUES), *where)


def flags_of_release(server: ApiServer) -> list[str]:
    words = ["-n", "tunegate", "get", "deployment", "tunegate-operator", "-o", "json"]
    (container,) = json.loads(server.kubectl(*words).stdout)["spec"]["template"]["spec"]["containers"]
    return [argument for argument in container["args"] if argument.partition("=")[0] in FLAGS]


def recorded(shop: Shop, versions: dict[str, ModelVersion]) -> dict[str, Object]:
    """What was recorded, as if it had just been written in this namespace, with this store; by kind and name."""
    text = RECORDED.read_text()
    there = {"NAMESPACE": shop.namespace, "STORE-URI": shop.store.uri, "STORE-ENDPOINT": "http://s3:8333"}
    there |= {f"CREATED-{name}": to_plain(version)["created"] for name, version in versions.items()}
    past = datetime.now(UTC) - datetime.fromisoformat(json.loads(text)["recorded"])

    def move(time: re.Match[str]) -> str:
        return later(time[0], past)

    text = re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|\+00:00)", move, text)
    for token, value in there.items():
        text = text.replace(token, value)
    return {f"{obj['kind']}/{obj['metadata']['name']}": obj for obj in json.loads(text)["objects"]}


def later(time: str, by: timedelta) -> str:
    """As it is written, with or without parts of a second."""
    moved = (datetime.fromisoformat(time) + by).astimezone(UTC)
    return moved.isoformat(timespec="microseconds" if "." in time else "seconds").replace("+00:00", "Z")


def restore(shop: Shop, objects: dict[str, Object]) -> None:
    """Write them with their statuses, and with the managers that the API server had noted."""
    uid = ""
    with shop.server.client() as client:
        for obj in sorted(objects.values(), key=lambda obj: obj["kind"] != "PromotionPolicy"):
            made = json.loads(json.dumps(obj).replace("POLICY-UID", uid))
            managers = made["metadata"].pop("managedFields")
            path = KINDS[obj["kind"]].path(shop.namespace, obj["metadata"]["name"])
            answer = call(client, "POST", path.rpartition("/")[0], made)
            if obj["kind"] == "PromotionPolicy":
                uid = answer["metadata"]["uid"]
            if "status" in obj:
                call(client, "PUT", f"{path}/status", {**answer, "status": made["status"]})
            patch = json.dumps({"metadata": {"managedFields": managers}})
            words = ["patch", str(KINDS[obj["kind"]]), obj["metadata"]["name"], "--type=merge", "-p", patch]
            shop.server.kubectl("-n", shop.namespace, *words)
            live = call(client, "GET", path)["metadata"]["managedFields"]
            noted = [(entry["manager"], entry["operation"], entry["fieldsV1"]) for entry in live]
            assert noted == [(entry["manager"], entry["operation"], entry["fieldsV1"]) for entry in managers]


def live(shop: Shop, kind: Kind) -> dict[str, Object]:
    return {obj["metadata"]["name"]: obj for obj in shop.cluster.list(kind, shop.namespace)}


def test_a_live_canary_of_before_is_promoted_and_no_server_is_touched(
    cluster: ApiServer, store: Store, prometheus: str, tmp_path: Path
) -> None:
    with (
        connect("tests/1", remedy="") as client,
        open_shop(cluster, operator_cluster(client), cluster.new_namespace(), store, tmp_path / "shop") as shop,
    ):
        shop.hands.serve = shop.hands.route = False
        good = shop.publish("run-1")
        restore(shop, recorded(shop, {"BASE": shop.base, "RUN-1": good}))
        shop.hands.serve = shop.hands.route = True
        base, candidate = (shop.server_of(version) for version in (shop.base, good))
        assert shop.phase(good) == "Paused"
        assert shop.weights() == {base: 90, candidate: 10}
        before = copy.deepcopy(live(shop, kinds.INFERENCE_SERVICE))
        assert set(before) == {base, candidate}

        release(cluster, "upgrade", CHART)
        shop.start_prometheus(prometheus, shop.base, good)
        shop.start_operator("operator-0", None, *flags_of_release(cluster))
        wait_for(lambda: "servers" in shop.get(kinds.POLICY, "shop")["status"], what="today's operator to reconcile")
        assert shop.weights() == {base: 90, candidate: 10}
        stop = keep_voting(shop, lambda: (shop.vote(good, up=4), shop.vote(shop.base, up=4)))  # type: ignore[func-returns-value]
        try:
            done = shop.until(good, "Succeeded", "Failed", "RolledBack")
        finally:
            stop()
        assert done["status"]["phase"] == "Succeeded", done["status"]["decision"]
        after = live(shop, kinds.INFERENCE_SERVICE)
        assert candidate in after
        for name, old in ((name, old) for name, old in before.items() if name in after):
            assert after[name]["metadata"]["uid"] == old["metadata"]["uid"]
            assert after[name]["metadata"]["generation"] == old["metadata"]["generation"], "nobody wrote its spec"
            assert pod_template(after[name]) == pod_template(old)
        assert shop.hands.replaced == 0
