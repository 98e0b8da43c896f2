"""What the page may ask of the server, and what others may not."""

from __future__ import annotations

import itertools
import json
import urllib.error
import urllib.request
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.builders import START
from tests.unit.review.builders import CRITERIA, build_review
from tests.unit.review.conftest import Serve, process
from tunegate.api.errors import ServingError
from tunegate.review.desk import Desk, Join, Said
from tunegate.review.marks import Mark, MarkFile, latest, read
from tunegate.review.results import results
from tunegate.review.server import FILES, is_loopback, listen

_FRESH = itertools.count()


class Client:
    """Somebody's browser, without the browser."""

    def __init__(self, url: str, **headers: str) -> None:
        self.url, self.headers = url, headers
        self.code = ""

    def ask(self, path: str, body: object = None, **headers: str) -> tuple[int, dict[str, Any]]:
        sent = {"content-type": "application/json", "tunegate-reviewer": self.code, **self.headers, **headers}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}api/{path}", data, sent)
        try:
            with urllib.request.urlopen(request, timeout=100) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    def join(self, name: str, code: str = "") -> tuple[int, dict[str, Any]]:
        status, answer = self.ask("join", {"name": name, "code": code})
        self.code = answer.get("code", self.code)
        return status, answer

    def mark(self, item: str, criterion: str, value: object, **more: object) -> tuple[int, dict[str, Any]]:
        fields = {"id": f"client-{next(_FRESH):06}", "item": item, "criterion": criterion, "value": value}
        return self.ask("marks", {**fields, "seconds": 1.5, **more})

    def judge(self, values: dict[str, object]) -> dict[str, Any] | None:
        """Get the next item and mark it; None when nothing was left."""
        item: dict[str, Any] | None = self.ask("next")[1]["item"]
        if item:
            for criterion, value in values.items():
                assert self.mark(item["digest"], criterion, value)[0] == 200
        return item


GOOD: dict[str, object] = {"correct": 1, "tone": 5}


def test_two_reviewers_work_through_a_review_and_see_nothing_of_each_other(serve: Serve, tmp_path: Path) -> None:
    review = build_review(questions=6, share=0.5)
    url = serve(review)
    li, ana = Client(url), Client(url)
    assert li.join("Li")[0] == ana.join("Ana")[0] == 200
    about = li.ask("review")[1]
    assert (about["mode"], about["own"], about["left"]) == ("single", [], 6)
    assert about["criteria"][1] == {
        "name": "tone",
        "question": CRITERIA[1].question,
        "values": [1, 2, 3, 4, 5],
        "labels": [],
    }

    seen = []
    while item := li.judge(GOOD):
        seen.append(item)
    assert all(item["marks"] == {} for item in seen)
    shown = []
    while item := ana.judge({"correct": 0, "tone": 1}):
        shown.append(item)

    assert (len(seen), len(shown)) == (6, 3)
    assert all(item["marks"] == {} for item in shown)
    mine = ana.ask(f"items/{shown[0]['digest']}")[1]["item"]["marks"]
    assert {name: mark["value"] for name, mark in mine.items()} == {"correct": 0, "tone": 1}
    unseen = next(item["digest"] for item in seen if item["digest"] not in {each["digest"] for each in shown})
    assert ana.ask(f"items/{unseen}")[0] == 404
    everything = json.dumps([about, seen, shown])
    assert not any(version.name in everything or version.digest in everything for version in review.versions)
    marks = latest(read(tmp_path / "marks.jsonl")[0])
    assert {(mark.reviewer, mark.value) for mark in marks.values()} == {("Li", 1), ("Li", 5), ("Ana", 0), ("Ana", 1)}


def test_sides_are_kept_as_answers(serve: Serve, tmp_path: Path) -> None:
    review = build_review("pairs", versions=2, questions=8, share=0, criteria=())
    li = Client(serve(review))
    li.join("Li")
    while item := li.judge({"preference": "left"}):
        shown = li.ask(f"items/{item['digest']}")[1]["item"]
        assert shown["marks"]["preference"]["value"] == "left"
        mark = latest(read(tmp_path / "marks.jsonl")[0])[item["digest"], "Li", "preference"]
        place = ["first", "second"].index(str(mark.value))
        assert review.judged[item["digest"]].answers[place].text == item["answers"][0]
        assert mark.left == place
    values = [mark.value for mark in latest(read(tmp_path / "marks.jsonl")[0]).values()]
    assert set(values) == {"first", "second"}


