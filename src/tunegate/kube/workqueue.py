"""Which object is reconciled when, and by whom: a queue of keys, and the threads that work it off.

`Queue` is pure but for the clock it is given. It promises that a key is never worked on twice at once, that a change
which comes meanwhile is not lost, and that a key that fails is tried ever more seldom. What happens to a key is the
business of the function that `Loop` is given.
"""

from __future__ import annotations

import heapq
import logging
import random
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

from tunegate.api.errors import TunegateError

log = logging.getLogger(__name__)

FIRST_DELAY, LAST_DELAY = 0.2, 60.0
# How long a worker may be silent and still count as alive; it wakes far more often than that.
ALIVE_SECONDS = 60.0
_WAKE_SECONDS = 5.0


class Key(NamedTuple):
    """An object."""

    namespace: str
    name: str


class Queue:
    """Keys that are due, in order; not for several threads at once."""

    def __init__(self, clock: Callable[[], float], jitter: Callable[[], float] = random.random) -> None:
        self._clock = clock
        self._jitter = jitter
        self._waiting: dict[Key, None] = {}  # in the order they came
        self._working: set[Key] = set()
        self._again: set[Key] = set()  # came while being worked on
        self._failures: dict[Key, int] = {}
        self._due: dict[Key, float] = {}
        self._timers: list[tuple[float, Key]] = []  # may hold times that are not in _due any more

    def __len__(self) -> int:
        """How many wait to be worked on now."""
        self._take_due()
        return len(self._waiting) + len(self._again)

    def add(self, key: Key) -> None:
        if key in self._working:
            self._again.add(key)
        else:
            self._due.pop(key, None)
            self._waiting[key] = None

    def add_after(self, key: Key, seconds: float) -> None:
        """Of several times the earliest counts."""
        when = self._clock() + seconds
        if key not in self._waiting and when < self._due.get(key, float("inf")):
            self._due[key] = when
            heapq.heappush(self._timers, (when, key))

    def take(self) -> Key | None:
        """The next key to work on; tell `done` when it is."""
        self._take_due()
        for key in self._waiting:
            del self._waiting[key]
            self._due.pop(key, None)
            self._working.add(key)
            return key
        return None

    def done(self, key: Key, *, failed: bool, again_after: float | None = None) -> None:
        self._working.remove(key)
        if failed:
            self._failures[key] = self._failures.get(key, 0) + 1
            # Doubles with each failure in a row; the jitter keeps keys that fail together from coming together.
            longest = min(LAST_DELAY, FIRST_DELAY * 2.0 ** min(self._failures[key], 20))
            again_after = longest * (0.5 + self._jitter() / 2)
        else:
            self._failures.pop(key, None)
        if again_after is not None:
            self.add_after(key, again_after)
        if key in self._again:
            self._again.remove(key)
            self.add(key)

    def seconds_to_next(self) -> float:
        """How long there will be nothing to do, if nothing is added."""
        self._take_due()
        if self._waiting:
            return 0.0
        return max(0.0, min(self._due.values(), default=float("inf")) - self._clock())

    def _take_due(self) -> None:
        """Make waiting what is due by now."""
        while self._timers and self._timers[0][0] <= self._clock():
            when, key = heapq.heappop(self._timers)
            if self._due.get(key) == when:
                del self._due[key]
                self.add(key)


class Loop:
    """Calls a function for keys, from several threads; keys may come before it starts.

    observe: hears how many seconds each call took, and the error it ended with.
    noun: what the name of a key is called in log records.
    """

    def __init__(
        self,
        *,
        observe: Callable[[float, Exception | None], None] = lambda seconds, error: None,
        noun: str = "object",
        workers: int = 2,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._observe = observe
        self._noun = noun
        self._workers = workers
        self._clock = clock
        self._queue = Queue(clock)
        self._changed = threading.Condition()
        self._stopping = False
        self._threads: list[threading.Thread] = []
        self._moved: dict[int, float] = {}
        self._complaints: dict[Key, str] = {}

    def add(self, key: Key) -> None:
        with self._changed:
            self._queue.add(key)
            self._changed.notify()

    def add_after(self, key: Key, seconds: float) -> None:
        with self._changed:
            self._queue.add_after(key, seconds)
            self._changed.notify()

    def depth(self) -> int:
        """How many keys wait to be worked on now."""
        with self._changed:
            return len(self._queue)

    def start(self, reconcile: Callable[[Key], float | None]) -> None:
        """Call `reconcile` from now on; it returns in how many seconds it wants to be called again, or None."""
        for number in range(self._workers):
            self._moved[number] = self._clock()
            thread = threading.Thread(target=self._work, args=(number, reconcile), name=f"worker-{number}")
            self._threads.append(thread)
            thread.start()

    def stop(self) -> None:
        """Finish what is being worked on, and nothing else."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def is_alive(self) -> bool:
        """Whether every worker has moved of late. One that was not started has nothing to do."""
        return all(self._clock() - moved < ALIVE_SECONDS for moved in self._moved.values())

    def _work(self, number: int, reconcile: Callable[[Key], float | None]) -> None:
        while True:
            with self._changed:
                self._moved[number] = self._clock()
                if self._stopping:
                    return
                key = self._queue.take()
                if key is None:
                    self._changed.wait(min(_WAKE_SECONDS, self._queue.seconds_to_next()))
                    continue
            started, again_after, failure = self._clock(), None, None
            try:
                again_after = reconcile(key)
                self._complaints.pop(key, None)
            except Exception as error:
                failure = error
                self._complain(key, error)
            self._observe(self._clock() - started, failure)
            with self._changed:
                self._queue.done(key, failed=failure is not None, again_after=again_after)
                self._changed.notify()

    def _complain(self, key: Key, error: Exception) -> None:
        """Log an error once, however often the same one comes in a row; a trace only for what we did not foresee."""
        message = f"{type(error).__name__}: {error}"
        if self._complaints.get(key) == message:
            return
        self._complaints[key] = message
        trace = None if isinstance(error, TunegateError) else error
        log.error("%s", error, exc_info=trace, extra={"namespace": key.namespace, self._noun: key.name})
