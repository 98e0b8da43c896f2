"""How checkpoints reach the store while training continues: in a thread of its own, of a lower priority.

The store may be away for a while; a checkpoint stays in the run's folder until the store has it.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from tunegate.api.errors import StoreError, TunegateError, UnavailableError
from tunegate.api.versions import File, ModelVersion
from tunegate.store import Store
from tunegate.store.stops import find_stop
from tunegate.training.run.checkpoints import (
    Checkpoint,
    Share,
    complete_checkpoint,
    complete_checkpoints,
    publish_checkpoint,
    remove_surplus,
    send_part,
    send_share,
)
from tunegate.training.run.curve import Point, Scores
from tunegate.training.run.layout import STOP
from tunegate.training.run.parts import Parts
from tunegate.training.run.plan import Plan
from tunegate.training.run.progress import Uploading
from tunegate.training.run.stored_log import keep

_LOG = logging.getLogger(__name__)
PATIENCE = 300.0  # seconds
_SHORTEST_PAUSE, _LONGEST_PAUSE = 1.0, 30.0  # seconds
_NICENESS = 10
_BEGINNING, _LOOKING = 10.0, 1.0  # seconds until another node sends its part, and from one look to the next
_SEALING = 60.0  # seconds until a node sees what the first one has written


class Publisher:
    """Publishes checkpoints one after the other beside the caller.

    A store that is away is asked again for as long as the caller trains, and for some minutes after `close`.
    """

    def __init__(self, publish: Callable[[Checkpoint], None]) -> None:
        self._publish = publish
        self._thread = ThreadPoolExecutor(1, "publish", initializer=_step_back)
        self._futures: dict[str, Future[None]] = {}
        self._sizes: dict[str, int] = {}
        self._deadline = float("inf")
        self.points: Sequence[Point] = ()  # what published checkpoints were measured at, as last seen
        self._flushing = threading.Event()
        self._cancelled = threading.Event()

    def submit(self, checkpoint: Checkpoint) -> None:
        def publish() -> None:
            pause = _SHORTEST_PAUSE
            while True:
                try:
                    return self._publish(checkpoint)
                except UnavailableError as error:
                    fields = {"checkpoint": checkpoint.folder.name, "error": str(error)}
                    _LOG.warning("a checkpoint waits to be published", extra=fields)
                    if time.monotonic() + pause > self._deadline or self._flushing.wait(pause):
                        raise
                pause = min(2 * pause, _LONGEST_PAUSE)

        self._sizes[checkpoint.folder.name] = sum(checkpoint.marker.files.values())
        self._futures[checkpoint.folder.name] = self._thread.submit(publish)

    def waiting(self) -> Uploading | None:
        """What is not in the store yet; None where all is."""
        names = tuple(name for name, future in self._futures.items() if not future.done())
        return Uploading(checkpoints=names, size=sum(self._sizes[name] for name in names)) if names else None

    def close(self) -> None:
        """Wait for every upload. Raises StoreError when a checkpoint could not be published; the others were tried."""
        self._deadline = time.monotonic() + PATIENCE
        self._thread.shutdown(wait=True)
        failed = {name: error for name, future in self._futures.items() if (error := future.exception())}
        for error in failed.values():
            if not isinstance(error, StoreError):
                raise error
            raise StoreError(
                f"Training is done, but the store does not have {', '.join(failed)}; run the same command again to "
                f"publish what is missing. The reason: {error}"
            )

    def flush(self) -> None:
        """Publish what the store takes at the first attempt; the next start of the run publishes the rest."""
        self._flushing.set()
        self._thread.shutdown(wait=True)

    def cancel(self) -> None:
        """Give up what has not begun; the next start of the run publishes it."""
        self._cancelled.set()
        self._flushing.set()
        self._thread.shutdown(wait=True, cancel_futures=True)

    def is_cancelled_within(self, seconds: float) -> bool:
        return self._cancelled.wait(seconds)


class Helper:
    """Sends its node's share of each checkpoint to the store, beside the caller, on a node that is not the first.

    The first takes over what was sent, and sends itself what is missing, so whatever fails here is only logged.
    """

    def __init__(self, send: Callable[[Checkpoint], None]) -> None:
        self._send = send
        self._thread = ThreadPoolExecutor(1, "publish", initializer=_step_back)
        self._cancelled = threading.Event()

    def submit(self, folder: Path) -> None:
        """Send a share of the checkpoint in `folder` as soon as the first node has completed it."""
        self._thread.submit(self._help, folder)

    def close(self) -> None:
        """Wait for what was submitted."""
        self._thread.shutdown(wait=True)

    def cancel(self) -> None:
        """Give up what has not begun."""
        self._cancelled.set()
        self._thread.shutdown(wait=True, cancel_futures=True)

    def _help(self, folder: Path) -> None:
        deadline = time.monotonic() + _SEALING
        while (checkpoint := complete_checkpoint(folder)) is None:
            is_over = time.monotonic() > deadline or not folder.exists()  # published without us, and cleared away
            if is_over or self._cancelled.wait(0.2):
                return
        try:
            self._send(checkpoint)
            _LOG.info("a share of a checkpoint is in the store", extra={"checkpoint": folder.name})
        except TunegateError as error:
            fields = {"checkpoint": folder.name, "error": str(error)}
            _LOG.warning("a share of a checkpoint was left to the first node", extra=fields)


def _step_back() -> None:
    """Let training go before this thread, and before what it starts, wherever the process itself stands."""
    if sys.platform == "linux":  # elsewhere threads have no priority of their own
        thread = threading.get_native_id()
        lower = min(19, os.getpriority(os.PRIO_PROCESS, thread) + _NICENESS)
        os.setpriority(os.PRIO_PROCESS, thread, lower)


def share_of(environment: Mapping[str, str]) -> Share | None:
    """What this rank's node sends, in one rank of each node; None in the others. As torchrun says it."""
    if environment.get("LOCAL_RANK", "0") != "0":
        return None
    return Share(int(environment.get("GROUP_RANK", "0")), int(environment.get("GROUP_WORLD_SIZE", "1")))


