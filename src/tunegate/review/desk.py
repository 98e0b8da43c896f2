"""What a reviewer may ask of a review: the next item, an earlier one of their own, and to keep a mark.

Reviewers never learn which version wrote an answer, nor what others said.
"""

from __future__ import annotations

import hashlib
import secrets
import threading
import unicodedata
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from tunegate.api.codec import prepare
from tunegate.api.errors import EvaluationError
from tunegate.api.evaluation import ReviewProgress
from tunegate.review import queue
from tunegate.review.items import Review
from tunegate.review.marks import COMMENT, Joined, Log, Mark, latest
from tunegate.review.telling import progress

_LONGEST_NAME, _LONGEST_TEXT = 40, 10_000  # characters
_SIDES = {"left": 0, "right": 1}


class RefusalError(Exception):
    """What was asked can't be done; status is HTTP's, the message is for the reviewer."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Join(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Somebody takes a name, or comes back to it with the code that came with it."""

    name: str
    code: str = ""


class Said(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A mark as the page sends it: item is the digest of what was shown, and sides are those that were shown."""

    id: str
    item: str
    criterion: str
    value: int | str
    seconds: float
    replaces: str = ""
    reason: str = ""


class Desk:
    """One review while it is served. Several threads may ask at once."""

    def __init__(self, review: Review, marks: Log, clock: Callable[[], datetime] = lambda: datetime.now(UTC)):
        self._review, self._file, self._clock = review, marks, clock
        self._items = review.judged
        self._read()
        self._open: dict[str, str] = {}  # reviewer -> digest of the item that was given last
        self._lock = threading.Lock()

    def progress(self) -> list[ReviewProgress]:
        """How far the answers of each version are judged."""
        with self._lock:
            return progress(self._review, self._marks)

    def join(self, asked: Join) -> dict[str, str]:
        """The reviewer's name and code. Raises RefusalError for a name that somebody else has."""
        name = " ".join(unicodedata.normalize("NFKC", asked.name).split())
        if not name or len(name) > _LONGEST_NAME or not name.isprintable():
            raise RefusalError(422, f"Give a name of 1 to {_LONGEST_NAME} characters.")
        with self._lock:
            if (known := self._joined.get(_same(name))) is not None:
                if not secrets.compare_digest(known.code, _hash(asked.code)):
                    raise RefusalError(
                        409,
                        f"There is a reviewer {known.reviewer} already. Give the code of that name, or another name.",
                    )
                return {"reviewer": known.reviewer, "code": asked.code}
            code = secrets.token_hex(4)
            line = Joined(reviewer=name, code=_hash(code), time=self._clock())
            self._append(line)
            return {"reviewer": name, "code": code}

    def reviewer(self, code: str) -> str:
        """Whose code it is. Raises RefusalError for one that is nobody's."""
        hashed = _hash(code)
        with self._lock:
            found = next((line.reviewer for line in self._joined.values() if line.code == hashed), None)
        if found is None:
            raise RefusalError(401, "This code is nobody's; join with a name.")
        return found

    def about(self, reviewer: str) -> dict[str, Any]:
        """What the page must know to ask: criteria and how far this reviewer is."""
        criteria = [
            {"name": each.name, "question": each.question, "values": list(each.values), "labels": each.labels}
            for each in self._review.criteria
        ]
        about = {"reviewer": reviewer, "mode": self._review.mode, "decides": self._review.is_of_decisions}
        with self._lock:
            return {**about, "criteria": criteria, **self._progress(reviewer)}

    def next(self, reviewer: str) -> dict[str, Any]:
        """The next item for this reviewer; None when nothing is left."""
        with self._lock:
            digest = queue.next_item(self._review, self._judged(), self._open, reviewer)
            self._open.pop(reviewer, None)
            if digest is not None:
                self._open[reviewer] = digest
            shown = self._shown(digest, reviewer) if digest is not None else None
            return {"item": shown, **self._progress(reviewer)}

    def earlier(self, digest: str, reviewer: str) -> dict[str, Any]:
        """An item that this reviewer has judged, with what they said. Raises RefusalError for any other."""
        with self._lock:
            if digest not in self._own(reviewer):
                raise RefusalError(404, "You have not judged such an item.")
            return {"item": self._shown(digest, reviewer), **self._progress(reviewer)}

    def keep(self, said: Said, reviewer: str) -> dict[str, Any]:
        """Keep a mark: it is on the disk when this returns. It may come twice. Raises RefusalError for a wrong one."""
        with self._lock:
            item = self._items.get(said.item)
            if item is None:
                raise RefusalError(404, "This review has no such item; load the page again.")
            left = queue.left(self._review, item, reviewer)
            value = self._value(said, left)
            older = self._marks.get((said.item, reviewer, said.criterion))
            if older is not None and older.id == said.id:
                return {"saved": said.id, **self._progress(reviewer)}
            if said.replaces != (older.id if older else ""):
                raise RefusalError(409, "This was marked elsewhere meanwhile; load the page again.")
            if older and not said.reason.strip():
                raise RefusalError(422, "A change needs a reason.")
            facts = {
                **msgspec.structs.asdict(said),
                "item": item.question,
                "answers": said.item,
                "reviewer": reviewer,
                "value": value,
                "time": self._clock(),
                "left": left,
            }
            try:
                mark = msgspec.convert(facts, Mark)
            except msgspec.ValidationError as error:
                raise RefusalError(422, f"This is not a mark: {error}.") from None
            self._append(mark)
            return {"saved": said.id, **self._progress(reviewer)}

    def _read(self) -> None:
        lines = self._file.lines
        self._marks = latest(lines)
        self._joined = {_same(line.reviewer): line for line in lines if isinstance(line, Joined)}

    def _append(self, line: Joined | Mark) -> None:
        try:
            self._file.append(line)
        except EvaluationError:
            self._read()  # another server of this review may have written
            raise
        if isinstance(line, Mark):
            self._marks[line.answers, line.reviewer, line.criterion] = line
        else:
            self._joined[_same(line.reviewer)] = line

    def _value(self, said: Said, left: int) -> int | str:
        """What is kept: of pairs, which answer of the item, not which side."""
        criterion = next((each for each in self._review.criteria if each.name == said.criterion), None)
        if len(said.reason) > _LONGEST_TEXT:
            raise RefusalError(422, f"A reason has at most {_LONGEST_TEXT} characters.")
        if said.criterion == COMMENT:
            if not isinstance(said.value, str) or len(said.value) > _LONGEST_TEXT:
                raise RefusalError(422, f"A comment is text of at most {_LONGEST_TEXT} characters.")
            return said.value
        if criterion is None:
            raise RefusalError(422, f"This review has no criterion {said.criterion}.")
        if self._review.mode == "single":
            if said.value not in criterion.values:
                raise RefusalError(422, f"{said.criterion} is given one of {', '.join(map(str, criterion.values))}.")
            return said.value
        if said.value in ("tie", "both_bad"):
            return said.value
        if said.value not in _SIDES:
            raise RefusalError(422, "A pair is given left, right, tie or both_bad.")
        return "first" if _SIDES[str(said.value)] == left else "second"

    def _shown(self, digest: str, reviewer: str) -> dict[str, Any]:
        item = self._items[digest]
        left = queue.left(self._review, item, reviewer)
        texts = [answer.text for answer in item.answers]
        sides: Mapping[int | str, str] = {("first", "second")[left]: "left", ("second", "first")[left]: "right"}
        marks = {
            criterion: {"id": mark.id, "value": sides.get(mark.value, mark.value)}
            for (answers, name, criterion), mark in self._marks.items()
            if answers == digest and name == reviewer
        }
        return {
            "digest": digest,
            "messages": item.messages,
            "context": item.context,
            "reference": "" if item.reference in texts else item.reference,
            "answers": texts[left:] + texts[:left],
            "marks": marks,
        }

    def _judged(self) -> queue.Judged:
        return queue.judged(self._review, self._marks)

    def _own(self, reviewer: str) -> list[str]:
        """What this reviewer has judged, first to last, by digest."""
        marked = dict.fromkeys(mark.answers for mark in self._marks.values() if mark.reviewer == reviewer)
        done = self._judged()
        return [digest for digest in marked if digest in done and reviewer in done[digest]]

    def _progress(self, reviewer: str) -> dict[str, Any]:
        done = self._judged()
        return {"own": self._own(reviewer), "left": len(queue.missing(self._review, done, reviewer))}


def _same(name: str) -> str:
    """What two spellings of one name have in common."""
    return name.casefold()


def _hash(code: str) -> str:
    return hashlib.sha256(code.encode()).hexdigest()


prepare(Join, Said)
