"""An engine that versions share, on a real API server: made once, asked by all, retired with the last."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.operator.running import POLICY_NAME, Shop
from tests.operator.test_engines import kubeconfig
from tests.waiting import wait_for
from tunegate.api.feedback import Struck
from tunegate.api.labels import RESTORE
from tunegate.api.pinned import base_of
from tunegate.api.versions import ModelVersion, Producer, Release
from tunegate.feedback import struck
from tunegate_operator import kinds

__all__ = ["kubeconfig"]
SERVING = {"engine": "VLLM", "shareBase": True, "sharedEngine": {"resources": {"limits": {"memory": "1024Mi"}}}}


def publish_adapter(shop: Shop, run: str) -> ModelVersion:
    folder = shop.folder / run
    folder.mkdir()
    (folder / "adapter_model.safetensors").write_bytes(run.encode())
    release = Release(format="lora-adapter", base=base_of(shop.base))
    producer = Producer(kind="test", run=run, step=10)
    return shop.hands.knows(shop.store.publish(folder, f"shop/{run}/checkpoint-10", release=release, producer=producer))


def url_of(shop: Shop, version: ModelVersion) -> dict[str, Any]:
    server = shop.get(kinds.INFERENCE_SERVICE, shop.server_of(version))
    env = server["spec"]["predictor"]["model"]["env"]
    return {each["name"]: each.get("value") for each in env if "ENGINE" in each["name"]}


@pytest.mark.usefixtures("tunegate_crds")
def test_versions_of_a_base_share_an_engine_and_one_that_was_struck_is_failed(shop: Shop, kubeconfig: Path) -> None:
    engine = f"{shop.server_of(shop.base)}-engine"
    shop.start_policy(serving=SERVING, steps=[{"weight": 50, "minVerdicts": 5}])
    operator = shop.start_operator("operator-0", kubeconfig)
    shop.until_serving()
    first = publish_adapter(shop, "run-1")
    shop.until(first, "Paused")
    host = f"http://{engine}.{shop.namespace}.svc"
    for version in (shop.base, first):
        assert url_of(shop, version) == {
            "TUNEGATE_ENGINE_URL": f"{host}:8080",
            "TUNEGATE_ENGINE_CONTROL": f"{host}:8081",
        }
    now = datetime.now(UTC)
    since, until = now - timedelta(hours=1), now + timedelta(hours=1)
    struck.write(shop.store, Struck(digest=first.digest, since=since, until=until, reason="Others answered."))
    shop.vote(first, down=60, metrics=False)
    failed = shop.until(first, "Failed", "RolledBack")
    assert failed["status"]["decision"]["reason"] == "WrongWeights"
    edit = json.dumps({"spec": {"replicas": 0}})
    shop.server.kubectl("-n", shop.namespace, "patch", "deployment", engine, "--type=merge", "-p", edit)
    found = shop.until_condition("Stalled", "TargetModified")
    assert found["message"].startswith(f"kubectl-patch changed spec.replicas of Deployment {engine}")
    restore = f"{RESTORE}={datetime.now(UTC).isoformat()}"
    shop.server.kubectl("-n", shop.namespace, "annotate", "promotionpolicy", POLICY_NAME, restore)
    wait_for(lambda: shop.get(kinds.DEPLOYMENT, engine)["spec"]["replicas"] == 1, what="the engine to be put back")
    second = publish_adapter(shop, "run-2")
    shop.until(second, "Paused")
    for each in (shop.base, second):
        shop.vote(each, up=60, metrics=False)
    shop.until(second, "Succeeded")
    deployment = shop.get(kinds.DEPLOYMENT, engine)
    assert deployment["metadata"]["generation"] == 3, "it was written once, changed by hand, and put back"
    whole = shop.publish("run-3")
    shop.until(whole, "Paused")
    for each in (second, whole):
        shop.vote(each, up=60, metrics=False)
    shop.until(whole, "Succeeded")

    def is_gone() -> bool:
        return all(shop.cluster.get(kind, shop.namespace, engine) is None for kind in (kinds.DEPLOYMENT, kinds.SERVICE))

    wait_for(is_gone, seconds=180, what="the engine that no version needs to be deleted")
    assert shop.cluster.get(kinds.DEPLOYMENT, shop.namespace, f"{shop.server_of(whole)}-engine") is not None
    assert shop.condition(kinds.POLICY, POLICY_NAME, "Stalled")["status"] == "False"
    assert "forbidden" not in operator.log.read_text().lower()
