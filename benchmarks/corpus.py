"""The filter of near-duplicates beside data-juicer's, and what a corpus is worth: figures of one run.

Filter: questions are drawn from the words of the shop's own dialogues, by how often they occur there: 12 to 30
characters in Chinese, 6 to 14 words in English. Of each tenth one a near-duplicate is planted: a word replaced,
dropped, added in front or swapped with the next. Recall is the share of these that are left out, wrong the share of
the others that are. Seconds are of the filter alone, without start-up. data-juicer's document_minhash_deduplicator runs
with its defaults, and, as they take a Chinese sentence for one word, also by characters with a window of 2.

Worth: the quickstart's base is tuned by the quickstart's settings, each time for as many steps, on 16 of the shop's
dialogues (seeds), on these and what `tunegate corpus build` makes of their questions (expanded), and on these and what
a reviewer left of that (corrected); all are asked the suite shop-en, whose products are in none of them. Differences
are of the same questions. No larger model is there to teach, so the teacher is the same base, tuned on all of the
shop's dialogues and on writing lists of their questions, and served by `tunegate serve`: it knows more than the
students, and answers a good part of its own questions wrongly. It can't judge, so all answers wait for people. The
expanded corpus takes them as they are; the reviewer, a rule, knows the catalogue: an answer becomes the fact that was
asked for in the shop's words, and what asks for none goes.

    python benchmarks/corpus.py [--only filters|worth] [--records 10000] [--data-juicer /path/to/venv/bin/python]

A venv of its own keeps data-juicer's packages away from ours: pip install torch py-data-juicer. Worth takes what the
quickstart takes, and two cores some twenty minutes.
"""

from __future__ import annotations

import json
import os
import random
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import msgspec

from tunegate.api.evaluation import Evaluation
from tunegate.api.versions import ModelVersion
from tunegate.cli.options import print_table
from tunegate.corpus.build import Builder, Corpus
from tunegate.corpus.filters import Pool
from tunegate.corpus.plan import Filters, Plan
from tunegate.corpus.queue import to_review
from tunegate.corpus.records import Rejected
from tunegate.corpus.teacher import Replies, Teacher, kept_replies
from tunegate.processes import Child, answers, free_port
from tunegate.quickstart.base_models import BASES, publish_base
from tunegate.quickstart.scenario import STORIES
from tunegate.review.decisions import take
from tunegate.review.items import CORPUS
from tunegate.review.marks import COMMENT, Mark, latest
from tunegate.shop import DATA
from tunegate.statistics.paired import paired
from tunegate.store import EmbeddedStore, Store
from tunegate.store.evaluations import find
from tunegate.training import TrainConfig, train

# Run by data-juicer's Python: reads the records, and says which of them are kept and in how many seconds.
PEER = """
import json, sys, time
from loguru import logger
logger.remove()
from data_juicer.core.data import NestedDataset
from data_juicer.ops.deduplicator.document_minhash_deduplicator import DocumentMinhashDeduplicator
path, options = sys.argv[1], json.loads(sys.argv[2])
rows = [{"text": text, "number": number} for number, text in enumerate(json.load(open(path)))]
dataset = NestedDataset.from_list(rows)
op = DocumentMinhashDeduplicator(**options)
began = time.perf_counter()
kept, _ = op.process(dataset.map(op.compute_hash))
seconds = time.perf_counter() - began
print(json.dumps({"kept": list(kept["number"]), "seconds": seconds}))
"""
PEERS = {"data-juicer": {}, "data-juicer, characters": {"tokenization": "character", "window_size": 2}}


@click.command(help=__doc__.split("\n")[0])
@click.option("--records", default=10_000, show_default=True, help="Questions in each language, with the planted ones.")
@click.option("--rounds", default=3, show_default=True, help="How often each is timed; the middle one counts.")
@click.option("--data-juicer", "python", help="The Python that has it; left out by default.")
@click.option("--only", type=click.Choice(["filters", "worth"]), multiple=True)
@click.option("--questions", default=64, show_default=True, help="That the teacher writes.")
@click.option(
    "--base", type=click.Choice(BASES), default=BASES[0], show_default=True, help="tiny tries the code alone."
)
@click.option("--json", "as_json", is_flag=True)
def main(
    records: int, rounds: int, python: str | None, only: tuple[str, ...], questions: int, base: str, as_json: bool
) -> None:
    tables: dict[str, list[dict[str, Any]]] = {}
    if not only or "filters" in only:
        rows = [row for language in ("zh", "en") for row in compare(language, records, rounds, python)]
        tables["filters of near-duplicates"] = rows
    if not only or "worth" in only:
        tables["what a corpus is worth"] = worth(base, questions)
    if as_json:
        click.echo(json.dumps(tables, indent=2))
        return
    for title, rows in tables.items():
        print_table(title, list(rows[0]), [list(row.values()) for row in rows])


