"""The pods of a large corpus, their command run as it stands: together they make what one machine makes."""

from __future__ import annotations

import zlib
from pathlib import Path

import pytest
import yaml

from tests.answering import answering
from tests.pipelines.test_pipelines import PIPELINES
from tests.refusals import call
from tests.unit.corpus.test_parts import FILES
from tunegate.shop import DATA
from tunegate.store import Store

CONFIG, JOB = yaml.safe_load_all((PIPELINES / "52-corpus.yaml").read_text())
(CONTAINER,) = JOB["spec"]["template"]["spec"]["containers"]
GOODS = ("kettle", "backpack", "headphones", "lamp", "blanket", "shoes", "umbrella", "chair")


def teacher(asked: str) -> str:
    """Equal requests have equal replies, in whatever order they come."""
    drawn = zlib.crc32(asked.encode())
    if "new questions of users" not in asked:
        return f"Score: {3 + drawn % 3}"
    return "\n".join(f"{n}. Is number {drawn % 9973 * n} a {GOODS[(drawn + n) % 8]}?" for n in range(1, 9))


def test_the_pods_of_a_job_make_what_one_machine_makes(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNEGATE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("AWS_ENDPOINT_URL", store.endpoint_url or "")
    for name, text in CONFIG["data"].items():
        (tmp_path / name).write_text(text.replace("count: 2000", "count: 16").replace("/opt/shop", str(DATA)))
    with answering(teacher) as (url, _):
        of_here = {"s3://tunegate": store.uri, "/etc/corpus": str(tmp_path), "http://teacher.shop.svc:8000": url}
        for index in (2, 0, 3, 1):
            words = [word.replace("$(JOB_COMPLETION_INDEX)", str(index)) for word in CONTAINER["args"]]
            for there, here in of_here.items():
                words = [word.replace(there, here) for word in words]
            said = call(*words)
        assert "dialogues" in said, "the last pod makes the corpus of all"
        call("corpus", "build", tmp_path / "corpus.yaml", tmp_path / "one", "--url", url)
    for name in FILES:
        assert store.get(f"corpora/shop-written/{name}") == (tmp_path / "one" / name).read_bytes(), name


def test_a_job_has_a_pod_for_each_part() -> None:
    plan = yaml.safe_load(CONFIG["data"]["corpus.yaml"])
    assert {JOB["spec"][name] for name in ("completions", "parallelism")} == {plan["parts"]}
    assert JOB["spec"]["completionMode"] == "Indexed"
