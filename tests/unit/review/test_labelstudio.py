"""Reviews as Label Studio's tasks, and its exports as marks."""

from __future__ import annotations

import json
from datetime import timedelta
from xml.etree import ElementTree

import pytest

from tests.builders import START
from tests.unit.review.builders import build_review, make_mark
from tunegate.api.errors import DataError
from tunegate.evaluation.criteria import Criterion
from tunegate.review.items import Review
from tunegate.review.labelstudio import configuration, news, read_marks, tasks
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
    back = read_marks(review, exported, LATER, "export.json", {"1": "Ana", "2": "Li"})

    assert {key: mark.value for key, mark in latest(back).items()} == {key: mark.value for key, mark in marks.items()}
    assert sum(mark.seconds for mark in back) == pytest.approx(sum(mark.seconds for mark in marks.values()), abs=0.1)
    assert news(marks, back) == []
    assert news({}, back) == back
    assert news(latest(back), read_marks(review, exported, LATER, "export.json", {"1": "Ana", "2": "Li"})) == []


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
    back = read_marks(review, json.dumps(written).encode(), LATER, "export.json", {"1": "Ana", "2": "Li"})
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
        read_marks(review, json.dumps([task]).encode(), LATER, "export.json", {})


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
    found = read_marks(review, GOLDEN.replace("DIGEST", digest).encode(), LATER, "export.json", {})

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
    assert read_marks(review, addressed.encode(), LATER, "x", {})[0].reviewer == "li@shop.example"
    assert read_marks(review, addressed.encode(), LATER, "x", {"li@shop.example": "Li"})[0].reviewer == "Li"


def test_a_change_there_replaces_what_was_here() -> None:
    review = build_review("pairs", versions=2, questions=1, criteria=PAIRS[:1])
    (digest,) = review.judged
    older = make_mark(digest, "Li", "verdict", "tie")
    found = read_marks(review, GOLDEN.replace("DIGEST", digest).encode(), LATER, "x", {"1": "Li"})
    changed = news(latest([older]), found)[0]
    assert (changed.value, changed.replaces, changed.reason) == ("first", older.id, "changed in Label Studio")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param('{"id": 1}', "not an export of Label Studio", id="no-list"),
        pytest.param(GOLDEN, "task 1 is of another review", id="other-review"),
        pytest.param(GOLDEN.replace('["A"]', '["C"]'), "gives verdict 'C'", id="unknown-choice"),
        pytest.param(GOLDEN.replace('["A"]', '["A", "B"]'), "gives verdict", id="two-choices"),
        pytest.param(GOLDEN.replace('"left"', '"middle"'), "gives better 'middle'", id="unknown-side"),
    ],
)
def test_what_can_not_be_read_is_said_and_not_guessed(text: str, message: str) -> None:
    review = build_review("pairs", versions=2, questions=1, criteria=PAIRS)
    (digest,) = review.judged
    text = text if message.endswith("another review") else text.replace("DIGEST", digest)
    with pytest.raises(DataError, match=message):
        read_marks(review, text.encode(), LATER, "export.json", {})
