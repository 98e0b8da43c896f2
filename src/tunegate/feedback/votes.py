"""The log of votes: what users said, in segments in the store, by version and by the day of the answer.

A vote is kept when its segment is in the store, also one that amends another. Servers don't ask each other, so one vote
may be kept by two of them; it is counted once, by `tally`, whoever counts. Nothing here knows how ids are signed or who
sends feedback.
"""

from __future__ import annotations

import builtins
import unicodedata
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import chain
from typing import Literal, NamedTuple, TypeVar

import msgspec

from tunegate.api.codec import from_json, prepare
from tunegate.api.digest import Digest
from tunegate.api.errors import StoreError, UsageError
from tunegate.api.feedback import (
    MOST_CHARACTERS,
    MOST_TAG_CHARACTERS,
    Feedback,
    FeedbackRecord,
    StepTag,
    Tally,
    Verdict,
    Verdicts,
    promotion_tag,
)
from tunegate.feedback import struck
from tunegate.feedback.heard import Heard, mark_of
from tunegate.feedback.redact import redact
from tunegate.feedback.segments import (
    Documents,
    Entry,
    Segment,
    day_of,
    days_in,
    new_writer,
    read_lines,
    records_in,
    segment_key,
    utc_day,
)
from tunegate.feedback.tally import AMEND_SECONDS, Caps, Vote, additions, counting, joined

FOLDER = ".tunegate/votes"
OLD_FOLDER = ".tunegate/feedback"
"""Where 0.1.0 kept one document for each vote."""
Outcome = Literal["counted", "kept", "amended", "repeat", "late"]
"""What became of a vote: it counts; it is kept, and its user has had their share; it is kept and changes, or adds to,
what was said of its answer before; it was said before; it contradicts what was said too long ago, which stands."""
T = TypeVar("T")
_ANONYMOUS = "anonymous"
_READERS = 8
# A segment of this many rows or bytes is followed by another one.
_MOST_ROWS, _MOST_BYTES = 2000, 1 << 18
_MOST_OPEN, _MOST_KNOWN = 64, 100_000


