"""What serves in a cluster, asked pod by pod through an API server that a stand-in plays: no kubelet runs here."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml

from tests.answering import listening, serving
from tests.builders import at, make_version
from tests.operator.objects import Object, policy, promotion
from tunegate.api.codec import to_json
from tunegate.api.digest import short
from tunegate.api.errors import ServingError
from tunegate.api.promotion import Promotion, PromotionStatus
from tunegate.cli.cluster import ClusterRecords
from tunegate.records.checking import served_by

LIVE, NEXT = make_version("run-7"), make_version("run-8")
FORBIDDEN = {"status": "Failure", "reason": "Forbidden", "message": 'pods is forbidden: User "ada" can\'t', "code": 403}
MINE = Promotion(name="mine", created=at(0), candidate=LIVE, status=PromotionStatus(phase="Succeeded"))


class Api:
    """The answers by path, each a status and a body; `url` is where they are given."""

    def __init__(self) -> None:
        self.answers: dict[str, tuple[int, Object]] = {}
        self.pods: list[Object] = []
        self.url = ""
        self.show("mine", LIVE)
        self.put("promotionpolicies", {**policy(), "status": {}})

    def put(self, plural: str, obj: Object) -> None:
        self.answers[f"/apis/tunegate.io/v1alpha1/namespaces/shop/{plural}/{obj['metadata']['name']}"] = (200, obj)

    def show(self, name: str, version: Any) -> None:
        candidate = json.loads(to_json(version))
        obj = {**promotion(), "status": {"phase": "Paused", "candidate": candidate}}
        self.put("promotions", {**obj, "metadata": {"name": name, "creationTimestamp": at(0).isoformat()}})

    def run(self, pod: str, version: Any, digest: str | None = None, *, ready: bool = True, port: int = 0) -> None:
        labels = {"tunegate.io/policy": "shop", "tunegate.io/version": short(version.digest)}
        ports = {"ports": [{"containerPort": port}]} if port else {}
        spec = {"containers": [{"name": "proxy"}, {"name": "kserve-container", **ports}]}
        status = {"conditions": [{"type": "Ready", "status": str(ready)}]}
        self.pods.append({"metadata": {"name": pod, "labels": labels}, "spec": spec, "status": status})
        path = f"/api/v1/namespaces/shop/pods/{pod}:{port or 8080}/proxy/v2/models/shop"
        self.answers[path] = (200, {"name": "shop", "versions": [digest or version.digest]})

    def answer(self, path: str, query: dict[str, list[str]]) -> tuple[int, Object]:
        if path == "/api/v1/namespaces/shop/pods" and path not in self.answers:
            assert query["labelSelector"] == ["tunegate.io/policy=shop,serving.kserve.io/inferenceservice"]
            return 200, {"metadata": {"resourceVersion": "1"}, "items": self.pods}
        missing = {"status": "Failure", "reason": "NotFound", "message": f"{path} not found", "code": 404}
        return self.answers.get(path, (404, missing))


@pytest.fixture
def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Api]:
    made = Api()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = urlsplit(self.path)
            status, found = made.answer(asked.path, parse_qs(asked.query))
            body = json.dumps(found).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with listening(Handler) as made.url:
        context = {"cluster": "one", "user": "ada"}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "one",
            "clusters": [{"name": "one", "cluster": {"server": made.url}}],
            "users": [{"name": "ada", "user": {}}],
            "contexts": [{"name": "one", "context": context}],
        }
        (tmp_path / "kubeconfig").write_text(yaml.safe_dump(config))
        for name in ("kubernetes.config", "kubernetes.config.kube_config"):
            monkeypatch.setattr(f"{name}.KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "kubeconfig"))
        yield made


def test_each_ready_pod_is_asked_at_the_port_of_its_server(api: Api) -> None:
    api.run("shop-a", LIVE)
    api.run("shop-b", LIVE, "sha256:" + "0" * 64, port=9000)
    api.run("shop-c", LIVE, ready=False)
    found = ClusterRecords("shop").serving(MINE, None)
    assert found == {"pod shop-a": LIVE.digest, "pod shop-b": "sha256:" + "0" * 64}


@pytest.mark.parametrize(("asked", "pods"), [("mine", {"pod shop-a"}), ("next", {"pod shop-a", "pod shop-b"})])
def test_pods_of_another_candidate_that_is_being_shown_are_its_own_affair(api: Api, asked: str, pods: set[str]) -> None:
    api.run("shop-a", LIVE)
    api.run("shop-b", NEXT)
    api.show("next", NEXT)
    api.put("promotionpolicies", {**policy(), "status": {"promotion": "next"}})
    versions = {"mine": LIVE, "next": NEXT}
    of = Promotion(name=asked, created=at(0), candidate=versions[asked], status=PromotionStatus(phase="Paused"))
    assert set(ClusterRecords("shop").serving(of, None)) == pods


@pytest.mark.parametrize("what", ["pods", "pods/shop-a:8080/proxy/v2/models/shop"])
def test_who_may_not_ask_pods_is_told_and_the_address_is_asked_alone(api: Api, what: str) -> None:
    api.run("shop-a", LIVE)
    api.answers[f"/api/v1/namespaces/shop/{what}"] = (403, FORBIDDEN)
    with listening(serving(LIVE.digest)) as url:
        api.put("promotionpolicies", {**policy(), "status": {"url": url}})
        ((where, digest),) = ClusterRecords("shop").serving(MINE, None).items()
    assert digest == LIVE.digest
    assert where.startswith(f"{url} (asked alone: its pods can't be asked, as pods is forbidden")
    assert where.endswith("that takes the rights to list pods and to get pods/proxy in shop)")
    assert "\n" not in where


@pytest.mark.parametrize("answer", [(503, {"message": "no route to host", "code": 503}), (200, {"versions": []})])
def test_a_pod_that_does_not_answer_is_named(api: Api, answer: tuple[int, Object]) -> None:
    api.run("shop-a", LIVE)
    api.answers["/api/v1/namespaces/shop/pods/shop-a:8080/proxy/v2/models/shop"] = answer
    with pytest.raises(ServingError, match=r"pod shop-a can't be asked .*kubectl logs shop-a --namespace shop"):
        ClusterRecords("shop").serving(MINE, None)


def test_without_pods_or_with_a_url_one_address_is_asked(api: Api) -> None:
    with listening(serving(LIVE.digest)) as url:
        api.put("promotionpolicies", {**policy(), "status": {"url": url}})
        assert ClusterRecords("shop").serving(MINE, None) == {url: LIVE.digest}
        api.run("shop-a", NEXT)
        assert ClusterRecords("shop").serving(MINE, url) == {url: LIVE.digest} == served_by(url, "shop")
