"""The story of quickstart with the smallest model: the same processes, the same API, the same decisions.

They are forked, but for those of the one that test_killed interrupts.
"""

from __future__ import annotations

import http.client
import json
import re
import shlex
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec
import pytest

from tests.forking import Forking
from tests.processes import processes_about
from tests.waiting import wait_for
from tunegate.api.policy import write_policy_file
from tunegate.api.promotion import TERMINAL
from tunegate.local.platform import Platform, PlatformConfig
from tunegate.local.state import Home, write
from tunegate.processes import answers, free_port
from tunegate.release import Changes, derive

PUSHY = """---
variables:
  question: {type: text, description: What is asked.}
---
--- system
You are a shop assistant. Press the customer to buy within 1 minute, in 1 sentence.
--- user
{{ question | fence }}
"""

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1800), pytest.mark.usefixtures("forked_programs")]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("quickstart") / "home"


@pytest.fixture(scope="module")
def finished(home: Path, forking_process: Forking) -> subprocess.CompletedProcess[str]:
    argv = [forking_process.python, "-m", "tunegate", "quickstart", "--base", "tiny", "--home", str(home)]
    output = home.parent / "quickstart.json"
    done = subprocess.run([*argv, "--output", str(output)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def report(home: Path, finished: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((home.parent / "quickstart.json").read_text())
    return loaded


def test_one_is_promoted_one_rejected_one_rolled_back_and_then_it_learns_and_is_grounded(
    report: dict[str, Any],
) -> None:
    good, broken, pushy, learned, grounded = report["decisions"]
    assert (good["outcome"], broken["outcome"], pushy["outcome"]) == ("Promoted", "Rejected", "RolledBack"), report
    assert broken["reason"] == "GateFailed"
    assert pushy["reason"] == "FeedbackWorse"
    # The smallest model can only recite: whether it forgets more than it learns, the canary finds out.
    assert learned["outcome"] == "Promoted" or learned["reason"] == "FeedbackWorse", report
    assert grounded["outcome"] == "Promoted", report
    assert report["stable"] == grounded["digest"]


def test_the_same_weights_say_more_that_is_right_with_the_catalogue(report: dict[str, Any]) -> None:
    """The smallest model can't read it; what is not sold, the index knows."""
    grounding = report["grounding"]
    stable = report["versions"][4 if report["decisions"][3]["outcome"] == "Promoted" else 1]
    assert grounding["without"]["version"] == stable["name"]
    assert grounding["grounded"]["version"] == report["versions"][5]["name"]
    assert grounding["grounded"]["right"] > grounding["without"]["right"]


def test_what_users_corrected_is_learned_and_the_suite_is_asked_before_and_after(
    home: Path, report: dict[str, Any]
) -> None:
    learning = report["learning"]
    assert 0 < learning["corrected"] <= learning["disliked"]
    assert learning["before"]["suite"] == learning["after"]["suite"] == "shop-taught-en"
    assert learning["difference"]["low"] <= learning["difference"]["value"] <= learning["difference"]["high"]
    rows = [json.loads(line) for line in (home / "learned/data/train.jsonl").read_text().splitlines()]
    kinds = [row["origin"]["kind"] for row in rows]
    assert (kinds.count("decided"), kinds.count("mixed")) == (learning["corrected"], learning["old"])
    assert all(row["origin"]["reviewers"] for row in rows if row["origin"]["kind"] == "decided")


def test_a_rollback_says_after_how_many_answers(report: dict[str, Any]) -> None:
    good, broken, pushy, *_ = report["decisions"]
    assert good["answers"] >= 10
    assert broken["answers"] is None
    assert pushy["answers"] >= 4


def test_the_rejected_one_was_never_shown_and_the_numbers_say_why(report: dict[str, Any]) -> None:
    broken = report["versions"][2]
    assert broken["feedback"] is None
    assert [gate for gate in broken["gates"] if gate["passed"] is False]


def test_the_one_rolled_back_had_passed_its_gates_and_was_disliked(report: dict[str, Any]) -> None:
    pushy = report["versions"][3]
    assert all(gate["passed"] for gate in pushy["gates"])
    assert pushy["feedback"]["down"] > pushy["feedback"]["up"]
    assert pushy["stableFeedback"]["up"] > pushy["stableFeedback"]["down"]


def test_the_sample_answer_came_from_the_promoted_version(report: dict[str, Any]) -> None:
    assert report["sample"]["digest"] == report["stable"]
    assert report["sample"]["answer"]


def test_every_version_has_scores_with_intervals(report: dict[str, Any]) -> None:
    for version in report["versions"][:5]:
        assert [score["suite"] for score in version["scores"]] == ["shop-taught-en", "shop-choice"]
        assert all(score["low"] <= score["value"] <= score["high"] for score in version["scores"])


def test_the_output_ends_with_lines_to_copy(finished: subprocess.CompletedProcess[str]) -> None:
    assert "local ask --home" in finished.stdout
    assert re.search(r"local up --home \S+ --port (\d+)\nand open http://127.0.0.1:\1/\n$", finished.stdout)


def test_nothing_is_left_running(home: Path, finished: subprocess.CompletedProcess[str]) -> None:
    assert processes_about(home) == []


def test_the_line_to_copy_asks_the_promoted_model(home: Path, report: dict[str, Any]) -> None:
    sample = report["sample"]
    argv = ["local", "ask", "--home", str(home), sample["question"]]
    asked = subprocess.run(
        [sys.executable, "-m", "tunegate", *argv], capture_output=True, text=True, check=False, timeout=120
    )
    assert asked.returncode == 0, asked.stderr
    assert asked.stdout.strip() == sample["answer"].strip()
    assert processes_about(home) == []


def test_the_last_lines_lead_to_the_playground(
    home: Path, finished: subprocess.CompletedProcess[str], report: dict[str, Any]
) -> None:
    line, url = re.findall(r"^  \S+ (local up .+)\nand open (.+)/$", finished.stdout, re.MULTILINE)[-1]
    argv = [sys.executable, "-m", "tunegate", *shlex.split(line)]
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as platform:
        try:
            wait_for(lambda: answers(f"{url}/v2/health/ready"), what="the promoted version to serve")
            asking = urllib.request.Request(f"{url}/", headers={"accept": "text/html"})
            with urllib.request.urlopen(asking, timeout=100) as page:
                assert b"playground/app.js" in page.read()
            with urllib.request.urlopen(f"{url}/v1/models", timeout=100) as listing:
                assert json.load(listing)["data"][0]["digest"] == report["stable"]
        finally:
            platform.send_signal(signal.SIGINT)
    assert processes_about(home) == []


def test_why_is_answered_afterwards(home: Path, report: dict[str, Any]) -> None:
    argv = [sys.executable, "-m", "tunegate", "promotions", "list", "--json", "--home", str(home)]
    listed = json.loads(subprocess.run(argv, capture_output=True, text=True, check=True).stdout)
    ended = {promotion["candidate"]["digest"]: promotion for promotion in listed}
    tried = [ended[version["digest"]] for version in report["versions"][1:]]
    phases = [promotion["status"]["phase"] for promotion in tried]
    learned = "Succeeded" if report["decisions"][3]["outcome"] == "Promoted" else "RolledBack"
    assert phases == ["Succeeded", "Rejected", "RolledBack", learned, "Succeeded"]
    argv = [sys.executable, "-m", "tunegate", "promotions", "explain", tried[2]["name"], "--home", str(home)]
    explained = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    assert "RolledBack by tunegate" in explained
    assert "disliked" in explained


def test_a_prompt_that_users_dislike_is_rolled_back_and_the_weights_stay(home: Path, report: dict[str, Any]) -> None:
    """As docs/release.md tells it. Voters dislike whatever the new prompt says, and like what the one before says."""
    place, prompts = Home(home), home.parent / "pushy"
    prompts.mkdir()
    (prompts / "answer.prompt").write_text(PUSHY)
    policy = place.policy()
    with Platform.open(PlatformConfig(place, free_port())) as platform, pytest.MonkeyPatch.context() as patched:
        for name, value in platform.environment.items():
            patched.setenv(name, value)
        stable = platform.store.resolve(report["stable"])
        easy = msgspec.structs.replace(policy, suites=(), gates=())
        write(place.policy_file, write_policy_file(easy))
        with platform.running(lambda event: None):
            changes = Changes(prompts=prompts, without=("knowledge",))
            pushy = derive(platform.store, stable, "shop-assistant/pushy/checkpoint-1", changes)

            def decided() -> bool:
                vote(platform.url, dislikes=pushy.digest)
                return phase(place, pushy.digest) in TERMINAL

            wait_for(decided, seconds=900, what="the decision about the prompt")
        manifests = [platform.store.manifest(version.digest) for version in (stable, pushy)]
    assert phase(place, pushy.digest) == "RolledBack"
    weights, other = ({file for file in each.files if "safetensors" in file.path} for each in manifests)
    assert weights == other != set()


def phase(home: Home, digest: str) -> str:
    return next((record.status.phase for record in home.promotions() if record.candidate.digest == digest), "")


def vote(url: str, *, dislikes: str) -> None:
    """Ask once, and judge the answer by who gave it."""
    asked = {"messages": [{"role": "user", "content": "What is the price?"}], "max_tokens": 2, "user": uuid4().hex}
    try:
        with post(f"{url}/v1/chat/completions", {"model": "shop-assistant", **asked}) as answer:
            given, digest = json.load(answer)["id"], answer.headers["x-tunegate-version"]
        verdict = "down" if digest == dislikes else "up"
        post(f"{url}/v1/feedback", {"response_id": given, "verdict": verdict}).close()
    except (OSError, http.client.HTTPException, ValueError):
        return  # a server is on its way


def post(url: str, body: dict[str, Any]) -> Any:
    headers = {"content-type": "application/json"}
    return urllib.request.urlopen(urllib.request.Request(url, json.dumps(body).encode(), headers), timeout=120)
