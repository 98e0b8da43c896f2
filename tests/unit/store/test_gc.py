"""Which versions may go: a property of all sets of them, and the real store."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tunegate.api.errors import UsageError
from tunegate.api.versions import BaseModel, File, Manifest, Producer, Release, digest_of
from tunegate.store import Store, gc

NOW = datetime(2026, 6, 1, tzinfo=UTC)


def made(name: str, days: int, base: Manifest | None = None) -> Manifest:
    files = (File(path=name, size=1, sha256="0" * 64),)
    return Manifest(
        model=name.split("/")[0],
        name=name,
        format="huggingface",
        digest=digest_of(files),
        files=files,
        base=BaseModel(uri=f"s3://models/{base.name}/", digest=base.digest) if base else None,
        producer=Producer(kind="test"),
        created=NOW - timedelta(days=days),
    )


BASE = made("base/run/checkpoint-0", 400)
TEA = [made(f"tea/run/checkpoint-{days}", days, BASE) for days in (90, 80, 70, 60, 5)]


def test_the_newest_the_young_and_the_needed_stay() -> None:
    fates = gc.fates([BASE, *TEA], {TEA[0].digest: "live"}, keep=1, age=timedelta(days=65), now=NOW)

    assert [fate.reason for fate in fates] == [
        "one of the 1 newest",
        "live",
        "",
        "",
        "younger than 65 days",
        "one of the 1 newest",
    ]


def test_the_base_of_a_version_that_stays_stays() -> None:
    old_base, newer = made("base/run/checkpoint-0", 400), made("base/run/checkpoint-1", 300)
    adapter = made("tea/run/checkpoint-1", 100, old_base)

    for needed, reason in (({}, "the base of tea/run/checkpoint-1"), ({old_base.digest: "live"}, "live")):
        fates = gc.fates([old_base, newer, adapter], needed, keep=1, age=timedelta(), now=NOW)
        assert [fate.reason for fate in fates] == [reason, "one of the 1 newest", "one of the 1 newest"]


def test_a_version_that_is_needed_is_refused() -> None:
    with pytest.raises(UsageError, match="tea/run/checkpoint-90 is live; end that first"):
        gc.require_unneeded(TEA[0], [BASE, *TEA[1:]], {TEA[0].digest: "live"})
    with pytest.raises(UsageError, match="is the base of tea/run/checkpoint-80; end that first"):
        gc.require_unneeded(BASE, TEA[1:], {})
    gc.require_unneeded(BASE, [], {})


def test_a_deletion_that_was_cut_is_ended_by_doing_it_again(store: Store, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model/config.json").write_text("{}")
    names = [f"tea/run/checkpoint-{step}" for step in (1, 10)]
    for name in names:
        store.publish(tmp_path / "model", name, release=Release(format="huggingface"), producer=Producer(kind="test"))
    first, second = store.manifests()

    store.delete(f"{first.name}/manifest.json")
    gc.delete(store, first)

    assert store.keys(f"{first.name}/") == []
    assert store.manifests() == [second]
    store.verify(second.name)
