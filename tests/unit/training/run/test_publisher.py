"""Checkpoints reach the store beside training, also one that is away for a while, or is killed."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import numpy as np
import pytest
from safetensors.numpy import save_file
from torch.distributed import HashStore

from tests.stores import kill, start_again
from tests.unit.training.alone import plan_of, train_alone
from tests.unit.training.builders import dialogues, make_config, texts, write_dialogues
from tests.waiting import wait_for
from tunegate.api.errors import ModelError, StoreError, UnavailableError
from tunegate.models import make_tiny
from tunegate.processes import free_port
from tunegate.store import EmbeddedStore, Store
from tunegate.store.claims import claimed
from tunegate.store.stops import RunStop, stop_run
from tunegate.training.run import publisher as publishing
from tunegate.training.run.checkpoints import (
    Checkpoint,
    Part,
    Share,
    begin_checkpoint,
    complete_checkpoint,
    complete_checkpoints,
    seal,
    send_part,
)
from tunegate.training.run.layout import STOP
from tunegate.training.run.parts import Parts
from tunegate.training.run.plan import Plan
from tunegate.training.run.progress import read_log
from tunegate.training.run.publisher import Publisher, helper_of, publisher_of, sender_of, share_of

# What DeepSpeed, accelerate, peft and torch think of one another's names.
pytestmark = [pytest.mark.filterwarnings(f"ignore::{kind}") for kind in ("DeprecationWarning", "FutureWarning")]
MIB = 1 << 20


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publishing, "_SHORTEST_PAUSE", 0.01)
    monkeypatch.setattr(publishing, "_LONGEST_PAUSE", 0.1)


def checkpoint(output: Path, step: int, size: int = 100) -> Checkpoint:
    folder = begin_checkpoint(output, step)
    save_file({"weight": np.frombuffer(os.urandom(size), np.uint8)}, folder / "model.safetensors")
    return seal(folder, step=step, total_steps=12, epoch=1.0, loss=0.5)


def plan(store: Store | str, output: Path, keep: int | None = None) -> Plan:
    uri, endpoint = (store, f"http://127.0.0.1:{free_port()}") if isinstance(store, str) else (store.uri, None)
    config = make_config(uri, output, output, save_total_limit=keep, model="shop")
    return plan_of(msgspec.structs.replace(config, endpoint_url=endpoint))


def published(store: Store) -> list[str]:
    return [version.name.rsplit("/", 1)[1] for version in store.list("shop")]


def test_publishing_goes_on_beside_the_caller_one_at_a_time_in_order(tmp_path: Path) -> None:
    go, done = threading.Event(), []

    def publish(one: Checkpoint) -> None:
        assert go.wait(60)
        done.append(one.step)

    publisher = Publisher(publish)
    for step in (3, 6):
        publisher.submit(checkpoint(tmp_path, step, size=2 * MIB))
    assert done == []
    waiting = publisher.waiting()
    go.set()

    publisher.close()
    assert done == [3, 6]
    assert publisher.waiting() is None
    assert str(waiting) == "training is done; 4 MiB still go to the store: checkpoint-3, checkpoint-6"


def test_training_comes_before_publishing(tmp_path: Path) -> None:
    niceness = []
    publisher = Publisher(lambda _: niceness.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id())))
    publisher.submit(checkpoint(tmp_path, 3))

    publisher.close()

    assert niceness == [min(19, os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) + 10)]


def test_a_refused_upload_is_told_at_the_end_and_does_not_keep_the_next_one_back(tmp_path: Path) -> None:
    done = []

    def publish(one: Checkpoint) -> None:
        if one.step == 3:
            raise StoreError("It is full.")
        done.append(one.step)

    publisher = Publisher(publish)
    for step in (3, 6):
        publisher.submit(checkpoint(tmp_path, step))

    with pytest.raises(StoreError, match=r"does not have checkpoint-3; run the same command again .* It is full\."):
        publisher.close()
    assert done == [6]


def test_a_store_that_is_away_is_asked_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    asked = []

    def publish(one: Checkpoint) -> None:
        asked.append(one.step)
        if len(asked) < 4:
            raise UnavailableError("It is away.")

    publisher = Publisher(publish)
    for step in (3, 6):
        publisher.submit(checkpoint(tmp_path, step))

    publisher.close()
    assert asked == [3, 3, 3, 3, 6]
    assert caplog.messages == ["a checkpoint waits to be published"] * 3
    assert {(record.checkpoint, record.error) for record in caplog.records} == {("checkpoint-3", "It is away.")}


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        pytest.param({}, Share(0, 1), id="alone"),
        pytest.param({"LOCAL_RANK": "0", "GROUP_RANK": "1", "GROUP_WORLD_SIZE": "4"}, Share(1, 4), id="node"),
        pytest.param({"LOCAL_RANK": "1", "GROUP_RANK": "1", "GROUP_WORLD_SIZE": "4"}, None, id="another of its ranks"),
    ],
)
def test_one_rank_of_each_node_has_a_share(environment: dict[str, str], expected: Share | None) -> None:
    assert share_of(environment) == expected


def test_another_node_sends_its_share_once_the_first_has_completed_the_checkpoint(store: Store, tmp_path: Path) -> None:
    made = plan(store, tmp_path)
    helper = helper_of(made, Share(1, 2))
    assert helper
    folder = begin_checkpoint(tmp_path, 3)
    helper.submit(folder)
    for name in ("model-1.safetensors", "model-2.safetensors"):
        save_file({name: np.frombuffer(os.urandom(2 * MIB), np.uint8)}, folder / name)
    seal(folder, step=3, total_steps=12, epoch=1.0, loss=0.5)
    helper.close()
    sent = [key.rsplit("/", 1)[1] for key in store.keys("shop/run/checkpoint-3/")]
    assert "model-2.safetensors" in sent
    assert "model-1.safetensors" not in sent
    assert published(store) == []

    first = publisher_of(made, tmp_path, lambda _: None, Share(0, 2))
    assert first
    first.close()
    assert store.verify("shop/run/checkpoint-3")


def test_a_share_that_can_not_be_sent_is_left_to_the_first_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "key")
    helper = helper_of(plan("s3://away", tmp_path), Share(1, 2))
    assert helper
    helper.submit(checkpoint(tmp_path, 3).folder)
    helper.close()
    assert caplog.messages == ["a share of a checkpoint was left to the first node"]


@pytest.fixture
def nodes(store: Store, tmp_path: Path) -> tuple[Plan, list[Path], list[Parts]]:
    """The run's plan, two folders with a part of a checkpoint each, and what both nodes say to each other."""
    kv_store, outputs, of = HashStore(), [tmp_path / "here", tmp_path / "there"], "a checkpoint"
    for number, output in enumerate(outputs):
        folder, name = begin_checkpoint(output, 3), f"model-{number}.safetensors"
        save_file({name: np.frombuffer(os.urandom(2 * MIB), np.uint8)}, folder / name)
        part = Part(of=of, processes=2, sent=(name,))
        seal(folder, step=3, total_steps=12, epoch=1.0, loss=0.5, part=part)
    return plan(store, tmp_path), outputs, [Parts(kv_store, 0, (1,)), Parts(kv_store, 1, ())]


