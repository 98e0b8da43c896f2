"""Evaluations as child processes, one at a time: two would only take each other's CPU."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from tunegate.api.errors import UnavailableError, UsageError
from tunegate.api.evaluation import Evaluation, ReviewProgress, is_by_people, is_reviewed
from tunegate.api.versions import ModelVersion
from tunegate.processes import Child
from tunegate.promotion.snapshot import EvaluationJob, EvaluationState, Event

Key = tuple[str, str]  # digest, suite

# No child tells when people are done, so the store is asked.
PEOPLE_SECONDS = 5.0


@dataclass
class Evaluations:
    """`start` measures suites on a version and leaves the results where `find` finds them. `progress`: how far people
    are where they judge; None where nobody says. `say` hears of each that ended with an error."""

    start: Callable[[ModelVersion, Sequence[str]], Child]
    find: Callable[[str, str], Evaluation | None]
    progress: Callable[[str, str], ReviewProgress | None] = lambda digest, suite: None
    say: Callable[[Event], None] = lambda event: None
    _results: dict[Key, Evaluation] = field(default_factory=dict)
    _looked: set[Key] = field(default_factory=set)
    _failures: Counter[Key] = field(default_factory=Counter)
    _messages: dict[Key, str] = field(default_factory=dict)
    _running: tuple[Child, tuple[Key, ...]] | None = None
    _asked_people: float = 0.0

    def states(self, wanted: Sequence[Key]) -> Mapping[Key, EvaluationState]:
        """What is known of each wanted result. The store is asked once, and again whenever a child has ended, and now
        and then where people judge."""
        if self._running and self._running[0].exit_code is not None:
            child, keys = self._running
            child.stop()
            self._running = None
            # One that gave up waiting for the store has failed at nothing.
            was_away = child.exit_code == UnavailableError.exit_code
            if child.exit_code:
                self.say(Event("", "Ended", f"{child.name} ended with status {child.exit_code}: {child.tail()}"))
            for key in keys:
                self._looked.discard(key)
                if was_away or self._find(key) is None:
                    self._failures[key] += not was_away
                    self._messages[key] = f"{child.tail()} (log: {child.log})"
        if (now := time.monotonic()) - self._asked_people >= PEOPLE_SECONDS:
            self._asked_people = now
            self._looked -= {key for key in wanted if is_reviewed(key[1])}
        for key in wanted:
            if key not in self._results and key not in self._looked:
                self._looked.add(key)
                if result := self._find(key):
                    self._results[key] = result
        return {
            key: EvaluationState(self._results.get(key), self._failures[key], self._messages.get(key, ""))
            for key in wanted
        }

    def _find(self, key: Key) -> Evaluation | None:
        """None also for a document that can't be read: measuring again replaces it."""
        try:
            result = self.find(*key)
        except UsageError as error:
            self._messages[key] = f"the result in the store can't be read: {error}"
            return None
        if result is None and is_by_people(key[1]):
            self._messages[key] = str(self.progress(*key) or "")
        return result

    def ensure(self, jobs: Sequence[EvaluationJob]) -> None:
        """Start the most urgent job, with all missing suites of that version, unless one is running."""
        if self._running or not jobs:
            return
        version = jobs[0].version
        suites = [job.suite for job in jobs if job.version == version]
        keys = tuple((version.digest, suite) for suite in suites)
        self._running = (self.start(version, suites), keys)

    def close(self) -> None:
        if self._running:
            self._running[0].stop()
            self._running = None
