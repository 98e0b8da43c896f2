"""One file of a policy, for a cluster and for a laptop."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from tests.builders import make_policy
from tunegate.api.errors import UsageError
from tunegate.api.policy import Gate, Selection, StopTraining, read_policy_file, write_policy_file

PIPELINES = Path(__file__).parents[3] / "pipelines"
SPEC = msgspec.yaml.encode(make_policy()).decode()
HEAD = "apiVersion: tunegate.io/v1alpha1\nkind: PromotionPolicy\nmetadata: {name: shop}\nspec:\n"


def indented(text: str) -> str:
    return "".join(f"  {line}\n" for line in text.splitlines())


def test_the_policy_that_is_applied_to_a_cluster_is_read() -> None:
    policy = read_policy_file((PIPELINES / "20-policy.yaml").read_bytes(), "20-policy.yaml")
    assert (policy.model, policy.candidates) == ("shop", "FinishedRuns")


def test_what_a_cluster_adds_to_an_object_is_no_fault() -> None:
    more = HEAD.replace("{name: shop}", "{name: shop, uid: '7', labels: {a: b}}")
    read = read_policy_file(f"{more}{indented(SPEC)}status: {{phase: Serving}}\n".encode(), "f")
    assert read.model == "shop"


WRITTEN = write_policy_file(make_policy())
JSON = msgspec.json.encode(msgspec.yaml.decode(WRITTEN))
SECRET = b"---\napiVersion: v1\nkind: Secret\nmetadata: {name: keys}\n"


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(JSON, id="JSON"),
        pytest.param(msgspec.json.format(JSON, indent=4).replace(b"    ", b"\t"), id="JSON with tabs"),
        pytest.param(b"\xef\xbb\xbf" + WRITTEN, id="a byte order mark"),
        pytest.param(WRITTEN.replace(b"\n", b"\r\n"), id="lines of Windows"),
        pytest.param(WRITTEN.decode().encode("utf-16"), id="UTF-16"),
        pytest.param(b"# ours\n---\n" + WRITTEN + b"---\n", id="an empty document after it"),
        pytest.param(WRITTEN + SECRET, id="another object beside it"),
        pytest.param(b'{"kind": "List", "apiVersion": "v1", "items": [' + JSON + b"]}", id="a List"),
    ],
)
def test_what_kubectl_takes_is_read_alike(text: bytes) -> None:
    assert read_policy_file(text, "f") == read_policy_file(WRITTEN, "f")


def test_a_policy_comes_back_as_it_was_written() -> None:
    written = read_policy_file(write_policy_file(make_policy()), "f")
    assert all(getattr(written, name) == value for name, value in msgspec.structs.asdict(make_policy()).items())


def test_a_bare_spec_is_refused_with_the_three_lines_to_add() -> None:
    with pytest.raises(UsageError) as refused:
        read_policy_file(SPEC.encode(), "policy.yaml")
    added = str(refused.value).splitlines()[1:]
    assert len(added) == 3
    assert read_policy_file("\n".join([*added, "spec:", indented(SPEC)]).encode(), "f").model == "shop"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        pytest.param("model: [", "not a valid PromotionPolicy", id="no-yaml"),
        pytest.param("", "not a valid PromotionPolicy", id="empty"),
        pytest.param(HEAD + indented(SPEC + "suspendd: true"), "suspendd", id="unknown-field"),
        pytest.param(HEAD.replace("PromotionPolicy", "Promotion") + indented(SPEC), "kind", id="another-kind"),
        pytest.param(SECRET.decode(), "apiVersion", id="no-policy-among-others"),
        pytest.param("[model]\nname = 'shop'\n", "not a valid PromotionPolicy", id="TOML"),
        pytest.param("when: 2026-99-99\n", "not a valid PromotionPolicy", id="no-date"),
        pytest.param("[" * 5000, "not a valid PromotionPolicy", id="nested-too-deeply"),
        pytest.param(HEAD.replace("v1alpha1", "v7") + indented(SPEC), "apiVersion", id="another-version"),
        pytest.param(HEAD + indented(SPEC.replace("model: shop", "model: ''")), "model", id="no-model"),
    ],
)
def test_a_file_that_is_no_policy_is_refused_by_field(text: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        read_policy_file(text.encode(), "policy.yaml")


@pytest.mark.parametrize("beside", ["tone.people", "tone.pairs"])
@pytest.mark.parametrize("judge", ["tone.judge", "tone.judge-pairs"])
def test_a_gate_by_a_judge_model_alone_is_refused(judge: str, beside: str) -> None:
    gate = Gate(suite=judge, metric="score", min=0.5)
    others = Gate(suite="other.people", metric="score", min=0.5)
    with pytest.raises(ValueError, match=rf"gate on {judge} reads a judge model alone.*tone.people or tone.pairs"):
        make_policy(suites=(judge, "other.people"), gates=(gate, others))
    by_people = msgspec.structs.replace(gate, suite=beside)
    assert make_policy(suites=(judge, beside), gates=(gate, by_people)).gates[0] == gate
    assert make_policy(suites=(judge,), gates=()).suites == (judge,)


@pytest.mark.parametrize(
    ("field", "asks"),
    [
        ("selection", Selection(type="BestOf", suite="tone.judge-pairs", metric="preference")),
        ("stop_training", StopTraining(when="NoGain", suite="tone.judge-pairs", metric="preference")),
    ],
)
def test_no_run_is_chosen_from_or_stopped_by_a_judge_model_alone(field: str, asks: Selection | StopTraining) -> None:
    suites = ("tone.judge-pairs", "tone.pairs")
    with pytest.raises(
        ValueError, match=r"tone.judge-pairs, a judge model alone; name a suite that people or rules decide"
    ):
        make_policy(suites=suites, gates=(), **{field: asks})
    by_people = msgspec.structs.replace(asks, suite="tone.pairs")
    assert getattr(make_policy(suites=suites, gates=(), **{field: by_people}), field) == by_people
