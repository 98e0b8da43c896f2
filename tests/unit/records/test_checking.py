"""A record is held against everything that it speaks of: one changed byte anywhere is found, and the link is named."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from tests.builders import at, make_evaluation
from tests.unit.records.conftest import PLACE, POLICY, Recorded, with_status
from tests.unit.store.memory import copied
from tunegate.api.codec import to_json
from tunegate.api.digest import Digest
from tunegate.api.errors import DecisionRecordError, StoreError
from tunegate.api.promotion import Decision
from tunegate.records.checking import LINKS, Verification, verify
from tunegate.records.signing import Signer, new_key, read_key
from tunegate.records.writing import Unrecorded, unrecorded, write
from tunegate.store import Store
from tunegate.store.evaluations import save

WEIGHTS = "shop/run-7/checkpoint-10/model.safetensors"
MANIFEST = "shop/run-7/checkpoint-10/manifest.json"


def broken(found: Verification) -> str:
    assert not found.holds
    assert found.broken is not None
    return found.broken.name


def body(store: Store, key: str) -> bytes:
    found = store.get(key)
    assert found is not None
    return found


def test_what_was_recorded_holds_link_by_link(recorded: Recorded) -> None:
    found = recorded.verify()
    assert found.holds, found
    assert [link.name for link in found.links] == list(LINKS)
    assert "base/base/checkpoint-0" in next(link.message for link in found.links if link.name == "bases")
    assert found.broken is None


@pytest.mark.parametrize(
    ("key", "link"),
    [
        ("record", "record"),
        (MANIFEST, "manifest"),
        ("base/base/checkpoint-0/manifest.json", "bases"),
        (WEIGHTS, "weights"),
        ("base/base/checkpoint-0/model.safetensors", "weights"),
        ("shop/run-7/checkpoint-10/release.yaml", "weights"),
        ("evaluation", "evaluations"),
    ],
)
def test_any_one_byte_that_changed_is_found(recorded: Recorded, key: str, link: str) -> None:
    """Every byte of every file that the record speaks of, one after the other, by the whole verification."""
    record = recorded.promotion.status.record
    assert record is not None
    digest = Digest.parse(recorded.promotion.candidate.digest).hex
    key = {"record": record.key, "evaluation": f".tunegate/evaluations/{digest}/quality.json"}.get(key, key)
    recorded.store, bodies = copied(recorded.store)
    whole = bodies[key]
    for place in range(len(whole)):
        bodies[key] = whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :]
        assert broken(recorded.verify()) == link, place
    bodies[key] = whole
    assert recorded.verify().holds


def test_another_spelling_of_a_record_is_none(recorded: Recorded) -> None:
    """Base64 has bits that mean nothing, and JSON several spellings: none of them passes."""
    from tunegate.records.signing import unseal

    record = recorded.promotion.status.record
    assert record is not None
    whole = body(recorded.store, record.key)
    for place in (*range(60), *range(len(whole) - 300, len(whole))):  # all but the middle of the payload
        changed = whole[:place] + bytes([whole[place] ^ 32]) + whole[place + 1 :]  # another case of a letter
        with pytest.raises(DecisionRecordError):
            unseal(changed, [recorded.signer.public_key], "a record")


@pytest.mark.parametrize("key", [MANIFEST, WEIGHTS], ids=["manifest", "weights"])
def test_what_is_missing_is_found(recorded: Recorded, key: str) -> None:
    recorded.store.delete(key)
    assert broken(recorded.verify()) == {MANIFEST: "manifest", WEIGHTS: "weights"}[key]


def test_a_promotion_that_was_changed_is_found(recorded: Recorded) -> None:
    recorded.promotion = with_status(recorded.promotion, weight=99)
    found = recorded.verify()
    assert broken(found) == "promotion"
    assert "(weight)" in str(found.broken)


def test_a_record_signed_by_somebody_else_is_none(recorded: Recorded) -> None:
    """Whoever can write to the store can sign with a key of their own, and change everything to fit."""
    other = read_key(new_key(), "a key")
    record = recorded.promotion.status.record
    assert record is not None
    recorded.store.delete(record.key)
    recorded.promotion = with_status(recorded.promotion, record=None)
    recorded.promotion = recorded.with_record(other)
    found = recorded.verify()
    assert broken(found) == "record"
    assert "is not known here" in str(found.broken)


def test_another_record_of_our_own_key_is_none(recorded: Recorded) -> None:
    """The promotion names its record by digest."""
    record = recorded.promotion.status.record
    assert record is not None
    recorded.store.delete(record.key)
    later = with_status(recorded.promotion, record=None, step=1)
    write(recorded.store, Unrecorded(later, POLICY, PLACE), recorded.signer)
    assert broken(recorded.verify()) == "record"


def test_the_key_may_be_another_one_now(recorded: Recorded) -> None:
    new = read_key(new_key(), "a key")
    keys = [new.public_key, recorded.signer.public_key]
    assert verify(recorded.store, recorded.promotion, keys, lambda: {"here": recorded.served}).holds


def test_what_serves_is_asked(recorded: Recorded) -> None:
    recorded.served = recorded.base.digest
    found = recorded.verify()
    assert broken(found) == "serving"
    assert "somebody changed what serves" in str(found.broken)


def test_the_one_pod_that_serves_something_else_is_named(recorded: Recorded) -> None:
    pods = {"pod shop-a": recorded.served, "pod shop-b": recorded.base.digest, "pod shop-c": recorded.served}
    found = verify(recorded.store, recorded.promotion, [recorded.signer.public_key], lambda: pods)
    assert broken(found) == "serving"
    assert "pod shop-b serves" in str(found.broken)
    assert "shop-a" not in str(found.broken)


def test_gates_saw_what_the_evaluations_say(recorded: Recorded) -> None:
    """Changed between the gates and the end: the record says so, and does not hold."""
    (key,) = recorded.store.keys(".tunegate/evaluations/")
    recorded.store.put(key, to_json(make_evaluation(recorded.promotion.candidate, score=0.4)))
    recorded.promotion = with_status(recorded.promotion, record=None)
    record = recorded.promotion
    assert record.status.record is None
    recorded.store.delete(next(iter(recorded.store.keys(".tunegate/promotions/"))))
    recorded.promotion = recorded.with_record(recorded.signer)
    assert broken(recorded.verify()) == "gates"


def test_a_version_that_is_live_by_another_attempt_may_serve(recorded: Recorded) -> None:
    """It was rolled back at first, and promoted when it was tried again."""
    second = msgspec.structs.replace(recorded.promotion, name="shop-run-7-again")
    end = Decision(outcome="RolledBack", reason="FeedbackWorse", message="worse", time=at(300))
    recorded.store.delete(next(iter(recorded.store.keys(".tunegate/promotions/"))))
    recorded.promotion = with_status(recorded.promotion, record=None, phase="RolledBack", decision=end)
    recorded.promotion = recorded.with_record(recorded.signer)
    assert broken(recorded.verify()) == "serving"
    write(recorded.store, Unrecorded(with_status(second, record=None), POLICY, PLACE), read_key(new_key(), "a key"))
    assert broken(recorded.verify()) == "serving", "somebody else signed that"
    (other,) = (key for key in recorded.store.keys(".tunegate/promotions/") if "again" in key)
    recorded.store.delete(other)
    write(recorded.store, Unrecorded(with_status(second, record=None), POLICY, PLACE), recorded.signer)
    found = recorded.verify()
    assert found.holds, found


@pytest.mark.parametrize("when", ["before it was recorded", "after"])
def test_measuring_again_spoils_no_record(recorded: Recorded, when: str) -> None:
    if when == "before it was recorded":
        recorded.promotion = with_status(recorded.promotion, record=None)
        recorded.store.delete(next(iter(recorded.store.keys(".tunegate/promotions/"))))
    for score in (0.4, 0.5):
        save(recorded.store, make_evaluation(recorded.promotion.candidate, score=score))
    if when == "before it was recorded":
        recorded.promotion = recorded.with_record(recorded.signer)
    found = recorded.verify()
    assert found.holds, found
    assert "quality (measured again since)" in [link.message for link in found.links]
    before, *_ = (
        key for key in recorded.store.keys(".tunegate/evaluations-before/") if b"0.9" in body(recorded.store, key)
    )
    recorded.store.put(before, body(recorded.store, before).replace(b"0.9", b"0.8"))
    assert broken(recorded.verify()) == "evaluations"


def test_one_that_left_says_when_and_for_whom_and_must_not_serve(recorded: Recorded, tmp_path: Path) -> None:
    later = recorded.succeeded_by("run-8", tmp_path)
    asked = [each for each in unrecorded([later, recorded.promotion], POLICY, PLACE) if each.successor]
    (departing,) = asked
    recorded.promotion = with_status(recorded.promotion, record=write(recorded.store, departing, recorded.signer))
    assert broken(recorded.verify()) == "serving"
    recorded.served = later.candidate.digest
    found = recorded.verify()
    assert found.holds, found
    assert next(link.message for link in found.links if link.name == "departure").endswith(later.candidate.name)
    record = recorded.promotion.status.record
    assert record is not None
    whole = body(recorded.store, record.departure)
    recorded.store.put(record.departure, whole.replace(b'"sig": "', b'"sig":  "'))
    assert broken(recorded.verify()) == "departure"
    recorded.store.delete(record.departure)
    assert broken(recorded.verify()) == "departure"


def test_a_store_that_is_away_is_no_broken_link(recorded: Recorded) -> None:
    away = Store.at("s3://models", endpoint_url="http://127.0.0.1:9", aws_access_key_id="k", aws_secret_access_key="s")
    with pytest.raises(StoreError, match="can't be reached"):
        verify(away, recorded.promotion, [recorded.signer.public_key], dict)


@pytest.mark.parametrize(("phase", "says"), [("Paused", "when it is over"), ("Failed", "it follows by itself")])
def test_one_without_a_record_says_why(recorded: Recorded, phase: str, says: str) -> None:
    recorded.promotion = with_status(recorded.promotion, record=None, phase=phase)
    with pytest.raises(DecisionRecordError, match=says):
        recorded.verify()


def test_equal_attempts_have_one_record_and_the_second_writer_finds_it(recorded: Recorded, signer: Signer) -> None:
    first = recorded.promotion.status.record
    again = write(recorded.store, Unrecorded(with_status(recorded.promotion, record=None), POLICY, PLACE), signer)
    assert again == first
    assert recorded.promotion.created == at(0)
