"""Signed response ids: who holds one was given that answer by that version of that served model, then, in that step.

An id says everything itself, so any replica with the same key can check it without asking anyone. Nothing here knows
where ids or feedback are kept.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from tunegate.api.digest import Digest
from tunegate.api.environment import FEEDBACK_KEY
from tunegate.api.errors import ForgedIdError, UsageError
from tunegate.api.feedback import StepTag
from tunegate.feedback.tally import BY_ADDRESS

PREFIX = "chatcmpl-"  # what OpenAI's tools expect of the id of an answer

_DIGEST, _TIME, _NONCE, _USER, _STEP, _MAC = 32, 6, 9, 6, 6, 16  # bytes; 75, so base64 has no spare bits to play with
_PAYLOAD_OF_0_1 = _DIGEST + _TIME + _NONCE + _USER  # ids of before knew no step
_PAYLOAD = _PAYLOAD_OF_0_1 + _STEP
_ANONYMOUS, _NO_STEP = bytes(_USER), bytes(_STEP)
_MOST_STEP = 254  # the index has one byte, and 0 there is none
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DOMAIN = b"tunegate response id v1\0"
_USER_DOMAIN = b"tunegate user v1\0"
_ADDRESS_DOMAIN = b"tunegate address v1\0"
_CONVERSATION_DOMAIN = b"tunegate conversation v1\0"
_NEW_KEY = 'make one with: python -c "import secrets; print(secrets.token_hex(32))"'


@dataclass(frozen=True)
class ResponseId:
    """What a response id says: the version by its full digest, when it answered (to the millisecond), to whom, and in
    which step of a promotion.

    step: the step's tag; None for an answer of no step, and for an id that 0.1.0 issued.
    user: a tag that tells the users of one version on one day apart and says nothing else of them; for an unnamed one,
    a tag of the address that asked, which begins with BY_ADDRESS, or None where that isn't known.
    """

    text: str
    digest: str
    answered: datetime
    nonce: str
    user: str | None
    step: StepTag | None


def new_nonce() -> bytes:
    """What tells an id from all others, and says nothing of it."""
    return secrets.token_bytes(_NONCE)


class ResponseIds:
    """Issues and reads the ids of one served model; `model` is bound into the signature.

    key: the one that signs. others: those that signed before it, or will after it, whose ids are read, too.
    """

    def __init__(self, key: bytes, model: str, *others: bytes) -> None:
        self._key, self._known = key, (key, *others)
        self._context = _DOMAIN + model.encode() + b"\0"
        self._users = _USER_DOMAIN + model.encode() + b"\0"

    def issue(
        self,
        digest: str,
        now: datetime,
        user: str | None = None,
        step: StepTag | None = None,
        nonce: bytes | None = None,
        address: str | None = None,
    ) -> str:
        """A new id for an answer that the version with `digest` gives `user` now, in this step: URL-safe, 109
        characters. nonce: the one of `new_nonce` that tells it from all others. address: where an unnamed user asks
        from."""
        milliseconds = (now - _EPOCH) // timedelta(milliseconds=1)
        version = Digest.parse(digest).raw
        payload = (
            version
            + milliseconds.to_bytes(_TIME)
            + (nonce or new_nonce())
            + self._tag(version, user, address, now)
            + _packed(step)
        )
        return PREFIX + base64.urlsafe_b64encode(payload + self._sign(payload, self._key)).decode()

    def read(self, text: str) -> ResponseId:
        """What `text` says. Raises ForgedIdError unless a known key signed exactly this text for this model."""
        try:
            raw = base64.urlsafe_b64decode(text.removeprefix(PREFIX))
        except (binascii.Error, ValueError):
            raw = b""
        # Only the one canonical spelling passes: a second spelling would be a second vote.
        if (
            len(raw) - _MAC not in (_PAYLOAD, _PAYLOAD_OF_0_1)
            or PREFIX + base64.urlsafe_b64encode(raw).decode() != text
        ):
            raise ForgedIdError("This is not a response id; send the `id` of an answer just as it was given.")
        payload, mac = raw[:-_MAC], raw[-_MAC:]
        if not any(hmac.compare_digest(mac, self._sign(payload, key)) for key in self._known):
            raise ForgedIdError(
                "This response id was not issued here, or its key is known no more; send the id of an answer of today "
                "just as it was given."
            )
        milliseconds = int.from_bytes(payload[_DIGEST : _DIGEST + _TIME])
        user, step = payload[_PAYLOAD_OF_0_1 - _USER : _PAYLOAD_OF_0_1], payload[_PAYLOAD_OF_0_1:]
        return ResponseId(
            text=text,
            digest=str(Digest.of_raw(payload[:_DIGEST])),
            answered=_EPOCH + timedelta(milliseconds=milliseconds),
            nonce=payload[_DIGEST + _TIME : _PAYLOAD_OF_0_1 - _USER].hex(),
            user=None if user == _ANONYMOUS else (BY_ADDRESS if user[0] & 1 else "") + user.hex(),
            step=f"{step[:-1].hex()}/{step[-1] - 1}" if any(step[-1:]) else None,
        )

    def tag_of_conversation(self, name: str) -> str:
        """What stands for a conversation in the log: the same for each of its answers, and it says nothing else."""
        return hmac.digest(self._key, _CONVERSATION_DOMAIN + self._context + name.encode(), "sha256")[:8].hex()

    def _tag(self, version: bytes, user: str | None, address: str | None, now: datetime) -> bytes:
        """A keyed hash: without the key nobody finds out who it is or follows them to another version or day.

        Anew each day, so that the verdicts of people who use a version for weeks keep counting. Its first byte is odd
        for an address and even for a name.
        """
        who = user or address
        if not who:
            return _ANONYMOUS
        day = now.astimezone(UTC).date().isoformat().encode()
        domain = self._users if user else _ADDRESS_DOMAIN + self._users
        first, *rest = hmac.digest(self._key, domain + version + day + who.encode(), "sha256")[:_USER]
        return bytes([first & 0xFE | (not user), *rest])

    def _sign(self, payload: bytes, key: bytes) -> bytes:
        return hmac.digest(key, self._context + payload, "sha256")[:_MAC]


def _packed(step: StepTag | None) -> bytes:
    """The tag and, one higher so that 0 is none, the index. A step beyond what fits is none."""
    tag, _, index = (step or "").partition("/")
    return bytes.fromhex(tag) + bytes([int(index) + 1]) if index and int(index) <= _MOST_STEP else _NO_STEP


def parse_keys(text: str | None) -> tuple[bytes, ...]:
    """The key that signs, from its hex form, and others that are known, after commas.

    Raises UsageError when there is none, or when one is too short to be one.
    """
    if not text:
        raise UsageError(f"{FEEDBACK_KEY} is not set, so answers can't be signed; {_NEW_KEY}")
    try:
        keys = tuple(bytes.fromhex(each) for each in text.split(","))
    except ValueError:
        keys = (b"",)
    if min(map(len, keys)) < 32:
        raise UsageError(f"{FEEDBACK_KEY} must be at least 64 hex digits, each key of several; {_NEW_KEY}")
    return keys
