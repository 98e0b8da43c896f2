"""What the platform sees of policy and store, with a real store and children that only wait."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import msgspec
import pytest

from tests.answering import listening
from tests.builders import at, make_cluster_policy, make_evaluation, make_policy, with_answers
from tests.unit.store.picky import error, picky_store
from tests.waiting import wait_for
from tunegate.api import environment
from tunegate.api.codec import to_json
from tunegate.api.errors import UsageError
from tunegate.api.evaluation import ReviewProgress
from tunegate.api.policy import Gate, PromotionPolicy, Selection, StopTraining, write_policy_file
from tunegate.api.promotion import Promotion, PromotionStatus, Transition
from tunegate.api.versions import ModelVersion, Producer, Release, Training
from tunegate.local.platform import Platform, PlatformConfig, Proxy
from tunegate.local.route import Backend, Route
from tunegate.local.state import Home, write
from tunegate.processes import Child, free_port
from tunegate.promotion.decide import decide
from tunegate.promotion.snapshot import Event
from tunegate.release import Changes, derive
from tunegate.store import Store
from tunegate.store.evaluations import save, save_progress
from tunegate.store.stops import find_stop


class Waiting(Platform):
    """A platform whose servers and evaluations do nothing."""

    started: tuple[Sequence[str], ...] = ()

    def _start(self, name: str, argv: Sequence[str]) -> Child:
        self.started += (argv,)
        return Child.start(name, ["sleep", "60"], log=self.config.home.logs / f"{name}.log")


@pytest.fixture
def base(store: Store, tmp_path: Path) -> ModelVersion:
    return publish(store, tmp_path, "base/base/checkpoint-0")


@pytest.fixture
def platform(store: Store, tmp_path: Path, base: ModelVersion) -> Platform:
    platform = Waiting(PlatformConfig(Home(tmp_path / "home"), free_port()), store, {})
    keep(platform, make_policy(initial_version=base.uri))
    return platform


def publish(store: Store, folder: Path, name: str, **producer: int | Training) -> ModelVersion:
    weights = folder / name
    weights.mkdir(parents=True)
    (weights / "config.json").write_text(f'{{"name": "{name}"}}')
    made = msgspec.convert({"kind": "test", **producer}, Producer)
    return store.publish(weights, name, release=Release(format="huggingface"), producer=made)


def keep(platform: Platform, policy: PromotionPolicy) -> None:
    write(platform.config.home.policy_file, write_policy_file(policy))


@contextlib.contextmanager
def running(platform: Platform) -> Iterator[list[Event]]:
    """The platform's loop in a thread, and what it reports."""
    events: list[Event] = []
    with platform.config.home.hold():
        platform.config.home.announce(platform.url, platform.store.uri, "")
        with contextlib.closing(platform), platform.running(events.append):
            yield events


def problem(platform: Platform) -> str:
    found = platform.config.home.running()
    assert found
    return found.problems.get("InvalidPolicy", "")


def test_with_finished_runs_only_the_end_of_a_run_is_tried(
    platform: Platform, store: Store, base: ModelVersion, tmp_path: Path
) -> None:
    keep(platform, make_policy(initial_version=base.uri, candidates="FinishedRuns"))
    publish(store, tmp_path, "shop/run-1/checkpoint-5", step=5, training=Training(total_steps=10))
    assert decide(platform.gather(), at(0)).create == ()
    last = publish(store, tmp_path, "shop/run-1/checkpoint-10", step=10, training=Training(total_steps=10))
    publish(store, tmp_path, "shop/run-2/checkpoint-5", step=5, training=Training(total_steps=10))
    assert [promotion.candidate for promotion in decide(platform.gather(), at(0)).create] == [last]
    derived = derive(store, last, "shop/kind/checkpoint-10", Changes(system_prompt="Be kind."))
    assert [promotion.candidate for promotion in decide(platform.gather(), at(0)).create] == [last, derived]


@pytest.mark.parametrize("shares", [True, False])
def test_versions_of_a_policy_that_shares_their_base_do_so_here_as_well(
    platform: Platform, base: ModelVersion, shares: bool
) -> None:
    keep(platform, make_cluster_policy(initialVersion=base.uri, serving={"engine": "VLLM", "shareBase": shares}))
    with contextlib.closing(platform):
        platform.tick(at(0))
        (served,) = [argv for argv in platform.started if argv[0] == "serve"]
    assert served[1] == base.uri
    assert ("--share-base" in served) == shares


