"""The custom resources on a real API server: what it takes, what it refuses and with which words, what it shows."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
from kubernetes.client import ApiClient, ApiException

from tests.apiserver import ApiServer, call
from tunegate_operator.resources import ClusterPolicy, read_attempt, read_policy, read_version

pytestmark = pytest.mark.usefixtures("tunegate_crds")

Object = dict[str, Any]
HEX = "0123456789abcdef" * 4
PLURALS = {"ModelVersion": "modelversions", "PromotionPolicy": "promotionpolicies", "Promotion": "promotions"}


def version(**changes: Any) -> Object:
    spec = {
        "model": "shop",
        "name": "shop/run-7/checkpoint-800",
        "uri": "s3://models/shop/run-7/checkpoint-800/",
        "digest": f"sha256:{HEX}",
        "format": "huggingface",
        "created": "2026-01-02T03:04:05Z",
    }
    return make("ModelVersion", "shop-run-7-0123456789ab", spec, changes)


def policy(name: str = "shop", **changes: Any) -> Object:
    spec = {
        "model": "shop",
        "initialVersion": "s3://models/shop/base/checkpoint-0/",
        "suites": ["shop-en"],
        "gates": [{"suite": "shop-en", "metric": "score", "min": 0.5}],
        "steps": [{"weight": 10}, {"weight": 50}],
    }
    return make("PromotionPolicy", name, spec, changes)


def promotion(**changes: Any) -> Object:
    spec = {"policy": "shop", "version": "shop-run-7-0123456789ab"}
    return make("Promotion", "shop-run-7-0123456789ab", spec, changes)


def make(kind: str, name: str, spec: Object, changes: Object) -> Object:
    """`changes` replace fields of the spec; None takes one away."""
    spec = {key: value for key, value in (spec | changes).items() if value is not None}
    return {"apiVersion": "tunegate.io/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec}


@pytest.fixture
def api(client: ApiClient, namespace: str) -> Api:
    return Api(client, namespace)


class Api:
    """One namespace of the API server, strict about fields it does not know."""

    def __init__(self, client: ApiClient, namespace: str) -> None:
        self._client, self._namespace = client, namespace

    def _path(self, obj: Object, *more: str) -> str:
        return "/".join(("/apis/tunegate.io/v1alpha1/namespaces", self._namespace, PLURALS[obj["kind"]], *more))

    def create(self, obj: Object) -> Object:
        return call(self._client, "POST", self._path(obj), obj, query={"fieldValidation": "Strict"})

    def get(self, obj: Object) -> Object:
        return call(self._client, "GET", self._path(obj, obj["metadata"]["name"]))

    def change(self, obj: Object, subresource: str = "", **parts: Any) -> Object:
        """Replace parts of the object as it is now."""
        new = self.get(obj) | parts
        more = (obj["metadata"]["name"], *([subresource] if subresource else []))
        return call(self._client, "PUT", self._path(obj, *more), new, query={"fieldValidation": "Strict"})

    def apply(self, obj: Object, manager: str, subresource: str = "", force: bool = False) -> Object:
        more = (obj["metadata"]["name"], *([subresource] if subresource else []))
        query = {"fieldManager": manager, "fieldValidation": "Strict", "force": json.dumps(force)}
        return call(self._client, "PATCH", self._path(obj, *more), obj, query=query)

    def refuses(self, act: Callable[[], object]) -> str:
        """The words of the refusal."""
        with pytest.raises(ApiException) as caught:
            act()
        answer = json.loads(caught.value.body)
        assert answer["reason"] in ("Invalid", "BadRequest", "Conflict"), answer
        return str(answer["message"])


GATE = {"suite": "shop-en", "metric": "score"}
BASE = {"uri": "s3://models/shop/base/checkpoint-0/", "digest": f"sha256:{HEX}"}

ACCEPTED = [
    pytest.param(version(), id="version"),
    pytest.param(version(uri="oss://b/prefix/shop/run-7/checkpoint-800/"), id="version-in-oss-under-a-prefix"),
    pytest.param(version(format="lora-adapter", base=BASE), id="adapter-with-base"),
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
    pytest.param(policy("a" * 40), id="policy-with-the-longest-name"),
    pytest.param(policy(steps=[{"weight": 100}]), id="one-step"),
    pytest.param(policy(gates=[]), id="no-gates"),
    pytest.param(policy(gates=[{**GATE, "max": 1}]), id="gate-max"),
    pytest.param(policy(gates=[{**GATE, "maxRegression": 0}]), id="gate-max-regression-zero"),
    pytest.param(policy(gates=[{**GATE, "min": -1e300}]), id="gate-far-away"),
    pytest.param(policy(initialVersion="oss://models/base/"), id="initial-version-in-oss"),
    pytest.param(policy(traffic={"pathPrefix": "/shop/v2"}), id="path-prefix"),
    pytest.param(policy(traffic={"gateway": {"name": "public"}}), id="gateway"),
    pytest.param(policy(traffic={"hostnames": ["shop.example.com", "*.example.com"]}), id="hostnames"),
    pytest.param(
        policy(
            serving={
                "replicas": 2,
                "engine": "VLLM",
                "resources": {
                    "requests": {"cpu": 1, "memory": "1.5Gi"},
                    "limits": {"nvidia.com/gpu": 1, "cpu": "500m"},
                },
                "nodeSelector": {"pool": "gpu"},
                "tolerations": [{"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}],
            },
            evaluation={"limit": 50, "tolerations": [{"key": "k", "value": "v", "tolerationSeconds": 60}]},
        ),
        id="pods",
    ),
    pytest.param(promotion(), id="promotion"),
    pytest.param(promotion(approval={"verdict": "Approved", "actor": "jan"}), id="promotion-with-approval"),
    pytest.param(promotion(abort={"actor": "jan", "message": "no"}), id="promotion-with-abort"),
]


@pytest.mark.parametrize("obj", ACCEPTED)
def test_it_is_accepted_and_can_be_read(api: Api, obj: Object) -> None:
    made = api.create(obj)
    read = {"ModelVersion": read_version, "PromotionPolicy": read_policy, "Promotion": lambda o: read_attempt(o, {})}
    read[obj["kind"]](made)


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
    pytest.param(version(format="gguf"), '"huggingface", "lora-adapter"', id="version-format"),
    pytest.param(version(format="lora-adapter"), "a lora-adapter needs base", id="adapter-without-base"),
    pytest.param(
        version(base={**BASE, "uri": "s3://models/shop/base/checkpoint-0"}),
        "a folder in the store begins with s3:// or oss:// and ends in '/'",
        id="version-base-without-slash",
    ),
    pytest.param(version(base={**BASE, "digest": HEX}), "spec.base.digest", id="version-base-digest"),
    pytest.param(version(model="Shop", name="Shop/run-7/checkpoint-800"), "spec.model", id="version-model-in-capitals"),
    pytest.param(policy(model="shop/en"), "spec.model", id="policy-model-with-a-slash"),
    pytest.param(version(created="yesterday"), "spec.created", id="version-created"),
    pytest.param(version(producer={"run": "x"}), "spec.producer.kind", id="producer-without-kind"),
    pytest.param(version(storageUri="s3://models/"), 'unknown field "spec.storageUri"', id="version-unknown-field"),
    pytest.param(policy("a" * 41), "metadata.name must be at most 40 characters", id="policy-name-long"),
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
    pytest.param(gate(), "a gate needs exactly one of min, max and maxRegression", id="gate-without-bound"),
    pytest.param(gate(min=0.1, max=1), "a gate needs exactly one of min, max and maxRegression", id="gate-two-bounds"),
    pytest.param(gate(maxRegression=-1), "greater than or equal to 0", id="gate-negative-regression"),
    pytest.param(policy(gates=[{**GATE, "minimum": 1}]), 'unknown field "spec.gates[0].minimum"', id="gate-misspelt"),
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
    pytest.param(policy(evaluation={"limit": 0}), "greater than or equal to 1", id="limit-zero"),
    *(
        pytest.param(
            policy(**{pods: {"resources": {part: {"memory": "2GB"}}}}),
            f"spec.{pods}.resources.{part}.memory",
            id=f"{pods}-{part}-misspelt",
        )
        for pods in ("evaluation", "serving")
        for part in ("requests", "limits")
    ),
    pytest.param(policy(serving={"tolerations": [{"effect": "Never"}]}), '"NoSchedule"', id="toleration-effect"),
    pytest.param(policy(traffic={"gateway": {}}), "traffic.gateway.name: Required", id="gateway-without-name"),
    pytest.param(policy(traffic={"gateway": {"name": ""}}), "at least 1 chars", id="gateway-with-empty-name"),
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
    assert made["spec"]["feedback"] == {"alpha": 0.05, "margin": 0.1, "minVerdicts": 10}
    assert made["spec"]["traffic"] == {"pathPrefix": "/"}
    nested = {"gateway", "hostnames", "limit", "resources", "nodeSelector", "tolerations"}
    names = {field.encode_name for field in fields_of(ClusterPolicy)} - nested
    assert made["spec"].keys() == names


def fields_of(kind: Any) -> Any:
    from msgspec.structs import fields

    return fields(kind)


VERSION = version()["spec"]
STATUS = {
    "ModelVersion": {
        "phase": "Evaluated",
        "evaluations": [
            {
                "suite": "shop-en",
                "suiteDigest": "sha256:1",
                "time": "2026-01-02T03:04:05Z",
                "metrics": [{"name": "score", "value": 0.75, "stderr": 0.125, "n": 10, "higherIsBetter": True}],
                "failures": 0,
                "message": "",
            }
        ],
    },
    "PromotionPolicy": {
        "phase": "Serving",
        "stable": VERSION,
        "initial": VERSION,
        "url": "http://shop.example.com/",
        "weights": [{"version": HEX[:12], "name": VERSION["name"], "weight": 100}],
        "promotion": "shop-run-7-0123456789ab",
    },
    "Promotion": {
        "phase": "RolledBack",
        "candidate": VERSION,
        "stable": VERSION,
        "step": 1,
        "weight": 0,
        "canaryStarted": "2026-01-02T03:04:05Z",
        "gates": [
            {
                "suite": "shop-en",
                "metric": "score",
                "bound": "maxRegression",
                "threshold": 0.1,
                "passed": True,
                "observed": 0.5,
                "stderr": 0.25,
                "n": 10,
                "stable": 0.5,
                "message": "m",
            }
        ],
        "comparison": {
            "outcome": "Worse",
            "candidate": {"up": 1, "down": 9},
            "stable": {"up": 9, "down": 1},
            "evidenceWorse": 1e300,
            "evidenceNotWorse": 1e-300,
            "threshold": 20,
            "answersNeeded": 7,
            "message": "m",
        },
        "decision": {
            "outcome": "RolledBack",
            "reason": "FeedbackWorse",
            "message": "m",
            "time": "2026-01-02T03:04:05.678901Z",
            "actor": "tunegate",
        },
        "history": [{"phase": "Verifying", "time": "2026-01-02T03:04:05Z", "reason": "Started", "message": "m"}],
    },
}
CONDITION = {
    "type": "Ready",
    "status": "True",
    "reason": "Serving",
    "message": "it answers",
    "observedGeneration": 1,
    "lastTransitionTime": "2026-01-02T03:04:05Z",
}
KINDS = [pytest.param(make, id=make.__name__) for make in (version, policy, promotion)]


@pytest.mark.parametrize("make", KINDS)
def test_a_whole_status_comes_back_as_it_was_written(api: Api, make: Callable[[], Object]) -> None:
    """Else the operator would find a difference, and write it again, for ever."""
    obj = make()
    api.create(obj)
    status = {**STATUS[obj["kind"]], "conditions": [CONDITION], "observedGeneration": 1}
    assert api.change(obj, "status", status=status)["status"] == status


@pytest.mark.parametrize("make", KINDS)
def test_spec_and_status_are_written_apart(api: Api, make: Callable[[], Object]) -> None:
    obj = make()
    made = api.create(obj | {"status": {"phase": "Pending"}})
    assert "status" not in made
    other = {**made["spec"], "policy" if make is promotion else "model": "other"}
    changed = api.change(obj, "status", status={"phase": "Pending"}, spec=other)
    assert (changed["spec"], changed["status"]["phase"]) == (made["spec"], "Pending")
    assert changed["metadata"]["generation"] == 1
    assert api.change(obj, status={"phase": "Stalled"})["status"]["phase"] == "Pending"


def test_null_is_absence(api: Api) -> None:
    """The JSON of our types writes null for what is not known; the API server takes it, and keeps nothing."""
    obj = promotion()
    api.create(obj)
    unknown = copy.deepcopy(STATUS["Promotion"])
    unknown["gates"][0] |= {"passed": None, "observed": None}
    unknown["comparison"]["candidate"] = None
    status = api.change(obj, "status", status=unknown)["status"]
    assert {"passed", "observed"} & status["gates"][0].keys() == set()
    assert "candidate" not in status["comparison"]
    assert read_attempt(api.get(obj), {}).promotion is not None
    gate = {**GATE, "min": 0.5, "max": None, "maxRegression": None}
    assert api.create(policy(gates=[gate]))["spec"]["gates"] == [{**GATE, "min": 0.5}]


@pytest.mark.parametrize(
    ("make", "status", "words"),
    [
        pytest.param(policy, {"phase": "Fine"}, '"Pending", "Serving"', id="policy-phase"),
        pytest.param(promotion, {"phase": "Serving"}, '"Pending", "Verifying"', id="promotion-phase"),
        pytest.param(version, {"phase": "Rejected"}, '"Pending", "Verified"', id="version-phase"),
        pytest.param(promotion, {"weight": 101}, "less than or equal to 100", id="weight"),
        pytest.param(policy, {"conditions": [CONDITION, CONDITION]}, "Duplicate value", id="condition-twice"),
        pytest.param(policy, {"conditions": [{"type": "Ready"}]}, "Required value", id="condition-without-status"),
        pytest.param(promotion, {"reason": "x"}, "unknown field", id="unknown-field"),
    ],
)
def test_a_wrong_status_is_refused(api: Api, make: Callable[[], Object], status: Object, words: str) -> None:
    obj = make()
    api.create(obj)
    assert words in api.refuses(lambda: api.change(obj, "status", status=status))


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


COLUMNS = [
    pytest.param(
        version,
        "mv",
        {
            "MODEL": "shop",
            "VERSION": "shop/run-7/checkpoint-800",
            "FORMAT": "huggingface",
            "PHASE": "Evaluated",
            "DIGEST": f"sha256:{HEX}",
            "URI": "s3://models/shop/run-7/checkpoint-800/",
        },
        id="version",
    ),
    pytest.param(
        policy,
        "pp",
        {
            "MODEL": "shop",
            "PHASE": "Serving",
            "STABLE": "shop/run-7/checkpoint-800",
            "PROMOTION": "shop-run-7-0123456789ab",
            "READY": "True",
            "REASON": "Serving",
            "URL": "http://shop.example.com/",
        },
        id="policy",
    ),
    pytest.param(
        promotion,
        "promo",
        {
            "POLICY": "shop",
            "CANDIDATE": "shop/run-7/checkpoint-800",
            "PHASE": "RolledBack",
            "WEIGHT": "0",
            "REASON": "FeedbackWorse",
            "STABLE": "shop/run-7/checkpoint-800",
        },
        id="promotion",
    ),
]


@pytest.mark.parametrize(("make", "short", "wanted"), COLUMNS)
def test_kubectl_shows_what_a_person_looks_for(
    api: Api, api_server: ApiServer, namespace: str, make: Callable[[], Object], short: str, wanted: dict[str, str]
) -> None:
    obj = make()
    api.create(obj)
    api.change(obj, "status", status={**STATUS[obj["kind"]], "conditions": [CONDITION]})
    table = api_server.kubectl("get", short, "--namespace", namespace, "--output", "wide").stdout
    head, row = table.splitlines()
    shown = {name: row[head.index(name) :].split()[0] for name in head.split()}
    assert wanted.items() <= shown.items()
    assert shown["NAME"] == obj["metadata"]["name"]


def test_one_word_lists_all_kinds(api: Api, api_server: ApiServer, namespace: str) -> None:
    for obj in (version(), policy(), promotion()):
        api.create(obj)
    listed = api_server.kubectl("get", "tunegate", "--namespace", namespace, "--output", "name").stdout.split()
    assert sorted(listed) == [
        "modelversion.tunegate.io/shop-run-7-0123456789ab",
        "promotion.tunegate.io/shop-run-7-0123456789ab",
        "promotionpolicy.tunegate.io/shop",
    ]


@pytest.mark.parametrize(
    ("field", "words"),
    [
        ("modelversion.spec.digest", "the identity of the version"),
        ("promotionpolicy.spec.gates.maxRegression", "How much worse than the stable version the candidate may be"),
        ("promotionpolicy.spec.approval", "ENUM: Automatic Manual"),
        ("promotion.status.weight", "as observed, not as wished"),
    ],
)
def test_kubectl_explains_a_field(api_server: ApiServer, field: str, words: str) -> None:
    assert words in " ".join(api_server.kubectl("explain", field).stdout.split())
