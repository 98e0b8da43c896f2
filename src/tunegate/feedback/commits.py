"""Votes of many requests at a time, written together: all that wait while a segment is written go into the next one."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future

from tunegate.api.errors import FeedbackError, StoreError
from tunegate.api.feedback import FeedbackRecord
from tunegate.feedback.votes import Outcome, VoteWriter

logger = logging.getLogger(__name__)
_MOST_WAITING = 10_000
_MOST_TOGETHER = 500


class Commits:
    """A thread that writes votes; `counted` hears of each that counts, when it is in the store."""

    def __init__(self, writer: VoteWriter, counted: Callable[[FeedbackRecord], None]) -> None:
        self._writer, self._counted = writer, counted
        self._waiting: deque[tuple[FeedbackRecord, Future[Outcome]]] = deque()
        self._wake = threading.Condition()
        self._is_closed = False
        self._thread = threading.Thread(target=self._run, name="votes", daemon=True)
        self._thread.start()

    def submit(self, record: FeedbackRecord) -> Future[Outcome]:
        """What becomes of a vote, when it is known; a StoreError when it was not kept.

        Raises FeedbackError when the store is so slow that too many wait already.
        """
        future: Future[Outcome] = Future()
        with self._wake:
            if len(self._waiting) >= _MOST_WAITING or self._is_closed:
                raise FeedbackError("Too many votes wait for the store; send it again in a moment.")
            self._waiting.append((record, future))
            self._wake.notify()
        return future

    def close(self) -> None:
        """Write what waits, and end."""
        with self._wake:
            self._is_closed = True
            self._wake.notify()
        self._thread.join()

    def _run(self) -> None:
        while batch := self._next():
            for (record, future), outcome in zip(batch, self._write([record for record, _ in batch]), strict=True):
                if outcome == "counted":
                    self._counted(record)  # before it is acknowledged: whoever hears of it should find it counted
                if isinstance(outcome, StoreError):
                    future.set_exception(outcome)
                else:
                    future.set_result(outcome)

    def _write(self, records: list[FeedbackRecord]) -> list[Outcome | StoreError]:
        try:
            return self._writer.write(records)
        except Exception as error:  # else every later vote would wait for a thread that is gone
            logger.warning("votes were not written", extra={"kind": type(error).__name__, "votes": len(records)})
            unknown = f"The votes were not written: {type(error).__name__}; send them again, and see the server's log."
            return [StoreError(unknown) for _ in records]

    def _next(self) -> list[tuple[FeedbackRecord, Future[Outcome]]]:
        """Those that wait, when there are any; none at the end."""
        with self._wake:
            self._wake.wait_for(lambda: self._waiting or self._is_closed)
            return [self._waiting.popleft() for _ in range(min(len(self._waiting), _MOST_TOGETHER))]
