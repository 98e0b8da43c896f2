"""A corpus from its plan: questions in rounds, answers, scores, leaks, other data, and the card.

Everything follows from the plan, the seeds and what the teacher replied: equal replies give equal files, whatever was
killed meanwhile.
"""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from tunegate.api.errors import DataError
from tunegate.corpus.filters import Pool, fault_of_question, fault_of_text, listed, score_in
from tunegate.corpus.plan import Plan
from tunegate.corpus.records import Origin, Record, Rejected, Written
from tunegate.corpus.sources import Dialogue, questions_of, read_dialogues, read_seeds
from tunegate.feedback.interactions import question_of, text_of
from tunegate.files import default_cache
from tunegate.prompts.library import load_template
from tunegate.prompts.render import render
from tunegate.prompts.template import Template
from tunegate.report.leaks import find_leaks
from tunegate.store.files import fetch_plain, is_uri

_REQUESTS = 4  # in a round, whatever the concurrency, so that rounds don't depend on it
_SHOWN, _OWN = 6, 2  # examples in a request: seeds, and questions that were written before
_BARREN = 3  # rounds without a new question after which nothing more is to be had
_QUESTION_TOKENS = 1024
_TEMPLATES = Path(__file__).parent / "templates"


Ask = Callable[[Sequence[list[dict[str, str]]], int, float, int], list[str | None]]
"""The replies to dialogues, given the most tokens, the temperature and the first seed; None where there is none."""


def nobody(dialogues: Sequence[list[dict[str, str]]], *_: float) -> list[str | None]:
    """The teacher of a plan that asks for no questions."""
    return [None for _ in dialogues]


@dataclass
class Corpus:
    """What came of it. queue: dialogues that people decide on, since the judge gave too little or said nothing."""

    records: list[Record] = field(default_factory=list)
    queue: list[Rejected] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)
    seeds: int = 0
    notes: list[str] = field(default_factory=list)

    @property
    def reasons(self) -> Counter[str]:
        return Counter(each.reason for each in self.rejected)