def test_a_change_says_why_and_keeps_what_was_before(serve: Serve, tmp_path: Path) -> None:
    li = Client(serve(build_review(questions=1, share=0)))
    li.join("Li")
    digest = li.ask("next")[1]["item"]["digest"]
    saved = li.mark(digest, "tone", 2)[1]["saved"]

    assert li.mark(digest, "tone", 4)[0] == 409
    assert li.mark(digest, "tone", 4, replaces="mark-of-others", reason="x")[0] == 409
    assert li.mark(digest, "tone", 4, replaces=saved)[1] == {"error": "A change needs a reason."}
    assert li.mark(digest, "tone", 4, replaces=saved, reason="misread")[0] == 200

    before, after = (line for line in read(tmp_path / "marks.jsonl")[0] if isinstance(line, Mark))
    assert (before.value, after.value, after.replaces, after.reason) == (2, 4, before.id, "misread")
    assert after.reviewer == "Li"


def test_a_mark_that_is_sent_again_is_kept_once(serve: Serve, tmp_path: Path) -> None:
    li = Client(serve(build_review(questions=1, share=0)))
    li.join("Li")
    digest = li.ask("next")[1]["item"]["digest"]
    answers = [li.mark(digest, "tone", 2, id="sent-twice-1") for _ in range(2)]

    assert answers[0] == answers[1]
    assert sum(isinstance(line, Mark) for line in read(tmp_path / "marks.jsonl")[0]) == 1


def test_a_clock_that_jumps_changes_no_order(tmp_path: Path) -> None:
    """An hour back between a mark and its change, and years on: the last line holds, and results stay readable."""
    clock = iter([START, START, START - timedelta(hours=1), START + timedelta(days=9_000)])
    review = build_review(questions=1, share=0, criteria=CRITERIA[1:])
    file = MarkFile(tmp_path / "marks.jsonl")
    desk = Desk(review, file, lambda: next(clock))
    li = desk.join(Join(name="Li"))["reviewer"]
    item = desk.next(li)["item"]["digest"]
    said = Said(id="mark-first", item=item, criterion="tone", value=2, seconds=1.5)
    desk.keep(said, li)
    desk.keep(msgspec.structs.replace(said, id="mark-again", value=5, replaces=said.id, reason="misread"), li)
    desk.keep(Said(id="mark-words", item=item, criterion="comment", value="Later.", seconds=0), li)
    file.close()

    marks = latest(read(tmp_path / "marks.jsonl")[0])
    assert marks[item, "Li", "tone"].value == 5
    (result,) = results(review, marks, START)
    assert (result.metrics[0].value, result.seconds) == (1, 1.5)


def test_what_a_reviewer_who_stopped_has_left_goes_to_others(serve: Serve) -> None:
    """One has an item open with half of its marks, and never comes back; who is there finishes the review."""
    li, ana = Client(url := serve(build_review(questions=3, share=0))), Client(url)
    li.join("Li")
    stopped = li.ask("next")[1]["item"]["digest"]
    li.mark(stopped, "tone", 2)
    ana.join("Ana")
    seen = [item["digest"] for _ in range(3) if (item := ana.judge(GOOD))]
    assert len(set(seen)) == 3
    assert seen[-1] == stopped, "last, as he might have come back"
    assert ana.ask("next")[1] == {"item": None, "own": seen, "left": 0}
    assert li.ask("next")[1]["left"] == 0


def test_two_people_with_one_name_are_told_apart(serve: Serve) -> None:
    url = serve(build_review())
    first, second = Client(url), Client(url)
    assert first.join(" Lí  Wei ")[1]["reviewer"] == "Lí Wei"
    status, answer = second.join("LÍ WEI")
    assert (status, answer["error"]) == (
        409,
        "There is a reviewer Lí Wei already. Give the code of that name, or another name.",
    )
    assert second.join("lí wei", first.code)[1] == {"reviewer": "Lí Wei", "code": first.code}
    assert [second.join(name)[0] for name in ("", " ", "x" * 41, "a\u202eb")] == [422] * 4


