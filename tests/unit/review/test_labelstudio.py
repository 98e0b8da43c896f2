"""Reviews as Label Studio's tasks, and its exports as marks."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from tests.builders import START
from tests.unit.review.builders import build_review, make_mark
from tunegate.api.errors import DataError
from tunegate.corpus.queue import to_review
from tunegate.corpus.records import Origin, Rejected
from tunegate.evaluation.criteria import Criterion
from tunegate.review.decisions import take
from tunegate.review.items import Review
from tunegate.review.labelstudio import Said, configuration, news, read_marks, tasks
from tunegate.review.marks import Marks, latest

LATER = START + timedelta(hours=1)
PAIRS = (Criterion(name="verdict"), Criterion(name="better"))
# What its editor writes, also for Pairwise, whose `to_name` its own SDK refuses.
GOLDEN = """[{"data":{"item":"DIGEST","question":"送长辈茶叶？","answer_a":"…","answer_b":"…"},
 "annotations":[{"id":7,"completed_by":1,"was_cancelled":false,"lead_time":14.2,"result":[
  {"id":"r1","from_name":"verdict","to_name":"question","type":"choices","value":{"choices":["A"]}},
  {"id":"r2","from_name":"score_a","to_name":"answer_a","type":"rating","value":{"rating":4}},
  {"id":"r3","from_name":"better","to_name":"better","type":"pairwise","value":{"selected":"left"}},
  {"id":"r4","from_name":"comment","to_name":"question","type":"textarea","value":{"text":["更具体"]}}]},
  {"id":8,"completed_by":2,"was_cancelled":true,"result":[]}],
 "predictions":[{"model_version":"judge-1","score":0.8,"result":[{"id":"p1","from_name":"verdict","to_name":"question",
  "type":"choices","value":{"choices":["B"]}}]}]}]"""


def imported(review: Review, export: bytes, names: dict[str, str] | None = None) -> Said:
    return read_marks(review, export, LATER, "export.json", names or {})


def judged(review: Review) -> Marks:
    """What two people said, of every item a little."""
    verdicts = ("first", "second", "tie", "both_bad")
    marks = []
    for number, digest in enumerate(review.judged):
        for person in ("Ana", "Li"):
            for criterion in review.criteria:
                value = verdicts[number % 4] if review.mode == "pairs" else criterion.values[number % criterion.points]
                marks.append(make_mark(digest, person, criterion.name, value))
        marks.append(make_mark(digest, "Li", "comment", f"two\nlines: {number}"))
    return latest(marks)


@pytest.mark.parametrize("review", [build_review(), build_review("pairs", versions=3)], ids=["single", "pairs"])
def test_a_review_goes_there_and_comes_back(review: Review) -> None:
    marks = judged(review)
    exported = json.dumps(tasks(review, marks)).encode()
    back = imported(review, exported, {"1": "Ana", "2": "Li"}).marks

    assert {key: mark.value for key, mark in latest(back).items()} == {key: mark.value for key, mark in marks.items()}
    assert sum(mark.seconds for mark in back) == pytest.approx(sum(mark.seconds for mark in marks.values()), abs=0.1)
    assert news(marks, back) == []
    assert news({}, back) == back
    assert news(latest(back), imported(review, exported, {"1": "Ana", "2": "Li"}).marks) == []


@pytest.mark.parametrize("review", [build_review(), build_review("pairs", versions=3)], ids=["single", "pairs"])
def test_its_own_sdk_takes_what_is_exported_and_what_it_writes_comes_back(review: Review) -> None:
    interface = pytest.importorskip("label_studio_sdk.label_interface")
    objects = pytest.importorskip("label_studio_sdk.label_interface.objects")
    marks = judged(review)
    exported = tasks(review, marks)
    project = interface.LabelInterface(configuration(review))
    project.validate()
    for task in exported:
        assert project.validate_task({"data": task["data"]})
        for region in (region for annotation in task["annotations"] for region in annotation["result"]):
            assert project.validate_region(region), region

    written = [objects.TaskValue.model_validate(task).model_dump(mode="json") for task in exported]
    back = imported(review, json.dumps(written).encode(), {"1": "Ana", "2": "Li"}).marks
    assert {key: mark.value for key, mark in latest(back).items()} == {key: mark.value for key, mark in marks.items()}
    assert news(marks, back) == []


def test_its_own_sdk_refuses_what_the_review_does_too() -> None:
    interface = pytest.importorskip("label_studio_sdk.label_interface")
    review = build_review()
    project = interface.LabelInterface(configuration(review))
    region = {"id": "r", "from_name": "tone", "to_name": "question", "type": "rating", "value": {"rating": 9}}
    assert not project.validate_region(region)
    task = {**tasks(review, {})[0], "annotations": [{"completed_by": 1, "result": [region]}]}
    with pytest.raises(DataError, match="gives tone 9"):
        imported(review, json.dumps([task]).encode())


def test_tasks_say_no_version_and_have_what_the_configuration_names() -> None:
    review = build_review("pairs", versions=2)
    exported = json.dumps(tasks(review, judged(review)))
    assert not any(version.name in exported or version.digest in exported for version in review.versions)
    view = ElementTree.fromstring(configuration(review))  # noqa: S314 - our own
    shown = {text.attrib["value"].removeprefix("$") for text in view.iter("Text")}
    assert shown <= set(tasks(review, {})[0]["data"])
    controls = {control.attrib["name"] for kind in ("Choices", "Rating", "TextArea") for control in view.iter(kind)}
    assert controls == {"correct", "tone", "comment"}
    assert {choice.attrib["value"] for choice in view.iter("Choice")} == {"A", "B", "tie", "both_bad"}


def test_what_its_editor_writes_is_read() -> None:
    review = build_review("pairs", versions=2, questions=1, criteria=PAIRS)
    (digest,) = review.judged
    found = imported(review, GOLDEN.replace("DIGEST", digest).encode()).marks

    said = {(mark.reviewer, mark.criterion): mark.value for mark in found}
    assert said == {
        ("Label Studio 1", "verdict"): "first",
        ("Label Studio 1", "better"): "first",
        ("Label Studio 1", "comment"): "更具体",
    }
    assert sum(mark.seconds for mark in found) == pytest.approx(14.2, abs=0.01)
    addressed = GOLDEN.replace("DIGEST", digest).replace(
        '"completed_by":1', '"completed_by":{"id":1,"email":"li@shop.example"}'
    )
    assert imported(review, addressed.encode()).marks[0].reviewer == "li@shop.example"
    assert imported(review, addressed.encode(), {"li@shop.example": "Li"}).marks[0].reviewer == "Li"


DOUBTS = [
    Rejected(
        reason="judged low",
        question=f"{goods}多少钱？",
        answer="很便宜。",
        score=2,
        system="你是小玄。",
        origin=Origin(kind="self-instruct", teacher="teacher", seed=7),
    )
    for goods in ("水壶", "毯子", "雨伞", "耳机", "台灯")
]


def annotated(number: int, person: int, decision: str, better: str | None = None, **more: Any) -> dict[str, Any]:
    """What its editor writes where somebody decided, and edited the answer or left it."""
    about = {"id": f"r{number}", "to_name": "question"}
    result = [{**about, "from_name": "corpus", "type": "choices", "value": {"choices": [decision]}}]
    if better is not None:
        result.append({**about, "from_name": "comment", "type": "textarea", "value": {"text": [better]}})
    times = {"created_at": f"2026-03-01T10:00:0{number}.000000Z", "updated_at": f"2026-03-01T10:00:0{number}.000000Z"}
    return {"id": number, "completed_by": person, "result": result, "lead_time": 4.0, **times, **more}


def as_json(exported: list[dict[str, Any]], review: Review, folder: Path) -> bytes:
    return json.dumps(exported).encode()


def as_json_min(exported: list[dict[str, Any]], review: Review, folder: Path) -> bytes:
    """As its own converter makes it."""
    converter = pytest.importorskip("label_studio_sdk.converter").Converter(configuration(review), None)
    (folder / "all.json").write_text(json.dumps(exported), "utf-8")
    converter.convert_to_json_min(str(folder / "all.json"), str(folder / "minimal"), is_dir=False)
    return (folder / "minimal/result.json").read_bytes()


@pytest.mark.parametrize("export", [as_json, as_json_min])
def test_answers_are_annotated_there_by_several_people(
    export: Callable[[list[dict[str, Any]], Review, Path], bytes], tmp_path: Path
) -> None:
    """Edited, left as they were, refused, skipped, changed later, and not looked at yet."""
    interface = pytest.importorskip("label_studio_sdk.label_interface")
    review = to_review("shop", DOUBTS, reviewers=2)
    interface.LabelInterface(configuration(review)).validate()
    exported = tasks(review, {})
    exported[0]["annotations"] = [annotated(1, 1, "yes", "99 元。"), annotated(2, 2, "yes", "很便宜。")]
    exported[1]["annotations"] = [annotated(3, 1, "no"), annotated(4, 2, "no", "很便宜。")]
    exported[2]["annotations"] = [annotated(5, 1, "yes", was_cancelled=True)]
    exported[3]["annotations"] = [annotated(7, 1, "yes", ""), annotated(6, 1, "no")]
    for task in exported:
        assert interface.LabelInterface(configuration(review)).validate_task({"data": task["data"]})

    said = imported(review, export(exported, review, tmp_path), {"1": "Ana", "2": "Li"})
    assert said.skipped == (1 if export is as_json else 0), "JSON-MIN has no word of what was skipped"
    taken = take(review, latest(said.marks))
    told = [(row["messages"][1]["content"], row["messages"][2]["content"], row["reviewers"]) for row in taken.rows]
    assert told == [("水壶多少钱？", "99 元。", ["Ana", "Li"]), ("耳机多少钱？", "很便宜。", ["Ana"])]
    assert taken.rows[0]["messages"][0] == {"role": "system", "content": "你是小玄。"}
    assert taken.rows[0]["origin"]["teacher"] == "teacher"
    assert [pair["rejected"][0]["content"] for pair in taken.pairs] == ["很便宜。"]
    assert taken.undecided == 2


def test_what_its_json_min_writes_of_a_review_is_read(tmp_path: Path) -> None:
    for number, review in enumerate((build_review(), build_review("pairs", versions=3))):
        marks = judged(review)
        exported = tasks(review, marks)
        for task in exported:
            for place, annotation in enumerate(task["annotations"]):
                annotation["id"] = task["id"] * 10 + place
        (tmp_path / str(number)).mkdir()
        back = imported(review, as_json_min(exported, review, tmp_path / str(number)), {"1": "Ana", "2": "Li"}).marks
        assert {k: mark.value for k, mark in latest(back).items()} == {k: mark.value for k, mark in marks.items()}


def test_items_that_the_review_no_longer_has_are_counted() -> None:
    before, review = to_review("shop", DOUBTS), to_review("shop", DOUBTS[:3])
    exported = tasks(before, {})
    for task in exported:
        task["annotations"] = [annotated(1, 1, "yes")]
    said = imported(review, json.dumps(exported).encode())
    assert (len(said.marks), said.gone) == (3, 2)


def test_a_change_there_replaces_what_was_here() -> None:
    review = build_review("pairs", versions=2, questions=1, criteria=PAIRS[:1])
    (digest,) = review.judged
    older = make_mark(digest, "Li", "verdict", "tie")
    found = imported(review, GOLDEN.replace("DIGEST", digest).encode(), {"1": "Li"}).marks
    changed = news(latest([older]), found)[0]
    assert (changed.value, changed.replaces, changed.reason) == ("first", older.id, "changed in Label Studio")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param('{"id": 1}', "not an export of Label Studio", id="no-list"),
        pytest.param(GOLDEN, "task 1 is of another review", id="other-review"),
        pytest.param(
            GOLDEN.replace('"item":', '"review":"tea.people","item":'),
            "is of the review tea.people, not of shop.pairs; export the project of this one",
            id="named-review",
        ),
        pytest.param('[{"item":"DIGEST","verdict":"A"}]', "which say who annotated", id="csv-as-json"),
        pytest.param(GOLDEN.replace('["A"]', '["C"]'), "gives verdict 'C'", id="unknown-choice"),
        pytest.param(GOLDEN.replace('["A"]', '["A", "B"]'), "gives verdict", id="two-choices"),
        pytest.param(GOLDEN.replace('"left"', '"middle"'), "gives better 'middle'", id="unknown-side"),
    ],
)
def test_what_can_not_be_read_is_said_and_not_guessed(text: str, message: str) -> None:
    review = build_review("pairs", versions=2, questions=1, criteria=PAIRS)
    (digest,) = review.judged
    text = text if "review" in message else text.replace("DIGEST", digest)
    with pytest.raises(DataError, match=message):
        imported(review, text.encode())
