"""What the store's errors are as reasons of a condition."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import msgspec
import numpy
import pytest
from safetensors.numpy import save_file

from tests.builders import (
    at,
    make_cluster_policy,
    make_evaluation,
    make_manifest,
    make_policy,
    make_version,
    make_vote,
    with_answers,
)
from tests.waiting import wait_for
from tunegate.api.codec import to_json
from tunegate.api.errors import CredentialsError, DigestError, NotFoundError, StoreError, TunegateError
from tunegate.api.evaluation import ReviewProgress
from tunegate.api.feedback import Struck, Tally, step_tag
from tunegate.api.promotion import Decision, Promotion, PromotionStatus, Recorded
from tunegate.api.records import Place
from tunegate.api.traffic import parse_step
from tunegate.api.versions import MANIFEST, BaseModel, ModelVersion, Producer, Release
from tunegate.feedback import VoteWriter, struck
from tunegate.models.memory import Footprint
from tunegate.promotion.counting import Counted, counted
from tunegate.promotion.desired import desired_step
from tunegate.promotion.snapshot import Measured, Pair, Snapshot
from tunegate.records.signing import new_key
from tunegate.records.writing import Unrecorded
from tunegate.statistics.paired import Difference
from tunegate.store import Store
from tunegate.store.evaluations import save, save_progress
from tunegate_operator import store_watch
from tunegate_operator.conditions import Problem
from tunegate_operator.evaluations import evaluation_states, find_summaries
from tunegate_operator.store_watch import RecordRequest, Source, problem_of
from tunegate_operator.types import EvaluationSummary

FRESH = 0.05  # seconds


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (CredentialsError("s3://models refuses the key"), "CredentialsRefused"),
        (StoreError("the folder credentials/ is not there"), "StoreUnreachable"),
        (NotFoundError("nothing there"), "VersionMissing"),
        (DigestError("other bytes"), "DigestMismatch"),
    ],
)
def test_the_kind_of_an_error_is_its_reason_and_never_its_words(error: TunegateError, reason: str) -> None:
    assert problem_of(error).reason == reason


def votes_until(source: Source, asked: Counted, done: Callable[[Any], bool]) -> Any:
    wait_for(lambda: done(source.votes(asked, "shop", FRESH)), what="the votes")
    return source.votes(asked, "shop", FRESH)


def test_the_log_is_read_in_the_thread_of_the_store_and_news_are_told(store: Store) -> None:
    candidate, stable, told = make_version("run-1").digest, make_version("base").digest, list[str]()
    asked = Counted("shop-run-1", candidate, stable, at(0))
    source = Source(lambda: store, dict, told.append, lambda seconds: None)
    stop, writer = threading.Event(), VoteWriter(store)
    thread = threading.Thread(target=source.run, args=(stop.is_set,))
    thread.start()
    try:
        assert source.votes(asked, "shop", FRESH) is None
        assert votes_until(source, asked, bool) == {candidate: {}, stable: {}}
        wait_for(lambda: told == ["shop"], what="the news, which come after what they are about")
        writer.write([make_vote(candidate, step=step_tag("shop-run-1", 0)) for _ in range(3)])
        votes_until(source, asked, lambda votes: votes == {candidate: {0: Tally(down=3)}, stable: {}})
        wait_for(lambda: told == ["shop"] * 2, what="the news")
        (key,) = store.keys(".tunegate/votes/")
        store.put(key, b"cut")
        problem = votes_until(source, asked, lambda votes: isinstance(votes, Problem))
        assert "mend" in problem.message
    finally:
        stop.set()
        source.wake()
        thread.join()


def test_that_a_candidate_was_struck_is_read_in_the_thread_of_the_store_and_told(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tunegate_operator.store_watch._STRUCK_SECONDS", 0.0)
    candidate, told = make_version("run-1").digest, list[str]()
    asked = Counted("shop-run-1", candidate, make_version("base").digest, at(0))
    source = Source(lambda: store, dict, told.append, lambda seconds: None)
    for written, reason, news in ((at(-9), "", []), (at(5), "Other weights answered.", ["shop"])):
        struck.write(store, Struck(digest=candidate, since=written, until=written, reason="Other weights answered."))
        source.struck(asked, "shop")
        source._work()
        assert (source.struck(asked, "shop"), told) == (reason, news)


def test_two_policies_of_one_model_count_beside_each_other(store: Store) -> None:
    """Each of a namespace of its own; what one asks must not be news for the other, again and again."""
    told = list[str]()
    one, other = (Counted(f"shop-{run}", make_version(run).digest, make_version("base").digest, at(0)) for run in "ab")
    source = Source(lambda: store, dict, told.append, lambda seconds: None)
    for asked in (one, other):
        source.votes(asked, "shop", FRESH)
    source._work()
    for asked in (one, other):
        assert source.votes(asked, "shop", FRESH) == {digest: {} for digest in asked.digests}
    assert told == ["shop"]
    source._work()
    assert told == ["shop"]


def test_promotions_of_one_name_in_two_namespaces_count_their_own_votes(store: Store) -> None:
    """One policy, applied in two namespaces, whose servers write to one store."""
    candidate, base = make_version("run-1"), make_version("base")
    status = PromotionStatus(phase="Paused", stable=base, canary_started=at(0))
    promotion = Promotion(name="shop-run-1", created=at(0), candidate=candidate, status=status)
    seen = [Snapshot(make_policy(), base, promotions=(promotion,), namespace=team) for team in ("team-a", "team-b")]
    writer = VoteWriter(store)
    for snapshot, verdicts in zip(seen, (2, 5), strict=True):
        found = parse_step(desired_step(snapshot, {candidate.digest: 10, base.digest: 90}))
        assert found is not None
        writer.write([make_vote(candidate.digest, step=step_tag(*found)) for _ in range(verdicts)])
    source = Source(lambda: store, dict, lambda model: None, lambda seconds: None)
    for snapshot, verdicts in zip(seen, (2, 5), strict=True):
        asked = counted(snapshot)
        assert asked is not None
        source.votes(asked, "shop", FRESH)
        source._work()
        assert source.votes(asked, "shop", FRESH) == {candidate.digest: {0: Tally(down=verdicts)}, base.digest: {}}


def test_how_large_a_version_is_is_read_once_from_its_manifest_and_config(store: Store, tmp_path: Path) -> None:
    told, producer = list[str](), Producer(kind="test")
    shape = {"num_hidden_layers": 3, "num_attention_heads": 8, "hidden_size": 64, "tie_word_embeddings": True}
    (folder := tmp_path / "model").mkdir()
    (folder / "config.json").write_text(json.dumps(shape))
    save_file({"w": numpy.zeros(1000, "float32")}, folder / "model.safetensors")
    size = (folder / "model.safetensors").stat().st_size
    base = store.publish(folder, "shop/base/checkpoint-0", release=Release(format="huggingface"), producer=producer)
    (adapter := tmp_path / "adapter").mkdir()
    (adapter / "adapter_config.json").write_text("{}")
    release = Release(format="lora-adapter", base=BaseModel(uri=base.uri, digest=base.digest))
    tuned = store.publish(adapter, "shop/run/checkpoint-1", release=release, producer=producer)
    (folder / "config.json").write_text("{}")
    unsaid = store.publish(folder, "shop/other/checkpoint-0", release=Release(format="huggingface"), producer=producer)
    source = Source(lambda: store, dict, told.append, lambda seconds: None)
    versions = (base, tuned, unsaid)

    assert [source.footprint(version) for version in versions] == [None, None, None]
    source._work()

    known = Footprint(size, 2 * 3 * 8 * 8 * 2, 8, rounded=size, adapter=3 * 8 * 64 * 2)
    *sizes, reason = (source.footprint(version) for version in versions)
    assert sizes == [known, known]
    assert "does not say how large the model is" in str(reason)
    assert told == ["shop"]


def test_what_nobody_foresaw_ends_no_thread(store: Store, tmp_path: Path) -> None:
    """Else nothing new would be seen until somebody starts the operator again."""
    source = Source(lambda: store, dict, lambda model: None, lambda seconds: None, tmp_path / "signing.key")
    asked = Counted("shop-a", make_version("a").digest, "no digest", at(0))
    source.votes(asked, "shop", FRESH)
    source.version(3, "shop")  # type: ignore[arg-type]
    source._work()
    found = source.version(3, "shop")  # type: ignore[arg-type]
    assert isinstance(found, Problem)
    assert "see the operator's log" in found.message
    assert isinstance(source.votes(asked, "shop", FRESH), Problem)


def test_the_key_is_known_before_anything_is_signed(store: Store, tmp_path: Path) -> None:
    """A policy that was deleted and made again says by it whose its earlier records are."""
    key = tmp_path / "signing.key"
    key.write_bytes(new_key())
    source = Source(lambda: store, dict, lambda model: None, lambda seconds: None, key)
    source.run(lambda: True)
    found = source.public_key()
    assert found is not None
    assert "BEGIN PUBLIC KEY" in found[1]


def test_nothing_is_signed_by_a_key_that_the_policy_does_not_know_yet(store: Store, tmp_path: Path) -> None:
    """Else a record whose key is replaced before the status has it would be refused for ever."""
    key, version = tmp_path / "signing.key", make_version("run-1")
    decision = Decision(outcome="Promoted", reason="Baked", message="", time=at(1))
    status = PromotionStatus(phase="Succeeded", decision=decision)
    promotion = Promotion(name="shop-run-1", created=at(0), candidate=version, status=status)
    asked, told = Unrecorded(promotion, make_policy(), Place(policy="shop", namespace="shop")), list[str]()
    source = Source(lambda: store, dict, told.append, lambda seconds: None, key)

    def recorded(*known: str) -> Recorded | None:
        request = RecordRequest(asked, known)
        source.record(request, "shop")
        source._work()
        return source.record(request, "shop")

    key.write_bytes(new_key())
    assert recorded() is None
    assert (store.keys(".tunegate/promotions/"), told) == ([], ["shop"]), "the policy is to learn the key"
    first = source.public_key()
    assert first is not None
    key.write_bytes(new_key())
    assert recorded(first[1]) is None, "it was replaced before anything was signed"
    assert (store.keys(".tunegate/promotions/"), told) == ([], ["shop"] * 2)
    second = source.public_key()
    assert second is not None
    found = recorded(first[1], second[1])
    assert found is not None
    assert found.signed_by == second[0]
    key.write_bytes(new_key())  # and again, before anybody could note where the record is
    again = Source(lambda: store, dict, told.append, lambda seconds: None, key)
    request = RecordRequest(asked, (first[1], second[1]))
    again.record(request, "shop")
    again._work()
    third = again.public_key()
    assert third is not None
    request = RecordRequest(asked, (first[1], second[1], third[1]))
    again.record(request, "shop")
    again._work()
    assert again.record(request, "shop") == found


def test_a_store_that_says_nothing_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread that asks it stands still meanwhile, as there is none here."""
    monkeypatch.setattr(store_watch, "_SILENT_SECONDS", 0.0)
    source = Source(lambda: pytest.fail("nobody opens it"), dict, lambda model: None, lambda seconds: None)
    asked = Counted("shop-run-1", make_version("run-1").digest, make_version("base").digest, at(0))
    source.votes(asked, "shop", FRESH)
    found = source.votes(asked, "shop", FRESH)
    assert isinstance(found, Problem)
    assert (found.reason, "check that the store runs" in found.message) == ("StoreUnreachable", True)


