"""What a version in the store is worth: the results that the store holds, and new ones where it holds none."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, partial

from tunegate.api.evaluation import Evaluation
from tunegate.api.versions import ModelVersion
from tunegate.evaluation import knowledge
from tunegate.evaluation.models import Model
from tunegate.evaluation.run import Progress, evaluate
from tunegate.evaluation.shards import Shard, Sharded
from tunegate.evaluation.suites import AnySuite
from tunegate.files import default_cache
from tunegate.store import Store
from tunegate.store.evaluations import find, save
from tunegate.store.patience import patiently
from tunegate.store.release import read_release


def evaluate_version(
    store: Store,
    version: ModelVersion,
    suites: Sequence[AnySuite],
    load: Callable[[], Model],
    *,
    force: bool = False,
    is_limited: bool = False,
    shard: Shard | None = None,
    patience: float = 0.0,
    progress: Progress = lambda answered, total: None,
) -> list[Evaluation]:
    """The result of each suite: the one that the store holds of the same questions, or a new one, which is saved.

    load: brings the model, if anything has to be measured. force: measure also what the store holds.
    is_limited: these are parts of suites, whose results never take the place of one over more questions.
    shard: measure this shard of each suite alone; suites of which other shards are missing have no result yet.
    patience: how many seconds a store may be away.
    """
    patient = partial(patiently, patience)
    held = {suite.name: patient(partial(find, store, version.digest, suite.name)) for suite in suites}
    results = {
        suite.name: result
        for suite in suites
        if not force and (result := held[suite.name]) and result.suite_digest == suite.digest
    }
    if missing := [suite for suite in suites if suite.name not in results]:
        release = patient(partial(read_release, store, version))
        system_prompt = "" if release.has_parts else release.system_prompt  # where it has, its server puts all before

        def keep(result: Evaluation) -> None:
            results[result.suite] = result
            before = held[result.suite]
            if not is_limited or before is None or len(before.records) <= len(result.records):
                patient(partial(save, store, result))

        asked = [suite for suite in missing if not isinstance(suite, knowledge.KnowledgeSuite)]
        for suite in missing:
            if isinstance(suite, knowledge.KnowledgeSuite) and (shard is None or shard.index == 0):
                keep(patient(partial(knowledge.measure, store, version, release, suite, lambda more: None)))
        if shard:
            parts = [Sharded(store, version, suite, system_prompt, shard.count, patience) for suite in asked]
            _measure_shard(parts, shard, cache(partial(patient, load)), keep, progress)
        elif asked:
            evaluate(
                patient(load),
                version,
                asked,
                system_prompt=system_prompt,
                progress=progress,
                finished=keep,
                # What is measured again goes on where it was, too, apart from answers that were there before.
                cache=default_cache() / "again" if force else default_cache(),
            )
    return [results[suite.name] for suite in suites if suite.name in results]


def _measure_shard(
    parts: Sequence[Sharded],
    shard: Shard,
    load: Callable[[], Model],
    finished: Callable[[Evaluation], None],
    progress: Progress,
) -> None:
    """Measure one shard of each suite; `finished` gets the results of those whose other shards are there."""
    answered, total = 0, sum(-(-len(part.suite) // shard.count) for part in parts)

    def done(more: int) -> None:
        nonlocal answered
        answered += more
        progress(answered, total)  # about: shards are of whole batches

    for part in parts:
        if result := part.measure(shard, load, done):
            finished(result)
            part.remove()
