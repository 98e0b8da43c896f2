"""What a review refuses, it takes once the message's words were followed."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import msgspec

from tests.builders import START
from tests.refusals import refused, without_story
from tests.unit.review.builders import CRITERIA, build_review, make_answers, make_mark, make_suite
from tests.unit.review.conftest import Serve, served
from tests.unit.review.test_server import Client
from tunegate.evaluation.criteria import Criterion
from tunegate.processes import free_port
from tunegate.review.decisions import take
from tunegate.review.desk import Desk
from tunegate.review.items import CORPUS, make_review
from tunegate.review.judge import calls, judged
from tunegate.review.labelstudio import read_marks, tasks
from tunegate.review.marks import Judgement, MarkFile, latest
from tunegate.review.places import open_place
from tunegate.review.results import results
from tunegate.review.server import listen
from tunegate.review.verdicts import judge_results
from tunegate.store import Store


def test_versions_are_those_that_the_message_asks_for() -> None:
    suite = make_suite()
    first, second = (make_answers(suite, version) for version in (0, 1))
    with refused("; name another version, or judge single ones"):
        make_review(suite, [first], "pairs")
    with refused("is named twice; name each once"):
        make_review(suite, [first, first], "pairs")
    make_review(suite, [first, second], "pairs")
    make_review(suite, [first], "single")
    with refused(" has now; evaluate it again with: tunegate evaluate "):
        make_review(make_suite(), [msgspec.structs.replace(first, suite_digest="sha256:older")], "single")
    make_review(suite, [make_answers(suite, 0)], "single")


def test_marks_are_taken_back_from_a_copy_or_without_the_line(tmp_path: Path) -> None:
    path, mark = tmp_path / "marks.jsonl", make_mark("sha256:1", "Li", "tone", 2)
    file = MarkFile(path)
    file.append(mark)
    with refused("; use that one, or end it first"):
        MarkFile(path)
    file.close()
    copy = path.read_bytes()
    for follow in (lambda: path.write_bytes(copy), lambda: path.write_bytes(path.read_bytes().partition(b"\n")[2])):
        path.write_bytes(b"{}\n" + copy)
        with refused("; put the file back from a copy, or take the line out"):
            MarkFile(path)
        follow()
        file = MarkFile(path)
        assert file.lines == [mark]
        file.close()


def test_a_line_in_a_bucket_is_put_back_or_deleted_and_what_was_refused_is_sent_again(store: Store) -> None:
    place = open_place(store.uri, store.endpoint_url)
    with refused("; make one with: tunegate review create "):
        place.review()
    place.keep(build_review())
    place.review()
    mark = make_mark("sha256:1", "Li", "tone", 2)
    one, other = place.open("marks"), place.open("marks")
    one.append(mark)
    with refused(" wrote to this review meanwhile, which was read; send this again"):
        other.append(mark)
    other.append(mark)
    copy = store.get("marks/00000002.json") or b""
    for follow in (lambda: store.put("marks/00000002.json", copy), lambda: store.delete("marks/00000002.json")):
        store.put("marks/00000002.json", b"{}")
        with refused("; put the object back from a copy, or delete it"):
            place.open("marks")
        follow()
        assert place.open("marks").lines[0] == mark


def test_a_review_is_served_at_another_port(tmp_path: Path) -> None:
    desk = Desk(build_review(), marks := MarkFile(tmp_path / "marks.jsonl"))
    with socket.create_server(("127.0.0.1", 0)) as taken, refused("; choose another --port"):
        listen(desk, "127.0.0.1", taken.getsockname()[1], None)
    listen(desk, "127.0.0.1", free_port(), None).server_close()
    marks.close()


def test_there_is_a_result_once_everything_was_judged() -> None:
    review = build_review(questions=2, share=0)
    marks = [make_mark(digest, "Li", criterion.name, 1) for digest in review.judged for criterion in review.criteria]
    with refused("; resume with `tunegate review serve`"):
        results(review, latest(marks[:-1]), START)
    assert results(review, latest(marks), START)


def test_a_judge_has_a_result_once_every_reply_holds_a_verdict() -> None:
    review = build_review(questions=1, criteria=(CRITERIA[1],))
    (call,) = calls(review, "wise")
    reply = Judgement(
        model="wise",
        asked=call.asked,
        answers=call.item.digest,
        criterion="tone",
        left=0,
        reply="cut of",
        time=START,
    )
    told = "; ask those again with `tunegate review judge`, with more --max-tokens where replies were cut off, or name "
    with refused(told):
        judge_results(review, judged(review, [reply], "wise"), {}, START)
    again = msgspec.structs.replace(reply, reply="[[4]]")
    assert judge_results(review, judged(review, [reply, again], "wise"), {}, START)


def test_an_export_is_of_this_review_as_json_and_by_its_configuration() -> None:
    review, other = (
        build_review("pairs", versions=2, questions=number, criteria=[Criterion(name="verdict")]) for number in (2, 1)
    )
    marks = latest(make_mark(digest, "Li", "verdict", "first") for digest in review.judged)
    exported = json.dumps(tasks(review, marks)).encode()

    def take(export: bytes) -> int:
        return len(read_marks(review, export, START, "export.json", {}).marks)

    with refused("; choose JSON or JSON-MIN there, which say who annotated"):
        take(b"id,item,verdict\n1,sha256:1,A\n")
    foreign = latest(make_mark(digest, "Li", "verdict", "first") for digest in other.judged)
    missing = json.dumps(tasks(other, foreign)).replace(next(iter(other.judged)), "sha256:other")
    with refused(" is of the review "):
        take(missing.replace(review.suite, "tea.pairs").encode())
    with refused(" is of another review than "):
        take(missing.replace('"review"', '"project"').encode())
    with refused("; use the configuration of this review"):
        take(exported.replace(b'["A"]', b'["better"]'))
    assert take(exported) == len(review.judged)


def test_what_the_page_is_refused_is_taken_once_the_reviewer_did_what_it_says(serve: Serve) -> None:
    """These are said on the page, and not in the table of messages."""
    li, ana = Client(url := serve(build_review())), Client(url)
    assert "join with a name" in li.ask("next")[1]["error"]
    assert "Give a name of 1 to 40 characters" in li.join("L" * 41)[1]["error"]
    assert li.join("L" * 40)[0] == 200
    assert "Give the code of that name, or another name" in ana.join("L" * 40)[1]["error"]
    assert ana.join("L" * 40, li.code)[0] == ana.join("Ana")[0] == 200
    item = li.ask("next")[1]["item"]["digest"]
    assert "tone is given one of 1, 2, 3, 4, 5" in li.mark(item, "tone", 6)[1]["error"]
    first = li.mark(item, "tone", 5)[1]["saved"]
    li.mark(item, "correct", 1)
    assert "load the page again" in li.mark(item, "tone", 4)[1]["error"]
    seen = li.ask(f"items/{item}")[1]["item"]["marks"]["tone"]["id"]
    assert seen == first
    assert "A change needs a reason" in li.mark(item, "tone", 4, replaces=seen)[1]["error"]
    assert "at most 10000 characters" in li.mark(item, "tone", 4, replaces=seen, reason="x" * 10_001)[1]["error"]
    assert li.mark(item, "tone", 4, replaces=seen, reason="x" * 10_000)[0] == 200
    assert "Send JSON" in li.ask("join", {"name": "Wu"}, **{"content-type": "text/plain"})[1]["error"]
    assert li.join("Wu")[0] == 200


def test_the_page_is_opened_by_the_address_that_was_printed(tmp_path: Path) -> None:
    with served(build_review(), tmp_path / "marks.jsonl", token="secret") as url:
        assert "Open the whole address" in Client(url).join("Li")[1]["error"]
        assert Client(url, authorization="Bearer secret").join("Li")[0] == 200
    with served(build_review(), tmp_path / "marks.jsonl") as url:
        assert "; open it as http://127.0.0.1" in Client(url, host="review.example").join("Ana")[1]["error"]
        assert Client(url).join("Ana")[0] == 200


def test_a_review_of_answers_gives_no_decisions_and_one_of_proposals_does() -> None:
    with refused("This is no review of proposals"):
        take(build_review(), {})
    assert take(msgspec.structs.replace(build_review(), criteria=(CORPUS,)), {}).undecided > 0


def test_every_message_has_its_story() -> None:
    assert without_story("review", Path(__file__)) == []
