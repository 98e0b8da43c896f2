"""The chapter in which the shop learns from its users: what they corrected, taught beside dialogues of before.

It reads the log of the canaries before it, as `tunegate experience`, `review take` and `corpus build` do for everybody.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from tunegate.api.codec import Resource, from_json, to_json, to_json_lines
from tunegate.corpus.build import Builder
from tunegate.corpus.folder import DATA, write
from tunegate.corpus.plan import Mixed, Plan
from tunegate.experience.contents import Period
from tunegate.experience.gather import experience_of
from tunegate.experience.proposals import to_review
from tunegate.feedback.history import judged
from tunegate.feedback.interactions import Judged
from tunegate.files import replace_file
from tunegate.quickstart.scenario import Story
from tunegate.review.decisions import take
from tunegate.review.items import CORPUS, SUITE, Review
from tunegate.review.marks import Mark, latest
from tunegate.review.places import open_place
from tunegate.shop import DATA as SHOP
from tunegate.store import Store
from tunegate.store.folders import open_folder

_OLD = 0.5  # of the new corpus, so that what was learned before is not forgotten
_REVIEWER = "simulated"
_LESSON, _CORRECTIONS, _BEFORE = "lesson.json", "corrections.jsonl", "before.jsonl"


class Lesson(Resource, frozen=True, kw_only=True):
    """What is to be learned. base: the URI of the version that learns. disliked: answers that were looked at.

    corrected: those with a better answer, of which `leaked` are left out, since a suite asks them. old: dialogues of
    before. questions: what was corrected.
    """

    base: str
    disliked: int
    corrected: int
    leaked: int
    old: int
    questions: tuple[str, ...]


def prepare(folder: Path, store: Store, story: Story, base: str, since: date) -> Lesson:
    """Make a corpus in `folder` of what users said since that day; one that is there already stays as it is."""
    if (folder / _LESSON).exists():
        return from_json((folder / _LESSON).read_bytes(), Lesson, str(folder / _LESSON))
    review = _review(store, since)
    rows = _decide(review, folder)
    replace_file(folder / _CORRECTIONS, to_json_lines(rows))
    old = (SHOP / f"dialogues_{story.language}.jsonl").read_bytes().splitlines(keepends=True)
    replace_file(folder / _BEFORE, b"".join(old[: story.taught_dialogues]))
    plan = Plan(
        name="learned",
        language=story.language,
        about="a shop's assistant",
        decided=(_CORRECTIONS,),
        mix=(Mixed(file=_BEFORE, share=_OLD),),
        suites=story.kept_apart,
        license="Apache-2.0",
    )
    corpus = Builder.of(plan, folder).merge([])
    write(open_folder(str(folder), None), plan, corpus, "")
    kinds = [record.origin.kind for record in corpus.records]
    lesson = Lesson(
        base=base,
        disliked=len(review.judged),
        corrected=len(rows),
        leaked=len(corpus.rejected),
        old=kinds.count("mixed"),
        questions=tuple(row["messages"][-2]["content"] for row in rows),
    )
    replace_file(folder / _LESSON, to_json(lesson))
    return lesson


def dataset(folder: Path) -> str:
    """What the next run is trained on."""
    return str(folder / DATA)


def _review(store: Store, since: date) -> Review:
    def read(first: date, last: date) -> Iterator[Judged]:
        return judged(store, first, last, None, [])

    return to_review(experience_of(read, Period(since=since, until=datetime.now(UTC).date())))


def _decide(review: Review, folder: Path) -> tuple[dict[str, Any], ...]:
    """What a reviewer says yes to who learns each correction and asks nothing more: the answers that were better."""
    place = open_place(str(folder), None)
    place.keep(review)
    with closing(place.open("marks")) as marks:
        for digest, item in review.judged.items():
            for criterion, value in ((SUITE, 0), (CORPUS, int(bool(item.reference)))):
                marks.append(
                    Mark(
                        id=f"{item.question}-{criterion.name}",
                        item=item.question,
                        answers=digest,
                        reviewer=_REVIEWER,
                        criterion=criterion.name,
                        value=value,
                        seconds=0,
                        time=datetime.now(UTC),
                    )
                )
        return take(review, latest(marks.lines)).rows
