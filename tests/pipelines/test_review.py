"""The commands of the pod that serves a review, run as they stand: people judge behind the token of its Secret."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import yaml

from tests.pipelines.test_pipelines import PIPELINES
from tests.refusals import call
from tests.unit.review.builders import stored_answers
from tests.unit.review.test_server import Client
from tunegate.api.versions import Producer, Release
from tunegate.evaluation import load_suite
from tunegate.evaluation.business import BusinessSuite
from tunegate.store import Store
from tunegate.store.evaluations import find_progress, save


def test_people_judge_behind_the_token_what_the_pod_serves(store: Store, tmp_path: Path) -> None:
    pod = next(yaml.safe_load_all((PIPELINES / "60-review.yaml").read_text()))["spec"]["template"]["spec"]
    create, serve = (
        [word.replace("s3://tunegate", store.uri) for word in container["args"]]
        for container in (*pod["initContainers"], *pod["containers"])
    )
    (name,) = (word for word in create if word.startswith("shop/"))
    suite = load_suite("shop-taught-en", 48)
    assert isinstance(suite, BusinessSuite)
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    version = store.publish(tmp_path, name, release=Release(format="huggingface"), producer=Producer(kind="test"))
    save(store, stored_answers(version, suite, [question.id for question in suite.questions]))

    for _ in range(2):  # as when the pod is started again
        assert "48 to judge" in call(*create)
    assert str(find_progress(store, version.digest, "shop-taught-en.people")).startswith("0 of 48 items marked")
    argv = [sys.executable, "-m", "tunegate", *serve[:-1], "--port=0"]
    assert serve[-1] == "--port=8090"
    token = {"TUNEGATE_REVIEW_TOKEN": "from a Secret"}
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env=os.environ | token) as child:
        try:
            assert child.stdout is not None
            url = child.stdout.readline().partition("#")[0].replace("0.0.0.0", "127.0.0.1")  # noqa: S104
            assert Client(url).join("Li")[0] == 403
            li = Client(url, authorization="Bearer from a Secret")
            assert li.join("Li")[0] == 200
            assert li.judge({"quality": 4}) is not None
            assert li.ask("review")[1]["left"] == 47
        finally:
            child.kill()