def test_what_people_judge_is_asked_for_until_it_is_there_and_only_where_it_is_awaited(store: Store) -> None:
    version, other, policy = (
        make_version("run-1"),
        make_version("run-2"),
        make_cluster_policy(suites=["tone.people"], gates=[]),
    )
    source, told = Source(lambda: store, dict, lambda model: told.append(model), lambda seconds: None), list[str]()
    key = (version.digest, "tone.people")

    def found() -> dict[tuple[str, str], EvaluationSummary]:
        return find_summaries(policy, [version, other], {}, {}, source, lambda job: "", {version.digest})

    stop = threading.Event()
    thread = threading.Thread(target=source.run, args=(stop.is_set,))
    thread.start()
    try:
        assert found() == {}
        source.wake()
        assert (found(), told) == ({}, [])
        with_mark = ReviewProgress(
            digest=version.digest, suite="tone.people", items=3, marked=1, judgements=1, needed=4, reviewers={"Li": 1}
        )
        save_progress(store, with_mark)
        found()
        wait_for(lambda: source.progress(*key) != "")
        wait_for(lambda: told == ["shop"], what="the news, so that the promotion's status says it")
        told.clear()
        (state,) = evaluation_states(policy, [version, other], found(), source.progress, {}).values()
        assert (state.result, state.message) == (None, "1 of 3 items marked, by Li (1); 1 of 4 judgements")
        for each in (version, other):
            save(store, make_evaluation(each, "tone.people", score=0.9))
        wait_for(lambda: key in found(), what="the result of the people")
        assert found().keys() == {key}
        assert found()[key].metrics[0].value == 0.9
        wait_for(lambda: told == ["shop"], what="the news")
    finally:
        stop.set()
        source.wake()
        thread.join()