def test_parts_become_a_version_when_the_first_node_knows_that_all_are_sent(
    nodes: tuple[Plan, list[Path], list[Parts]], store: Store, tmp_path: Path
) -> None:
    made, (here, there), (first, second) = nodes
    publisher = publisher_of(made, here, lambda _: None, parts=first)
    assert publisher
    wait_for(lambda: "shop/run/checkpoint-3/model-0.safetensors" in store.keys("shop/"), seconds=60)
    assert published(store) == []
    sender = sender_of(made, there, second)
    assert sender
    sender.close()
    publisher.close()

    whole = store.fetch("shop/run/checkpoint-3", tmp_path / "whole", include_resume=True)
    one = complete_checkpoint(whole)
    assert one is not None
    assert one.marker.part is None
    assert {"model-0.safetensors", "model-1.safetensors"} <= one.marker.files.keys()
    again = sender_of(made, there, second)  # after a restart
    assert again
    again.close()


def test_a_node_that_can_not_send_its_part_leaves_no_version_and_says_why(
    nodes: tuple[Plan, list[Path], list[Parts]], store: Store
) -> None:
    made, (here, there), (first, second) = nodes
    save_file({"x": np.full(3, np.nan, np.float32)}, there / "checkpoint-3" / "model-1.safetensors")
    seal_again(there / "checkpoint-3")
    sender, publisher = sender_of(made, there, second), publisher_of(made, here, lambda _: None, parts=first)
    assert sender
    assert publisher
    with pytest.raises(ModelError, match="are NaN or infinite"):
        sender.close()
    with pytest.raises(StoreError, match=r"can't send its part of shop/run/checkpoint-3; mend that there: .* infinite"):
        publisher.close()
    assert published(store) == []


