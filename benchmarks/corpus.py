"""The filter of near-duplicates beside data-juicer's, on the same questions in one run.

Questions are drawn from the words of the shop's own dialogues, by how often they occur there: 12 to 30 characters in
Chinese, 6 to 14 words in English. Of each tenth one a near-duplicate is planted: a word replaced, dropped, added in
front or swapped with the next. Recall is the share of these that are left out, wrong the share of the others that are.
Seconds are of the filter alone, without start-up. data-juicer's document_minhash_deduplicator runs with its defaults,
and, as they take a Chinese sentence for one word, also by characters with a window of 2.

    python benchmarks/corpus.py [--records 10000] [--data-juicer /path/to/venv/bin/python]

A venv of its own keeps data-juicer's packages away from ours: pip install torch py-data-juicer
"""

from __future__ import annotations

import json
import random
import re
import resource
import statistics
import subprocess
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import click

from tunegate.cli.options import print_table
from tunegate.corpus.filters import Pool
from tunegate.corpus.plan import Filters
from tunegate.shop import DATA

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
@click.option("--json", "as_json", is_flag=True)
def main(records: int, rounds: int, python: str | None, as_json: bool) -> None:
    rows = [row for language in ("zh", "en") for row in compare(language, records, rounds, python)]
    if as_json:
        click.echo(json.dumps(rows, indent=2))
    else:
        print_table("filters of near-duplicates", list(rows[0]), [list(row.values()) for row in rows])


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


if __name__ == "__main__":
    main()
