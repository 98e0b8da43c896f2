"""What records refuse holds once the message's words were followed."""

from __future__ import annotations

import subprocess
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import msgspec
import pytest

from tests.answering import listening
from tests.refusals import refused, without_story
from tests.unit.records.conftest import PLACE, POLICY, Recorded, with_status
from tunegate.api.errors import TunegateError
from tunegate.api.promotion import GateResult, Promotion
from tunegate.api.records import DECISION, Decision, Statement
from tunegate.records.checking import explained, read_decision, served_by, verify
from tunegate.records.signing import new_key, predicate_of, public_pem, read_key, read_public_key, read_public_keys
from tunegate.records.writing import Unrecorded, write
from tunegate.store import Store


def first_problem(recorded: Recorded, *keys: bytes) -> str:
    """What the first link that does not hold says; empty when all hold."""
    trusted = [recorded.signer.public_key, *(read_public_key(key, "a key") for key in keys)]
    found = verify(recorded.store, recorded.promotion, trusted, lambda: {"http://shop": recorded.served})
    return found.broken.message if found.broken else ""


def restored(recorded: Recorded, key: str, spoiled: bytes | None, words: str) -> None:
    """A document is refused in these words, and taken when it is back from a backup."""
    whole = recorded.store.get(key)
    assert whole is not None
    recorded.store.delete(key) if spoiled is None else recorded.store.put(key, spoiled)
    assert words in first_problem(recorded)
    recorded.store.put(key, whole)
    assert first_problem(recorded) == ""


def test_a_key_is_made_by_the_command_that_the_message_names(tmp_path: Path) -> None:
    with refused("make one with: openssl genpkey -algorithm ed25519 -out FILE"):
        read_key(b"no key", "signing.key")
    made = tmp_path / "signing.key"
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", str(made)], check=True, capture_output=True)
    read_key(made.read_bytes(), "signing.key")
    with refused("take it out of a key with: openssl pkey -pubout -in FILE"):
        read_public_key(made.read_bytes(), "signing.key")
    public = subprocess.run(["openssl", "pkey", "-pubout", "-in", str(made)], check=True, capture_output=True).stdout
    assert read_public_key(public, "a file").keyid
    with refused("; name the key's PEM file"):
        read_public_keys((), [tmp_path / "gone.pem"])


def test_the_earlier_key_opens_what_it_signed(recorded: Recorded) -> None:
    old, new = recorded.signer, read_key(new_key(), "a key")
    recorded.signer = new
    assert "give the earlier one with --public-key FILE" in first_problem(recorded)
    assert first_problem(recorded, public_pem(old)) == ""


def test_documents_come_back_from_a_backup(recorded: Recorded) -> None:
    record = recorded.promotion.status.record
    assert record is not None
    restored(recorded, record.key, b"{}", "is not as it was signed: it was changed or damaged; bring it back")
    restored(recorded, record.key, None, " is missing; bring it back from a backup of the store")
    manifest = f"{recorded.promotion.candidate.name}/manifest.json"
    restored(recorded, manifest, None, " is missing; bring it back from a backup of the store")
    whole = recorded.store.get(manifest) or b""
    restored(recorded, manifest, whole + b"\n", "is not as it was recorded; bring it back from a backup of the store")
    (evaluation,) = recorded.store.keys(".tunegate/evaluations/")
    restored(recorded, evaluation, None, " since it was recorded; bring it back from a backup")


def test_a_record_of_another_attempt_is_none(recorded: Recorded) -> None:
    record = recorded.promotion.status.record
    assert record is not None
    whole = recorded.store.get(record.key) or b""
    recorded.store.delete(record.key)
    write(
        recorded.store, Unrecorded(with_status(recorded.promotion, record=None, step=1), POLICY, PLACE), recorded.signer
    )
    with refused(" names; bring it back from a backup"):
        read_decision(recorded.store, recorded.promotion, [recorded.signer.public_key])
    recorded.store.put(record.key, whole)
    assert first_problem(recorded) == ""


def test_what_is_over_has_a_record_and_what_runs_has_none_yet(recorded: Recorded) -> None:
    record = recorded.promotion.status.record
    recorded.promotion = with_status(recorded.promotion, record=None, phase="Baking")
    with refused("; its record is written when it is over"):
        recorded.verify()
    assert explained(recorded.store, recorded.promotion, (POLICY, PLACE), [])[2] == ""
    recorded.promotion = with_status(recorded.promotion, phase="Succeeded")
    with refused("it follows by itself once both are there"):
        recorded.verify()
    recorded.promotion = with_status(recorded.promotion, record=record)
    assert first_problem(recorded) == ""


