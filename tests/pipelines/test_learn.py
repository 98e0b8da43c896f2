"""The commands of the weekly pod, run as they stand: from last week's log to a training job, stopping for people."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from tests.docs.test_experience import decide
from tests.pipelines.test_pipelines import PIPELINES, parse
from tests.refusals import call
from tests.unit.experience.logs import DELIVERY, MONDAY, PRICE, answered
from tunegate.cli.train import config_of
from tunegate.evaluation import load_suite
from tunegate.feedback import VoteWriter
from tunegate.feedback.interactions import FOLDER, Judged
from tunegate.feedback.segments import Segment, segment_key
from tunegate.review.places import open_place
from tunegate.shop import DATA
from tunegate.store import Store
from tunegate.training.config import check_config

CONFIG, *_, CRON = yaml.safe_load_all((PIPELINES / "70-learn.yaml").read_text())
POD = CRON["spec"]["jobTemplate"]["spec"]["template"]["spec"]


def last_week() -> int:
    """Which one it is now, counted from the first of the logs."""
    return (datetime.now(UTC).date() - MONDAY).days // 7 - 1


def keep_week(store: Store, week: int, *found: Judged) -> None:
    """The log of a week."""
    rows = [msgspec.json.encode(each.interaction) for each in found]
    store.put(segment_key(FOLDER, MONDAY + timedelta(weeks=week), "a" * 12, 0), Segment().with_lines(rows).to_bytes())
    VoteWriter(store).write([each.vote for each in found if each.vote])


def commands(store: Store, folder: Path) -> dict[str, list[str]]:
    """What each container says, of this store; the files of the ConfigMap are in `folder`."""
    for name, text in CONFIG["data"].items():
        (folder / name).write_text(text.replace("s3://tunegate", store.uri).replace("/opt/shop", str(DATA)))
    return {
        container["name"]: [
            word.replace("s3://tunegate", store.uri).replace("/etc/learn", str(folder)) for word in container["args"]
        ]
        for container in (*POD["initContainers"], *POD["containers"])
    }


def decide_all(store: Store, words: list[str], folder: Path) -> None:
    """People say yes to all."""
    place = open_place(next(word for word in words if word.startswith("s3://")), store.endpoint_url)
    open_place(str(folder), None).keep(place.review())
    decide(folder)
    log = place.open("marks")
    for mark in open_place(str(folder), None).lines("marks"):
        log.append(mark)
    log.close()


@pytest.fixture
def pod(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    monkeypatch.setenv("TUNEGATE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("AWS_ENDPOINT_URL", store.endpoint_url or "")
    return commands(store, tmp_path)


def test_last_weeks_corrections_become_a_job_that_can_begin(
    pod: dict[str, list[str]], store: Store, tmp_path: Path
) -> None:
    asked = load_suite("shop-en").questions[0].messages[-1].content  # type: ignore[union-attr]
    week = last_week()
    keep_week(
        store,
        week,
        answered(1, PRICE[0], "down", week=week, correction="99 元。"),
        answered(2, DELIVERY[0], "down", week=week),
        answered(3, asked, "down", week=week, correction="It costs $22."),
        answered(4, PRICE[1], "down", week=week - 1, correction="older"),
    )
    assert "3 to decide on" in call(*pod["review"])
    assert "0 of 3 decided on" in call(*pod["wait"][:-1], "--at-most=0")
    decide_all(store, pod["wait"], tmp_path / "people")
    assert call(*pod["wait"]).endswith("3 of 3 decided on.\n")
    assert "corrections.jsonl: 2 added" in call(*pod["take"])
    assert "2 dialogues, 0 for people, 1 not taken" in call(*pod["build"])
    rows = [json.loads(line) for line in (store.get("corpora/shop/data/train.jsonl") or b"").splitlines()]
    assert [row["origin"]["kind"] for row in rows] == ["decided", "mixed"]
    assert rows[0]["messages"][-1]["content"] == "99 元。"
    pairs = [json.loads(line) for line in (store.get("corpora/shop/pairs.jsonl") or b"").splitlines()]
    assert {pair["rejected"][0]["content"] for pair in pairs} == {"不知道。"}

    job = yaml.safe_load(call(*pod["submit"], "--dry-run"))
    words = job["spec"]["pytorchReplicaSpecs"]["Master"]["template"]["spec"]["containers"][0]["args"]
    params: dict[str, Any] = parse(list(words)).params
    config = config_of({name: value for name, value in params.items() if name != "as_json"})
    check_config(config)
    assert job["metadata"]["labels"] == {"tunegate.io/model": "shop", "tunegate.io/run": config.run}
    (data,) = config.dataset
    assert store.get(data.removeprefix(f"{store.uri}/")) == store.get("corpora/shop/data/train.jsonl")

    for step in ("review", "wait", "take", "build"):  # the pod was killed at its end, and begins again
        call(*pod[step])
    assert yaml.safe_load(call(*pod["submit"], "--dry-run")) == job


def test_a_week_in_which_nobody_disliked_anything_trains_nothing(pod: dict[str, list[str]], store: Store) -> None:
    week = last_week()
    keep_week(store, week, answered(1, PRICE[0], "up", week=week))
    assert "No disliked answer" in call(*pod["review"])
    assert call(*pod["wait"]).endswith("0 of 0 decided on.\n")
    for step in ("take", "build"):
        call(*pod[step])
    assert "so nothing is trained" in call(*pod["submit"])
