"""From the logs of answers and votes to what an experience review says.

The logs are read twice, a day at a time: once for what was disliked, which gives the topics, and once to count all
answers by topic and by what was served. So a week of a million answers needs no more memory than its disliked ones.
"""

from __future__ import annotations

import hashlib
import heapq
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date
from itertools import chain, zip_longest

from msgspec.structs import replace
from scipy.stats import fisher_exact

from tunegate.api.digest import short
from tunegate.evaluation.scores import wilson
from tunegate.experience.contents import OTHER, Disliked, Experience, Group, Kind, Period, Share
from tunegate.experience.topics import MOST_QUESTIONS, Topics, find_topics
from tunegate.feedback.interactions import Interaction, Judged, question_of
from tunegate.feedback.segments import utc_day
from tunegate.feedback.tally import Caps

Read = Callable[[date, date], Iterator[Judged]]
"""The answers of the days from the first to the second, with their votes."""

_BATCH = 2000
_SHOWN = 20  # conversations


@dataclass
class _Counts:
    """Of one group, in the period and before."""

    answers: list[int] = field(default_factory=lambda: [0, 0])
    judged: list[int] = field(default_factory=lambda: [0, 0])
    down: list[int] = field(default_factory=lambda: [0, 0])


def experience_of(read: Read, period: Period, proposals: int = 100) -> Experience:
    """The review of a period, beside the one before it. proposals: how many answers to propose at most."""
    found = heapq.nsmallest(MOST_QUESTIONS, _disliked(read(period.since, period.until)), key=_says_most)
    asked = [question_of(disliked.messages) for disliked in found]
    topics = find_topics(asked)
    places = topics.of(asked)
    found = [replace(disliked, topic=_name(topics, place)) for disliked, place in zip(found, places, strict=True)]
    counts, unlogged = _count(read, period, topics)
    groups = tuple(chain.from_iterable(_groups(kind, counts) for kind in ("all", *_KINDS)))
    reasons = Counter(tag for disliked in found for tag in disliked.tags)
    return Experience(
        period=period,
        groups=groups,
        reasons=dict(sorted(reasons.items(), key=lambda item: (-item[1], item[0]))),
        worst=tuple(_one_of_each(found))[:_SHOWN],
        proposals=tuple(in_turn(found))[:proposals],
        notes=tuple(_notes(groups, found, unlogged)),
    )


def in_turn(found: Sequence[Disliked]) -> Iterator[Disliked]:
    """One answer of each topic, then a second of each, and so on; of equal questions the first alone."""
    by_topic: dict[str, list[Disliked]] = {}
    asked = set[str]()
    for disliked in found:
        if (question := question_of(disliked.messages)) not in asked:
            asked.add(question)
            by_topic.setdefault(disliked.topic, []).append(disliked)
    largest = sorted(by_topic.items(), key=lambda item: (item[0] == OTHER, -len(item[1]), item[0]))
    return (each for row in zip_longest(*(members for _, members in largest)) for each in row if each)


def _disliked(judged: Iterable[Judged]) -> Iterator[Disliked]:
    """The answers that were disliked and whose texts were logged."""
    for each in judged:
        answer, vote = each.interaction, each.vote
        if vote is None or vote.feedback.verdict != "down" or answer is None or answer.content is None:
            continue
        if not question_of(answer.content.messages):
            continue
        said = vote.feedback
        yield Disliked(
            id=hashlib.sha256(answer.id.encode()).hexdigest()[:16],
            conversation=answer.conversation or "",
            day=utc_day(answer.answered),
            digest=answer.digest,
            messages=answer.content.messages,
            answer=answer.content.answer,
            rating=said.rating,
            tags=said.tags,
            comment=said.comment or "",
            correction=said.correction or "",
            prompt=answer.prompt_template or "",
            sources=tuple(_sources(answer)),
            tools=tuple(sorted(answer.tools)),
        )


def _says_most(disliked: Disliked) -> tuple[object, ...]:
    """What sorts an answer first that says more of what was wrong; the rest by chance, which is always the same."""
    return (not disliked.correction, not disliked.comment, disliked.rating or 3, not disliked.tags, disliked.id)


def _one_of_each(found: Iterable[Disliked]) -> Iterator[Disliked]:
    """The first of each conversation."""
    seen = set[str]()
    for disliked in found:
        if disliked.conversation not in seen or not disliked.conversation:
            seen.add(disliked.conversation)
            yield disliked


