from __future__ import annotations

import base64
import hmac
import re
from datetime import UTC, datetime, timedelta

import pytest

from tunegate.api.digest import Digest
from tunegate.api.errors import ForgedIdError, UsageError
from tunegate.api.feedback import step_tag
from tunegate.feedback import ResponseIds, parse_keys

KEY = bytes(range(32))
DIGEST = "sha256:" + "0123456789abcdef" * 4
NOW = datetime(2026, 3, 4, 5, 6, 7, 891234, tzinfo=UTC)


@pytest.fixture
def ids() -> ResponseIds:
    return ResponseIds(KEY, "shop-assistant")


def test_an_id_says_which_version_answered_and_when(ids: ResponseIds) -> None:
    read = ids.read(ids.issue(DIGEST, NOW))

    assert read.digest == DIGEST
    assert read.answered == NOW.replace(microsecond=891000)


def test_an_id_tells_users_apart_without_naming_them(ids: ResponseIds) -> None:
    anna, again, ben = (ids.read(ids.issue(DIGEST, NOW, user)).user for user in ("anna", "anna", "ben"))

    assert anna == again != ben
    assert re.fullmatch("[0-9a-f]{12}", anna or "")
    assert ids.read(ids.issue(DIGEST, NOW)).user is None
    assert ids.read(ids.issue(DIGEST, NOW, "")).user is None


def test_an_id_says_in_which_step_of_which_promotion(ids: ResponseIds) -> None:
    steps = [step_tag(promotion, index) for promotion in ("shop-run-1", "shop-run-2") for index in (0, 1, 21, 254)]

    assert [ids.read(ids.issue(DIGEST, NOW, "anna", step)).step for step in steps] == steps
    assert len(set(steps)) == len(steps)
    assert ids.read(ids.issue(DIGEST, NOW)).step is None


def test_a_step_beyond_all_policies_is_none_and_no_other_one(ids: ResponseIds) -> None:
    assert ids.read(ids.issue(DIGEST, NOW, step=step_tag("shop-run-1", 255))).step is None


def test_an_id_of_0_1_0_is_read_as_one_of_no_step(ids: ResponseIds) -> None:
    payload = Digest.parse(DIGEST).raw + bytes([1, 155, 0, 0, 0, 0]) + bytes(9) + bytes.fromhex("0a1b2c3d4e5f")
    mac = hmac.digest(KEY, b"tunegate response id v1\0shop-assistant\0" + payload, "sha256")[:16]
    read = ids.read("chatcmpl-" + base64.urlsafe_b64encode(payload + mac).decode())

    assert (read.digest, read.user, read.step) == (DIGEST, "0a1b2c3d4e5f", None)


def test_the_step_can_be_neither_changed_nor_taken_away(ids: ResponseIds) -> None:
    raw = base64.urlsafe_b64decode(ids.issue(DIGEST, NOW, step=step_tag("shop-run-1", 0))[9:])
    for forged in (raw[:58] + bytes([2]) + raw[59:], raw[:53] + raw[59:], raw[:53] + bytes(6) + raw[59:]):
        with pytest.raises(ForgedIdError):
            ids.read("chatcmpl-" + base64.urlsafe_b64encode(forged).decode())


def test_a_user_is_another_one_the_next_day(ids: ResponseIds) -> None:
    today, tomorrow = (ids.read(ids.issue(DIGEST, NOW + timedelta(days=n), "anna")).user for n in (0, 1))
    assert today != tomorrow


def test_a_user_can_not_be_followed_to_other_versions_models_or_keys(ids: ResponseIds) -> None:
    others = [ids.issue("sha256:" + "9" * 64, NOW, "anna")]
    tags = {ids.read(text).user for text in others} | {
        other.read(other.issue(DIGEST, NOW, "anna")).user
        for other in (ids, ResponseIds(KEY, "other"), ResponseIds(bytes(32), "shop-assistant"))
    }

    assert len(tags) == 4


def test_ids_are_unique_url_safe_and_look_like_openais(ids: ResponseIds) -> None:
    issued = {ids.issue(DIGEST, NOW) for _ in range(1000)}

    assert len(issued) == 1000
    assert all(re.fullmatch(r"chatcmpl-[A-Za-z0-9_-]{100}", each) for each in issued)


