"""What a real API server refuses of our custom resources, and with which words."""

from __future__ import annotations

import pytest

from tests.operator.objects import BASE, GATE, HEX, Api, Object, policy, promotion, version

pytestmark = pytest.mark.usefixtures("tunegate_crds")


def gate(**bounds: float) -> Object:
    return policy(gates=[{**GATE, **bounds}])


REFUSED = [
    pytest.param(
        version(uri="s3://models/shop/run-7/checkpoint-800"),
        "uri must end in '/shop/run-7/checkpoint-800/', with the last slash: without it, checkpoint-1 also matches",
        id="version-uri-without-slash",
    ),
    pytest.param(
        version(uri="s3://models/shop/run-7/checkpoint-80/"),
        "uri must end in '/shop/run-7/",
        id="version-uri-of-another",
    ),
    pytest.param(
        version(uri="https://models/shop/run-7/checkpoint-800/"),
        "uri must begin with s3:// or oss://",
        id="version-scheme",
    ),
    pytest.param(version(model="toys"), "name must begin with 'toys/', its model", id="version-of-another-model"),
    pytest.param(
        version(name="shop/checkpoint-800", uri="s3://models/shop/checkpoint-800/"),
        "spec.name",
        id="version-without-run",
    ),
    pytest.param(version(digest="sha256:abc"), "spec.digest", id="version-digest-short"),
    pytest.param(version(digest=HEX), "spec.digest", id="version-digest-without-algorithm"),
    pytest.param(version(format="gguf"), '"huggingface", "lora-adapter", "prompt-adapter"', id="version-format"),
    pytest.param(version(format="lora-adapter"), "an adapter needs base", id="adapter-without-base"),
    pytest.param(version(format="prompt-adapter"), "an adapter needs base", id="prompt-without-base"),
    pytest.param(
        version(base={**BASE, "uri": "s3://models/shop/base/checkpoint-0"}),
        "a folder in the store begins with s3://, oss:// or tunegate:// and ends in '/'",
        id="version-base-without-slash",
    ),
    pytest.param(version(base={**BASE, "digest": HEX}), "spec.base.digest", id="version-base-digest"),
    pytest.param(version(model="Shop", name="Shop/run-7/checkpoint-800"), "spec.model", id="version-model-in-capitals"),
    pytest.param(policy(model="shop/en"), "spec.model", id="policy-model-with-a-slash"),
    pytest.param(version(created="yesterday"), "spec.created", id="version-created"),
    pytest.param(version(producer={"run": "x"}), "spec.producer.kind", id="producer-without-kind"),
    pytest.param(version(storageUri="s3://models/"), 'unknown field "spec.storageUri"', id="version-unknown-field"),
    pytest.param(policy("a" * 36), "metadata.name must be at most 35 characters", id="policy-name-long"),
    pytest.param(policy("7-shop"), "and begin with a letter", id="policy-name-digit-first"),
    pytest.param(policy("shop.v2"), "of a-z, 0-9 and '-'", id="policy-name-dot"),
    pytest.param(
        policy(initialVersion="s3://models/shop/base/checkpoint-0"),
        "initialVersion begins with s3:// or oss:// and ends in '/': without it, checkpoint-1 also matches",
        id="initial-version-without-slash",
    ),
    pytest.param(
        policy(initialVersion="/models/base/"), "initialVersion begins with s3://", id="initial-version-scheme"
    ),
    pytest.param(policy(suites=[]), "should have at least 1 items", id="no-suites"),
    pytest.param(policy(suites=["Shop EN"], gates=[]), "spec.suites[0]", id="suite-with-a-space"),
    pytest.param(policy(suites=["shop-en", "shop-en"]), 'Duplicate value: "shop-en"', id="suite-twice"),
    pytest.param(
        policy(gates=[{"suite": "shop-zh", "metric": "score", "min": 1}]),
        "every suite that a gate names must be one of suites, or it is never measured",
        id="gate-on-another-suite",
    ),
    pytest.param(
        policy(suites=["shop-en.judge"], gates=[{"suite": "shop-en.judge", "metric": "score", "min": 1}]),
        "needs one by people beside it",
        id="gate-by-a-judge-alone",
    ),
    pytest.param(
        policy(
            suites=["shop-en.judge", "shop.people"],
            gates=[
                {"suite": "shop-en.judge", "metric": "score", "min": 1},
                {"suite": "shop.people", "metric": "score", "min": 1},
            ],
        ),
        "needs one by people beside it",
        id="gate-by-a-judge-beside-people-who-judge-other-questions",
    ),
    pytest.param(gate(), "a gate needs exactly one of min, max and maxRegression", id="gate-without-bound"),
    pytest.param(gate(min=0.1, max=1), "a gate needs exactly one of min, max and maxRegression", id="gate-two-bounds"),
    pytest.param(gate(maxRegression=-1), "greater than or equal to 0", id="gate-negative-regression"),
    pytest.param(
        policy(gates=[{**GATE, "min": 1, "basis": "Paired"}]),
        "basis Paired compares with the stable version, so it needs maxRegression",
        id="gate-on-pairs-alone",
    ),
    pytest.param(policy(gates=[{**GATE, "minimum": 1}]), 'unknown field "spec.gates[0].minimum"', id="gate-misspelled"),
    *(
        pytest.param(
            policy(**{part: {"resources": {"requests": {"memory": asks}, "limits": {"memory": limit}}}}),
            "limits must be at least the requests, or no pod would start; a limit that is left out is no limit",
            id=f"{part}-requests-{asks}-limit-{limit}",
        )
        for part in ("serving", "evaluation")
        for asks, limit in (("8Gi", "4Gi"), (3, "2"), ("1.5Gi", 1), ("1", "999m"))
    ),
    pytest.param(policy(steps=[]), "should have at least 1 items", id="no-steps"),
    pytest.param(policy(steps=[{"weight": 50}, {"weight": 10}]), "weights that ascend, such as", id="steps-descend"),
    pytest.param(policy(steps=[{"weight": 50}, {"weight": 50}]), "weights that ascend, such as", id="steps-equal"),
    pytest.param(policy(steps=[{"weight": 101}]), "less than or equal to 100", id="step-above-100"),
    pytest.param(policy(steps=[{"weight": 0}]), "greater than or equal to 1", id="step-zero"),
    pytest.param(policy(steps=[{"weight": 1, "pauseSeconds": -1}]), "greater than or equal to 0", id="step-pause"),
    pytest.param(policy(feedback={"alpha": 1}), "should be less than 1", id="alpha-one"),
    pytest.param(policy(feedback={"margin": 0}), "should be greater than 0", id="margin-zero"),
    pytest.param(policy(feedback={"minVerdicts": 0}), "greater than or equal to 1", id="min-verdicts-zero"),
    pytest.param(policy(approval="Sometimes"), '"Automatic", "Manual"', id="approval-word"),
    pytest.param(policy(candidates="All"), '"EveryCheckpoint", "FinishedRuns"', id="candidates-word"),
    pytest.param(policy(historyLimit=0), "greater than or equal to 1", id="history-limit-zero"),
    pytest.param(policy(serving={"replicas": 0}), "greater than or equal to 1", id="no-replicas"),
    pytest.param(policy(serving={"engine": "vllm"}), '"Transformers", "VLLM"', id="engine-word"),
    pytest.param(
        policy(serving={"engine": "URL", "url": {"address": "llm.example"}}), "should match", id="engine-address"
    ),
    pytest.param(policy(evaluation={"limit": 0}), "greater than or equal to 1", id="limit-zero"),
    pytest.param(policy(selection={"type": "BestOf"}), "BestOf needs suite and metric", id="best-of-nothing"),
    pytest.param(policy(selection={"suite": "shop-en", "metric": "score"}), "Latest has neither", id="latest-of"),
    pytest.param(
        policy(selection={"type": "BestOf", "suite": "other", "metric": "score"}), "never measured", id="best-of-other"
    ),
    pytest.param(
        policy(stopTraining={"when": "NoGain", "suite": "other", "metric": "score"}), "never measured", id="stop-other"
    ),
    pytest.param(
        policy(stopTraining={"when": "Always", "suite": "shop-en", "metric": "score"}), "Unsupported", id="stop-when"
    ),
    pytest.param(policy(evaluation={"shards": 0}), "greater than or equal to 1", id="no-shards"),
    pytest.param(policy(evaluation={"shards": 65}), "less than or equal to 64", id="too-many-shards"),
    *(
        pytest.param(
            policy(**{pods: {"resources": {part: {"memory": "2GB"}}}}),
            f"spec.{pods}.resources.{part}.memory",
            id=f"{pods}-{part}-misspelled",
        )
        for pods in ("evaluation", "serving")
        for part in ("requests", "limits")
    ),
    pytest.param(policy(serving={"tolerations": [{"effect": "Never"}]}), '"NoSchedule"', id="toleration-effect"),
    pytest.param(policy(traffic={"gateway": {}}), "traffic.gateway.name: Required", id="gateway-without-name"),
    pytest.param(policy(traffic={"gateway": {"name": ""}}), "at least 1 chars", id="gateway-with-empty-name"),
    pytest.param(policy(traffic={"gateway": {"name": "g", "namespace": "Gateways"}}), "namespace", id="no-namespace"),
    pytest.param(policy(traffic={"gateway": {"name": "g", "sectionName": "a_b"}}), "sectionName", id="no-listener"),
    pytest.param(policy(traffic={"gateway": {"name": "My Gateway"}}), "gateway.name", id="no-gateway"),
    pytest.param(policy(traffic={"pathPrefix": "shop"}), "pathPrefix must begin with '/'", id="path-without-slash"),
    pytest.param(policy(traffic={"pathPrefix": "/a//b"}), "between single slashes", id="path-with-two-slashes"),
    pytest.param(policy(traffic={"pathPrefix": "/../b"}), "pathPrefix must begin with '/'", id="path-with-dots"),
    pytest.param(policy(traffic={"hostnames": ["http://shop"]}), "traffic.hostnames[0]", id="hostname-url"),
    pytest.param(promotion(policy=None), "spec.policy: Required", id="promotion-without-policy"),
    pytest.param(promotion(version=None), "spec.version: Required", id="promotion-without-version"),
    pytest.param(
        promotion(approval={"verdict": "Approved"}), "spec.approval.actor: Required", id="approval-without-actor"
    ),
    pytest.param(
        promotion(approval={"verdict": "Approved", "actor": ""}), "spec.approval.actor", id="approval-with-empty-actor"
    ),
    pytest.param(
        promotion(approval={"verdict": "Maybe", "actor": "jan"}), '"Approved", "Rejected"', id="approval-verdict"
    ),
    pytest.param(promotion(abort={"actor": ""}), "spec.abort.actor", id="abort-with-empty-actor"),
]


@pytest.mark.parametrize(("obj", "words"), REFUSED)
def test_it_is_refused_with_words_that_help(api: Api, obj: Object, words: str) -> None:
    assert words in api.refuses(lambda: api.create(obj))
