"""Statements in signed envelopes (DSSE), and the keys for that: Ed25519 in PEM files.

An envelope is read only if it is byte for byte what we write: base64 and JSON have several spellings of one content,
and no byte of a record may change unseen.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import CryptoSigner, Key, SSlibKey

from tunegate.api.digest import Digest
from tunegate.api.errors import DecisionRecordError, UsageError
from tunegate.api.records import PAYLOAD_TYPE, Statement

T = TypeVar("T")
Signer = CryptoSigner
PublicKey = SSlibKey

_MADE_WITH = "make one with: openssl genpkey -algorithm ed25519 -out FILE"


def new_key() -> bytes:
    """A new signing key as a PEM file."""
    return bytes(CryptoSigner.generate_ed25519().private_bytes)


def read_key(pem: bytes, source: str) -> Signer:
    """The signing key in a PEM file; `source` names the file in the error. Raises UsageError."""
    try:
        return CryptoSigner(load_pem_private_key(pem, None))
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise UsageError(f"{source} is not a signing key (a PEM file without a password); {_MADE_WITH}") from None


def public_pem(signer: Signer) -> bytes:
    """The public half of a key, as a PEM file."""
    public = load_pem_private_key(signer.private_bytes, None).public_key()
    return bytes(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))


def read_public_key(pem: bytes, source: str) -> PublicKey:
    """The public key in a PEM file. Raises UsageError."""
    try:
        return SSlibKey.from_crypto(load_pem_public_key(pem))
    except (ValueError, UnsupportedAlgorithm):
        remedy = "it begins with -----BEGIN PUBLIC KEY-----; take it out of a key with: openssl pkey -pubout -in FILE"
        raise UsageError(f"{source} is not a public key; {remedy}") from None


def read_public_keys(pems: Iterable[str], files: Iterable[Path]) -> list[PublicKey]:
    """The public keys in these texts and in these PEM files. Raises UsageError."""
    return [
        *(read_public_key(pem.encode(), "a key of the policy's status") for pem in pems),
        *(read_public_key(read_pem(path), str(path)) for path in files),
    ]


def read_pem(path: Path) -> bytes:
    """Raises UsageError."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path} can't be read ({error.strerror}); name the key's PEM file.") from None


def seal(statement: Statement, signer: Signer) -> bytes:
    """The document that goes into the store."""
    envelope = Envelope(msgspec.json.encode(statement), PAYLOAD_TYPE, {})
    envelope.sign(signer)
    return _document(envelope)


def unseal(document: bytes, keys: Iterable[PublicKey], source: str) -> tuple[Statement, str, str]:
    """The statement of a document that one of `keys` signed, its digest and the id of that key; `source` names the
    document.

    Raises DecisionRecordError when it is none of ours, was changed, or is signed by a key that isn't known.
    """
    try:
        envelope = Envelope.from_dict(json.loads(document))
        _require(_document(envelope) == document and envelope.payload_type == PAYLOAD_TYPE)
        known: list[Key] = list(keys)
        signers = sorted(envelope.signatures)
        if not {key.keyid for key in known} & set(signers):
            raise DecisionRecordError(
                f"{source} is signed by the key {' and '.join(signers)[:64]}, which is not known here; if your keys "
                "were changed since, give the earlier one with --public-key FILE."
            )
        accepted = envelope.verify(known, 1)
        statement = msgspec.json.decode(envelope.payload, type=Statement)
    except (ValueError, KeyError, TypeError, AttributeError, VerificationError):
        # msgspec's and json's errors are ValueErrors; any of them means that these are not the bytes that were signed.
        raise DecisionRecordError(
            f"{source} is not as it was signed: it was changed or damaged; bring it back from a backup of the store."
        ) from None
    return statement, str(Digest.of_bytes(envelope.payload)), next(iter(accepted))


def predicate_of(statement: Statement, kind: type[T], source: str) -> T:
    """What a statement says. Raises DecisionRecordError where a later tunegate wrote it."""
    try:
        return msgspec.convert(statement.predicate, kind)
    except msgspec.ValidationError as error:
        raise DecisionRecordError(f"{source} can't be read by this tunegate ({error}); install a later one.") from None


def _require(is_ours: bool) -> None:
    if not is_ours:
        raise ValueError("another spelling than ours")


def _document(envelope: Envelope) -> bytes:
    plain: dict[str, Any] = envelope.to_dict()
    return json.dumps(plain, indent=2).encode() + b"\n"
