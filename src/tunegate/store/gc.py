"""Which versions of a store nobody needs any more, and taking them out of it.

What is needed is given, by digest; the base of a version that stays is needed as well. Pure but for `delete`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import groupby
from typing import TYPE_CHECKING

from tunegate.api.errors import UsageError
from tunegate.api.versions import MANIFEST, Manifest

if TYPE_CHECKING:
    from tunegate.store import Store


@dataclass(frozen=True)
class Fate:
    """Whether a version may go, and why it stays; `reason` is empty for one that may go."""

    manifest: Manifest
    reason: str


def fates(
    manifests: Sequence[Manifest], needed: Mapping[str, str], *, keep: int, age: timedelta, now: datetime
) -> tuple[Fate, ...]:
    """What becomes of each version, in the order given.

    needed: why a version stays, by its digest. keep: so many of the newest versions of each model stay, and so do all
    that are younger than `age`.
    """
    reasons: dict[str, str] = {}
    by_model = sorted(manifests, key=lambda manifest: (manifest.model, manifest.created, manifest.name))
    for _, group in groupby(by_model, key=lambda manifest: manifest.model):
        for place, manifest in enumerate(reversed(list(group))):
            if reason := needed.get(manifest.digest):
                reasons[manifest.name] = reason
            elif place < keep:
                reasons[manifest.name] = f"one of the {keep} newest"
            elif now - manifest.created < age:
                reasons[manifest.name] = f"younger than {age.days} days"
    for manifest in sorted(manifests, key=lambda manifest: manifest.created, reverse=True):
        if manifest.name in reasons and manifest.base:
            for base in (other for other in manifests if other.digest == manifest.base.digest):
                reasons.setdefault(base.name, f"the base of {manifest.name}")
    return tuple(Fate(manifest, reasons.get(manifest.name, "")) for manifest in manifests)


def require_unneeded(manifest: Manifest, manifests: Iterable[Manifest], needed: Mapping[str, str]) -> None:
    """Raises UsageError that says who needs it."""
    others = (other.name for other in manifests if other.base and other.base.digest == manifest.digest)
    alone = all(other.name == manifest.name for other in manifests if other.digest == manifest.digest)
    reason = needed.get(manifest.digest, "")
    if not reason and alone and (name := next(others, "")):
        reason = f"the base of {name}"
    if reason:
        raise UsageError(f"{manifest.name} is {reason}; end that first.")


def delete(store: Store, manifest: Manifest) -> None:
    """Take a version out of the store: its manifest first, after which it is none. Done again, it ends what was cut.

    What it was measured at, and what users said of it, stays. Raises StoreError.
    """
    store.delete(f"{manifest.name}/{MANIFEST}")
    for key in store.keys(f"{manifest.name}/"):
        store.delete(key)
