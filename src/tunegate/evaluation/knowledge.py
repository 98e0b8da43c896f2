"""Knowledge suites: what the index of a release finds, answers and refuses. No model is asked."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import tunegate
from tunegate.api import environment
from tunegate.api.errors import EvaluationError
from tunegate.api.evaluation import Evaluation, Record
from tunegate.api.versions import ModelVersion, Release
from tunegate.files import default_cache
from tunegate.store import Store
from tunegate.store.release import cached_index, fetch_index

if TYPE_CHECKING:
    from tunegate.knowledge.index import Found
    from tunegate.knowledge.measure import Question, Questions

QUESTIONS = "questions.jsonl"


@dataclass(frozen=True)
class KnowledgeSuite:
    """Questions that the documents answer, and others that they don't."""

    name: str
    digest: str
    questions: Questions

    def __len__(self) -> int:
        return len(self.questions.questions)


def measure(
    store: Store, version: ModelVersion, release: Release, suite: KnowledgeSuite, done: Callable[[int], None]
) -> Evaluation:
    """Ask the index of `version` all of `suite`; its metrics are those of `tunegate knowledge measure`.

    done: gets how many more were asked. Raises EvaluationError where there is no index, KnowledgeError, NotFoundError
    and DigestError for one that can't be used.
    """
    # numpy and bm25s, which only who measures an index has
    from tunegate.knowledge.library import open_index
    from tunegate.knowledge.measure import ask, metrics_of

    if release.knowledge is None:
        raise EvaluationError(
            f"{version.name} has no knowledge that {suite.name} could measure; give it some: tunegate release derive "
            f"{version.name} --knowledge NAME --name NEW."
        )
    started, clock = datetime.now(UTC), time.monotonic()
    folder = fetch_index(store, release, cached_index(release.knowledge, default_cache()))
    assert folder is not None
    index = open_index(folder, os.environ.get(environment.EMBEDDER_URL))
    asked = ask(index, suite.questions, lambda _step, _done, _total: done(1))
    return Evaluation(
        version=version.name,
        digest=version.digest,
        suite=suite.name,
        suite_digest=suite.digest,
        completed=len(asked),
        total=len(suite),
        metrics=metrics_of(asked),
        records=tuple(_record(question, found) for question, found in asked),
        code_version=tunegate.__version__,
        started=started,
        seconds=round(time.monotonic() - clock, 3),
    )


def _record(question: Question, found: Found) -> Record:
    from tunegate.knowledge.measure import is_right

    return Record(
        id=question.id,
        prompt=question.question,
        expected=", ".join((*([question.source] if question.source else []), *question.contains)),
        answer=found.refusal or found.hits[0].chunk.path,
        scores={"right": float(is_right(question, found))},
    )
