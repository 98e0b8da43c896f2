"""What an operator of an earlier release made is what this one wants, so that updating it touches no server."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

from tests.builders import make_cluster_policy
from tunegate.api.versions import ModelVersion
from tunegate.promotion.snapshot import EvaluationJob
from tunegate_operator import manifests
from tunegate_operator.config import Config

# Made by the operator at commit 2d11983 from the same policy, version and flags.
BEFORE = json.loads((Path(__file__).with_name("data") / "objects-2d11983.json").read_text())
CONFIG = Config(
    store="s3://models", evaluation_image="tunegate/trainer:0.1.0", endpoint_url="http://s3:8333", region="us-east-1"
)
POLICY = make_cluster_policy(
    traffic={"gateway": {"name": "public", "namespace": "gateways"}, "hostnames": ["shop.example"]},
    serving={"replicas": 2, "resources": {"limits": {"nvidia.com/gpu": 1}}, "nodeSelector": {"pool": "gpu"}},
    evaluation={"limit": 20},
)
VERSION = ModelVersion(
    model="shop",
    name="shop/run-7/checkpoint-800",
    uri="s3://models/shop/run-7/checkpoint-800/",
    digest="sha256:" + "0123456789abcdef" * 4,
    format="huggingface",
    created=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
)


def test_what_is_evaluated_is_pinned_to_its_bytes_as_what_is_served() -> None:
    job = manifests.evaluation_job("models", POLICY, "shop", EvaluationJob(VERSION, "quality"), CONFIG)
    (container,) = job["spec"]["template"]["spec"]["containers"]
    server = manifests.inference_service("models", POLICY, "shop", VERSION, CONFIG)
    assert container["args"][:2] == ["evaluate", server["spec"]["predictor"]["model"]["storageUri"]]


def test_switches_and_records_are_built_as_before() -> None:
    built = [
        manifests.remembered(manifests.switch("models", POLICY, "shop", VERSION.digest)),
        manifests.model_version("models", "shop", VERSION, None),
        manifests.promotion("models", "shop", "shop-run-7-0123456789ab", VERSION),
    ]
    before = {kind: obj for kind, obj in BEFORE.items() if kind in ("Service", "ModelVersion", "Promotion")}
    assert {obj["kind"]: obj for obj in built} == before


def test_nothing_of_ours_that_may_change_is_where_kserve_makes_pods_of_it() -> None:
    server = manifests.inference_service("models", POLICY, "shop", VERSION, CONFIG)
    assert server["metadata"]["annotations"] == {
        "serving.kserve.io/deploymentMode": "Standard",
        "serving.kserve.io/autoscalerClass": "none",
    }