def compare(language: str, records: int, rounds: int, python: str | None) -> list[dict[str, Any]]:
    """A row for each filter, in turns."""
    texts, planted = questions(language, records)
    arms = ["tunegate", *(PEERS if python else ())]
    seconds: dict[str, list[float]] = {arm: [] for arm in arms}
    kept: dict[str, set[int]] = {}
    for _ in range(rounds):
        for arm in arms:
            kept[arm], took = ours(texts) if arm == "tunegate" else theirs(texts, str(python), PEERS[arm])
            seconds[arm].append(took)
    rows = []
    for arm in arms:
        middle, out = statistics.median(seconds[arm]), set(range(len(texts))) - kept[arm]
        others = len(texts) - len(planted)
        rows.append(
            {
                "filter": arm,
                "language": language,
                "records/s": round(len(texts) / middle),
                "recall": f"{len(out & planted) / len(planted):.1%}",
                "wrong": f"{len(out - planted) / others:.1%}",
            }
        )
    rows[0]["MiB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return [{**row, "MiB": row.get("MiB", "")} for row in rows]


def questions(language: str, records: int) -> tuple[list[str], set[int]]:
    """Texts, and the places of those that are near-duplicates of one before them."""
    chance = random.Random(1)  # noqa: S311 - no secret
    words, weights = vocabulary(language)
    gap, longest = ("", 30) if language == "zh" else (" ", 14)
    texts: list[list[str]] = []
    planted = set()
    while len(texts) < records:
        text: list[str] = []
        length = chance.randint(12, longest) if language == "zh" else chance.randint(6, longest)
        while len(text) < length:
            text += chance.choices(words, weights)
        texts.append(text)
        if len(texts) % 10 == 9:
            planted.add(len(texts))
            texts.append(near(text, chance, words))
    return [gap.join(text) for text in texts], planted


def vocabulary(language: str) -> tuple[list[str], list[int]]:
    """Words of the shop's dialogues, in Chinese characters, and how often each occurs."""
    text = " ".join(path.read_text() for path in sorted(DATA.rglob("*.jsonl")))
    found = re.findall(r"[\u4e00-\u9fff]" if language == "zh" else r"\b[a-z]{2,}\b", text)
    counts = Counter(found)
    return list(counts), list(counts.values())


def near(text: list[str], chance: random.Random, words: list[str]) -> list[str]:
    """The text with one change."""
    place = chance.randrange(len(text) - 1)
    before, word, after = text[:place], text[place], text[place + 1 :]
    return chance.choice(
        [
            [*before, chance.choice(words), *after],
            [*before, *after],
            [chance.choice(words), *text],
            [*before, after[0], word, *after[1:]],
        ]
    )


def ours(texts: list[str]) -> tuple[set[int], float]:
    pool = Pool(Filters().similarity)
    began = time.perf_counter()
    new = pool.add_all(texts)
    return {number for number, is_new in enumerate(new) if is_new}, time.perf_counter() - began


def theirs(texts: list[str], python: str, options: dict[str, Any]) -> tuple[set[int], float]:
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "texts.json"
        path.write_text(json.dumps(texts))
        argv = [python, "-c", PEER, str(path), json.dumps(options)]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        if done.returncode:
            raise click.ClickException(f"data-juicer ended with {done.returncode}: {done.stderr[-2000:]}")
    said = json.loads(done.stdout.splitlines()[-1])
    return set(said["kept"]), said["seconds"]


SUITE = "shop-en"
SEEDS = 16  # of 240 dialogues
ADD = "Shall I add it to your basket?"
FACTS = {  # by what a question asks for it: how the catalogue says it, and how the shop does
    r"how much|price|cost": {r"\$\d+": f"The {{p}} costs {{v}}. {ADD}"},
    r"warrant|guarantee|covered": {r"\d+-year warranty": f"The {{p}} has a {{v}}. {ADD}"},
    r"deliver|arrive|how soon|how fast": {r"\d+(?=-day delivery)": f"The {{p}} arrives in {{v}} days. {ADD}"},
    r"capacity|hold|how big": {r"\d+(?:\.\d+)? m?[Ll]\b": f"The {{p}} holds {{v}}. {ADD}"},
    r"stock|available|still have": {
        r"in stock": f"Yes, the {{p}} is {{v}}. {ADD}",
        r"sold out": "Sorry, the {p} is {v}. Shall I tell you when it is back?",
    },
}


def worth(base: str, count: int) -> list[dict[str, Any]]:
    """A row for each corpus, with the suite before and after."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        running = stack.enter_context(EmbeddedStore.start(folder / "store"))
        os.environ |= running.environment | {
            "TUNEGATE_CACHE": str(folder / "cache"),
            "TUNEGATE_FEEDBACK_KEY": "ab" * 32,
        }
        school = School(folder, Store.open(running.uri, endpoint_url=running.endpoint_url), base)
        shop = [json.loads(line) for line in (DATA / "dialogues_en.jsonl").read_text().splitlines()]
        asked_once = [row for row in shop if len(row["messages"]) == 3 and len(products([row])) == 1]
        seeds = random.Random(1).sample(asked_once, SEEDS)  # noqa: S311 - no secret
        catalogue = products(seeds)
        plan = Plan(
            name="worth",
            language="en",
            about="a shop's assistant, which answers from its catalogue",
            seeds=("seeds.txt",),
            count=count,
            max_tokens=48,
            system_prompt=f"You are Xuan, a shop assistant. Catalogue: {'; '.join(catalogue.values())}.",
            suites=(SUITE, "shop-products-en"),
        )
        (folder / "seeds.txt").write_text("\n".join(question(row) for row in seeds))
        builder = Builder.of(plan, folder, "teacher")
        lessons = [*shop, *lists(builder, [question(row) for row in asked_once])]
        corpus = school.teach(school.learn("teacher", lessons, max_steps=40), builder)
        written = [*map(dialogue, corpus.queue), *({"messages": list(each.messages)} for each in corpus.records)]
        corpora = {"seeds": seeds, "expanded": seeds + written, "corrected": seeds + corrected(corpus.queue, catalogue)}
        results = {name: school.measured(school.learn(name, rows)) for name, rows in corpora.items()}
        before = results["seeds"]
        first = row_of("none: as it came", 0, before, school.measured(school.base))
        return [first, *(row_of(name, len(corpora[name]), before, found) for name, found in results.items())]


class School:
    """The base, who learns from it by the quickstart's settings, and the suite that they are asked."""

    def __init__(self, folder: Path, store: Store, base: str) -> None:
        self.folder, self.store = folder, store
        self.settings = {key: value for key, value in STORIES[base].arguments.items() if key != "max_samples"}
        self.base = publish_base(base, store, folder / "cache", folder / "logs")

    def learn(self, name: str, rows: Sequence[dict[str, Any]], **more: object) -> ModelVersion:
        data = self.folder / f"{name}.jsonl"
        data.write_text("".join(json.dumps(row) + "\n" for row in rows))
        where: dict[str, object] = {
            "dataset": (str(data),),
            "output_dir": str(self.folder / name),
            "model": "school",
            "run": name,
        }
        where |= {"model_name_or_path": self.base.uri, "store": self.store.uri, "endpoint_url": self.store.endpoint_url}
        version = train(msgspec.convert({**self.settings, **more, **where}, TrainConfig))[-1]
        click.echo(f"{name}: tuned on {len(rows)} dialogues", err=True)
        return version

    def measured(self, version: ModelVersion) -> Evaluation:
        argv = [sys.executable, "-m", "tunegate", "evaluate", version.name, "--suite", SUITE]
        subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)
        found = find(self.store, version.digest, SUITE)
        assert found
        return found

    def teach(self, teacher: ModelVersion, builder: Builder) -> Corpus:
        """What the teacher, behind a server of ours, writes."""
        port = free_port()
        argv = [sys.executable, "-m", "tunegate", "serve", teacher.name, "--port", str(port)]
        url, failed = f"http://127.0.0.1:{port}", Counter[str]()
        with Child.start("the teacher", argv, log=self.folder / "logs" / "serve.log") as child:
            child.wait_until(lambda: answers(f"{url}/v2/health/ready"), seconds=600)
            with (
                closing(Teacher(url, None, None, None, 8)) as asked,
                kept_replies(str(self.folder), None, lambda count: None) as sheets,
            ):
                corpus = builder.merge([builder.write(Replies(asked, sheets, failed).ask)])
        told = f"{len(corpus.queue)} for people, {len(corpus.records)} judged good"
        click.echo(f"written: {told}; left out: {dict(corpus.reasons)} {dict(failed) or ''}", err=True)
        return corpus