def test_a_result_that_is_asked_for_again_while_it_is_read_is_told_once(store: Store) -> None:
    version, told = make_version("run-1"), list[str]()
    save(store, make_evaluation(version, "tone", score=0.9))
    key = (version.digest, "tone", "")

    class Asking:
        def __getattr__(self, name: str) -> Any:
            source.result(key, "shop")
            return getattr(store, name)

    source = Source(lambda: cast("Store", Asking()), dict, told.append, lambda seconds: None)
    source.result(key, "shop")
    source.run(iter([False, False, False, False, True]).__next__)

    assert told == ["shop"]


def test_two_results_are_compared_by_their_answers_as_they_were_measured(store: Store) -> None:
    """Also where one was measured again since; what can't be read or found is said."""
    stable, candidate = (make_version(run) for run in ("base", "run-1"))

    def measured(version: ModelVersion, *scores: float, minute: int = 0) -> Measured:
        result = with_answers(make_evaluation(version, score=sum(scores) / len(scores)), score=scores)
        save(store, msgspec.structs.replace(result, started=at(60 * minute)))
        return Measured(version.digest, at(60 * minute))

    pair = Pair("quality", "score", measured(stable, 1, 0, 0, 0), measured(candidate, 1, 1, 1, 0))
    measured(candidate, 0, 0, 0, 0, minute=1)
    source, told = Source(lambda: store, dict, lambda model: told.append(model), lambda seconds: None), list[str]()

    assert source.difference(pair, "shop") is None
    source._work()

    found = source.difference(pair, "shop")
    assert isinstance(found, Difference)
    assert (found.n, found.up, found.down, found.value) == (4, 2, 0, 0.5)
    assert told == ["shop"]

    gone = pair._replace(stable=Measured(stable.digest, at(600)))
    source.difference(gone, "shop")
    source._work()
    assert source.difference(gone, "shop") == "would have to be in the store, and one is not any more"