def test_a_part_that_nobody_sends_is_not_waited_for_when_training_is_done(
    nodes: tuple[Plan, list[Path], list[Parts]], store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, (here, there), (first, _) = nodes
    for name, seconds in (("PATIENCE", 0.1), ("_BEGINNING", 0.0), ("_LOOKING", 0.01)):
        monkeypatch.setattr(publishing, name, seconds)
    publisher = publisher_of(made, here, lambda _: None, parts=first)
    assert publisher
    with pytest.raises(StoreError, match=r"checkpoint-3 lacks the part of another node, .*; look at that node's log"):
        publisher.close()
    assert published(store) == []

    with claimed(store._bucket, "shop/run/checkpoint-3"):  # of an attempt that was killed
        (left,) = complete_checkpoints(there)
        with pytest.raises(UnavailableError, match="is being published by another process; it is tried again when"):
            send_part(store, left, "shop/run", ["model-1.safetensors"])


def seal_again(folder: Path) -> None:
    (folder / "resume" / "complete.json").rename(folder / "resume" / "complete.json.partial")
    part = Part(of="a checkpoint", processes=2, sent=("model-1.safetensors",))
    seal(folder, step=3, total_steps=12, epoch=1.0, loss=0.5, part=part)


def test_a_run_that_is_to_stop_does_not_wait_for_a_store_that_is_away(tmp_path: Path) -> None:
    asked = threading.Event()

    def publish(_: Checkpoint) -> None:
        asked.set()
        raise UnavailableError("It is away.")

    publisher = Publisher(publish)
    publisher.submit(checkpoint(tmp_path, 3))
    assert asked.wait(60)

    publisher.flush()


def test_what_an_earlier_attempt_left_is_published_and_only_the_newest_stays(store: Store, tmp_path: Path) -> None:
    first = publisher_of(plan(store, tmp_path), tmp_path, lambda _: None)
    assert first
    for step in (3, 6):
        first.submit(checkpoint(tmp_path, step))
    first.close()
    checkpoint(tmp_path, 9)
    on_published: list[str] = []

    second = publisher_of(plan(store, tmp_path, keep=1), tmp_path, lambda version: on_published.append(version.name))
    assert second
    second.submit(checkpoint(tmp_path, 12))
    second.close()

    assert published(store) == [f"checkpoint-{step}" for step in (3, 6, 9, 12)]
    assert on_published == ["shop/run/checkpoint-9", "shop/run/checkpoint-12"]
    assert [one.step for one in complete_checkpoints(tmp_path)] == [12]


@pytest.mark.parametrize(("keep", "left"), [(None, [6, 9]), (1, [9]), (3, [3, 6, 9])])
def test_with_a_store_two_checkpoints_stay_unless_more_or_fewer_are_asked_for(
    store: Store, tmp_path: Path, keep: int | None, left: list[int]
) -> None:
    publisher = publisher_of(plan(store, tmp_path, keep=keep), tmp_path, lambda _: None)
    assert publisher
    for step in (3, 6, 9):
        publisher.submit(checkpoint(tmp_path, step))
    publisher.close()

    assert [one.step for one in complete_checkpoints(tmp_path)] == left


def test_a_run_whose_store_is_away_ends_and_keeps_what_is_not_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publishing, "PATIENCE", 0.0)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "key")
    data = write_dialogues(tmp_path / "data", dialogues(8))
    config = make_config(
        "s3://away",
        data,
        tmp_path / "run",
        endpoint_url=f"http://127.0.0.1:{free_port()}",
        model_name_or_path=str(make_tiny(tmp_path / "model", texts())),
        save_total_limit=1,
        num_train_epochs=2,
    )

    with pytest.raises(StoreError, match=r"does not have checkpoint-2, checkpoint-4; .* can't be reached"):
        train_alone(config)

    assert len(read_log(tmp_path / "run")) == 4
    assert [one.step for one in complete_checkpoints(tmp_path / "run")] == [2, 4]


def test_without_a_store_only_the_newest_stay(tmp_path: Path) -> None:
    data = write_dialogues(tmp_path / "data", dialogues(8))
    model = make_tiny(tmp_path / "model", texts())
    config = make_config(None, data, tmp_path / "run", model_name_or_path=str(model), save_total_limit=2)

    train_alone(config)

    assert [one.step for one in complete_checkpoints(tmp_path / "run")] == [6, 8]


@pytest.fixture
def mortal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[EmbeddedStore]:
    """A store of this test's own."""
    with EmbeddedStore.start(tmp_path / "weed") as running:
        for name, value in running.environment.items():
            monkeypatch.setenv(name, value)
        yield running


def test_a_store_that_is_killed_in_the_middle_of_an_upload_has_it_in_the_end(
    mortal: EmbeddedStore, tmp_path: Path
) -> None:
    store = Store.open(mortal.uri, endpoint_url=mortal.endpoint_url)
    output = tmp_path / "run"
    output.mkdir()
    publisher = publisher_of(plan(store, output), output, lambda _: None)
    assert publisher
    publisher.submit(checkpoint(output, 3, 200 * MIB))
    bucket = store._bucket
    wait_for(lambda: bucket.client.list_multipart_uploads(Bucket=bucket.location.bucket).get("Uploads"))
    kill(mortal)
    assert not [future for future in publisher._futures.values() if future.done()]

    with start_again(mortal):
        publisher.close()
        assert store.verify("shop/run/checkpoint-3").files


@pytest.mark.parametrize(("minutes", "said"), [(-1, ""), (1, "it gets worse")], ids=["before it began", "meanwhile"])
def test_word_to_stop_is_followed_beside_the_next_checkpoint_unless_it_is_older_than_the_start(
    store: Store, tmp_path: Path, minutes: int, said: str
) -> None:
    word = RunStop(message="it gets worse", time=datetime.now(UTC) + timedelta(minutes=minutes))
    config = plan(store, tmp_path).config
    stop_run(store, config.model, config.run, word)
    publisher = publisher_of(plan(store, tmp_path), tmp_path, lambda _: None)
    assert publisher
    publisher.submit(checkpoint(tmp_path, 3))
    publisher.close()
    assert ((tmp_path / STOP).read_text() if (tmp_path / STOP).exists() else "") == said
