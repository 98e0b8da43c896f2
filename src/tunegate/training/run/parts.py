"""What nodes tell each other of a checkpoint that no node has whole: each has a folder of its own, and sends its part.

They speak through the key-value store of their ranks' rendezvous, which lives as long as an attempt does: nothing that
an earlier one said is taken for this one's. Who publishes learns names, sizes and digests, and never sees the bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Protocol

import msgspec

from tunegate.api.codec import Resource, from_json, prepare
from tunegate.api.errors import StoreError
from tunegate.api.versions import File


class KeyValueStore(Protocol):
    """What is used of torch.distributed's stores."""

    def set(self, key: str, value: Any) -> None: ...  # bytes, too, whatever its hints say

    def get(self, key: str) -> bytes: ...

    def check(self, keys: list[str]) -> bool: ...

    def add(self, key: str, amount: int) -> int: ...

    def set_timeout(self, timeout: timedelta) -> None: ...


class _Told(Resource, frozen=True, kw_only=True):
    """The files that a node has sent, or why it can't."""

    files: tuple[File, ...] = ()
    reason: str = ""


@dataclass(frozen=True)
class Parts:
    """The parts of this attempt's checkpoints. rank: this one; others: the first rank in each folder but the first."""

    kv_store: KeyValueStore
    rank: int
    others: tuple[int, ...]

    def tell(self, checkpoint: str, files: tuple[File, ...] = (), reason: str = "") -> None:
        """Say what this node has sent of `checkpoint`, or the `reason` why it can't."""
        self.kv_store.set(_key(checkpoint, self.rank), msgspec.json.encode(_Told(files=files, reason=reason)))

    def told(self, checkpoint: str) -> list[File] | None:
        """What all others have sent; None until they have. Raises StoreError when one of them can't."""
        keys = [_key(checkpoint, rank) for rank in self.others]
        told = [from_json(self.kv_store.get(key), _Told, key) for key in keys if self.kv_store.check([key])]
        if reason := next((one.reason for one in told if one.reason), ""):
            raise StoreError(f"another node can't send its part of {checkpoint}; mend that there: {reason}")
        return [file for one in told for file in one.files] if len(told) == len(keys) else None


def _key(checkpoint: str, rank: int) -> str:
    return f"tunegate/part/{checkpoint}/{rank}"


prepare(_Told)