def test_a_promotion_that_moved_on_is_reconciled_again_at_once(
    platform: Platform, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tunegate.local.platform.TICK_SECONDS", 3600)
    publish(store, tmp_path, "shop/run-1/checkpoint-5", step=5)
    with running(platform) as events:
        wait_for(lambda: [event.reason for event in events] == ["Started", "Verified"], what="its first steps")


def test_a_typo_in_the_policy_is_reported_and_the_last_good_one_stays(platform: Platform) -> None:
    file = platform.config.home.policy_file
    good = file.read_bytes()
    with running(platform) as events:
        wait_for(lambda: platform._servers.urls(), what="a server")
        write(file, good.replace(b"suspend:", b"suspendd:"))
        wait_for(lambda: problem(platform), what="the problem in the status")
        assert "suspendd" in problem(platform)
        write(file, good)
        wait_for(lambda: not problem(platform), what="the problem to go")
    assert [event.reason for event in events if event.reason == "InvalidPolicy"] == ["InvalidPolicy"]


@pytest.mark.parametrize("uri", ["s3://elsewhere/gone/", "{store}/base/base/checkpoint-7/"])
def test_a_policy_whose_initial_version_is_nowhere_is_no_good_policy(platform: Platform, uri: str) -> None:
    before = platform.gather().policy
    keep(platform, make_policy(initial_version=uri.format(store=platform.store.uri)))
    assert platform.gather().policy == before


def test_a_policy_that_was_removed_stays_in_use(platform: Platform) -> None:
    before = platform.gather().policy
    platform.config.home.policy_file.unlink()
    assert platform.gather().policy == before


def test_without_a_good_policy_before_there_is_nothing_to_go_on_with(platform: Platform) -> None:
    write(platform.config.home.policy_file, b"model: [")
    with pytest.raises(UsageError, match="not a valid PromotionPolicy"):
        platform.gather()


def test_children_get_the_environment_and_ours_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TUNEGATE_STORE", raising=False)
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY", raising=False)
    before = dict(os.environ)
    with Platform.open(PlatformConfig(Home(tmp_path / "home"), free_port())) as platform:
        assert dict(os.environ) == before
        assert platform.environment["TUNEGATE_STORE"] == platform.store.uri
        assert platform.store.list() == []
        with platform._start("child", ["--help"]) as child:
            wait_for(lambda: child.exit_code is not None, what="the child")
        assert child.exit_code == 0


@pytest.mark.parametrize(("given", "grace"), [("", "60"), ("90", "90")], ids=["as in a cluster", "as the person says"])
def test_servers_get_the_grace_that_one_setting_gives(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str, grace: str
) -> None:
    monkeypatch.setenv(environment.GRACE, given)
    home = Home(tmp_path / "home")
    config = PlatformConfig(home, free_port(), store_uri=store.uri, endpoint_url=store.endpoint_url)
    with Platform.open(config) as platform:
        assert platform.environment[environment.GRACE] == grace


def trained(store: Store, folder: Path, **scores: float) -> list[ModelVersion]:
    """Checkpoints of a run of 40 steps, by their steps, with what they were measured at."""
    training = Training(total_steps=40)
    names = {f"shop/run-1/checkpoint-{step[1:]}": (int(step[1:]), score) for step, score in scores.items()}
    versions = [publish(store, folder, name, step=step, training=training) for name, (step, _) in names.items()]
    for version, (_, score) in zip(versions, names.values(), strict=True):
        save(store, make_evaluation(version, score=score))
    return versions


def test_the_trainer_of_a_run_that_gets_worse_is_told_once_to_stop(
    platform: Platform, store: Store, base: ModelVersion, tmp_path: Path
) -> None:
    rule = StopTraining(when="WorseThanStable", suite="quality", metric="score", checkpoints=2)
    best = Selection(type="BestOf", suite="quality", metric="score")
    fields = {"stop_training": rule, "selection": best, "candidates": "FinishedRuns", "gates": ()}
    keep(platform, make_policy(initial_version=base.uri, **fields))
    save(store, make_evaluation(base, score=0.9))
    versions = trained(store, tmp_path, s10=0.5, s20=0.4)
    with running(platform) as events:
        wait_for(lambda: platform.config.home.choices() and platform.config.home.choices()[0].digest)
    told = [event for event in events if event.reason == "TrainingStopped"]
    assert [(event.promotion, "0.5 at checkpoint-10, 0.4 at checkpoint-20" in event.message) for event in told] == [
        ("run-1", True)
    ]
    word = find_stop(store, "shop", "run-1")
    assert word is not None
    assert word.message == told[0].message
    (choice,) = platform.config.home.choices()
    assert choice.message == "checkpoint-10 has the best quality score of 2: 0.5 (0.48 to 0.52, n=100)"
    assert platform.config.home.promotions()[0].candidate == versions[0]


def test_a_run_that_is_at_its_end_is_not_told_to_stop(
    platform: Platform, store: Store, base: ModelVersion, tmp_path: Path
) -> None:
    rule = StopTraining(when="WorseThanStable", suite="quality", metric="score", checkpoints=1)
    keep(platform, make_policy(initial_version=base.uri, stop_training=rule))
    save(store, make_evaluation(base, score=0.9))
    trained(store, tmp_path, s30=0.5, s40=0.4)
    assert decide(platform.gather(), at(0)).stops == ()


def test_votes_that_can_not_be_read_hold_up_nothing_but_the_canary(
    platform: Platform, store: Store, base: ModelVersion, tmp_path: Path
) -> None:
    """A person may abort it, and servers that ended are started again."""
    candidate = publish(store, tmp_path, "shop/run-1/checkpoint-10")
    keep(platform, make_policy(initial_version=base.uri))
    began = Transition(phase="Paused", time=at(0), reason="Went", message="")
    status = PromotionStatus(phase="Paused", stable=base, weight=10, canary_started=at(0), history=(began,))
    platform.config.home.save(Promotion(name="shop-run-1", created=at(0), candidate=candidate, status=status))
    key = f".tunegate/votes/{candidate.digest[7:]}/2026-01-01/{'a' * 12}-000000.jsonl.gz"
    store.put(key, b"cut")
    assert platform.gather().tallies is None
    assert f"tunegate feedback mend {key}" in platform._uncounted
    store.delete(key)
    assert platform.gather().tallies == {candidate.digest: {}, base.digest: {}}
    assert platform._uncounted == ""


def test_it_is_said_to_answer_when_it_does_and_not_before(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tunegate.local.platform.UNREADY_SECONDS", 0.1)
    with running(platform) as events:
        wait_for(lambda: "NotReady" in [event.reason for event in events], what="the word that nothing answers")
        assert "Ready" not in [event.reason for event in events]
        found = platform.config.home.running()
        assert found
        assert "503" in found.problems["NotReady"]


def test_who_is_told_of_a_problem_finds_it_in_the_status(platform: Platform) -> None:
    found: list[str] = []
    with platform.config.home.hold():
        platform.config.home.announce(platform.url, platform.store.uri, "")
        platform._tell({}, {"InvalidPolicy": "cut"}, lambda event: found.append(problem(platform)))
    assert found == ["cut"]


class Cut(BaseHTTPRequestHandler):
    """A proxy that is killed within its answer."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-length", "100")
        self.end_headers()
        self.wfile.write(b'{"backends"')

    def log_message(self, format: str, *args: object) -> None:
        pass


def test_a_proxy_that_is_killed_within_its_answer_ends_nothing(
    store: Store, base: ModelVersion, tmp_path: Path
) -> None:
    with listening(Cut) as url:
        platform = Waiting(PlatformConfig(Home(tmp_path / "home"), int(url.rpartition(":")[2])), store, {})
        keep(platform, make_policy(initial_version=base.uri))
        assert platform.gather().weights is None


def test_a_platform_goes_on_with_the_route_of_before_it_stopped(platform: Platform, base: ModelVersion) -> None:
    """It names versions whose servers are gone, and no others run yet."""
    before = Backend(version=base.digest, url=f"http://127.0.0.1:{free_port()}", weight=100)
    home = platform.config.home
    write(home.route_file, to_json(Route(salt="", backends=(before,))))

    with contextlib.closing(platform), Proxy.start(home, platform.config.port):
        assert platform.gather().weights == {base.digest: 100}
        platform.tick(at(0))
        assert list(platform._servers.urls()) == [base.digest]


def test_a_stop_waits_for_no_store_that_is_busy(
    platform: Platform, store: Store, base: ModelVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would be asked for a minute, and again by each call."""
    monkeypatch.setattr("tunegate.store.client._LONGEST_PAUSE", 0.1)
    with picky_store(store.endpoint_url or "") as front:
        platform.store = Store.open(store.uri, endpoint_url=front.url)
        with running(platform):
            wait_for(lambda: platform._policy is not None, what="the first look")
            front.answers[:] = [error("", 503, "SlowDown")] * 10_000
            wait_for(lambda: len(front.answers) < 9_998, what="a call to wait")


def test_a_gate_on_pairs_is_decided_on_the_answers_in_the_store(
    platform: Platform, store: Store, base: ModelVersion, tmp_path: Path
) -> None:
    gate = Gate(suite="quality", metric="score", max_regression=0.05, basis="Paired")
    keep(platform, make_policy(initial_version=base.uri, gates=(gate,)))
    version = publish(store, tmp_path, "shop/run-1/checkpoint-5", step=5)
    for each, right in ((base, 90), (version, 96)):
        scores = [1.0] * right + [0.0] * (150 - right)
        save(store, with_answers(make_evaluation(each, score=right / 150), score=scores))
    home = platform.config.home
    with running(platform):
        wait_for(lambda: any(each.status.gates for each in home.promotions()), what="the gate")
    (result,) = home.promotions()[0].status.gates
    assert (result.passed, result.basis) == (True, "Paired")
    assert "6 better, 0 worse of 150" in result.message


def test_a_promotion_that_waits_for_people_says_how_far_they_are(
    platform: Platform, store: Store, base: ModelVersion, tmp_path: Path
) -> None:
    gate = Gate(suite="tone.people", metric="score", min=0.5)
    keep(platform, make_policy(initial_version=base.uri, suites=("tone.people",), gates=(gate,)))
    version = publish(store, tmp_path, "shop/run-1/checkpoint-5", step=5)
    said = ReviewProgress(
        digest=version.digest, suite="tone.people", items=50, marked=12, judgements=13, needed=60, reviewers={"Li": 13}
    )
    save_progress(store, said)
    home = platform.config.home
    with running(platform):
        wait_for(lambda: any(str(said) in each.status.waiting for each in home.promotions()), what="the message")
        save(store, msgspec.structs.replace(make_evaluation(version, score=0.9), suite="tone.people"))
        wait_for(lambda: home.promotions()[0].status.phase == "Progressing", what="the result")
