"""The queue by itself with a clock of the test, and the threads that work it off."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from tests.waiting import wait_for
from tunegate.kube.errors import UnreachableError
from tunegate.kube.workqueue import ALIVE_SECONDS, Key, Loop, Queue

SHOP, HELP = Key("team", "shop"), Key("team", "help")


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def queue(clock: Clock) -> Queue:
    return Queue(clock, jitter=lambda: 0.0)


def test_keys_come_in_order_and_once(queue: Queue) -> None:
    for key in (SHOP, HELP, SHOP):
        queue.add(key)
    assert len(queue) == 2
    assert [queue.take(), queue.take(), queue.take()] == [SHOP, HELP, None]


def test_a_key_that_is_worked_on_is_not_given_out_again_until_it_is_done(queue: Queue) -> None:
    queue.add(SHOP)
    assert queue.take() == SHOP
    queue.add(SHOP)
    assert queue.take() is None
    queue.done(SHOP, failed=False)
    assert queue.take() == SHOP
    queue.done(SHOP, failed=False)
    assert queue.take() is None


def test_a_timer_that_rings_while_the_key_is_worked_on_is_not_lost(queue: Queue, clock: Clock) -> None:
    queue.add(SHOP)
    queue.take()
    queue.add_after(SHOP, 1)
    clock.now += 2
    assert queue.take() is None
    queue.done(SHOP, failed=False)
    assert queue.take() == SHOP


def test_a_key_comes_when_it_is_due(queue: Queue, clock: Clock) -> None:
    queue.add_after(SHOP, 10)
    assert (queue.take(), queue.seconds_to_next()) == (None, 10.0)
    clock.now += 10
    assert queue.seconds_to_next() == 0
    assert queue.take() == SHOP


def test_of_several_times_the_earliest_counts_and_the_key_comes_once(queue: Queue, clock: Clock) -> None:
    for seconds in (20, 10, 30):
        queue.add_after(SHOP, seconds)
    clock.now += 10
    assert queue.take() == SHOP
    queue.done(SHOP, failed=False)
    clock.now += 100
    assert queue.take() is None


def test_a_key_that_is_added_needs_no_timer_any_more(queue: Queue, clock: Clock) -> None:
    queue.add_after(SHOP, 10)
    queue.add(SHOP)
    assert queue.take() == SHOP
    queue.done(SHOP, failed=False)
    clock.now += 10
    assert queue.take() is None


def test_the_wish_to_be_called_again_is_granted(queue: Queue, clock: Clock) -> None:
    queue.add(SHOP)
    queue.take()
    queue.done(SHOP, failed=False, again_after=30)
    assert queue.seconds_to_next() == 30
    clock.now += 30
    assert queue.take() == SHOP


def test_failures_are_tried_ever_more_seldom_until_one_succeeds(queue: Queue, clock: Clock) -> None:
    def fail_once() -> float:
        queue.add(SHOP)
        queue.take()
        queue.done(SHOP, failed=True)
        return queue.seconds_to_next()

    delays = [fail_once() for _ in range(12)]
    assert delays[:4] == pytest.approx([0.2, 0.4, 0.8, 1.6])
    assert delays[-1] == 30
    queue.add(SHOP)
    queue.take()
    queue.done(SHOP, failed=False)
    assert fail_once() == pytest.approx(0.2)


def test_jitter_stays_below_the_longest_delay(clock: Clock) -> None:
    queue = Queue(clock, jitter=lambda: 1.0)
    for _ in range(30):
        queue.add(SHOP)
        queue.take()
        queue.done(SHOP, failed=True)
    assert queue.seconds_to_next() == 60


def test_a_failing_key_is_tried_at_once_when_something_changes(queue: Queue) -> None:
    queue.add(SHOP)
    queue.take()
    queue.add(SHOP)
    queue.done(SHOP, failed=True)
    assert queue.take() == SHOP


class Recorder:
    """A reconcile function that can be held up, and knows how often a key was worked on at once."""

    def __init__(self) -> None:
        self.calls: list[Key] = []
        self.at_once = 0
        self.most_at_once = 0
        self.go = threading.Event()
        self.go.set()
        self.answer: float | None = None
        self.error: Exception | None = None
        self.observed: list[tuple[float, Exception | None]] = []
        self._lock = threading.Lock()

    def __call__(self, key: Key) -> float | None:
        with self._lock:
            self.calls.append(key)
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            assert self.go.wait(100)
            if error := self.error:  # once: a test may take it back meanwhile
                raise error
            return self.answer
        finally:
            with self._lock:
                self.at_once -= 1

    def observe(self, seconds: float, error: Exception | None) -> None:
        self.observed.append((seconds, error))


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def loop(recorder: Recorder) -> Iterator[Loop]:
    before = set(threading.enumerate())
    loop = Loop(observe=recorder.observe, noun="policy")
    loop.start(recorder)
    yield loop
    recorder.go.set()
    loop.stop()
    assert set(threading.enumerate()) <= before


def test_two_keys_are_worked_on_at_once_but_never_one_twice(loop: Loop, recorder: Recorder) -> None:
    recorder.go.clear()
    for _ in range(5):
        loop.add(SHOP)
    loop.add(HELP)
    wait_for(lambda: recorder.at_once == 2)
    assert sorted(recorder.calls) == [HELP, SHOP]
    recorder.go.set()
    wait_for(lambda: recorder.at_once == 0)
    assert recorder.calls.count(SHOP) <= 2


def test_a_change_during_the_work_leads_to_another_look(loop: Loop, recorder: Recorder) -> None:
    recorder.go.clear()
    loop.add(SHOP)
    wait_for(lambda: recorder.calls == [SHOP])
    loop.add(SHOP)
    assert loop.depth() == 1
    recorder.go.set()
    wait_for(lambda: recorder.calls == [SHOP, SHOP])
    assert recorder.most_at_once == 1


def test_a_key_comes_back_after_the_time_it_asked_for(loop: Loop, recorder: Recorder) -> None:
    recorder.answer = 0.01
    loop.add(SHOP)
    wait_for(lambda: len(recorder.calls) >= 3)


def test_a_foreseen_error_is_one_line_with_the_policy_however_often_it_comes(
    loop: Loop, recorder: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    recorder.error = UnreachableError("The API server can't be reached.")
    loop.add(SHOP)
    wait_for(lambda: len(recorder.calls) >= 3)
    recorder.error = None
    (record,) = caplog.records
    assert (record.namespace, record.policy, record.exc_info) == ("team", "shop", None)
    assert [type(error) for _, error in recorder.observed[:2]] == [UnreachableError] * 2


def test_an_error_that_nobody_foresaw_comes_with_its_trace(
    loop: Loop, recorder: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    recorder.error = ZeroDivisionError("ours")
    loop.add(SHOP)
    wait_for(lambda: caplog.records)
    assert "ZeroDivisionError" in caplog.text
    assert "Traceback" in caplog.text


def test_stopping_finishes_the_work_and_starts_no_other(loop: Loop, recorder: Recorder) -> None:
    recorder.go.clear()
    for number in range(5):
        loop.add(Key("team", f"policy-{number}"))
    wait_for(lambda: recorder.at_once == 2)
    stopping = threading.Thread(target=loop.stop)
    stopping.start()
    wait_for(lambda: loop._stopping, what="the word to stop, before a worker is free")
    assert stopping.is_alive()
    recorder.go.set()
    stopping.join()
    assert (recorder.at_once, len(recorder.calls)) == (0, 2)


def test_a_worker_that_is_stuck_is_not_alive(recorder: Recorder, clock: Clock) -> None:
    loop = Loop(clock=clock)
    clock.now += ALIVE_SECONDS
    assert loop.is_alive(), "a replica that stands by has no worker that could be stuck"
    recorder.go.clear()
    loop.start(recorder)
    loop.add(SHOP)
    wait_for(lambda: recorder.at_once)
    assert loop.is_alive()
    clock.now += ALIVE_SECONDS
    assert not loop.is_alive()
    recorder.go.set()
    loop.stop()
