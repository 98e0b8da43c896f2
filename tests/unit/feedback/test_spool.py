"""Answers on their way to a real store: killed writers, a store that is away, files that are cut."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path

import msgspec
import pytest

from tests.builders import at
from tests.documents import Documents
from tests.waiting import wait_for
from tunegate.api.errors import StoreError
from tunegate.feedback import ResponseIds, spool
from tunegate.feedback.interactions import Content, Interaction, days, read_day, redacted
from tunegate.feedback.segments import read_lines
from tunegate.feedback.spool import InteractionLog, Spool
from tunegate.store import Store

DIGEST = "sha256:" + "ab" * 32
IDS = ResponseIds(bytes(32), "shop")
WRITER = """
import sys
from pathlib import Path
from datetime import date
from tunegate.feedback import spool
from tunegate.store import Store
spool.MOST_ROWS = 7
store = Store.at(sys.argv[1], endpoint_url=sys.argv[2])
mine = spool.Spool(Path(sys.argv[3]), store)
for number in range(10**9):
    name = f"{sys.argv[4]}-{number}"
    mine.write(date(2026, 1, 1), ('{"id": "%s"}' % name).encode())
    mine.flush()
    print(name, flush=True)
    if number % 5 == 4:
        mine.send()
"""


def make_interaction(question: str = "hi", answered: float = 0) -> Interaction:
    return Interaction(
        id=IDS.issue(DIGEST, at(answered)),
        model="shop",
        digest=DIGEST,
        answered=at(answered),
        finish="stop",
        seconds=1.5,
        content=Content(messages=({"role": "user", "content": question},), answer="Blue."),
    )


def logged(store: Documents | Store) -> list[Interaction]:
    damaged: list[str] = []
    found = [interaction for day in days(store) for interaction in read_day(store, day, damaged)]
    assert damaged == []
    return found


def test_what_killed_writers_had_on_the_disk_is_in_the_store_once(store: Store, tmp_path: Path) -> None:
    """Kill -9 in the middle of writing and of sending, six times; the next writer sends what is left."""
    said: list[str] = []
    for turn in range(6):
        argv = [sys.executable, "-c", WRITER, store.uri, str(store.endpoint_url), str(tmp_path / "spool"), str(turn)]
        with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout
            said += [child.stdout.readline().strip() for _ in range(13 + 9 * turn)]
            child.kill()
            said += [line.strip() for line in child.stdout if line.endswith("\n")]
    last = Spool(tmp_path / "spool", store)
    last.send()
    last.close()

    found = Counter(
        msgspec.json.decode(line)["id"]
        for entry in store.entries(".tunegate/interactions/")
        for line in read_lines(store.get(entry.key) or b"")[0]
    )
    assert set(said) <= set(found)
    assert set(found.values()) == {1}
    assert list((tmp_path / "spool").iterdir()) == []


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "SEGMENT_SECONDS", 0.05)
    monkeypatch.setattr(spool, "_RETRY_SECONDS", 0.05)


def test_while_the_store_is_away_answers_wait_and_then_all_of_them_come(quick: None, tmp_path: Path) -> None:
    store = Documents()
    store.failure = StoreError("The store is away.")
    mine = Spool(tmp_path, store)
    log = InteractionLog(mine)
    rows = [make_interaction(answered=number * 3600) for number in range(30)]
    for row in rows:
        log.add(lambda row=row: row)  # type: ignore[misc]
    wait_for(lambda: mine.size() > 30 * 100, what="the files")
    assert store.bodies == {}

    store.failure = None
    wait_for(lambda: len(logged(store)) == 30, what="the answers in the store")
    log.close()
    assert logged(store) == rows
    assert days(store) == [date(2026, 1, 1), date(2026, 1, 2)]
    assert list(tmp_path.iterdir()) == []


def test_what_a_server_leaves_when_it_ends_without_the_store_the_next_one_sends(quick: None, tmp_path: Path) -> None:
    store = Documents()
    store.failure = StoreError("The store is away.")
    log = InteractionLog(Spool(tmp_path, store))
    log.add(make_interaction)
    log.close()
    assert store.bodies == {}

    store.failure = None
    InteractionLog(Spool(tmp_path, store)).close()
    assert len(logged(store)) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_put_whose_answer_was_lost_is_no_second_segment(tmp_path: Path) -> None:
    store = Documents()
    mine = Spool(tmp_path, store)
    mine.write(date(2026, 1, 1), msgspec.json.encode(make_interaction()))
    mine.close_files()
    put_new = store.put_new

    def lost(key: str, body: bytes) -> bool:
        put_new(key, body)
        raise StoreError("The connection broke off.")

    store.put_new = lost  # type: ignore[method-assign]
    with pytest.raises(StoreError):
        mine.send()
    store.put_new = put_new  # type: ignore[method-assign]
    mine.send()
    assert len(logged(store)) == len(store.bodies) == 1


def test_a_line_that_a_crash_has_cut_is_left_out(tmp_path: Path) -> None:
    store = Documents()
    old = tmp_path / ("a" * 12)
    old.mkdir()
    line = msgspec.json.encode(make_interaction())
    (old / "2026-01-01.000003.open").write_bytes(line + b"\n" + line[:50])
    mine = Spool(tmp_path, store)
    mine.send()
    assert list(store.bodies) == [f".tunegate/interactions/2026-01-01/{'a' * 12}-000003.jsonl.gz"]
    assert len(logged(store)) == 1


def test_the_files_of_a_writer_that_lives_are_left_alone(tmp_path: Path) -> None:
    store = Documents()
    one, other = Spool(tmp_path, store), Spool(tmp_path, store)
    one.write(date(2026, 1, 1), msgspec.json.encode(make_interaction()))
    one.flush()
    other.send()
    assert store.bodies == {}
    one.close()
    other.send()
    assert len(logged(store)) == 1


def test_a_disk_that_is_nearly_full_of_answers_takes_no_more_until_the_store_is_back(
    quick: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(spool, "MOST_SPOOLED", 2000)
    store = Documents()
    store.failure = StoreError("The store is away.")
    mine = Spool(tmp_path, store)
    log = InteractionLog(mine)

    def add_until(done: Callable[[], object]) -> None:
        def is_done() -> object:
            log.add(make_interaction)
            return done()

        wait_for(is_done, what="it")

    add_until(lambda: log._is_full)
    add_until(lambda: "answers were not logged" in caplog.text)
    store.failure = None
    wait_for(lambda: not log._is_full, what="room")
    before = len(logged(store))
    add_until(lambda: len(logged(store)) > before)
    log.close()


def test_texts_are_redacted_before_they_are_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "SEGMENT_SECONDS", 1000)
    log = InteractionLog(Spool(tmp_path, Documents()))
    texts = (
        {"type": "text", "text": "邮箱li.lei@example.com"},
        {"type": "image_url", "image_url": "data:image/png;base64,AA"},
    )
    row = make_interaction("打13812345678")
    assert row.content
    content = msgspec.structs.replace(
        row.content, messages=(*row.content.messages, {"role": "user", "content": [*texts]})
    )
    log.add(lambda: msgspec.structs.replace(row, content=content))
    wait_for(lambda: any(tmp_path.glob("*/*.open")) and next(tmp_path.glob("*/*.open")).stat().st_size, what="the row")
    written = next(tmp_path.glob("*/*.open")).read_bytes().decode()
    assert "打<phone>" in written
    assert "邮箱<email>" in written
    assert "<24 characters of data>" in written
    assert "13812345678" not in written
    log.close()


def test_an_answer_that_can_not_be_put_together_is_left_out_and_named_nowhere(
    quick: None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = Documents()
    log = InteractionLog(Spool(tmp_path, store))

    def broken() -> Interaction:
        raise ValueError("my secret")

    log.add(broken)
    log.add(make_interaction)
    log.close()
    assert len(logged(store)) == 1
    assert "an answer was not logged" in caplog.text
    assert "secret" not in caplog.text


def test_a_day_is_the_utc_day_of_the_answer(tmp_path: Path) -> None:
    store = Documents()
    log = InteractionLog(Spool(tmp_path, store))
    late = make_interaction(answered=timedelta(hours=23, minutes=59, seconds=59).total_seconds())
    log.add(lambda: late)
    log.close()
    assert days(store) == [date(2026, 1, 1)]


def test_an_answer_that_no_json_can_hold_is_left_out_and_the_next_one_is_logged(quick: None, tmp_path: Path) -> None:
    store = Documents()
    log = InteractionLog(Spool(tmp_path, store))
    log.add(lambda: make_interaction("\ud800"))
    log.add(make_interaction)
    wait_for(lambda: len(logged(store)) == 1, what="the answer that can be written")
    log.close()


def test_a_sender_that_failed_in_a_way_that_nobody_foresaw_goes_on(quick: None, tmp_path: Path) -> None:
    store = Documents()
    put_new, failed = store.put_new, list[str]()

    def once(key: str, body: bytes) -> bool:
        if not failed:
            failed.append(key)
            raise RuntimeError("can't start new thread")
        return put_new(key, body)

    store.put_new = once  # type: ignore[method-assign]
    log = InteractionLog(Spool(tmp_path, store))
    log.add(make_interaction)
    wait_for(lambda: len(logged(store)) == 1, what="the answer, sent the second time")
    log.close()


def test_a_full_disk_does_not_hold_up_the_end(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Each of the waiting answers fails at once; a pause for each would take longer than a pod is given."""
    mine = Spool(tmp_path, Documents())

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", "a file")

    mine.write = mine.close_files = full  # type: ignore[method-assign,assignment]
    log, all_wait = InteractionLog(mine), threading.Event()

    def first() -> Interaction:
        all_wait.wait()
        return make_interaction()

    for make in (first, *(make_interaction for _ in range(500))):
        log.add(make)
    log._stop.set()
    all_wait.set()
    log.close()
    assert "answers were not logged" in caplog.text


def test_numbers_and_names_in_what_tools_are_asked_are_redacted(tmp_path: Path) -> None:
    row = make_interaction()
    step = {"arguments": {"phone": 13812345678, "li.lei@example.com": [2, 3.5, True, None]}}
    found = redacted(msgspec.structs.replace(row, content=Content(steps=(step,)))).content
    assert found is not None
    assert found.steps == ({"arguments": {"phone": "<phone>", "<email>": [2, 3.5, True, None]}},)
