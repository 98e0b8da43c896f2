"""What a corpus is built from, as its plan says."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from tunegate.api.codec import Resource

Share = Annotated[float, Meta(gt=0, lt=1)]


class Scenario(Resource, frozen=True, kw_only=True, rename=None):
    """Something that users want, from which a teacher writes questions."""

    name: str
    description: str


class Filters(Resource, frozen=True, kw_only=True, rename=None):
    """What a question must be. Characters are counted, since Chinese has no words between spaces.

    similarity: from here on (1 minus the normalized insert-delete distance) two questions are the same. blocked: texts
    that no question or answer may hold.
    """

    min_characters: Annotated[int, Meta(ge=1)] = 4
    max_characters: Annotated[int, Meta(ge=1)] = 300
    similarity: Annotated[float, Meta(gt=0, le=1)] = 0.7
    blocked: tuple[str, ...] = ()


class Mixed(Resource, frozen=True, kw_only=True, rename=None):
    """Dialogues from elsewhere, such as safety or general ones: a file of OpenAI's form, and its share of the whole."""

    file: str
    share: Share


class Plan(Resource, frozen=True, kw_only=True, rename=None):
    """about: what the assistant is for, as teachers are told. seeds: files with a question a line, or JSON lines.

    decided: files of dialogues that people decided on, which are all taken. count: how many questions to write.
    parts: how many processes may write at once, each its share of count without knowing of the others'.
    per_request: how many a teacher is asked for at once. least_score: what a judged answer needs of 5; below it people
    decide. system_prompt: what answers are asked under. suites: evaluations whose questions must not be in the corpus.
    """

    name: Annotated[str, Meta(pattern="^[a-z0-9][a-z0-9._-]*$")]
    language: Literal["zh", "en"]
    about: Annotated[str, Meta(min_length=1)]
    license: str = "other"
    seeds: tuple[str, ...] = ()
    decided: tuple[str, ...] = ()
    scenarios: tuple[Scenario, ...] = ()
    count: Annotated[int, Meta(ge=0)] = 0
    parts: Annotated[int, Meta(ge=1, le=1000)] = 1
    per_request: Annotated[int, Meta(ge=1, le=50)] = 8
    seed: int = 42
    temperature: Annotated[float, Meta(ge=0, le=2)] = 0.7
    max_tokens: Annotated[int, Meta(ge=1)] = 512
    least_score: Annotated[int, Meta(ge=1, le=5)] = 4
    system_prompt: str = ""
    filters: Filters = Filters()
    mix: tuple[Mixed, ...] = ()
    suites: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if sum(each.share for each in self.mix) >= 1:
            raise ValueError("the shares of mix leave nothing for what is built; lower them")
        if self.filters.min_characters > self.filters.max_characters:
            raise ValueError("min_characters is above max_characters")
        if self.count and not self.seeds:
            raise ValueError("a teacher needs a few questions to go by; name files of them in seeds, or count 0")
        if self.parts > max(self.count, 1):
            raise ValueError("there are more parts than questions; lower parts")
        if not self.count and not self.decided:
            raise ValueError("there is nothing to make a corpus of; name seeds and a count, or files in decided")