class FeedbackLog:
    """Counts the votes in a store, whoever wrote them."""

    def __init__(self, store: Documents) -> None:
        self._store = store
        self._read: dict[str, tuple[str, Sequence[Vote]]] = {}  # by key: the etag, and what it has

    def list(self, digest: str) -> builtins.list[FeedbackRecord]:
        """All feedback on the version with `digest`, oldest first; of each answer what was said in the end."""
        keys = [entry.key for entry in self._store.entries(f"{_folder(digest)}/")]
        old = [entry.key for entry in self._store.entries(f"{OLD_FOLDER}/{_hex(digest)}/")]
        with ThreadPoolExecutor(_READERS) as pool:
            found = [*pool.map(self._segment, keys), *pool.map(self._document, old)]
        return [*joined(record for each in found for record in each).values()]

    def of_day(self, day: date, damaged: builtins.list[str]) -> dict[str, FeedbackRecord]:
        """The votes on the answers of a UTC day, by response id, of all versions; what can't be read is told in
        `damaged`, in sentences. What 0.1.0 kept is not by day: `list` has it."""
        found: builtins.list[FeedbackRecord] = []
        for folder in self._store.folders(f"{FOLDER}/"):
            for entry in self._store.entries(f"{FOLDER}/{folder}/{day.isoformat()}/"):
                found += records_in(entry.key, self._store.get(entry.key) or b"", FeedbackRecord, damaged)
        return joined(found)

    def days(self) -> builtins.list[date]:
        """The days of which there are votes, oldest first."""
        folders = self._store.folders(f"{FOLDER}/")
        return sorted({day for each in folders for day in days_in(self._store, f"{FOLDER}/{each}")})

    def struck(self, digest: str, since: datetime) -> str:
        """Why the version's server gave answers after `since` that were not the version's; empty where it did not."""
        found = [each for each in struck.read(self._store, digest, utc_day(since)) if each.until >= since]
        return min(found, key=lambda each: each.until).reason if found else ""

    def tally(self, digest: str, since: datetime | None = None) -> Tally:
        """Count the verdicts on answers given at or after `since`."""
        begin = since.timestamp() if since else float("-inf")
        counts = Counter(vote.verdict for vote in self._counting(digest, since) if vote.answered >= begin)
        return Tally(up=counts["up"], down=counts["down"])

    def tallies(self, digest: str, promotion: str, since: datetime, per_address: int | None = None) -> Verdicts:
        """The same for each step of the promotion of this name, and, as step None, for answers given since `since`
        without a step. per_address: how many count of the unnamed users at one address; None: all."""
        tag, begin = promotion_tag(promotion), since.timestamp()
        found: defaultdict[int | None, Counter[Verdict]] = defaultdict(Counter)
        for vote in self._counting(digest, since, per_address):
            of, _, index = (vote.step or "").partition("/")
            if of == tag or (not of and vote.answered >= begin):
                found[int(index) if of else None][vote.verdict] += 1
        return {step: Tally(up=counts["up"], down=counts["down"]) for step, counts in found.items()}

    def _counting(self, digest: str, since: datetime | None, per_address: int | None = None) -> Iterator[Vote]:
        """The votes that count, on answers of the days from `since` on, and of the one before, as clocks differ.

        None on an answer that was struck does.
        Each day is counted for itself, as answers and tags of users are of one day. What was read once is not read
        again.
        """
        first = utc_day(since) - timedelta(days=1) if since else date.min
        folder, wrong = _folder(digest), struck.read(self._store, digest, first)
        windows = [(each.since.timestamp(), each.until.timestamp()) for each in wrong]
        days = [day for day in days_in(self._store, folder) if day >= first]
        old = defaultdict[date, list[Vote]](list)
        for vote in self._read_all(self._store.entries(f"{OLD_FOLDER}/{_hex(digest)}/")):
            old[utc_day(datetime.fromtimestamp(vote.answered, UTC))].append(vote)
        for day in sorted({*days, *old}):
            entries = self._store.entries(f"{folder}/{day.isoformat()}/") if day in days else []
            votes = chain(self._read_all(entries), old[day])
            good = (vote for vote in votes if not any(since <= vote.answered <= until for since, until in windows))
            yield from counting(good, per_address)

    def _read_all(self, entries: Sequence[Entry]) -> Iterator[Vote]:
        unread = [entry for entry in entries if self._read.get(entry.key, ("",))[0] != entry.etag]
        with ThreadPoolExecutor(_READERS) as pool:
            for entry, votes in zip(unread, pool.map(self._fetch, (entry.key for entry in unread)), strict=True):
                self._read[entry.key] = (entry.etag, votes)
        for entry in entries:
            yield from self._read[entry.key][1]

    def _fetch(self, key: str) -> Sequence[Vote]:
        if day_of(key) is None:
            return [_vote(record) for record in self._document(key)]
        same: dict[str, str] = {}  # users and steps that are named often are kept once
        votes = self._lines(key, _LINE.decode)
        return [
            Vote(
                hash(mark_of(line.feedback.response_id)),
                line.user and same.setdefault(line.user, line.user),
                line.answered.timestamp(),
                line.received.timestamp(),
                line.feedback.verdict,
                line.step and same.setdefault(line.step, line.step),
            )
            for line in votes
        ]

    def _segment(self, key: str) -> Sequence[FeedbackRecord]:
        return self._lines(key, lambda line: from_json(line, FeedbackRecord, key))

    def _lines(self, key: str, decode: Callable[[bytes], T]) -> Sequence[T]:
        """What a segment has. Raises StoreError when a part of it is gone: too few votes must not decide."""
        body = self._store.get(key)
        if body is None:  # its days are over: it was deleted after it was listed
            return []
        lines, is_whole = read_lines(body)
        try:
            found = [decode(line) for line in lines]
        except (UsageError, msgspec.DecodeError) as error:
            raise StoreError(f"{key} in the store is not a log of votes: {error} Delete it.") from None
        if not is_whole:
            raise StoreError(
                f"{key} in the store is cut after {len(found)} votes; restore it from a backup, or keep these alone "
                f"with: tunegate feedback mend {key}"
            )
        return found

    def _document(self, key: str) -> Sequence[FeedbackRecord]:
        """A vote as 0.1.0 kept it: its user stands in the key."""
        body = self._store.get(key)
        try:
            record = from_json(body or b"", FeedbackRecord, key)
        except UsageError as error:
            raise StoreError(f"{key} in the store is not feedback: {error} If it is damaged, delete it.") from None
        user = key.split("/")[-2]
        return [msgspec.structs.replace(record, user=None if user == _ANONYMOUS else user)]

    def mend(self, key: str) -> int:
        """Write a segment that was cut again with the votes that are whole; says how many these are."""
        if day_of(key) is None or not key.startswith(f"{FOLDER}/"):
            raise UsageError(f"{key} is no segment of votes; give the key as the message about it has it.")
        lines, _ = read_lines(self._store.get(key) or b"")
        self._store.put(key, Segment().with_lines(lines).to_bytes())
        return len(lines)


