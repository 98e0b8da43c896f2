"""The status of our custom resources on a real API server: how it is written, and what kubectl shows of it."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest

from tests.apiserver import ApiServer
from tests.operator.objects import CONDITION, GATE, HEX, KINDS, STATUS, Api, Object, policy, promotion, version
from tunegate_operator.types import read_promotion

pytestmark = pytest.mark.usefixtures("tunegate_crds")


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
    assert read_promotion(api.get(obj), None) is not None
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
        ("promotion.status.weight", "as observed, not as desired"),
    ],
)
def test_kubectl_explains_a_field(api_server: ApiServer, field: str, words: str) -> None:
    assert words in " ".join(api_server.kubectl("explain", field).stdout.split())