def test_a_document_in_the_place_of_a_record_is_deleted(recorded: Recorded) -> None:
    """Of another promotion with its folder, which only who writes to the store can have put there."""
    record = recorded.promotion.status.record
    assert record is not None
    other = with_status(recorded.promotion, record=None)
    wrong = recorded.store.get(record.key)
    renamed = type(other)(
        name="shop-run-9",
        created=other.created,
        candidate=other.candidate,
        approval=other.approval,
        status=other.status,
    )
    found = write(recorded.store, Unrecorded(renamed, POLICY, PLACE), recorded.signer)
    assert wrong is not None
    recorded.store.put(found.key, wrong)
    with refused(" is of another promotion; delete it from the store"):
        write(recorded.store, Unrecorded(renamed, POLICY, PLACE), recorded.signer)
    recorded.store.delete(found.key)
    assert write(recorded.store, Unrecorded(renamed, POLICY, PLACE), recorded.signer) == found


def test_a_record_of_a_later_tunegate_is_read_by_that_one(recorded: Recorded) -> None:
    with refused("; install a later one"):
        predicate_of(Statement(subject=(), predicate_type=DECISION, predicate={"schema": "v2"}), Decision, "a record")
    decision = msgspec.to_builtins(read_decision(recorded.store, recorded.promotion, [recorded.signer.public_key]))
    predicate_of(Statement(subject=(), predicate_type=DECISION, predicate=decision), Decision, "a record")


def test_a_departure_of_another_record_is_none(recorded: Recorded, tmp_path: Path) -> None:
    later = recorded.succeeded_by("run-8", tmp_path)
    departed = write(recorded.store, Unrecorded(recorded.promotion, POLICY, PLACE, later), recorded.signer)
    recorded.promotion = with_status(recorded.promotion, record=departed)
    recorded.served = later.candidate.digest
    other = write(recorded.store, Unrecorded(later, POLICY, PLACE), recorded.signer)
    again = write(recorded.store, Unrecorded(with_status(later, record=other), POLICY, PLACE, later), recorded.signer)
    restored(
        recorded, departed.departure, recorded.store.get(again.departure), " belongs to another record; bring it back"
    )


def test_promotions_gates_and_servers_that_disagree_are_told_of(recorded: Recorded) -> None:
    ended = recorded.promotion
    recorded.promotion = with_status(ended, weight=50)
    assert "; it was changed since: go by the record" in first_problem(recorded)
    recorded.promotion = ended
    recorded.served = recorded.base.digest
    assert "or a later version is being shown; see: tunegate promotions list" in first_problem(recorded)
    for changes, words in (
        ({"gates": with_gate(ended, observed=0.1)}, "and promote it again"),
        ({"gates": with_gate(ended, passed=False)}, "it was promoted although a gate did not pass"),
        ({"decision": None, "phase": "Rejected"}, "which is not live by its record; see who changed the route"),
    ):
        again = with_status(ended, record=None, **changes)
        recorded.store.delete(recorded.store.keys(".tunegate/promotions/")[0])
        recorded.promotion, recorded.served = again, again.candidate.digest
        recorded.promotion = recorded.with_record(recorded.signer)
        assert words in first_problem(recorded)


def with_gate(promotion: Promotion, **changes: object) -> tuple[GateResult, ...]:
    return (msgspec.structs.replace(promotion.status.gates[0], **changes),)


def test_a_server_is_asked_at_an_address_that_answers(recorded: Recorded) -> None:
    class Refusing(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(404)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with refused("or give the address that can be reached from here with --url"):
        served_by("http://127.0.0.1:9", "shop")
    with listening(Refusing) as url, refused("; see its log, and that --url is right"):
        served_by(url, "shop")


def test_one_that_deletes_from_the_store_is_told_of(recorded: Recorded, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between a put that was refused and the read after it."""
    get = Store.get
    monkeypatch.setattr(Store, "get", lambda self, key: None if key.endswith("decision.json") else get(self, key))
    with pytest.raises(TunegateError, match="was there and is gone; see who deletes from the store"):
        write(recorded.store, Unrecorded(with_status(recorded.promotion, record=None), POLICY, PLACE), recorded.signer)


def test_every_message_of_the_room_has_a_story() -> None:
    assert without_story("records", Path(__file__)) == []