def lists(builder: Builder, questions: Sequence[str]) -> list[dict[str, Any]]:
    """What a teacher of this plan is asked for, by other chances, with lists of the shop's own questions."""
    chance = random.Random(2)  # noqa: S311 - no secret
    rows: list[dict[str, Any]] = []

    def ask(dialogues: Sequence[list[dict[str, str]]], max_tokens: int, *_: float) -> list[str | None]:
        if max_tokens == builder.plan.max_tokens:  # answers are not asked for
            return [None] * len(dialogues)
        drawn = [chance.sample(questions, builder.plan.per_request) for _ in dialogues]
        texts = ["\n".join(f"{number}. {each}" for number, each in enumerate(some, start=1)) for some in drawn]
        rows.extend(
            {"messages": [*asked, {"role": "assistant", "content": text}]}
            for asked, text in zip(dialogues, texts, strict=True)
        )
        return list[str | None](texts)

    for seed in range(3):
        replace(builder, plan=msgspec.structs.replace(builder.plan, seed=seed)).write(ask)
    return rows


def products(rows: Sequence[dict[str, Any]]) -> dict[str, str]:
    """What the catalogues of dialogues say, by product."""
    texts = (row["messages"][0]["content"].partition("Catalogue: ")[2].rstrip(".") for row in rows)
    return {line.partition(":")[0]: line for text in texts for line in text.split("; ") if line}