@dataclass(frozen=True)
class Builder:
    """ask: a teacher, called `teacher`. suites: the questions of each suite, by its name and their ids.
    dialogues: those of each file that the plan names."""

    plan: Plan
    seeds: Sequence[str]
    ask: Ask
    teacher: str
    suites: Mapping[str, Mapping[str, str]]
    dialogues: Mapping[str, Sequence[Dialogue]]

    @classmethod
    def of(cls, plan: Plan, folder: Path, ask: Ask, teacher: str, endpoint_url: str | None = None) -> Builder:
        """With what the plan names, from `folder` or a bucket. Raises DataError, StoreError or UsageError."""

        def local(name: str) -> Path:
            return fetch_plain(name, default_cache(), endpoint_url=endpoint_url) if is_uri(name) else folder / name

        return cls(
            plan=plan,
            seeds=read_seeds([local(name) for name in plan.seeds]),
            ask=ask,
            teacher=teacher,
            suites={name: questions_of(name) for name in plan.suites},
            dialogues={
                name: read_dialogues(local(name)) for name in (*plan.decided, *(each.file for each in plan.mix))
            },
        )

    def build(self) -> Corpus:
        """Raises ServingError when the teacher is away, DataError when there is too little to mix."""
        corpus = Corpus()
        decided = self._decided(corpus)
        written = self._questions(corpus)
        kept = self._without_leaks(written, corpus)
        answered = self._answers(kept, corpus)
        corpus.records = decided + self._judged(answered, corpus)
        corpus.records += self._mixed(corpus)
        return corpus

    def _decided(self, corpus: Corpus) -> list[Record]:
        """The dialogues that people decided on, without those that a suite asks."""
        records = []
        for name in self.plan.decided:
            rows = self.dialogues[name]
            leaked = self._leaks([_texts(row) for row in rows])
            for line, row in enumerate(rows):
                if suite := leaked.get(line):
                    reason = f"asked by the suite {suite}"
                    corpus.rejected.append(Rejected(reason=reason, question=_question(row), answer=_texts(row)[-1]))
                    continue
                file = Path(name).name
                origin = Origin(kind="decided", source=row.source, reviewers=row.reviewers, file=file, line=line + 1)
                records.append(Record(id=_id(f"{file}:{line}"), messages=row.messages, origin=origin))
        return records

    def _questions(self, corpus: Corpus) -> list[Written]:
        """As many as the plan wants, or as many as the teacher can think of."""
        plan, pool = self.plan, Pool(self.plan.filters.similarity)
        if not plan.count:
            return []
        pool.add_all([_question(row) for name in plan.decided for row in self.dialogues[name]])
        seeds = {_id(seed): seed for seed, is_new in zip(self.seeds, pool.add_all(self.seeds), strict=True) if is_new}
        corpus.seeds = len(seeds)
        found: list[Written] = []
        barren = number = 0
        while len(found) < plan.count and barren < _BARREN:
            before = len(found)
            requests = [self._request(number, place, seeds, found) for place in range(_REQUESTS)]
            replies = self.ask(
                [dialogue for dialogue, _ in requests], _QUESTION_TOKENS, plan.temperature, _seed(plan.seed, number)
            )
            for (_, origin), reply in zip(requests, replies, strict=True):
                found += self._new(reply, origin, pool, corpus)
            barren = 0 if len(found) > before else barren + 1
            number += 1
        if len(found) < plan.count:
            reasons = ", ".join(f"{reason} {count}" for reason, count in corpus.reasons.most_common())
            corpus.notes.append(
                f"{len(found)} of {plan.count} questions: the teacher wrote nothing new in {_BARREN} rounds "
                f"({reasons or 'no replies'}); give it more seeds or scenarios, or another teacher."
            )
        return found[: plan.count]

    def _request(
        self, number: int, place: int, seeds: Mapping[str, str], found: Sequence[Written]
    ) -> tuple[list[dict[str, str]], Origin]:
        """One request of a round: a scenario in turn, and examples by chance, which the plan's seed decides."""
        asking = self._template("questions")
        plan, draw = self.plan, random.Random(f"{self.plan.seed}/{number}/{place}")  # noqa: S311 - no secret
        own = {written.id: written.question for written in draw.sample(found, min(_OWN, len(found)))}
        shown = draw.sample(sorted(seeds.items()), min(_SHOWN + _OWN - len(own), len(seeds)))
        examples = [*shown, *own.items()]
        draw.shuffle(examples)
        scenario = plan.scenarios[(number * _REQUESTS + place) % len(plan.scenarios)] if plan.scenarios else None
        given = {
            "about": plan.about,
            "scenario": scenario.description if scenario else "",
            "examples_text": "\n".join(question for _, question in examples),
            "count": plan.per_request,
        }
        origin = Origin(
            kind="self-instruct",
            examples=tuple(name for name, _ in examples),
            scenario=scenario.name if scenario else "",
            prompt=asking.digest,
            teacher=self.teacher,
            seed=_seed(plan.seed, number) + place,
        )
        return self._dialogue(asking, given), origin

    def _new(self, reply: str | None, origin: Origin, pool: Pool, corpus: Corpus) -> Iterator[Written]:
        """The questions of a reply that nothing is wrong with."""
        questions = listed(reply or "")
        if not questions:
            corpus.rejected.append(
                Rejected(reason="no reply" if reply is None else "no list", question=(reply or "")[:200])
            )
        for question in questions:
            reason = fault_of_question(question, self.plan.language, self.plan.filters)
            if reason is None and not pool.add(question):
                reason = "near-duplicate"
            if reason:
                corpus.rejected.append(Rejected(reason=reason, question=question))
            else:
                yield Written(id=_id(question), question=question, origin=origin)

    def _without_leaks(self, written: Sequence[Written], corpus: Corpus) -> list[Written]:
        """Without the questions that a suite asks."""
        leaked = self._leaks([[each.question] for each in written])
        corpus.rejected += [
            Rejected(reason=f"asked by the suite {suite}", question=written[place].question)
            for place, suite in leaked.items()
        ]
        return [each for place, each in enumerate(written) if place not in leaked]

    def _leaks(self, dialogues: Sequence[Sequence[str]]) -> dict[int, str]:
        """The places of those in which a suite's question stands, with the suite."""
        leaked: dict[int, str] = {}
        for suite, questions in self.suites.items():
            while True:  # of each question only the likest record is told
                rest = [(place, texts) for place, texts in enumerate(dialogues) if place not in leaked]
                hits = {hit.line for hit in find_leaks(questions, rest)}
                if not hits:
                    break
                leaked |= dict.fromkeys(sorted(hits), suite)
        return leaked

    def _answers(self, written: Sequence[Written], corpus: Corpus) -> list[tuple[Written, str]]:
        plan = self.plan
        replies = self.ask(
            [self._asked(each) for each in written], plan.max_tokens, plan.temperature, _seed(plan.seed, -1)
        )
        answered = []
        for each, reply in zip(written, replies, strict=True):
            reason = "no answer" if reply is None else fault_of_text(reply, plan.filters)
            if reason:
                corpus.rejected.append(Rejected(reason=f"answer: {reason}", question=each.question, answer=reply or ""))
            else:
                answered.append((each, reply or ""))
        return answered

    def _judged(self, answered: Sequence[tuple[Written, str]], corpus: Corpus) -> list[Record]:
        """The dialogues whose answer the judge finds good; the others wait for people."""
        judging = self._template("judge")
        dialogues = [
            self._dialogue(judging, {"about": self.plan.about, "question": each.question, "answer": answer})
            for each, answer in answered
        ]
        records = []
        for (each, answer), reply in zip(answered, self.ask(dialogues, 64, 0.0, 0), strict=True):
            score = score_in(reply or "")
            origin = msgspec.structs.replace(each.origin, score=score)
            if score is None or score < self.plan.least_score:
                reason = "not judged" if score is None else "judged low"
                corpus.queue.append(
                    Rejected(
                        reason=reason,
                        question=each.question,
                        answer=answer,
                        score=score,
                        system=self.plan.system_prompt,
                        origin=origin,
                    )
                )
                continue
            messages = (*self._asked(each), {"role": "assistant", "content": answer})
            records.append(Record(id=each.id, messages=messages, origin=origin))
        return records

    def _mixed(self, corpus: Corpus) -> list[Record]:
        """Dialogues from elsewhere, so many that each file has its share of the whole."""
        plan, whole = self.plan, len(corpus.records) / (1 - sum(each.share for each in self.plan.mix))
        records = []
        for each in plan.mix:
            rows, wanted = self.dialogues[each.file], round(whole * each.share)
            leaked = self._leaks([_texts(row) for row in rows])
            clean = [line for line in range(len(rows)) if line not in leaked]
            if leaked:
                corpus.notes.append(f"{len(leaked)} dialogues of {each.file} are left out: a suite asks what they do.")
            if wanted > len(clean):
                raise DataError(
                    f"{each.file} has {len(clean)} dialogues that could be taken, and its share of {each.share:g} "
                    f"takes {wanted}; lower it, or add dialogues."
                )
            draw = random.Random(f"{plan.seed}/{each.file}")  # noqa: S311 - no secret
            for line in sorted(draw.sample(clean, wanted)):
                origin = Origin(kind="mixed", file=Path(each.file).name, line=line + 1)
                records.append(Record(id=_id(f"{each.file}:{line}"), messages=rows[line].messages, origin=origin))
        return records

    def _asked(self, written: Written) -> list[dict[str, str]]:
        system = [{"role": "system", "content": self.plan.system_prompt}] if self.plan.system_prompt else []
        return [*system, {"role": "user", "content": written.question}]

    def _dialogue(self, template: Template, given: Mapping[str, Any]) -> list[dict[str, str]]:
        nonce = hashlib.sha256(msgspec.json.encode(given)).hexdigest()[:8]  # the same text, the same fence
        messages = render(template, given, nonce=nonce)
        return [{"role": message.role, "content": message.content} for message in messages]

    def _template(self, name: str) -> Template:
        return load_template(_TEMPLATES / f"{name}-{self.plan.language}.prompt")


def _texts(row: Dialogue) -> list[str]:
    return [text_of(said.get("content")) for said in row.messages] or [""]


def _question(row: Dialogue) -> str:
    return question_of(row.messages)


def _id(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _seed(seed: int, number: int) -> int:
    """For the requests of a round, a few for each; the answers have the round -1."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{number}".encode()).digest()[:3])