@dataclass
class _Open:
    """The segment that votes on the answers of one version and day are added to."""

    number: int
    segment: Segment


class _Known(NamedTuple):
    """What a writer remembers of an answer: when it was first judged, the verdict, a hash of what was said besides."""

    first: datetime
    verdict: Verdict
    besides: int


class VoteWriter:
    """Writes votes into segments of its own. Not for several threads at a time.

    content: whether comments and corrections are kept, redacted as all texts; without it, numbers and tags alone.
    """

    def __init__(self, store: Documents, name: str | None = None, *, content: bool = True) -> None:
        self._store, self._content = store, content
        self._name = name or new_writer()
        self._open: OrderedDict[tuple[str, date], _Open] = OrderedDict()
        self._numbers: Counter[tuple[str, date]] = Counter()
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._heard = Heard(store)
        self._caps = Caps(_MOST_KNOWN)

    def write(self, records: Sequence[FeedbackRecord]) -> list[Outcome | StoreError]:
        """Keep all that say something new: they are in the store, each but those with an error. The caller has checked
        their ids.

        What was said of an answer before is known of those that this writer has heard of, and remembers. Of others that
        are so old that a first vote on them may stand already, the log is asked.
        """
        outcomes: dict[int, Outcome | StoreError] = {}
        places: defaultdict[tuple[str, date], list[int]] = defaultdict(list)
        for number, record in enumerate(records):
            places[_folder(record.digest), utc_day(record.answered)].append(number)
        for place, numbers in places.items():
            said, lines = dict[str, _Known](), list[bytes]()  # what is new of each answer
            try:
                self._remember(self._known_to_others(place, [records[number] for number in numbers]))
            except StoreError as unknown:
                outcomes |= dict.fromkeys(numbers, unknown)
                continue
            for number in numbers:
                record, mark = records[number], mark_of(records[number].feedback.response_id)
                outcomes[number], known = _judge(said.get(mark) or self._known.get(mark), record)
                if outcomes[number] in ("counted", "amended"):
                    said[mark] = known
                    lines.append(encode(record, self._content))
                elif outcomes[number] == "repeat" and _is_in_time(known, record):
                    # Another server may have heard another verdict since, and the last one in time counts.
                    lines.append(encode(record, self._content))
            error = self._add(*place, lines) if lines else None
            for number in numbers:
                record = records[number]
                if error and mark_of(record.feedback.response_id) in said:
                    outcomes[number] = error
                elif outcomes[number] == "counted" and not self._caps.admit(record.user, record.step):
                    outcomes[number] = "kept"
            if not error:
                self._remember(said)
        return [outcomes[number] for number in range(len(records))]

    def _known_to_others(self, place: tuple[str, date], records: Sequence[FeedbackRecord]) -> dict[str, _Known]:
        """What the log holds of answers that are too old for every vote on them to be in time, and that this writer
        knows nothing of, or something else. Raises StoreError."""
        folder, day = place
        marks = set()
        for record in records:
            mark = mark_of(record.feedback.response_id)
            known_here = self._known.get(mark)
            is_old = (record.received - record.answered).total_seconds() > AMEND_SECONDS
            if is_old and (known_here is None or known_here.verdict != record.feedback.verdict):
                marks.add(mark)
        found = self._heard.votes(f"{folder}/{day.isoformat()}/", marks) if marks else {}
        known = dict[str, _Known]()
        for mark, votes in found.items():
            for vote in votes:
                known[mark] = _judge(known.get(mark), vote)[1]
        return known

    def _add(self, folder: str, day: date, lines: Sequence[bytes]) -> StoreError | None:
        current = self._open.get((folder, day)) or _Open(self._numbers[folder, day], Segment())
        grown = current.segment.with_lines(lines)
        try:
            self._store.put(segment_key(folder, day, self._name, current.number), grown.to_bytes())
        except StoreError as error:
            return error
        self._open[folder, day] = _Open(current.number, grown)
        self._open.move_to_end((folder, day))
        if grown.rows >= _MOST_ROWS or len(grown) >= _MOST_BYTES:
            self._close(folder, day)
        elif len(self._open) > _MOST_OPEN:
            self._close(*next(iter(self._open)))
        return None

    def _close(self, folder: str, day: date) -> None:
        self._numbers[folder, day] = self._open.pop((folder, day)).number + 1

    def _remember(self, said: Mapping[str, _Known]) -> None:
        self._known |= said
        while len(self._known) > _MOST_KNOWN:
            self._known.popitem(last=False)