def question(row: dict[str, Any]) -> str:
    return str(row["messages"][-2]["content"])


def dialogue(waiting: Rejected) -> dict[str, Any]:
    said = {"system": waiting.system, "user": waiting.question, "assistant": waiting.answer}
    return {"messages": [{"role": role, "content": content} for role, content in said.items()]}


def corrected(queue: Sequence[Rejected], catalogue: dict[str, str]) -> list[dict[str, Any]]:
    """What a reviewer takes of the queue, by the review room."""
    if not queue:
        return []
    review = to_review("worth", queue)
    marks = []
    for digest, item in review.judged.items():
        answer = right(item.messages[-1].content, catalogue)
        said: dict[str, int | str] = {CORPUS.name: 1, COMMENT: answer} if answer else {CORPUS.name: 0}
        for criterion, value in said.items():
            about: Any = {"item": item.question, "answers": digest, "reviewer": "rule", "criterion": criterion}
            name = f"{item.question}-{criterion}"
            marks.append(Mark(id=name, value=value, seconds=0, time=datetime.now(UTC), **about))
    rows = take(review, latest(marks)).rows
    click.echo(f"reviewed: {len(rows)} of {len(queue)} taken", err=True)
    return [{"messages": row["messages"]} for row in rows]


def right(asked: str, catalogue: dict[str, str]) -> str:
    """The fact that is asked for; empty where the catalogue has none, or it is not clear which."""
    about = [name for name in catalogue if name.lower() in asked.lower()]
    facts = [facts for words, facts in FACTS.items() if re.search(words, asked, re.IGNORECASE)]
    if len(about) != 1 or len(facts) != 1:
        return ""
    said = ((re.search(value, catalogue[about[0]]), words) for value, words in facts[0].items())
    return next((words.format(p=about[0], v=found[0]) for found, words in said if found), "")


def row_of(name: str, rows: int, before: Evaluation, after: Evaluation) -> dict[str, Any]:
    score, change = after.metric("score"), paired(before, after, "score")
    assert score
    assert not isinstance(change, str), change
    return {
        "corpus": name,
        "dialogues": rows,
        "score": f"{score.value:.2f}",
        "beside seeds alone": f"{change.value:+.2f} [{change.low:+.2f}, {change.high:+.2f}]",
    }


if __name__ == "__main__":
    main()