def test_another_replica_with_the_same_key_reads_it(ids: ResponseIds) -> None:
    assert ResponseIds(KEY, "shop-assistant").read(ids.issue(DIGEST, NOW)).digest == DIGEST


@pytest.mark.parametrize(
    "other",
    [ResponseIds(bytes(32), "shop-assistant"), ResponseIds(KEY, "shop-assistan"), ResponseIds(KEY, "other")],
    ids=["another key", "a shorter model", "another model"],
)
def test_ids_of_others_are_refused(ids: ResponseIds, other: ResponseIds) -> None:
    with pytest.raises(ForgedIdError, match="not issued here"):
        ids.read(other.issue(DIGEST, NOW))


def test_any_changed_character_is_refused(ids: ResponseIds) -> None:
    text = ids.issue(DIGEST, NOW)
    for at in range(len(text)):
        changed = text[:at] + ("A" if text[at] != "A" else "B") + text[at + 1 :]
        with pytest.raises(ForgedIdError):
            ids.read(changed)


def test_there_is_only_one_spelling_of_an_id(ids: ResponseIds) -> None:
    text = next(text for text in iter(lambda: ids.issue(DIGEST, NOW), "") if "-" in text[9:] and "_" in text)
    body = text[9:]
    spellings = [text + "\n", text + "=", text + "====", "chatcmpl-" + body.replace("-", "+"), body, text.upper()]
    spellings += ["chatcmpl-" + body.replace("_", "/"), "chatcmpl-!" + body, "chatcmpl-" + text, " " + text]

    for spelling in spellings:
        with pytest.raises(ForgedIdError):
            ids.read(spelling)


@pytest.mark.parametrize(
    "text", ["", "chatcmpl-", "chatcmpl-123", "x" * 512, "chatcmpl-夏天", "\ud800", "A" * 92, "A" * 100]
)
def test_what_is_no_id_is_refused(ids: ResponseIds, text: str) -> None:
    with pytest.raises(ForgedIdError):
        ids.read(text)


def test_a_signature_for_one_part_does_not_fit_another(ids: ResponseIds) -> None:
    one, two = (base64.urlsafe_b64decode(ids.issue(DIGEST, NOW)[9:]) for _ in range(2))
    mixed = "chatcmpl-" + base64.urlsafe_b64encode(one[:47] + two[47:]).decode()

    with pytest.raises(ForgedIdError):
        ids.read(mixed)


def test_a_key_is_read_from_hex() -> None:
    assert parse_keys(KEY.hex()) == (KEY,)


@pytest.mark.parametrize("text", [None, "", "secret", "ab" * 31, "zz" * 32, "ab" * 32 + ","])
def test_a_missing_or_weak_key_names_the_remedy(text: str | None) -> None:
    with pytest.raises(UsageError, match=r"TUNEGATE_FEEDBACK_KEY.*secrets\.token_hex\(32\)"):
        parse_keys(text)


def test_an_unnamed_user_is_known_by_the_address_and_a_named_one_is_not() -> None:
    ids = ResponseIds(KEY, "shop")

    def tag(user: str | None, address: str | None) -> str | None:
        return ids.read(ids.issue(DIGEST, NOW, user, address=address)).user

    here, there = tag(None, "203.0.113.7"), tag(None, "203.0.113.8")
    assert here == tag("", "203.0.113.7")
    assert here != there
    assert all(each and each.startswith("@") and "203" not in each[:4] for each in (here, there))
    assert tag("anna", "203.0.113.7") == tag("anna", None)
    assert not (tag("203.0.113.7", None) or "@").startswith("@")
    assert tag(None, None) is None


def test_while_a_key_is_replaced_ids_of_both_are_read_and_afterwards_those_of_the_earlier_are_none() -> None:
    """Pods are replaced one by one: each reads what the others sign, in each of the three states of the Secret."""
    old, new = KEY.hex(), ("cd" * 32)
    states = [ResponseIds(key, "shop", *others) for key, *others in map(parse_keys, (f"{old},{new}", f"{new},{old}"))]
    given = [each.issue(DIGEST, NOW) for each in states]
    for each in states:
        assert [each.read(text).digest for text in given] == [DIGEST] * 2
    (last,) = parse_keys(new)
    assert ResponseIds(last, "shop").read(given[1]).digest == DIGEST
    with pytest.raises(ForgedIdError, match=r"its key is known no more; send the id of an answer of today"):
        ResponseIds(last, "shop").read(given[0])
