"""What a corpus holds: dialogues, each with where it is from."""

from __future__ import annotations

from typing import Any, Literal

from tunegate.api.codec import Resource

Kind = Literal["self-instruct", "decided", "mixed"]


class Origin(Resource, frozen=True, kw_only=True, rename=None, omit_defaults=True):
    """Of a written dialogue: examples: ids of the questions shown to the teacher; prompt: digest of its template; seed
    and teacher: what drew it; score: the judge's, of 5. Of one that people decided on: source: the review, and its
    reviewers. Of that and a mixed one: file and line."""

    kind: Kind
    examples: tuple[str, ...] = ()
    scenario: str = ""
    prompt: str = ""
    teacher: str = ""
    seed: int = 0
    score: int | None = None
    source: str = ""
    reviewers: tuple[str, ...] = ()
    file: str = ""
    line: int = 0


class Record(Resource, frozen=True, kw_only=True, rename=None):
    """A dialogue in OpenAI's form; `tunegate train --dataset` takes it as it is."""

    id: str
    messages: tuple[dict[str, Any], ...]
    origin: Origin


class Rejected(Resource, frozen=True, kw_only=True, rename=None, omit_defaults=True):
    """What was not taken, and the word for why. system and origin: of what people may still take."""

    reason: str
    question: str
    answer: str = ""
    score: int | None = None
    system: str = ""
    origin: Origin | None = None


class Written(Resource, frozen=True, kw_only=True, rename=None):
    """A question that a teacher wrote."""

    id: str
    question: str
    origin: Origin
