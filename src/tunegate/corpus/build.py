"""A corpus from its plan: questions in rounds, answers, scores, leaks and other data.

Everything follows from the plan, the seeds and what the teacher replied: equal replies give equal files, whatever was
killed meanwhile, and however many processes wrote a part of it each.
"""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from tunegate.api.digest import Digest
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
from tunegate.report.leaks import leaking_lines
from tunegate.store.files import fetch_plain, is_uri

_REQUESTS = 4  # in a round, whatever the concurrency, so that rounds don't depend on it
_SHOWN, _OWN = 6, 2  # examples in a request: seeds, and questions that were written before
_BARREN = 3  # rounds without a new question after which nothing more is to be had
_QUESTION_TOKENS = 1024
_TEMPLATES = Path(__file__).parent / "templates"

T = TypeVar("T")
Ask = Callable[[Sequence[list[dict[str, str]]], int, float, int], list[str | None]]
"""The replies to dialogues, given the most tokens, the temperature and the first seed; None where there is none."""


@dataclass
class Corpus:
    """What came of it, or of a part. queue: dialogues that people decide on, since the judge gave too little or said
    nothing."""

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
    """teacher: what the model is called. suites: the questions of each suite, by its name and their ids.
    dialogues: those of each file that the plan names."""

    plan: Plan
    seeds: Sequence[str]
    teacher: str
    suites: Mapping[str, Mapping[str, str]]
    dialogues: Mapping[str, Sequence[Dialogue]]

    @classmethod
    def of(cls, plan: Plan, folder: Path, teacher: str = "", endpoint_url: str | None = None) -> Builder:
        """With what the plan names, from `folder` or a bucket. Raises DataError, StoreError or UsageError."""

        def local(name: str) -> Path:
            return fetch_plain(name, default_cache(), endpoint_url=endpoint_url) if is_uri(name) else folder / name

        return cls(
            plan=plan,
            seeds=read_seeds([local(name) for name in plan.seeds]),
            teacher=teacher,
            suites={name: questions_of(name) for name in plan.suites},
            dialogues={
                name: read_dialogues(local(name)) for name in (*plan.decided, *(each.file for each in plan.mix))
            },
        )

    @property
    def made_of(self) -> Digest:
        """Of all that decides what a teacher writes, but its replies. The shares of other data are not of it."""
        plan, templates = msgspec.structs.replace(self.plan, mix=()), ("questions", "judge")
        decided = [self.dialogues[name] for name in plan.decided]
        digests = [self._template(name).digest for name in templates]
        return Digest.of_bytes(msgspec.json.encode((plan, self.seeds, self.suites, decided, digests)))

    def write(self, ask: Ask, part: int = 0) -> Corpus:
        """What the teacher writes of one part, beside no other. Raises ServingError when it is away."""
        corpus = Corpus()
        written = self._questions(ask, part, corpus)
        kept = self._without_leaks(written, corpus)
        answered = self._answers(ask, part, kept, corpus)
        corpus.records = self._judged(ask, answered, corpus)
        return corpus

    def merge(self, parts: Sequence[Corpus]) -> Corpus:
        """All parts, in their order, with what people decided and other data. Of questions of several parts that are
        like each other the first stays, those with a good answer before those that wait for people.

        Raises DataError when there is too little to mix.
        """
        corpus = Corpus(seeds=max((part.seeds for part in parts), default=0))
        decided = self._decided(corpus)
        for number, part in enumerate(parts):
            corpus.rejected += part.rejected
            corpus.notes += [f"Part {number}: {note}" if len(parts) > 1 else note for note in part.notes]
        records = [record for part in parts for record in part.records]
        queue = [waiting for part in parts for waiting in part.queue]
        if len(parts) > 1:
            pool = Pool(self.plan.filters.similarity)
            records = self._first_of_each(pool, records, [question_of(record.messages) for record in records], corpus)
            queue = self._first_of_each(pool, queue, [waiting.question for waiting in queue], corpus)
        corpus.records, corpus.queue = decided + records, queue
        corpus.records += self._mixed(corpus)
        return corpus

    def _first_of_each(self, pool: Pool, found: Sequence[T], questions: Sequence[str], corpus: Corpus) -> list[T]:
        new = pool.add_all(questions)
        reason = "near-duplicate of another part"
        corpus.rejected += [
            Rejected(reason=reason, question=question)
            for question, is_new in zip(questions, new, strict=True)
            if not is_new
        ]
        return [each for each, is_new in zip(found, new, strict=True) if is_new]

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

    def _questions(self, ask: Ask, part: int, corpus: Corpus) -> list[Written]:
        """As many as the plan wants of this part, or as many as the teacher can think of."""
        plan, pool = self.plan, Pool(self.plan.filters.similarity)
        wanted = plan.count // plan.parts + (part < plan.count % plan.parts)
        if not wanted:
            return []
        pool.add_all([_question(row) for name in plan.decided for row in self.dialogues[name]])
        new = pool.add_all(self.seeds)
        seeds = sorted((_id(seed), seed) for seed, is_new in zip(self.seeds, new, strict=True) if is_new)
        corpus.seeds = len(seeds)
        found: list[Written] = []
        barren = number = 0
        while len(found) < wanted and barren < _BARREN:
            before = len(found)
            requests = [self._request(part, number, place, seeds, found) for place in range(_REQUESTS)]
            first = _seed(self._drawn_by(part), number)
            replies = ask([dialogue for dialogue, _ in requests], _QUESTION_TOKENS, plan.temperature, first)
            for (_, origin), reply in zip(requests, replies, strict=True):
                found += self._new(reply, origin, pool, corpus)
            barren = 0 if len(found) > before else barren + 1
            number += 1
        if len(found) < wanted:
            reasons = ", ".join(f"{reason} {count}" for reason, count in corpus.reasons.most_common())
            corpus.notes.append(
                f"{len(found)} of {wanted} questions: the teacher wrote nothing new in {_BARREN} rounds "
                f"({reasons or 'no replies'}); give it more seeds or scenarios, or another teacher."
            )
        return found[:wanted]

    def _request(
        self, part: int, number: int, place: int, seeds: Sequence[tuple[str, str]], found: Sequence[Written]
    ) -> tuple[list[dict[str, str]], Origin]:
        """One request of a round: a scenario in turn, and examples by chance, which the plan's seed decides."""
        asking = self._template("questions")
        plan, by = self.plan, self._drawn_by(part)
        draw = random.Random(f"{by}/{number}/{place}")  # noqa: S311 - no secret
        own = {written.id: written.question for written in draw.sample(found, min(_OWN, len(found)))}
        shown = draw.sample(seeds, min(_SHOWN + _OWN - len(own), len(seeds)))
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
            seed=_seed(by, number) + place,
        )
        return self._dialogue(asking, given), origin

    def _new(self, reply: str | None, origin: Origin, pool: Pool, corpus: Corpus) -> Iterator[Written]:
        """The questions of a reply that nothing is wrong with."""
        questions = listed(reply or "")
        if not questions:
            why = "no reply" if reply is None else fault_of_text(reply, self.plan.filters) or "no list"
            corpus.rejected.append(Rejected(reason=why, question=(reply or "")[:200]))
        faults = [fault_of_question(question, self.plan.language, self.plan.filters) for question in questions]
        new = iter(pool.add_all([question for question, fault in zip(questions, faults, strict=True) if not fault]))
        for question, fault in zip(questions, faults, strict=True):
            reason = fault or (None if next(new) else "near-duplicate")
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
            rest = ((place, texts) for place, texts in enumerate(dialogues) if place not in leaked)
            leaked |= dict.fromkeys(sorted(leaking_lines(questions, rest)), suite)
        return leaked

    def _answers(self, ask: Ask, part: int, written: Sequence[Written], corpus: Corpus) -> list[tuple[Written, str]]:
        plan, first = self.plan, _seed(self._drawn_by(part), -1)
        replies = ask([self._asked(each) for each in written], plan.max_tokens, plan.temperature, first)
        answered = []
        for each, reply in zip(written, replies, strict=True):
            reason = "no answer" if reply is None else fault_of_text(reply, plan.filters)
            if reason:
                corpus.rejected.append(Rejected(reason=f"answer: {reason}", question=each.question, answer=reply or ""))
            else:
                answered.append((each, reply or ""))
        return answered

    def _judged(self, ask: Ask, answered: Sequence[tuple[Written, str]], corpus: Corpus) -> list[Record]:
        """The dialogues whose answer the judge finds good; the others wait for people."""
        judging = self._template("judge")
        dialogues = [
            self._dialogue(judging, {"about": self.plan.about, "question": each.question, "answer": answer})
            for each, answer in answered
        ]
        records = []
        for (each, answer), reply in zip(answered, ask(dialogues, 64, 0.0, 0), strict=True):
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

    def _drawn_by(self, part: int) -> str:
        """What decides the chances of a part; the first has those of a corpus of one."""
        return f"{self.plan.seed}.{part}" if part else str(self.plan.seed)

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


def _seed(seed: str, number: int) -> int:
    """For the requests of a round, a few for each; the answers have the round -1."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{number}".encode()).digest()[:3])
