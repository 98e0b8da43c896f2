"""What the rules of our kinds refuse, a real API server takes once their words were followed."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest
import yaml

from tests.apiserver import OWN_CRDS
from tests.operator.objects import BASE, GATE, HEX, Api, Object, policy, promotion, version
from tests.operator.running import POLICY_NAME, Shop
from tunegate.api.labels import MANAGED_BY, POLICY
from tunegate_operator import kinds

pytestmark = pytest.mark.usefixtures("tunegate_crds")
PINNED = f"tunegate://sha256-{HEX}/shop/base/checkpoint-0/"
SLASH = "s3://models/shop/run-7/checkpoint-800/"


@dataclass(frozen=True)
class Case:
    words: str
    wrong: Object
    right: Object


def engine(**fields: Object) -> Object:
    return {"engine": "LLMInferenceService", "llmInferenceService": fields}


CREATED = [
    Case("uri must begin with s3:// or oss://", version(uri=SLASH.replace("s3", "http")), version(uri=SLASH)),
    Case(
        "uri must begin with s3:// or oss://", version(uri=SLASH.replace("s3", "http")), version(uri="oss" + SLASH[2:])
    ),
    Case("uri must end in '/", version(uri=SLASH[:-1]), version(uri=SLASH)),
    Case("name must begin with ", version(model="toys"), version(model="shop")),
    Case("an adapter needs base", version(format="lora-adapter"), version(format="lora-adapter", base=BASE)),
    Case(
        "a folder in the store begins with s3://, oss:// or tunegate:// and ends in '/'",
        version(base={**BASE, "uri": BASE["uri"][:-1]}),
        version(base=BASE),
    ),
    Case(
        "a folder in the store begins with s3://, oss:// or tunegate:// and ends in '/'",
        version(base={**BASE, "uri": PINNED[:-1]}),
        version(base={**BASE, "uri": PINNED}),
    ),
    Case(
        "shareBase is for engine: VLLM",
        policy(serving={"shareBase": True}),
        policy(serving={"shareBase": True, "engine": "VLLM"}),
    ),
    Case(
        "sharedEngine is the engine of shareBase: true",
        policy(serving={"engine": "VLLM", "sharedEngine": {"maxRank": 16}}),
        policy(serving={"engine": "VLLM", "shareBase": True, "sharedEngine": {"maxRank": 16}}),
    ),
    Case("metadata.name must be at most 35 characters", policy("a" * 36), policy("a" * 35)),
    Case(
        "every suite that a gate names must be one of suites",
        policy(gates=[{**GATE, "suite": "shop-zh", "min": 0.5}]),
        policy(gates=[{**GATE, "suite": "shop-zh", "min": 0.5}], suites=["shop-en", "shop-zh"]),
    ),
    Case(
        "a gate on the suite of a judge model, NAME.judge or NAME.judge-pairs, needs one by people beside it",
        policy(gates=[{**GATE, "suite": "shop.judge", "min": 0.5}], suites=["shop.judge", "shop.people"]),
        policy(
            gates=[{**GATE, "suite": f"shop.{who}", "min": 0.5} for who in ("judge", "people")],
            suites=["shop.judge", "shop.people"],
        ),
    ),
    Case(
        "initialVersion begins with s3:// or oss:// and ends in '/'",
        policy(initialVersion=BASE["uri"][:-1]),
        policy(initialVersion=BASE["uri"]),
    ),
    Case(
        "a gate needs exactly one of min, max and maxRegression",
        policy(gates=[{**GATE, "min": 0.5, "max": 1}]),
        policy(gates=[{**GATE, "min": 0.5}, {**GATE, "max": 1}]),
    ),
    Case(
        "basis Paired compares with the stable version, so it needs maxRegression",
        policy(gates=[{**GATE, "min": 0.5, "basis": "Paired"}]),
        policy(gates=[{**GATE, "maxRegression": 0.05, "basis": "Paired"}]),
    ),
    *(
        Case(
            "limits must be at least the requests, or no pod would start; a limit that is left out is no limit",
            policy(**{part: {"resources": {"requests": {"memory": "2Gi"}, "limits": {"memory": "1Gi"}}}}),
            policy(**{part: {"resources": {"requests": {"memory": "2Gi"}}}}),
        )
        for part in ("evaluation", "serving")
    ),
    *(
        Case(
            "card is for engine: VLLM, whose GPUs are known to be needed; leave it out",
            policy(serving={"card": "H100"}),
            policy(serving=right),
        )
        for right in ({}, {"card": "H100", "engine": "VLLM"})
    ),
    Case(
        "url says where the engine of engine: URL is; give both, or neither",
        policy(serving={"engine": "URL"}),
        policy(serving={"engine": "URL", "url": {"address": "https://llm.example"}}),
    ),
    Case(
        "url says where the engine of engine: URL is; give both, or neither",
        policy(serving={"url": {"address": "https://llm.example"}}),
        policy(serving={}),
    ),
    *(
        Case(
            "model must tell versions apart, or a canary would compare a model with itself; put {digest} into it",
            policy(serving={"engine": "URL", "url": {"address": "https://llm.example", "model": "shop"}}),
            policy(serving={"engine": "URL", "url": {"address": "https://llm.example", "model": model}}),
        )
        for model in ("shop-{digest}", "{run}-{checkpoint}")
    ),
    *(
        Case(
            "llmInferenceService says what engine: LLMInferenceService is made of; give both, or neither",
            policy(serving=wrong),
            policy(serving=right),
        )
        for wrong, right in (
            ({"engine": "LLMInferenceService"}, {"engine": "LLMInferenceService", "llmInferenceService": {}}),
            ({"llmInferenceService": {}}, {}),
        )
    ),
    *(
        Case(words, policy(serving=engine(**wrong)), policy(serving=engine(**right)))
        for words, wrong, right in (
            (
                "worker is for an engine of several pods, and one of several needs it: give it with "
                "parallelism.pipeline above 1 or data at least twice dataLocal, or leave it out",
                {"worker": {}},
                {"worker": {}, "parallelism": {"pipeline": 2}},
            ),
            (
                "one of several needs it: give it with parallelism.pipeline above 1 or data at least twice dataLocal",
                {"parallelism": {"data": 4, "dataLocal": 2}},
                {"parallelism": {"data": 4, "dataLocal": 2}, "worker": {}},
            ),
            (
                "data and dataLocal need each other; give both, or neither",
                {"parallelism": {"data": 2}},
                {"parallelism": {"data": 2, "dataLocal": 2}},
            ),
            (
                "parallelism is by pipeline or by data; leave one of them out",
                {"parallelism": {"pipeline": 2, "data": 2, "dataLocal": 1}, "worker": {}},
                {"parallelism": {"pipeline": 2}, "worker": {}},
            ),
        )
    ),
    Case(
        "selection BestOf needs suite and metric, and Latest has neither",
        policy(selection={"type": "BestOf", "suite": "shop-en"}),
        policy(selection={"type": "BestOf", "suite": "shop-en", "metric": "score"}),
    ),
    Case(
        "the suite that selection names must be one of suites",
        policy(selection={"type": "BestOf", "suite": "shop-zh", "metric": "score"}),
        policy(selection={"type": "BestOf", "suite": "shop-en", "metric": "score"}),
    ),
    Case(
        "the suite that stopTraining names must be one of suites",
        policy(stopTraining={"when": "NoGain", "suite": "shop-zh", "metric": "score", "checkpoints": 3}),
        policy(stopTraining={"when": "NoGain", "suite": "shop-en", "metric": "score", "checkpoints": 3}),
    ),
    Case(
        "steps need weights that ascend, such as 10, 50, 100",
        policy(steps=[{"weight": 50}, {"weight": 10}]),
        policy(steps=[{"weight": 10}, {"weight": 50}, {"weight": 100}]),
    ),
    Case(
        "pathPrefix must begin with '/'",
        policy(traffic={"pathPrefix": "shop"}),
        policy(traffic={"pathPrefix": "/shop"}),
    ),
]
# What is there can't become the second, and the third is what the words say to make or set instead.
CHANGED = [
    (
        "a ModelVersion can't be changed; publish the other bytes under another name",
        version(),
        {**version()["spec"], "digest": "sha256:" + "f" * 64},
        version(name="shop/run-8/checkpoint-800", uri=SLASH.replace("run-7", "run-8"), digest="sha256:" + "f" * 64),
    ),
    (
        "model can't be changed; make another PromotionPolicy",
        policy(),
        policy(model="toys")["spec"],
        policy(model="toys"),
    ),
    (
        "policy and version can't be changed; make another Promotion",
        promotion(),
        promotion(version="shop-run-8")["spec"],
        promotion(version="shop-run-8"),
    ),
    (
        "abort was said and can't be taken back; make another Promotion",
        promotion(abort={"actor": "ada"}),
        promotion()["spec"],
        promotion(),
    ),
]


@pytest.mark.parametrize("case", CREATED, ids=lambda case: case.words)
def test_what_the_rule_says_is_taken(case: Case, api: Api) -> None:
    assert case.words in api.refuses(lambda: api.create(case.wrong))
    api.create(case.right)


@pytest.mark.parametrize(("words", "before", "changed", "another"), CHANGED, ids=[case[0] for case in CHANGED])
def test_what_can_not_be_changed_is_made_anew(
    words: str, before: Object, changed: Object, another: Object, api: Api
) -> None:
    api.create(before)
    assert words in api.refuses(lambda: api.change(before, spec=changed))
    api.create({**another, "metadata": {"name": "another"}})


def test_a_promotion_that_was_approved_is_stopped_by_an_abort(api: Api) -> None:
    approved = promotion(approval={"verdict": "Approved", "actor": "ada"})
    api.create(approved)
    other = promotion(approval={"verdict": "Rejected", "actor": "ada"})["spec"]
    assert "approval was given and can't be changed; to stop the promotion set abort" in api.refuses(
        lambda: api.change(approved, spec=other)
    )
    api.change(approved, spec={**approved["spec"], "abort": {"actor": "ada"}})


@pytest.mark.parametrize("is_labelled", [False, True], ids=["another's", "another's with our label"])
def test_a_route_that_another_controller_owns_is_left_to_it_and_told(shop: Shop, is_labelled: bool) -> None:
    kubectl = shop.server.kubectl
    kubectl("-n", shop.namespace, "create", "configmap", "their-controller")
    owner = json.loads(kubectl("-n", shop.namespace, "get", "configmap", "their-controller", "-o", "json").stdout)
    metadata = {
        "name": POLICY_NAME,
        "namespace": shop.namespace,
        "labels": {**MANAGED_BY, POLICY: POLICY_NAME} if is_labelled else {},
        "ownerReferences": [
            {"apiVersion": "v1", "kind": "ConfigMap", "name": "their-controller", "uid": owner["metadata"]["uid"]}
            | {"controller": True}
        ],
    }
    rules = [{"backendRefs": [{"name": "theirs", "port": 80}]}]
    route = {
        "apiVersion": kinds.HTTP_ROUTE.api_version,
        "kind": "HTTPRoute",
        "metadata": metadata,
        "spec": {"parentRefs": [{"name": "theirs"}], "rules": rules},
    }
    kubectl("create", "-f", "-", stdin=json.dumps(route))
    before = shop.get(kinds.HTTP_ROUTE, POLICY_NAME)
    shop.start_policy()
    shop.start_operator()
    told = shop.until_condition("Ready", "NameTaken")
    assert f"HTTPRoute {POLICY_NAME} is there and not tunegate's; rename or delete it" in told["message"]
    assert shop.get(kinds.HTTP_ROUTE, POLICY_NAME)["spec"] == before["spec"]
    kubectl("-n", shop.namespace, "delete", "httproute", POLICY_NAME)
    shop.until_serving()


def test_every_rule_has_its_case() -> None:
    told = [case.words for case in CREATED] + [words for words, *_ in CHANGED]
    told.append("approval was given and can't be changed; to stop the promotion set abort")
    schemas = [yaml.safe_load(path.read_text()) for path in sorted(OWN_CRDS.glob("*.yaml"))]
    assert [message for message in messages(schemas) if not any(words in message for words in told)] == []


def messages(schema: object) -> list[str]:
    """What the rules in a schema say."""
    if isinstance(schema, list):
        return [message for item in schema for message in messages(item)]
    if not isinstance(schema, dict):
        return []
    rules = schema.get("x-kubernetes-validations", [])
    found = [" ".join(rule["message"].split()) for rule in rules if isinstance(rule, dict) and "message" in rule]
    return found + [message for value in schema.values() for message in messages(value)]
