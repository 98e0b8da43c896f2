"""What stands in a record: an in-toto statement about the files of the version, in an envelope that others can open."""

from __future__ import annotations

import base64
import json

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from tests.unit.records.conftest import PLACE, POLICY, Recorded, with_status
from tunegate.api.records import Decision, Place
from tunegate.records.checking import read_decision
from tunegate.records.signing import public_pem
from tunegate.records.writing import Unrecorded, decision_of, unrecorded, write


def test_a_record_is_an_in_toto_statement_that_any_ed25519_verifies(recorded: Recorded) -> None:
    record = recorded.promotion.status.record
    assert record is not None
    envelope = json.loads(recorded.store.get(record.key) or b"")
    payload = base64.b64decode(envelope["payload"])
    (signature,) = envelope["signatures"]
    kind = envelope["payloadType"].encode()
    signed = b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)  # the specification, by hand
    public = load_pem_public_key(public_pem(recorded.signer))
    assert isinstance(public, Ed25519PublicKey)
    public.verify(base64.b64decode(signature["sig"]), signed)
    statement = json.loads(payload)
    assert (statement["_type"], statement["predicateType"]) == (
        "https://in-toto.io/Statement/v1",
        "https://tunegate.io/decision/v1",
    )
    names = {subject["name"].rpartition("/")[2] for subject in statement["subject"]}
    assert names == {"manifest.json", "model.safetensors", "release.yaml"}
    assert all(len(subject["digest"]["sha256"]) == 64 for subject in statement["subject"])


def test_a_record_says_who_from_what_on_which_numbers_and_what_users_said(recorded: Recorded) -> None:
    found = decision_of(recorded.store, Unrecorded(recorded.promotion, POLICY, PLACE))
    assert found.producer is not None
    assert found.producer.datasets[0].name == "shop-dialogues"
    assert [base.name for base in found.bases] == ["base/base/checkpoint-0"]
    assert [(each.suite, each.metrics[0].value) for each in found.evaluations] == [("quality", 0.9)]
    assert [(step.weight, step.candidate.n) for step in found.evidence] == [(10, 33), (50, 99)]
    comparison = recorded.promotion.status.comparison
    assert comparison is not None
    assert found.evidence[-1].not_worse == comparison.evidence_not_worse
    assert [each.weight for each in found.weights] == [10, 50, 100]
    assert found.live is not None
    assert msgspec.convert(msgspec.to_builtins(found), Decision) == found


def test_what_is_recorded_is_not_asked_for_again(recorded: Recorded) -> None:
    running = with_status(recorded.promotion, record=None, phase="Paused")
    ended = with_status(recorded.promotion, record=None)
    assert list(unrecorded([recorded.promotion, running], POLICY, PLACE)) == []
    assert [each.promotion for each in unrecorded([ended, running], POLICY, PLACE)] == [ended]


def test_equal_attempts_in_two_namespaces_have_a_record_each(recorded: Recorded) -> None:
    """Operators make a Promotion in each in the second in which a version appears."""
    ended = with_status(recorded.promotion, record=None)
    places = [Place(policy="shop", namespace=namespace) for namespace in ("staging", "live")]
    found = [write(recorded.store, Unrecorded(ended, POLICY, place), recorded.signer) for place in places]
    assert found[0].key != found[1].key
    for record, place in zip(found, places, strict=True):
        promotion = with_status(ended, record=record)
        assert read_decision(recorded.store, promotion, [recorded.signer.public_key]).place == place