def _judge(before: _Known | None, record: FeedbackRecord) -> tuple[Outcome, _Known]:
    """What becomes of a vote after what was said of its answer before, and what is known then."""
    verdict, besides = record.feedback.verdict, additions(record)
    known = _Known(before.first if before else record.received, verdict, hash(msgspec.json.encode(besides)))
    if before is None:
        return "counted", known
    if verdict == before.verdict:
        return ("amended", known) if besides and known.besides != before.besides else ("repeat", before)
    return ("amended", known) if _is_in_time(before, record) else ("late", before)


def _is_in_time(before: _Known, record: FeedbackRecord) -> bool:
    """Whether a vote may still change what was said first."""
    return (record.received - before.first).total_seconds() <= AMEND_SECONDS


def encode(record: FeedbackRecord, content: bool = True) -> bytes:
    """The line of a record: of what people wrote nothing that tells who somebody is, and no control characters."""
    said = without_controls(record.feedback)
    # A mark may be longer than what it stands for, and a line that is no valid record would spoil its segment.
    said = msgspec.structs.replace(
        said,
        tags=tuple(redact(tag)[:MOST_TAG_CHARACTERS] for tag in said.tags),
        comment=said.comment and redact(said.comment)[:MOST_CHARACTERS] if content else None,
        correction=said.correction and redact(said.correction)[:MOST_CHARACTERS] if content else None,
    )
    return msgspec.json.encode(msgspec.structs.replace(record, feedback=said))


def without_controls(feedback: Feedback) -> Feedback:
    """The same feedback without control characters in what people wrote; line breaks and tabs stay in its prose."""
    return msgspec.structs.replace(
        feedback,
        tags=tuple(_strip(tag, keep="") for tag in feedback.tags),
        comment=feedback.comment and _strip(feedback.comment),
        correction=feedback.correction and _strip(feedback.correction),
    )


def _strip(text: str, keep: str = "\n\t") -> str:
    return "".join(c for c in text if c in keep or unicodedata.category(c) != "Cc")


class _Said(msgspec.Struct):
    response_id: str
    verdict: Verdict


class _Line(msgspec.Struct, rename="camel"):
    """What counting needs of a record."""

    answered: datetime
    received: datetime
    feedback: _Said
    step: StepTag | None = None
    user: str | None = None


_LINE = msgspec.json.Decoder(_Line)
prepare(_Line)


def _vote(record: FeedbackRecord) -> Vote:
    said, mark = record.feedback, hash(mark_of(record.feedback.response_id))
    times = record.answered.timestamp(), record.received.timestamp()
    return Vote(mark, record.user, *times, said.verdict, record.step)


def _folder(digest: str) -> str:
    return f"{FOLDER}/{_hex(digest)}"


def _hex(digest: str) -> str:
    return Digest.parse(digest).hex
