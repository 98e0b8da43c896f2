"""The chapter in which the promoted weights get the shop's catalogue: an index, a prompt, and a version of both.

Nothing is trained. The version is one like any other, so the platform evaluates, gates and canaries it.
"""

from __future__ import annotations

from pathlib import Path

from tunegate.api.codec import Resource
from tunegate.api.evaluation import Evaluation
from tunegate.api.versions import ModelVersion
from tunegate.knowledge import library
from tunegate.knowledge.build import build
from tunegate.knowledge.measure import Questions, read_questions
from tunegate.knowledge.readers import read
from tunegate.release import Changes, derive
from tunegate.shop import DATA
from tunegate.store import Store

INDEX = "shop"
PROMPTS = Path(__file__).parent / "prompts"


class Side(Resource, frozen=True, kw_only=True):
    """One version's answers. right: with the fact that was asked for; invented: with a number that no product has."""

    version: str
    right: int
    invented: int


class Grounding(Resource, frozen=True, kw_only=True):
    """The same weights on the same questions, without the catalogue as knowledge and with it."""

    suite: str
    questions: int
    without: Side
    grounded: Side


def build_index(store: Store, language: str, cache: Path) -> int:
    """Put the shop's table and help pages into the store as INDEX, searched by words; says how many chunks there are.

    What counts as an answer is calibrated on the shipped questions of that language.
    """
    every = read_questions(DATA / "knowledge_questions.jsonl")
    asked = tuple(question for question in every.questions if question.group.endswith(f"-{language}"))
    files = [DATA / "knowledge" / f"products_{language}.csv", DATA / "knowledge" / f"help_{language}.md"]
    with library.workplace(cache) as work:
        folder = Path(work) / "index"
        documents = read([str(file) for file in files], cache).documents
        built = build(documents, folder, questions=Questions(every.digest, asked))
        library.publish(store, folder, INDEX)
    return built.head.chunks


def ground(store: Store, version: ModelVersion) -> ModelVersion:
    """`version` with INDEX as its knowledge, answering by PROMPTS."""
    model, _, checkpoint = version.name.split("/")
    return derive(store, version, f"{model}/knowledge/{checkpoint}", Changes(prompts=PROMPTS, knowledge=INDEX))


def compare(without: Evaluation, grounded: Evaluation) -> Grounding:
    """What the catalogue changed, by two evaluations on one suite."""

    def side(result: Evaluation) -> Side:
        right = sum(record.scores["contains"] == 1 for record in result.records)
        invented = sum(record.scores["grounded"] == 0 for record in result.records)
        return Side(version=result.version, right=right, invented=invented)

    questions = len(grounded.records)
    return Grounding(suite=grounded.suite, questions=questions, without=side(without), grounded=side(grounded))