def _count(read: Read, period: Period, topics: Topics) -> tuple[dict[tuple[Kind, str], _Counts], int]:
    """All groups of both periods, and how many votes in this one are on answers that no log has.

    As in promotions, of each user's verdicts on one day only the first few count.
    """
    counts: dict[tuple[Kind, str], _Counts] = {}
    unlogged, caps = 0, Caps()
    waiting: list[tuple[str, int, bool, bool]] = []

    def add(kind: Kind, name: str, place: int, judged: bool, down: bool) -> None:
        group = counts.setdefault((kind, name), _Counts())
        group.answers[place] += 1
        group.judged[place] += judged
        group.down[place] += down

    def add_topics() -> None:
        places = topics.of([question for question, *_ in waiting])
        for topic, (_, place, judged, down) in zip(places, waiting, strict=True):
            add("topic", _name(topics, topic), place, judged, down)
        waiting.clear()

    for each in read(period.before.since, period.until):
        answer, vote = each.interaction, each.vote
        answered = answer.answered if answer else vote.answered  # type: ignore[union-attr]
        place = int(utc_day(answered) < period.since)
        judged = vote is not None and caps.admit(vote.user, vote.step)
        down = judged and vote is not None and vote.feedback.verdict == "down"
        unlogged += answer is None and not place
        add("all", "", place, judged, down)
        add("version", short(answer.digest if answer else vote.digest), place, judged, down)  # type: ignore[union-attr]
        if answer is None:
            continue
        for kind, name in _served(answer):
            add(kind, name, place, judged, down)
        if answer.content and (question := question_of(answer.content.messages)):
            waiting.append((question, place, judged, down))
            if len(waiting) == _BATCH:
                add_topics()
    add_topics()
    return counts, unlogged


_KINDS: tuple[Kind, ...] = ("topic", "prompt", "source", "tool", "version")


def _served(answer: Interaction) -> Iterator[tuple[Kind, str]]:
    yield "prompt", answer.prompt_template or OTHER
    for source in _sources(answer):
        yield "source", source
    for tool in answer.tools:
        yield "tool", tool


def _sources(answer: Interaction) -> list[str]:
    """What the answer could cite, each once, by where it is or else by its title."""
    found = answer.content.sources if answer.content else ()
    return sorted({str(source.get("uri") or source.get("title") or "") for source in found} - {""})


def _groups(kind: Kind, counts: dict[tuple[Kind, str], _Counts]) -> list[Group]:
    """Those of one kind: the most disliked answers first."""
    own = {name: found for (of, name), found in counts.items() if of == kind}
    tested = sum(all(found.judged) for found in own.values())
    groups = [
        Group(
            kind=kind,
            name=name,
            answers=found.answers[0],
            answers_before=found.answers[1],
            share=_share(found.down[0], found.judged[0]),
            before=_share(found.down[1], found.judged[1]),
            drift=min(1.0, tested * _chance(found)) if all(found.judged) else None,
        )
        for name, found in own.items()
    ]
    return sorted(groups, key=lambda group: (-(group.share.down if group.share else 0), -group.answers, group.name))


def _share(down: int, judged: int) -> Share | None:
    if not judged:
        return None
    low, high = wilson(down, judged)
    return Share(down=down, judged=judged, low=low, high=high)


def _chance(counts: _Counts) -> float:
    table = [[counts.down[place], counts.judged[place] - counts.down[place]] for place in (0, 1)]
    return float(fisher_exact(table).pvalue)


def _notes(groups: Sequence[Group], found: Sequence[Disliked], unlogged: int) -> Iterator[str]:
    whole = next((group for group in groups if group.kind == "all"), None)
    if whole is None or not whole.answers:
        yield (
            "Nothing was answered in this period, as far as the store knows; give other days, with today as --until "
            "for answers of today, or check --store."
        )
        return
    if whole.share is None:
        yield "Nobody judged an answer in this period."
    elif whole.share.down and not found:
        yield "No texts of disliked answers were logged, so there are no topics, conversations or proposals."
    if len(found) == MOST_QUESTIONS:
        yield f"Topics are those of the {MOST_QUESTIONS} disliked answers that say most; counts are of all answers."
    if unlogged:
        yield f"{unlogged} judged answers are known by their votes alone: they count, but not by topic."


def _name(topics: Topics, place: int | None) -> str:
    return OTHER if place is None else topics.names[place]
