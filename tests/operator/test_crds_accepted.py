"""What a real API server takes of our custom resources, what it adds, and what may change later."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from msgspec.structs import fields

from tests.operator.objects import BASE, CONDITION, GATE, KINDS, Api, Object, policy, promotion, version
from tunegate.api.policy import ClusterPolicy, Placement
from tunegate_operator.types import read_policy, read_promotion, read_version

pytestmark = pytest.mark.usefixtures("tunegate_crds")

ACCEPTED = [
    pytest.param(version(), id="version"),
    pytest.param(version(uri="oss://b/prefix/shop/run-7/checkpoint-800/"), id="version-in-oss-under-a-prefix"),
    pytest.param(version(format="lora-adapter", base=BASE), id="adapter-with-base"),
    pytest.param(version(format="prompt-adapter", base=BASE), id="prompt-with-base"),
    pytest.param(version(base=BASE), id="full-weights-with-base"),
    pytest.param(
        version(
            producer={
                "kind": "train",
                "run": "run-7",
                "uid": "u",
                "step": 800,
                "image": "tunegate/trainer:0.1.0",
                "codeVersion": "0.1.0",
                "loss": 1.25,
            }
        ),
        id="version-with-producer",
    ),
    pytest.param(policy(), id="policy"),
    pytest.param(policy("a" * 35), id="policy-with-the-longest-name"),
    pytest.param(policy(steps=[{"weight": 100}]), id="one-step"),
    pytest.param(policy(gates=[]), id="no-gates"),
    pytest.param(policy(gates=[{**GATE, "max": 1}]), id="gate-max"),
    pytest.param(policy(gates=[{**GATE, "min": 1, "basis": "Interval"}]), id="gate-on-the-interval"),
    pytest.param(policy(gates=[{**GATE, "maxRegression": 0.1, "basis": "Paired"}]), id="gate-on-pairs"),
    pytest.param(policy(gates=[{**GATE, "maxRegression": 0}]), id="gate-max-regression-zero"),
    pytest.param(policy(gates=[{**GATE, "min": -1e300}]), id="gate-far-away"),
    *(
        pytest.param(
            policy(
                suites=["shop-en.judge-pairs", f"shop-en.{people}"],
                gates=[{**GATE, "suite": suite, "min": 1} for suite in ("shop-en.judge-pairs", f"shop-en.{people}")],
            ),
            id=f"gate-by-a-judge-beside-{people}",
        )
        for people in ("people", "pairs")
    ),
    pytest.param(policy(initialVersion="oss://models/base/"), id="initial-version-in-oss"),
    pytest.param(policy(traffic={"pathPrefix": "/shop/v2"}), id="path-prefix"),
    pytest.param(policy(traffic={"gateway": {"name": "public"}}), id="gateway"),
    pytest.param(policy(traffic={"hostnames": ["shop.example.com", "*.example.com"]}), id="hostnames"),
    pytest.param(
        policy(
            serving={
                "replicas": 2,
                "engine": "VLLM",
                "card": "A100-40GB",
                "resources": {
                    "requests": {"cpu": 1, "memory": "1.5Gi"},
                    "limits": {"nvidia.com/gpu": 1, "cpu": "1000m"},
                },
                "nodeSelector": {"pool": "gpu"},
                "tolerations": [{"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}],
                "affinity": {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}},
                "topologySpreadConstraints": [
                    {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}
                ],
                "priorityClassName": "high",
                "runtimeClassName": "nvidia",
                "serviceAccountName": "models",
                "podLabels": {"azure.workload.identity/use": "true"},
                "podAnnotations": {"note": "x"},
                "extraEnv": [{"name": "A", "value": "1"}, {"name": "B", "valueFrom": {"fieldRef": {"fieldPath": "x"}}}],
            },
            evaluation={"limit": 50, "shards": 4, "tolerations": [{"key": "k", "value": "v", "tolerationSeconds": 60}]},
        ),
        id="pods",
    ),
    pytest.param(policy(serving={"engine": "URL", "url": {"address": "https://llm.example/v1"}}), id="engine-at-a-url"),
    pytest.param(
        policy(serving={"engine": "LLMInferenceService", "llmInferenceService": {}}), id="engine-of-presets-alone"
    ),
    pytest.param(
        policy(
            serving={
                "engine": "LLMInferenceService",
                "llmInferenceService": {
                    "replicas": 2,
                    "parallelism": {"tensor": 8, "data": 16, "dataLocal": 8, "expert": True},
                    "baseRefs": [{"name": "kserve-config-big"}],
                    "template": {"containers": [{"name": "main", "resources": {"limits": {"nvidia.com/gpu": 8}}}]},
                    "worker": {"nodeSelector": {"pool": "gpu"}},
                },
            }
        ),
        id="engine-of-several-pods",
    ),
    pytest.param(
        policy(
            serving={
                "engine": "URL",
                "url": {
                    "address": "http://ray.models.svc:8000",
                    "model": "acme/{run}/{checkpoint}",
                    "keySecret": {"name": "ray", "key": "token"},
                },
            }
        ),
        id="engine-at-a-url-with-names-and-a-key",
    ),
    pytest.param(policy(selection={"type": "BestOf", "suite": "shop-en", "metric": "score"}), id="best-of"),
    pytest.param(policy(selection={"type": "Latest", "suite": "", "metric": ""}), id="latest-as-tunegate-writes-it"),
    pytest.param(policy(stopTraining={"when": "NoGain", "suite": "shop-en", "metric": "score"}), id="stop-training"),
    pytest.param(promotion(), id="promotion"),
    pytest.param(promotion(approval={"verdict": "Approved", "actor": "jan"}), id="promotion-with-approval"),
    pytest.param(promotion(abort={"actor": "jan", "message": "no"}), id="promotion-with-abort"),
]


PODS = {field.encode_name for field in fields(Placement)}


@pytest.mark.parametrize("obj", ACCEPTED)
def test_it_is_accepted_and_can_be_read(api: Api, obj: Object) -> None:
    made = api.create(obj)
    read = {
        "ModelVersion": read_version,
        "PromotionPolicy": read_policy,
        "Promotion": lambda o: read_promotion(o, None),
    }
    read[obj["kind"]](made)


APPROVAL = {"verdict": "Approved", "actor": "jan"}
ABORT = {"actor": "jan"}

CHANGES = [
    pytest.param(version(), {"format": "lora-adapter", "base": BASE}, "a ModelVersion can't be changed", id="version"),
    pytest.param(
        version(), {"producer": {"kind": "x"}}, "a ModelVersion can't be changed", id="version-gets-a-producer"
    ),
    pytest.param(policy(), {"model": "toys"}, "model can't be changed; make another", id="policy-model"),
    pytest.param(policy(), {"initialVersion": "s3://models/b/"}, "", id="policy-initial-version-may-change"),
    pytest.param(policy(), {"suspend": True}, "", id="policy-may-be-suspended"),
    pytest.param(promotion(), {"policy": "toys"}, "policy and version can't be changed", id="promotion-policy"),
    pytest.param(promotion(), {"version": "other"}, "policy and version can't be changed", id="promotion-version"),
    pytest.param(promotion(), {"approval": APPROVAL, "abort": ABORT}, "", id="approval-and-abort-may-be-given"),
    pytest.param(
        promotion(approval=APPROVAL),
        {"approval": {**APPROVAL, "verdict": "Rejected"}},
        "approval was given and can't be changed; to stop the promotion set abort",
        id="approval-stays",
    ),
    pytest.param(
        promotion(approval=APPROVAL),
        {"approval": {**APPROVAL, "actor": "eva"}},
        "approval was given",
        id="approver-stays",
    ),
    pytest.param(
        promotion(approval=APPROVAL), {"approval": None}, "approval was given", id="approval-is-not-taken-back"
    ),
    pytest.param(promotion(approval=APPROVAL), {"abort": ABORT}, "", id="what-was-approved-may-be-aborted"),
    pytest.param(
        promotion(abort=ABORT), {"abort": None}, "abort was said and can't be taken back", id="abort-is-not-taken-back"
    ),
    pytest.param(promotion(abort=ABORT), {"abort": {"actor": "eva"}}, "abort was said", id="abort-stays"),
]


@pytest.mark.parametrize(("obj", "changes", "words"), CHANGES)
def test_what_may_change_later(api: Api, obj: Object, changes: Object, words: str) -> None:
    made = api.create(obj)
    spec = {key: value for key, value in (made["spec"] | changes).items() if value is not None}
    if words:
        assert words in api.refuses(lambda: api.change(obj, spec=spec))
        assert api.get(obj)["spec"] == made["spec"]
    else:
        assert api.change(obj, spec=spec)["spec"] == spec


def test_defaults_are_those_of_the_type(api: Api) -> None:
    wanted = policy()
    made = api.create(wanted)
    assert read_policy(made) == read_policy(wanted)
    assert made["spec"]["feedback"] == {"alpha": 0.05, "margin": 0.1, "minVerdicts": 10, "maxLean": 1}
    assert made["spec"]["traffic"] == {"pathPrefix": "/"}
    nested = {"stopTraining", "gateway", "hostnames", "limit", *PODS}
    names = {field.encode_name for field in fields(ClusterPolicy)} - nested
    assert made["spec"].keys() == names


def test_two_managers_write_what_is_theirs(api: Api) -> None:
    """A person applies the policy, the operator its status; conditions of two managers stand side by side."""
    obj = policy()
    api.apply(obj, "team")
    head = {key: obj[key] for key in ("apiVersion", "kind", "metadata")}
    api.apply(head | {"status": {"phase": "Serving", "conditions": [CONDITION]}}, "tunegate-operator", "status")
    audited = {**CONDITION, "type": "Audited"}
    api.apply(head | {"status": {"conditions": [audited]}}, "auditor", "status")
    api.apply(policy(suspend=True), "team")
    seen = api.get(obj)
    assert seen["spec"]["suspend"] is True
    assert seen["status"] == {"phase": "Serving", "conditions": [CONDITION, audited]}
    conflict = api.refuses(lambda: api.apply(policy(suspend=False), "other"))
    assert 'Apply failed with 1 conflict: conflict with "team": .spec.suspend' in conflict


@pytest.mark.parametrize("make", KINDS)
def test_what_is_applied_again_changes_nothing(api: Api, make: Callable[[], Object]) -> None:
    """Defaults stand beside what was applied, never inside a list: else tools would see a difference for ever."""
    obj = make()
    first = api.apply(obj, "team")
    assert api.apply(obj, "team")["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]
    assert api.apply(obj, "other")["metadata"]["generation"] == 1
    lists = {key: value for key, value in obj["spec"].items() if isinstance(value, list)}
    assert lists.items() <= first["spec"].items()


def test_a_list_of_gates_is_one_value(api: Api) -> None:
    """Merged lists would keep a gate that a person took out of the file."""
    api.apply(policy(gates=[{**GATE, "min": 0.5}, {"suite": "shop-en", "metric": "bleu", "max": 1}]), "team")
    api.apply(policy(gates=[{**GATE, "min": 0.6}]), "team")
    assert api.get(policy())["spec"]["gates"] == [{**GATE, "min": 0.6}]
