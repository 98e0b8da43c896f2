"""What a version in the store is worth: the results that the store holds, and new ones where it holds none."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tunegate.api.evaluation import Evaluation
from tunegate.api.versions import ModelVersion
from tunegate.evaluation.models import Model
from tunegate.evaluation.run import Progress, evaluate
from tunegate.evaluation.suites import Suite
from tunegate.files import default_cache
from tunegate.store import Store
from tunegate.store.evaluations import find, save
from tunegate.store.release import read_release


def evaluate_version(
    store: Store,
    version: ModelVersion,
    suites: Sequence[Suite],
    load: Callable[[], Model],
    *,
    force: bool = False,
    is_limited: bool = False,
    progress: Progress = lambda answered, total: None,
) -> list[Evaluation]:
    """The result of each suite: the one that the store holds of the same questions, or a new one, which is saved.

    load: brings the model, if anything has to be measured. force: measure also what the store holds.
    is_limited: these are parts of suites, whose results never take the place of one over more questions.
    """
    held = {suite.name: find(store, version.digest, suite.name) for suite in suites}
    results = {
        suite.name: result
        for suite in suites
        if not force and (result := held[suite.name]) and result.suite_digest == suite.digest
    }
    if missing := [suite for suite in suites if suite.name not in results]:
        system_prompt = read_release(store, version).system_prompt

        def keep(result: Evaluation) -> None:
            results[result.suite] = result
            before = held[result.suite]
            if not is_limited or before is None or len(before.records) <= len(result.records):
                save(store, result)

        evaluate(
            load(),
            version,
            missing,
            system_prompt=system_prompt,
            progress=progress,
            finished=keep,
            cache=None if force else default_cache(),
        )
    return [results[suite.name] for suite in suites]
