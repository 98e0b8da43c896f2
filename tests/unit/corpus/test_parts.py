"""A corpus in parts, each written by a process of its own: merged, it is the one that one process makes."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from tests.answering import Page, answering
from tests.refusals import call, refused
from tests.unit.corpus.test_build import ASKED, GOODS, Teacher, plan, rows
from tunegate.api.errors import ServingError
from tunegate.cli import root
from tunegate.store import Store

FILES = ("data/train.jsonl", "queue.jsonl", "rejected.jsonl", "README.md")


class Steady(Teacher):
    """Its replies follow from what it is asked, in whatever order that is."""

    def __init__(self) -> None:
        super().__init__()
        self.away_after = 1_000_000
        self.asked = 0
        self.score = lambda asked: f"分数：{2 + zlib.crc32(asked.encode()) % 4}"

    def __call__(self, asked: str) -> str:
        self.asked += 1
        if self.asked > self.away_after:
            raise Page("<p>Bad gateway</p>")
        if "打一个总分" in asked or "新的用户问题" not in asked:
            return super().__call__(asked)
        drawn = zlib.crc32(asked.encode())
        return "\n".join(f"{n}. {GOODS[(drawn + n) % 8]}{text}{drawn % 97}？" for n, text in enumerate(ASKED, start=1))


@pytest.fixture
def teacher() -> Iterator[tuple[Steady, str]]:
    steady = Steady()
    with answering(steady) as (url, _):
        yield steady, url


def in_parts(folder: Path, parts: int = 3) -> Path:
    words = {"count": 60, "parts": parts, "suites": ["shop-zh"], "filters": {"similarity": 0.9}}
    return plan(folder, mix=[{"file": "safety.jsonl", "share": 0.1}], **words)


def test_pods_make_what_one_machine_makes(teacher: Any, tmp_path: Path, store: Store) -> None:
    _, url = teacher
    path, bucket = in_parts(tmp_path), f"{store.uri}/corpus"
    where = ["--endpoint-url", store.endpoint_url or "", "--concurrency", "2"]
    once = call("corpus", "build", path, tmp_path / "one", "--url", url)
    for number in (2, 0):
        said = call("corpus", "build", path, bucket, "--url", url, "--part", number, *where)
        assert f"part {number} of 3 is there; the last of the others makes the corpus." in said
    with refused("lacks parts of this plan, of ") as caught:
        call("corpus", "build", path, bucket, *where[:2])
    assert "of 3: 1; write each with" in str(caught.value)
    assert store.get("corpus/data/train.jsonl") is None, "nothing is there before all of it is"
    said = call("corpus", "build", path, bucket, "--url", url, "--part", 1, *where)
    assert said.partition(": ")[2].splitlines()[:-1] == once.partition(": ")[2].splitlines()[:-1]
    made = [store.get(f"corpus/{name}") for name in FILES]
    assert made == [(tmp_path / "one" / name).read_bytes() for name in FILES]
    call("corpus", "build", path, bucket, *where[:2])  # merged again, without a teacher
    assert [store.get(f"corpus/{name}") for name in FILES] == made
    reasons = {row["reason"] for row in rows(tmp_path / "one/rejected.jsonl")}
    assert "near-duplicate of another part" in reasons
    questions = [row["messages"][0]["content"] for row in rows(tmp_path / "one/data/train.jsonl")]
    assert len(questions) == len(set(questions)) > 20


def test_a_part_that_was_killed_goes_on(teacher: Any, tmp_path: Path) -> None:
    steady, url = teacher
    path = in_parts(tmp_path)
    words = ["corpus", "build", path, tmp_path / "pods", "--url", url, "--concurrency", "1", "--part"]
    call(*words, 0)
    whole, steady.asked, steady.away_after = steady.asked, 0, 12
    with pytest.raises(ServingError):
        call(*words, 1)
    kept = len((tmp_path / "pods/replies-1.jsonl").read_bytes().splitlines())
    assert kept == 12
    assert not (tmp_path / "pods/parts/000001.json").exists()
    steady.asked, steady.away_after = 0, 1_000_000
    call(*words, 1)
    assert steady.asked < whole, "what was kept is not asked again"
    call(*words, 2)
    call("corpus", "build", path, tmp_path / "one", "--url", url)
    for name in FILES:
        assert (tmp_path / "pods" / name).read_bytes() == (tmp_path / "one" / name).read_bytes(), name


def test_parts_of_another_plan_or_teacher_are_missing(teacher: Any, tmp_path: Path) -> None:
    _, url = teacher
    path, out = in_parts(tmp_path, 2), tmp_path / "out"
    for number in (0, 1):
        call("corpus", "build", path, out, "--url", url, "--part", number)
    in_parts(tmp_path, 2)
    with (tmp_path / "seeds.jsonl").open("a") as file:
        file.write(json.dumps({"question": "能开发票吗？"}) + "\n")
    with refused("lacks parts of this plan, of ") as caught:
        call("corpus", "build", path, out)
    assert "of 2: 0, 1;" in str(caught.value)
    for number, model in ((0, "shop"), (1, "other")):
        call("corpus", "build", path, out, "--url", url, "--model", model, "--part", number)
    with refused("are of different teachers (") as caught:
        call("corpus", "build", path, out)
    assert "(other, shop)" in str(caught.value)


def test_a_part_is_one_of_the_plan_and_needs_a_teacher(tmp_path: Path) -> None:
    path = in_parts(tmp_path)
    with refused("set parts in it, or name another"):
        call("corpus", "build", path, tmp_path / "out", "--url", "http://127.0.0.1:9", "--part", 3)
    with refused("name a teacher with --url"):
        call("corpus", "build", path, tmp_path / "out", "--part", 1)
    path = in_parts(tmp_path, 61)
    done = CliRunner().invoke(root, ["corpus", "build", str(path), str(tmp_path / "out")])
    assert "there are more parts than questions; lower parts" in str(done.exception)