def helper_of(plan: Plan, share: Share) -> Helper | None:
    """What sends a node's share of the checkpoints of a run; None without a store."""
    config = plan.config
    if config.store is None:
        return None
    store, run = Store.at(config.store, endpoint_url=config.endpoint_url), f"{config.model}/{config.run}"
    return Helper(lambda checkpoint: send_share(store, checkpoint, run, plan.release, share))


def publisher_of(
    plan: Plan,
    output_dir: Path,
    on_published: Callable[[ModelVersion], None],
    share: Share | None = None,
    parts: Parts | None = None,
) -> Publisher | None:
    """What publishes the checkpoints of a run, those first that an earlier attempt left; None without a store.

    Those that are in the store make room for newer ones, if the run is to keep only some. The store need not be there
    yet: `on_published` gets every version that it has from now on. Where others help, it sends its own share of a
    checkpoint before it waits for theirs. parts: where the others have folders of their own.
    """
    config, started = plan.config, datetime.now(UTC)
    if config.store is None:
        return None
    store, run = Store.at(config.store, endpoint_url=config.endpoint_url), f"{config.model}/{config.run}"
    known: set[str] = set()
    scores = Scores(store)

    def publish(checkpoint: Checkpoint) -> None:
        if not known:
            known.update(version.name for version in store.list(config.model))
        if name_of(checkpoint) not in known:
            sent: list[File] = []
            if parts and checkpoint.marker.part:
                send_part(store, checkpoint, run, checkpoint.marker.files)
                sent = _wait_for(parts, store, name_of(checkpoint), publisher)
            elif share and share.count > 1 and not parts:
                send_share(store, checkpoint, run, plan.release, share)
            on_published(publish_checkpoint(store, checkpoint, run, plan.release, plan.producer, sent))
            known.add(name_of(checkpoint))
        published = [checkpoint for checkpoint in complete_checkpoints(output_dir) if name_of(checkpoint) in known]
        remove_surplus(published, config.kept)
        with suppress(StoreError):  # all of it is done again beside the next checkpoint
            keep(store, config.model, config.run, output_dir)
            publisher.points = scores.look(version for version in store.list(config.model) if version.run == config.run)
            stop = find_stop(store, config.model, config.run)
            if stop and stop.time > started:  # else it was followed, and a person has the run go on
                (output_dir / STOP).write_text(stop.message)

    def name_of(checkpoint: Checkpoint) -> str:
        return f"{run}/{checkpoint.folder.name}"

    publisher = Publisher(publish)
    for left in complete_checkpoints(output_dir):
        publisher.submit(left)
    return publisher


def sender_of(plan: Plan, output_dir: Path, parts: Parts) -> Publisher | None:
    """What sends a node's part of the checkpoints of a run, where each has a folder of its own, those first that an
    earlier attempt left; None without a store. The first node publishes when it was told of all parts."""
    config = plan.config
    if config.store is None:
        return None
    store, run = Store.at(config.store, endpoint_url=config.endpoint_url), f"{config.model}/{config.run}"
    known: set[str] = set()

    def send(checkpoint: Checkpoint) -> None:
        name, part = f"{run}/{checkpoint.folder.name}", checkpoint.marker.part
        if not known:
            known.update(version.name for version in store.list(config.model))
        if part is None or name in known:
            return
        try:
            files = send_part(store, checkpoint, run, part.sent)
        except UnavailableError:  # it is tried again
            raise
        except TunegateError as error:
            parts.tell(name, reason=str(error))
            raise
        parts.tell(name, files)
        _LOG.info("a part of a checkpoint is in the store", extra={"checkpoint": checkpoint.folder.name})

    sender = Publisher(send)
    for left in complete_checkpoints(output_dir):
        sender.submit(left)
    return sender


def _wait_for(parts: Parts, store: Store, name: str, publisher: Publisher) -> list[File]:
    """What other nodes have sent of a version, as soon as they have. Raises UnavailableError when nobody sends it."""
    begin = time.monotonic()
    while (files := parts.told(name)) is None:
        is_over = publisher.is_cancelled_within(_LOOKING)
        if is_over or (time.monotonic() > begin + _BEGINNING and not store.is_sent(name)):
            raise UnavailableError(
                f"{name} lacks the part of another node, which alone has it; look at that node's log."
            )
    return files