@pytest.mark.parametrize(
    ("change", "status", "words"),
    [
        pytest.param({"item": "sha256:0"}, 404, "no such item", id="item"),
        pytest.param({"criterion": "beauty"}, 422, "no criterion beauty", id="criterion"),
        pytest.param({"value": 6}, 422, "tone is given one of 1, 2, 3, 4, 5", id="value"),
        pytest.param({"value": "left"}, 422, "tone is given one of", id="side"),
        pytest.param({"criterion": "comment"}, 422, "A comment is text", id="comment"),
        pytest.param({"criterion": "comment", "value": "x" * 10_001}, 422, "at most 10000", id="long-comment"),
        pytest.param({"seconds": -1}, 422, "not a mark", id="clock-that-jumped"),
        pytest.param({"id": "x"}, 422, "not a mark", id="id"),
        pytest.param({"more": 1}, 422, "can't be read", id="unknown"),
    ],
)
def test_what_is_no_mark_is_refused_with_the_reason(
    serve: Serve, tmp_path: Path, change: dict[str, Any], status: int, words: str
) -> None:
    li = Client(serve(build_review(questions=1, share=0)))
    li.join("Li")
    fields = {"item": li.ask("next")[1]["item"]["digest"], "criterion": "tone", "value": 3} | change
    found, answer = li.mark(**fields)
    assert found == status
    assert words in answer["error"]
    assert not latest(read(tmp_path / "marks.jsonl")[0])


def test_nobody_asks_without_a_name(serve: Serve) -> None:
    url = serve(build_review())
    for path in ("review", "next", "items/x"):
        assert Client(url).ask(path)[0] == 401
    assert Client(url).ask("elsewhere")[0] == 404


def test_with_a_token_nobody_asks_without_it(serve: Serve) -> None:
    url = serve(build_review(), token="secret-of-the-test")
    assert Client(url).join("Li")[0] == 403
    assert Client(url, authorization="Bearer wrong").join("Li")[0] == 403
    assert Client(url, authorization="Bearer secret-of-the-test", host="review.example").join("Li")[0] == 200


def test_other_sites_can_not_ask_through_a_reviewers_browser(serve: Serve) -> None:
    url = serve(build_review())
    assert Client(url, host="rebound.example").join("Li")[0] == 403
    assert Client(url, **{"content-type": "text/plain"}).join("Li")[0] == 415


def test_a_port_that_is_taken_is_said(serve: Serve) -> None:
    port = int(serve(build_review()).rstrip("/").rpartition(":")[2])
    with pytest.raises(ServingError, match=rf"Port {port} of 127.0.0.1 can't be had"):
        listen(None, "127.0.0.1", port, None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("host", "value"),
    [("127.0.0.1", True), ("localhost", True), ("::1", True), ("0.0.0.0", False), ("review.example", False)],  # noqa: S104
)
def test_only_this_machine_is_loopback(host: str, value: bool) -> None:
    assert is_loopback(host) is value


def test_the_files_of_the_page_come_with_a_policy_and_are_not_sent_twice(serve: Serve) -> None:
    url = serve(build_review()).rstrip("/")
    for path in FILES:
        with urllib.request.urlopen(url + path, timeout=100) as answer:
            assert "default-src 'self'" in answer.headers["content-security-policy"]
            tag = answer.headers["etag"]
        with pytest.raises(urllib.error.HTTPError, match="304"):
            urllib.request.urlopen(urllib.request.Request(url + path, headers={"if-none-match": tag}), timeout=100)
    assert Client(url + "/").ask("../page/../server.py")[0] == 404


def test_what_was_called_saved_survives_kill_9(tmp_path: Path) -> None:
    review = build_review(questions=3, share=0)
    saved: list[str] = []
    li = Client("")
    for _ in range(2):
        with process(review, tmp_path) as li.url:
            li.join("Li", li.code)
            digest = li.ask("next")[1]["item"]["digest"]
            saved += [li.mark(digest, criterion, value)[1]["saved"] for criterion, value in GOOD.items()]

    assert [line.id for line in read(tmp_path / "marks.jsonl")[0] if isinstance(line, Mark)] == saved
