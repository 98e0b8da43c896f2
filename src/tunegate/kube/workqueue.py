"""Which policy is looked at when, and by whom: a queue of keys, and the threads that work it off.

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
from tunegate_operator.metrics import Metrics

log = logging.getLogger(__name__)

FIRST_DELAY, LAST_DELAY = 0.2, 60.0
# How long a worker may be silent and still count as alive; it wakes far more often than that.
ALIVE_SECONDS = 60.0
_WAKE_SECONDS = 5.0


class Key(NamedTuple):
    """A PromotionPolicy."""

    namespace: str
    policy: str


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
        self._ring()
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
        self._ring()
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
            again_after = self._delay(self._failures[key])
        else:
            self._failures.pop(key, None)
        if again_after is not None:
            self.add_after(key, again_after)
        if key in self._again:
            self._again.remove(key)
            self.add(key)

    def seconds_to_next(self) -> float:
        """How long there will be nothing to do, if nothing is added."""
        self._ring()
        if self._waiting:
            return 0.0
        return max(0.0, min(self._due.values(), default=float("inf")) - self._clock())

    def _ring(self) -> None:
        """Make waiting what is due by now."""
        while self._timers and self._timers[0][0] <= self._clock():
            when, key = heapq.heappop(self._timers)
            if self._due.get(key) == when:
                del self._due[key]
                self.add(key)

    def _delay(self, failures: int) -> float:
        """Doubles with each failure in a row; the jitter keeps keys that fail together from coming together."""
        longest = min(LAST_DELAY, FIRST_DELAY * 2.0 ** min(failures, 20))
        return longest * (0.5 + self._jitter() / 2)


class Loop:
    """Calls `reconcile` for keys; it returns in how many seconds it wants to be called again, or None."""

    def __init__(
        self,
        reconcile: Callable[[Key], float | None],
        metrics: Metrics,
        *,
        workers: int = 2,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._reconcile = reconcile
        self._metrics = metrics
        self._clock = clock
        self._queue = Queue(clock)
        self._changed = threading.Condition()
        self._stopping = False
        self._threads = [threading.Thread(target=self._work, args=(n,), name=f"worker-{n}") for n in range(workers)]
        self._moved: dict[int, float] = {}
        self._complaints: dict[Key, str] = {}
        metrics.queue_depth.set_function(self._depth)

    def add(self, key: Key) -> None:
        with self._changed:
            self._queue.add(key)
            self._changed.notify()

    def add_after(self, key: Key, seconds: float) -> None:
        with self._changed:
            self._queue.add_after(key, seconds)
            self._changed.notify()

    def start(self) -> None:
        self._moved = dict.fromkeys(range(len(self._threads)), self._clock())
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Finish what is being worked on, and nothing else."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        for thread in self._threads:
            if thread.is_alive():
                thread.join()

    def is_alive(self) -> bool:
        """Whether every worker has moved of late. One that was not started has nothing to do."""
        return all(self._clock() - moved < ALIVE_SECONDS for moved in self._moved.values())

    def _depth(self) -> int:
        with self._changed:
            return len(self._queue)

    def _work(self, number: int) -> None:
        while True:
            with self._changed:
                self._moved[number] = self._clock()
                if self._stopping:
                    return
                key = self._queue.take()
                if key is None:
                    self._changed.wait(min(_WAKE_SECONDS, self._queue.seconds_to_next()))
                    continue
            again_after, failed = self._attempt(key)
            with self._changed:
                self._queue.done(key, failed=failed, again_after=again_after)
                self._changed.notify()

    def _attempt(self, key: Key) -> tuple[float | None, bool]:
        started = self._clock()
        try:
            again_after = self._reconcile(key)
        except Exception as error:
            self._metrics.reconcile_seconds.labels("error").observe(self._clock() - started)
            self._metrics.errors.labels(type(error).__name__).inc()
            self._complain(key, error)
            return None, True
        self._metrics.reconcile_seconds.labels("ok").observe(self._clock() - started)
        self._complaints.pop(key, None)
        return again_after, False

    def _complain(self, key: Key, error: Exception) -> None:
        """Log an error once, however often the same one comes in a row; a trace only for what we did not foresee."""
        message = f"{type(error).__name__}: {error}"
        if self._complaints.get(key) == message:
            return
        self._complaints[key] = message
        trace = None if isinstance(error, TunegateError) else error
        log.error("%s", error, exc_info=trace, extra={"namespace": key.namespace, "policy": key.policy})
