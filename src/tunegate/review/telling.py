"""How far a review is, told in the store, where promotions wait for it: in a thread of its own, so no mark waits."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from tunegate.api.errors import StoreError
from tunegate.api.evaluation import ReviewProgress
from tunegate.review import queue
from tunegate.review.items import Review
from tunegate.review.marks import Marks
from tunegate.store import Store
from tunegate.store.evaluations import save_progress

logger = logging.getLogger(__name__)

_SECONDS = 3.0  # from a mark to where it is told


def progress(review: Review, marks: Marks) -> list[ReviewProgress]:
    """How far the answers of each version are judged. An item is, once somebody judged it by every criterion."""
    done, needed = queue.judged(review, marks), queue.needed(review)
    found = []
    for place, version in enumerate(review.versions):
        own = {item.digest for item in review.items if any(answer.version == place for answer in item.answers)}
        items = [digest for digest in review.judged if digest in own]
        people = sorted({name for digest in items for name in done[digest]})
        found.append(
            ReviewProgress(
                digest=version.digest,
                suite=review.suite,
                items=len(items),
                marked=sum(bool(done[digest]) for digest in items),
                judgements=sum(min(len(done[digest]), needed[digest]) for digest in items),
                needed=sum(needed[digest] for digest in items),
                reviewers={name: sum(name in done[digest] for digest in items) for name in people},
            )
        )
    return found


@contextmanager
def telling(store: Store, seen: Callable[[], Sequence[ReviewProgress]]) -> Iterator[None]:
    """Inside, what is `seen` is told whenever it changes, and a last time at the end. A store that is away is told
    later."""
    ended, told = threading.Event(), list[ReviewProgress]()

    def tell() -> None:
        nonlocal told
        if (news := list(seen())) != told:
            try:
                for each in news:
                    save_progress(store, each)
                told = news
            except StoreError as error:
                logger.warning("how far the review is could not be told", extra={"error": str(error)})

    def go_on() -> None:
        tell()
        while not ended.wait(_SECONDS):
            tell()

    thread = threading.Thread(target=go_on, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        tell()
