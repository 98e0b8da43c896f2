"""Let people judge what versions answered, from the command line."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tests.answering import Refusal, answering
from tests.builders import START
from tests.refusals import call, refused
from tests.unit.evaluation.builders import SUBJECTS, write_business, write_choice
from tests.unit.review.builders import make_mark
from tunegate.api.codec import from_json, to_json
from tunegate.api.evaluation import Evaluation, Metric, Record
from tunegate.api.versions import ModelVersion, Producer, Release
from tunegate.cli import root
from tunegate.evaluation import load_suite
from tunegate.review.items import Review
from tunegate.review.marks import MarkFile
from tunegate.store import Store
from tunegate.store.evaluations import find, save

ROWS = [
    {
        "id": f"q{n}",
        "messages": [{"role": "user", "content": f"Price {n}?"}],
        "rules": [{"kind": "contains", "any": ["$"]}],
    }
    for n in range(3)
]


def publish(store: Store, folder: Path, run: str) -> ModelVersion:
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(run.encode())
    name = f"shop/{run}/checkpoint-1"
    return store.publish(folder, name, release=Release(format="huggingface"), producer=Producer(kind="test"))


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    folder = write_business(tmp_path / "business", ROWS)
    with (folder / "suite.yaml").open("a") as file:
        file.write("criteria: [{name: correct}, {name: tone, points: 5}]\n")
    return folder


@pytest.fixture
def versions(store: Store, suite: Path, tmp_path: Path) -> list[ModelVersion]:
    loaded = load_suite(suite)
    found = []
    for run in ("stable", "candidate"):
        version = publish(store, tmp_path / run, run)
        records = tuple(
            Record(id=row["id"], prompt="", expected="", answer=f"{run} says ${n}", scores={"score": 1.0})
            for n, row in enumerate(ROWS)
        )
        evaluation = Evaluation(
            version=version.name,
            digest=version.digest,
            suite=loaded.name,
            suite_digest=loaded.digest,
            metrics=(Metric(name="score", value=1.0, n=3),),
            records=records,
            code_version="test",
            started=START,
            seconds=1.0,
        )
        save(store, evaluation)
        found.append(version)
    return found


def run(*words: str | Path) -> Result:
    return CliRunner().invoke(root, ["review", *map(str, words)])


def judge(folder: Path, reviewer: str, **values: int | str) -> None:
    review = from_json((folder / "review.json").read_bytes(), Review, "review.json")
    file = MarkFile(folder / "marks.jsonl")
    for digest in review.judged:
        for criterion, value in values.items():
            file.append(make_mark(digest, reviewer, criterion, value))
    file.close()


def test_what_people_said_is_kept_as_an_evaluation(
    store: Store, versions: list[ModelVersion], suite: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "review"
    made = run("create", folder, versions[1].name, "--suite", suite, "--share", "0")
    assert (made.exit_code, made.output) == (0, f"{folder}: 3 to judge.\nNext: tunegate review serve {folder}\n")
    incomplete = run("result", folder, "--save")
    assert "3 of 3 judgements of shop-test.people are missing" in str(incomplete.exception)
    judge(folder, "Li", correct=1, tone=5)

    printed = run("result", folder, "--save", "--json")
    assert printed.exit_code == 0
    kept = find(store, versions[1].digest, "shop-test.people")
    assert kept is not None
    assert json.loads(printed.output) == json.loads(to_json([kept]))
    assert [(metric.name, metric.value) for metric in kept.metrics] == [
        ("score", 1),
        ("correct", 1),
        ("tone", 1),
        ("tone_mean", 5),
    ]
    assert "score" in run("result", folder).output
    assert "agreement is not known" in run("result", folder).output
    assert "Comments" not in run("result", folder).output
    judge(folder, "Li", comment="Says [b]price[/b].")
    assert "Says [b]price[/b]." in run("result", folder).output


def test_pairs_of_two_versions(versions: list[ModelVersion], suite: Path, tmp_path: Path) -> None:
    names = [version.name for version in versions]
    assert run("create", tmp_path / "review", *names, "--suite", suite, "--pairs", "--share", "1").exit_code == 0
    judge(tmp_path / "review", "Li", correct="second", tone="tie")
    judge(tmp_path / "review", "Ana", correct="second", tone="tie")
    printed = run("result", tmp_path / "review").output
    assert "correct_wins" in printed
    assert "Cohen's kappa: Ana and Li - (n=3)" in printed


def test_a_review_goes_to_label_studio_and_comes_back(
    versions: list[ModelVersion], suite: Path, tmp_path: Path
) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    for folder in (here, there):
        assert run("create", folder, versions[0].name, "--suite", suite, "--share", "0").exit_code == 0
    judge(here, "Li", correct=1, tone=4, comment="fine")
    assert "3 tasks" in run("export", here).output

    exported = here / "label-studio.json"
    assert "9 new marks, 0 that were known" in run("import", there, exported, "--person", "1=Li").output
    assert "0 new marks, 9 that were known" in run("import", there, exported, "--person", "1=Li").output
    results = [json.loads(run("result", folder, "--json").output)[0] for folder in (here, there)]
    assert results[0]["metrics"] == results[1]["metrics"]
    assert results[0]["records"] == results[1]["records"]
    assert "is not NUMBER=NAME" in str(run("import", there, exported, "--person", "Li").exception)


def test_a_judge_model_is_asked_beside_people(
    store: Store, versions: list[ModelVersion], suite: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "review"
    assert (
        run("create", folder, *(v.name for v in versions), "--suite", suite, "--pairs", "--share", "0").exit_code == 0
    )
    judge(folder, "Li", correct="second", tone="tie")
    marks = (folder / "marks.jsonl").read_bytes()

    def likes_the_candidate(question: str) -> str:
        return "[[A]]" if "candidate" in question.partition("Answer A")[2].partition("Answer B")[0] else "[[B]]"

    with answering(likes_the_candidate) as (url, asked):
        call("review", "judge", folder, "--url", url)
        printed = call("review", "judge", folder, "--url", url, "--save")
        assert len(asked) == 12, "three questions, two criteria, both orders, and the second command asks nothing"
        told = json.loads(call("review", "judge", folder, "--url", url, "--json"))
    assert "shop-test.judge-pairs" in printed
    assert "correct by the model shop: Cohen's kappa with people" in printed
    assert [account["model"] for account in told["accounts"]] == ["shop", "shop"]
    kept = find(store, versions[1].digest, "shop-test.judge-pairs")
    assert kept is not None
    assert (kept.settings, kept.metric("correct_wins").value) == ("judge shop", 1)  # type: ignore[union-attr]
    assert find(store, versions[1].digest, "shop-test.pairs") is None, "it is never a result of people"
    assert (folder / "marks.jsonl").read_bytes() == marks
    assert "tone by the model shop: Cohen's kappa with people" in run("result", folder).output


def test_replies_that_a_judge_owes_are_had_as_the_messages_say(
    versions: list[ModelVersion], suite: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "review"
    call("review", "create", folder, versions[0].name, "--suite", suite)

    def refuses_the_first(question: str) -> str:
        if "Price 0?" in question:
            raise Refusal("No.")
        return "[[4]]" if "[[5]]" in question else "[[yes]]"

    with answering(refuses_the_first) as (url, _), refused(" Then run the same command again.") as caught:
        call("review", "judge", folder, "--url", url)
    assert "2 questions have no reply" in str(caught.value)
    with answering(lambda question: "Well.") as (url, _):
        unread = run("judge", folder, "--url", url)
    assert "2 replies hold no verdict, or several:\n  q0, correct: 'Well.'" in unread.output
    assert "there is no result of it yet" in str(unread.exception)
    judge(folder, "Li", correct=1, tone=4)
    judge(folder, "Ana", correct=1, tone=4)
    assert "correct by the model shop: Cohen's kappa" in run("result", folder).output
    with answering(lambda question: "[[4]]" if "[[5]]" in question else "[[yes]]") as (url, asked):
        call("review", "judge", folder, "--url", url)
        assert len(asked) == 2


def test_a_judge_without_a_verdict_is_said_to_have_none(
    versions: list[ModelVersion], suite: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "review"
    call("review", "create", folder, *(v.name for v in versions), "--suite", suite, "--pairs", "--share", "0")
    judge(folder, "Li", correct="first", tone="tie")
    with answering(lambda question: "Well.") as (url, _):
        unread = run("judge", folder, "--url", url).output
    assert "q0, correct: 'Well.'" in unread
    assert "q0, correct, sides changed: 'Well.'" in unread
    assert "correct by the model shop: no verdict yet." in run("result", folder).output


def test_what_can_not_be_judged_is_refused_with_the_remedy(
    store: Store, versions: list[ModelVersion], suite: Path, tmp_path: Path
) -> None:
    other = publish(store, tmp_path / "other", "other")
    missing = run("create", tmp_path / "review", other.name, "--suite", suite)
    assert f"run: tunegate evaluate {other.name} --suite {suite}" in str(missing.exception)
    limited = run("create", tmp_path / "review", versions[0].name, "--suite", suite, "--limit", "1")
    assert "was asked other questions" in str(limited.exception)
    choice = write_choice(tmp_path / "choice", SUBJECTS)
    chosen = run("create", tmp_path / "review", versions[0].name, "--suite", choice)
    assert "multiple choice" in str(chosen.exception)
    assert "There is no review in" in str(run("serve", tmp_path / "review").exception)


def test_a_review_is_made_as_the_messages_say(
    store: Store, versions: list[ModelVersion], suite: Path, base: Path, tmp_path: Path
) -> None:
    """Their commands are run as they stand; answers that are missing are given by a real model."""
    folder = tmp_path / "a review"
    with refused("There is no review in ") as caught:
        call("review", "export", folder)
    named = {"VERSION...": versions[0].name, "SUITE": suite}
    command = shlex.split(str(caught.value).partition("make one with: ")[2])
    call(*[named.get(word, word) for word in command[1:]])
    call("review", "export", folder)
    with refused("which nobody needs to judge; name a suite of kind business"):
        call("review", "create", folder, versions[0].name, "--suite", write_choice(tmp_path / "choice", SUBJECTS))
    producer, release = Producer(kind="test"), Release(format="huggingface")
    other = store.publish(base, "shop/other/checkpoint-1", release=release, producer=producer)
    create = ("review", "create", folder, other.name, "--suite", suite)
    with refused(" yet; run: tunegate evaluate ") as caught:
        call(*create)
    call(*shlex.split(str(caught.value).partition("run: ")[2])[1:])
    call(*create)


def test_what_people_said_is_taken_and_kept_as_the_messages_say(
    store: Store, versions: list[ModelVersion], suite: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "review"
    call("review", "create", folder, versions[0].name, "--suite", suite, "--share", "0")
    judge(folder, "Li", correct=1, tone=4)
    call("review", "export", folder)
    with refused(" is not NUMBER=NAME or EMAIL=NAME."):
        call("review", "import", folder, folder / "label-studio.json", "--person", "Li")
    for person in ("1=Li", "li@shop.example=Li"):
        call("review", "import", folder, folder / "label-studio.json", "--person", person)
    monkeypatch.delenv("TUNEGATE_STORE")
    with refused("--save wants a store; name it with --store or "):
        call("review", "result", folder, "--save")
    call("review", "result", folder, "--save", "--store", store.uri)
    monkeypatch.setenv("TUNEGATE_STORE", store.uri)
    call("review", "result", folder, "--save")
    assert find(store, versions[0].digest, "shop-test.people") is not None
