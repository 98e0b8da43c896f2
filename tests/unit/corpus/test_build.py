"""A corpus from its plan, by a teacher over HTTP that does as it is told here."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from tests.answering import Cut, Refusal, answering
from tests.builders import at
from tests.refusals import call, refused, without_story
from tunegate.api.codec import from_json
from tunegate.cli import root
from tunegate.corpus import teacher as server
from tunegate.evaluation import load_suite
from tunegate.review.items import Review
from tunegate.review.marks import Mark, MarkFile
from tunegate.store import Store

GOODS = ["电水壶", "双肩包", "耳机", "台灯", "毯子", "跑鞋", "电饭煲", "雨伞"]
ASKED = ["现在卖多少钱", "下单以后几天送到", "坏了怎么保修", "有没有红色的", "学生买合适吗", "可以退换吗"]


class Teacher:
    """Writes other questions at each request, answers them, and judges."""

    def __init__(self) -> None:
        self.written = 0
        self.answer = "这款 99 元，三天送到。"
        self.score: Callable[[str], str] = lambda asked: "分数：5"
        self.questions: Callable[[int], str] | None = None

    def __call__(self, asked: str) -> str:
        if "打一个总分" in asked:
            return self.score(asked)
        if "新的用户问题" not in asked:
            return self.answer
        self.written += 1
        if self.questions:
            return self.questions(self.written)
        goods = GOODS[self.written % len(GOODS)]
        return "好的：\n" + "\n".join(f"{n}. {goods}{text}？" for n, text in enumerate(ASKED, start=1))


@pytest.fixture
def teacher() -> Iterator[tuple[Teacher, str, list[dict[str, Any]]]]:
    scripted = Teacher()
    with answering(scripted) as (url, asked):
        yield scripted, url, asked


def plan(folder: Path, **changes: Any) -> Path:
    (folder / "seeds.jsonl").write_text('{"question": "抱枕多少钱？"}\n{"question": "发什么快递？"}\n', "utf-8")
    (folder / "safety.jsonl").write_text(
        "".join(
            json.dumps(
                {"messages": [{"role": "user", "content": f"坏事{n}{n}"}, {"role": "assistant", "content": "不。"}]}
            )
            + "\n"
            for n in range(9)
        )
    )
    words = {
        "name": "shop",
        "language": "zh",
        "about": "网店的购物助手",
        "seeds": ["seeds.jsonl"],
        "count": 12,
        **changes,
    }
    (folder / "plan.yaml").write_text(yaml.safe_dump(words, allow_unicode=True))
    return folder / "plan.yaml"


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def build(path: Path, folder: Path, url: str) -> str:
    return call("corpus", "build", path, folder, "--url", url, "--concurrency", "1")


def test_each_dialogue_says_where_it_is_from(teacher: Any, tmp_path: Path) -> None:
    _, url, asked = teacher
    scenarios = [{"name": "price", "description": "用户问价格"}]
    said = build(plan(tmp_path, scenarios=scenarios, system_prompt="你是小玄。"), tmp_path / "out", url)
    found = rows(tmp_path / "out/data/train.jsonl")
    assert "12 dialogues, 0 for people" in said
    assert "tokens" in said or "The teacher" not in said
    assert len({row["messages"][1]["content"] for row in found}) == 12
    first = found[0]
    assert [message["role"] for message in first["messages"]] == ["system", "user", "assistant"]
    origin = first["origin"]
    assert (origin["kind"], origin["scenario"], origin["teacher"], origin["score"]) == (
        "self-instruct",
        "price",
        "shop",
        5,
    )
    assert len(origin["examples"]) == 2
    assert origin["prompt"].startswith("sha256:") or len(origin["prompt"]) >= 12
    seeds = [body["seed"] for body in asked if body["temperature"] > 0]
    assert len(set(seeds)) == len(seeds), "each request draws by a seed of its own"


def test_killed_it_goes_on_and_equal_replies_are_an_equal_corpus(teacher: Any, tmp_path: Path) -> None:
    scripted, url, asked = teacher
    path = plan(tmp_path)
    build(path, tmp_path / "one", url)
    once = len(asked)
    replies = (tmp_path / "one/replies.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "two").mkdir()
    (tmp_path / "two/replies.jsonl").write_bytes(b"".join(replies[:9]) + replies[9][:20])  # killed while it wrote
    scripted.written = 2 * 4  # as far as the kept rounds had come
    build(path, tmp_path / "two", url)
    for name in ("data/train.jsonl", "queue.jsonl", "rejected.jsonl", "README.md"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name
    assert len(asked) - once == len(replies) - 9, "what was kept is not asked again"


def test_rubbish_is_counted_and_named_and_people_get_what_the_judge_doubts(teacher: Any, tmp_path: Path) -> None:
    scripted, url, _ = teacher
    lists = [
        "对不起，我不会。",
        "1. 短\n2. What is it?\n3. 抱枕多少钱\n4. 电水壶怎么选比较好？",
        "1. 雨伞能用几年呢？\n2. 雨伞能用几年啊？",
    ]
    scripted.questions = lambda number: lists[number % 3]
    scripted.score = lambda asked: "不好说" if "雨伞" in asked else "分数：2"
    said = build(plan(tmp_path), tmp_path / "out", url)
    reasons = {row["reason"] for row in rows(tmp_path / "out/rejected.jsonl")}
    assert reasons == {"no list", "short", "language", "near-duplicate"}
    queue = {row["question"]: row["reason"] for row in rows(tmp_path / "out/queue.jsonl")}
    assert queue == {"电水壶怎么选比较好？": "judged low", "雨伞能用几年呢？": "not judged"}
    assert "2 of 12 questions: the teacher wrote nothing new in 3 rounds (" in said
    assert "near-duplicate" in said


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        ("", "empty"),
        ("对不起，我无法协助。", "refusal"),
        ("我想想", "no list"),
        ("1. 电水壶多少钱？\n" * 9, "near-duplicate"),
    ],
)
def test_a_teacher_that_writes_no_questions_is_told_why(reply: str, reason: str, teacher: Any, tmp_path: Path) -> None:
    scripted, url, _ = teacher
    scripted.questions = lambda number: reply
    said = build(plan(tmp_path, count=4), tmp_path / "out", url)
    assert f"  {reason}: " in said
    assert {row["reason"] for row in rows(tmp_path / "out/rejected.jsonl")} == {reason}


def test_what_the_server_refuses_is_counted_and_not_kept(teacher: Any, tmp_path: Path) -> None:
    scripted, url, asked = teacher

    def refuse(_: str) -> str:
        raise Refusal("filtered")

    scripted.score = refuse
    assert "0 dialogues, 12 for people" in build(plan(tmp_path), tmp_path / "out", url)
    scripted.score, before = (lambda asked: "分数：4"), len(asked)
    assert "12 dialogues, 0 for people" in build(plan(tmp_path), tmp_path / "out", url)
    assert len(asked) - before == 12


def test_the_servers_own_words_are_shown(teacher: Any, tmp_path: Path) -> None:
    scripted, url, _ = teacher

    def refuse(_: int) -> str:
        raise Refusal("This model takes no seed.")

    scripted.questions = refuse
    done = CliRunner().invoke(root, ["corpus", "build", str(plan(tmp_path)), str(tmp_path / "out"), "--url", url])
    assert "no reply: 12" in done.stdout
    assert f"12 without a reply: {url}/v1 refuses a question: This model takes no seed; lower max_tokens" in done.stderr


def test_a_late_reply_is_named_and_asked_for_another_time(
    teacher: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted, url, asked = teacher
    written = threading.Event()

    def slow(asked: str) -> str:
        if "几天送到" in asked:
            written.wait(120)
        return "分数：4"

    scripted.score = slow
    monkeypatch.setattr(server.Teacher, "seconds", 3.0)
    words = ["corpus", "build", str(plan(tmp_path)), str(tmp_path / "out"), "--url", url, "--concurrency", "1"]
    done = CliRunner().invoke(root, words)
    assert "not judged" in str(rows(tmp_path / "out/queue.jsonl"))
    assert (named := re.search(r"(\d+) without a reply: .* gave no reply within 3 s", done.stderr))
    monkeypatch.undo()
    written.set()
    before = len(asked)
    assert "12 dialogues, 0 for people" in call(*words)
    assert len(asked) - before == int(named[1]), "what was kept is not asked again"


def test_a_teacher_that_replies_to_nothing_is_away(
    teacher: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted, url, _ = teacher
    written = threading.Event()

    def slow(number: int) -> str:
        written.wait(120)
        return f"1. {GOODS[number % 8]}{ASKED[number % 6]}？\n2. {GOODS[number % 8]}能用几年？"

    scripted.questions = slow
    monkeypatch.setattr(server.Teacher, "seconds", 0.2)
    with refused("The teacher replies to nothing: "):
        build(plan(tmp_path, count=4), tmp_path / "out", url)
    assert not (tmp_path / "out/data").exists()
    monkeypatch.undo()
    written.set()
    assert "4 dialogues" in build(plan(tmp_path, count=4), tmp_path / "out", url)


def test_what_was_cut_off_is_not_learned(teacher: Any, tmp_path: Path) -> None:
    scripted, url, _ = teacher
    scripted.answer = Cut("这款 99 元，三天")
    said = build(plan(tmp_path), tmp_path / "out", url)
    assert "0 dialogues" in said
    assert "answer: cut off: 12" in said


def test_what_a_suite_asks_is_left_out_wherever_it_is_from(teacher: Any, tmp_path: Path) -> None:
    scripted, url, _ = teacher
    question = load_suite("shop-zh").questions[0].messages[-1].content  # type: ignore[union-attr]
    scripted.questions = lambda number: f"1. {question}\n2. {GOODS[number % 8]}{ASKED[number % 6]}？"
    path = plan(tmp_path, suites=["shop-zh"], mix=[{"file": "safety.jsonl", "share": 0.25}], count=4)
    with (tmp_path / "safety.jsonl").open("a") as file:
        file.write(json.dumps({"messages": [{"role": "user", "content": question}]}) + "\n")
    said = build(path, tmp_path / "out", url)
    assert question not in (tmp_path / "out/data/train.jsonl").read_text("utf-8")
    assert "asked by the suite shop-zh: 1" in said
    assert "1 dialogues of safety.jsonl are left out" in said


def test_other_data_has_its_share_of_the_whole(teacher: Any, tmp_path: Path) -> None:
    _, url, _ = teacher
    path = plan(tmp_path, mix=[{"file": "safety.jsonl", "share": 0.25}])
    build(path, tmp_path / "out", url)
    kinds = [row["origin"]["kind"] for row in rows(tmp_path / "out/data/train.jsonl")]
    assert (kinds.count("self-instruct"), kinds.count("mixed")) == (12, 4)
    card = yaml.safe_load((tmp_path / "out/README.md").read_text("utf-8").split("---")[1])
    assert card["tunegate"]["sources"] == {"self-instruct": 12, "safety.jsonl": 4}
    assert card["size_categories"] == ["n<1K"]
    assert str(tmp_path) not in (tmp_path / "out/README.md").read_text("utf-8")
    assert "&id" not in (tmp_path / "out/README.md").read_text("utf-8"), "a list of its own for each"
    with refused("dialogues that could be taken, and its share of"):
        build(plan(tmp_path, mix=[{"file": "safety.jsonl", "share": 0.6}]), tmp_path / "out", url)


def test_what_people_decided_is_taken_without_a_teacher(tmp_path: Path) -> None:
    asked = load_suite("shop-zh").questions[0].messages[-1].content  # type: ignore[union-attr]
    decided = [
        {
            "id": str(n),
            "source": "experience-2026-03-02",
            "reviewers": ["ann"],
            "messages": [{"role": "user", "content": question}, {"role": "assistant", "content": "99 元。"}],
        }
        for n, question in enumerate(("电水壶多少钱？", asked, "双肩包多少钱？"))
    ]
    (tmp_path / "decided.jsonl").write_text("".join(json.dumps(row) + "\n" for row in decided))
    mix = [{"file": "safety.jsonl", "share": 0.5}]
    words = {"seeds": [], "count": 0, "decided": ["decided.jsonl"], "mix": mix, "suites": ["shop-zh"]}
    path = plan(tmp_path, **words)
    said = call("corpus", "build", path, tmp_path / "out")
    assert "4 dialogues, 0 for people, 1 not taken" in said
    assert "asked by the suite shop-zh: 1" in said
    found = rows(tmp_path / "out/data/train.jsonl")
    assert [row["origin"]["kind"] for row in found] == ["decided", "decided", "mixed", "mixed"]
    origin = found[1]["origin"]
    assert (origin["source"], origin["reviewers"], origin["line"]) == ("experience-2026-03-02", ["ann"], 3)
    card = (tmp_path / "out/README.md").read_text("utf-8")
    assert "2 were decided on by people, in experience-2026-03-02." in card
    assert "teacher" not in yaml.safe_load(card.split("---")[1])["tunegate"]


def test_what_people_decided_is_not_asked_of_the_teacher_again(teacher: Any, tmp_path: Path) -> None:
    scripted, url, _ = teacher
    scripted.questions = lambda number: f"1. 电水壶现在多少钱？\n2. {GOODS[number % 8]}{ASKED[number % 6]}？"
    row = {"messages": [{"role": "user", "content": "电水壶现在多少钱"}, {"role": "assistant", "content": "99 元。"}]}
    (tmp_path / "decided.jsonl").write_text(json.dumps(row) + "\n")
    build(plan(tmp_path, decided=["decided.jsonl"], count=3), tmp_path / "out", url)
    answers = [each["messages"][-1]["content"] for each in rows(tmp_path / "out/data/train.jsonl")]
    assert answers == ["99 元。", *[scripted.answer] * 3]


def test_replies_in_a_bucket_are_not_asked_for_again(teacher: Any, tmp_path: Path, store: Store) -> None:
    scripted, url, asked = teacher
    where = ["--endpoint-url", store.endpoint_url, "--url", url, "--concurrency", "1"]
    path = plan(tmp_path)
    assert "12 dialogues" in call("corpus", "build", path, f"{store.uri}/corpus", *where)
    once = len(asked)
    assert "12 dialogues" in call("corpus", "build", path, f"{store.uri}/corpus", *where)
    assert len(asked) == once
    scripted.written = 0
    build(path, tmp_path / "here", url)
    assert store.get("corpus/data/train.jsonl") == (tmp_path / "here/data/train.jsonl").read_bytes()


def test_a_plan_that_asks_for_questions_needs_a_teacher(tmp_path: Path) -> None:
    with refused("The plan asks for questions; name a teacher with --url"):
        call("corpus", "build", plan(tmp_path), tmp_path / "out")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"seeds": []}, "a teacher needs a few questions to go by"),
        ({"count": 0}, "there is nothing to make a corpus of"),
    ],
)
def test_a_plan_of_nothing_is_refused(tmp_path: Path, words: dict[str, Any], message: str) -> None:
    done = CliRunner().invoke(root, ["corpus", "build", str(plan(tmp_path, **words)), str(tmp_path / "out")])
    assert message in str(done.exception)


def test_a_job_names_its_run_and_its_data(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text("kind: PyTorchJob\nmetadata: {name: '${RUN}', namespace: shop}\n")
    with refused("make the corpus with: tunegate corpus build PLAN"):
        call("corpus", "submit", tmp_path / "none", "--job", tmp_path / "job.yaml")
    (tmp_path / "out/data").mkdir(parents=True)
    (tmp_path / "out/data/train.jsonl").write_text("{}\n")
    with refused("is no PyTorchJob with a namespace that names its run and its data") as caught:
        call("corpus", "submit", tmp_path / "out", "--job", tmp_path / "job.yaml", "--dry-run")
    assert "${CORPUS} is missing" in str(caught.value)
    (tmp_path / "job.yaml").write_text("kind: [")
    with refused("is not YAML ("):
        call("corpus", "submit", tmp_path / "out", "--job", tmp_path / "job.yaml")


def test_seeds_differ_and_tell_nobody(tmp_path: Path, store: Store) -> None:
    (tmp_path / "sug.txt").write_text(
        "电水壶多少钱？\n电水壶多少钱呢？\n我叫张伟，电话13812345678，几天到？\n\n！！\n", "utf-8"
    )
    said = call("corpus", "seeds", tmp_path / "seeds.jsonl", "--file", tmp_path / "sug.txt")
    found = rows(tmp_path / "seeds.jsonl")
    assert "2 seeds of 4 questions (empty 1, near-duplicate 1)" in said
    assert "138" not in str(found)
    assert found[0] == {"question": "电水壶多少钱？", "source": "sug.txt"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["corpus", "seeds", "OUT"], "There is nothing to collect from"),
        (["corpus", "seeds", "OUT", "--since", "2026-03-02"], "The log is in the store"),
    ],
)
def test_seeds_from_nowhere_are_refused(words: list[str], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TUNEGATE_STORE", raising=False)
    with refused(message):
        call(*words)


def test_bad_files_are_named(teacher: Any, tmp_path: Path) -> None:
    _, url, _ = teacher
    path = plan(tmp_path, mix=[{"file": "safety.jsonl", "share": 0.25}])
    (tmp_path / "seeds.jsonl").write_text("[]\n")
    with refused("correct it."):
        build(path, tmp_path / "out", url)
    (tmp_path / "seeds.jsonl").write_bytes("多少钱".encode("gbk"))
    with refused("is not UTF-8; "):
        build(path, tmp_path / "out", url)
    (tmp_path / "seeds.jsonl").write_text("\n")
    with refused("The plan's seeds hold no question"):
        build(path, tmp_path / "out", url)
    plan(tmp_path, mix=[{"file": "safety.jsonl", "share": 0.25}])
    (tmp_path / "safety.jsonl").write_text("{}\n")
    with refused("is no dialogue with `messages`"):
        build(path, tmp_path / "out", url)
    with refused("is no business suite, whose questions could be looked for"):
        build(plan(tmp_path, suites=["shop-choice"]), tmp_path / "out", url)


def test_the_plan_is_checked(tmp_path: Path) -> None:
    path = plan(tmp_path, mix=[{"file": "a", "share": 0.5}, {"file": "b", "share": 0.5}])
    done = CliRunner().invoke(root, ["corpus", "build", str(path), str(tmp_path / "o"), "--url", "http://127.0.0.1:9"])
    assert "the shares of mix leave nothing" in str(done.exception)


def test_people_decide_what_the_judge_doubts(teacher: Any, tmp_path: Path) -> None:
    scripted, url, _ = teacher
    scripted.score = lambda asked: "分数：2"
    build(plan(tmp_path, count=6), tmp_path / "out", url)
    call("corpus", "review", tmp_path / "out", tmp_path / "review")
    review = from_json((tmp_path / "review/review.json").read_bytes(), Review, "review.json")
    with closing(MarkFile(tmp_path / "review/marks.jsonl")) as file:
        for place, (item, value) in enumerate(zip(review.items, (1, 0, 1), strict=False)):
            said = {"item": item.question, "answers": item.digest, "reviewer": "ann", "seconds": 1, "time": at(0)}
            file.append(Mark(id=f"corpus-{place}", criterion="corpus", value=value, **said))
            if place == 2:
                file.append(Mark(id="comment-2", criterion="comment", value="没有货。", **said))
    said = call(
        "review", "take", tmp_path / "review", "--corpus", tmp_path / "more.jsonl", "--pairs", tmp_path / "p.jsonl"
    )
    assert "3 are not decided yet" in said
    answers = [row["messages"][-1]["content"] for row in rows(tmp_path / "more.jsonl")]
    assert answers == [scripted.answer, "没有货。"]
    (pair,) = rows(tmp_path / "p.jsonl")
    assert (pair["chosen"][0]["content"], pair["rejected"][0]["content"]) == ("没有货。", scripted.answer)


def test_without_a_corpus_or_a_doubt_there_is_no_review(teacher: Any, tmp_path: Path) -> None:
    _, url, _ = teacher
    (tmp_path / "out").mkdir()
    with refused("holds no corpus; make one with"):
        call("corpus", "review", tmp_path / "out", tmp_path / "review")
    build(plan(tmp_path), tmp_path / "out", url)
    with refused("Nothing waits for people"):
        call("corpus", "review", tmp_path / "out", tmp_path / "review")


def test_every_message_has_its_story() -> None:
    files = (Path(__file__), Path(__file__).with_name("test_parts.py"))
    assert set.intersection(*(set(without_story("corpus", file)) for file in files)) == set()
