"""A sha256 in the spellings that tunegate has for it: one place writes and reads them.

Fields of documents hold the text, `sha256:<64 hex digits>`; whoever needs another spelling asks for it here.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from tunegate.api.errors import UsageError

_PREFIX = "sha256:"
_HEX = re.compile(r"[0-9a-f]{64}")
_BEGINNING = re.compile(rf"(?:{_PREFIX})?([0-9a-f]{{8,64}})")
_SHORT = 12  # hex digits; enough to tell the versions of any store apart


@dataclass(frozen=True)
class Digest:
    """A whole sha256; `str()` of it is what documents, the command line and custom resources hold.

    hex: its 64 digits alone, as folders and keys of the store are named.
    """

    hex: str

    @classmethod
    def parse(cls, text: str) -> Digest:
        """Read `sha256:<64 hex digits>`. Raises UsageError for anything else."""
        if not text.startswith(_PREFIX) or not _HEX.fullmatch(text, len(_PREFIX)):
            raise UsageError(
                f"{text!r} is not the full digest of a version, sha256: and 64 hex digits; find it with: "
                "tunegate models list --json."
            )
        return cls(text.removeprefix(_PREFIX))

    @classmethod
    def of_bytes(cls, content: bytes) -> Digest:
        """The digest of `content`."""
        return cls(hashlib.sha256(content).hexdigest())

    @classmethod
    def of_raw(cls, raw: bytes) -> Digest:
        """The digest whose 32 bytes these are."""
        return cls(raw.hex())

    def __str__(self) -> str:
        return _PREFIX + self.hex

    @property
    def raw(self) -> bytes:
        """Its 32 bytes."""
        return bytes.fromhex(self.hex)

    @property
    def pinned(self) -> str:
        """As a URI may hold it: `sha256-<64 hex digits>`."""
        return f"sha256-{self.hex}"


def short(digest: str) -> str:
    """The first 12 hex digits of a digest: for tables, names of objects and metric labels."""
    return digest.removeprefix(_PREFIX)[:_SHORT]


def beginning(text: str) -> str | None:
    """The hex digits of a digest that a person gives in part, at least 8; None when `text` is something else."""
    match = _BEGINNING.fullmatch(text)
    return match and match[1]