def test_whoever_asks_does_not_wait_for_manifests_that_are_read(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new operator reads those of ten thousand versions: a result that a promotion waits for comes before."""
    monkeypatch.setattr(store_watch, "_LOOKING_SECONDS", 0.0)
    models = [f"model-{number}" for number in range(5)]
    for model in models:
        manifest = make_manifest(model, 1)
        store.put(f"{manifest.name}/{MANIFEST}", to_json(manifest))
    told, candidate = list[str](), make_version("run-1")
    save(store, make_evaluation(candidate, score=0.9))
    source = Source(lambda: store, lambda: dict.fromkeys(models, 600.0), told.append, lambda seconds: None)
    source.follow()
    source._work()
    assert len(told) == 1, "one model was listed, and others are being read"
    assert source.result((candidate.digest, "quality", "uid"), "shop") is None
    source._work()
    assert "shop" in told
    assert len(told) == 3
    for _ in models:
        source._work()
    assert sorted(told) == [*models, "shop"]
    assert all(source.listing(model) for model in models)


def test_the_models_to_list_are_asked_for_once_however_many_policies_are_new(store: Store) -> None:
    asked: list[int] = []

    def wanted() -> dict[str, float]:
        asked.append(1)
        return {"shop": 600.0}

    source = Source(lambda: store, wanted, lambda model: None, lambda seconds: None)
    for _ in range(100):
        source.follow()
    source._work()
    source._work()
    assert len(asked) == 1
    assert source.listing("shop") == ()
