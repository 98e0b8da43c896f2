"""Evaluation beside lm-evaluation-harness, memory on a long exam, and the review page: figures of one run.

Speed: the same questions in C-Eval's layout, the same network in the same process, asked by `tunegate evaluate`'s code
(`compat: lm_eval`) and by lm-evaluation-harness's, in turns; loading is not counted. Where the letters are the same, so
is the work. Memory: a model of 0.8 M parameters answers a long exam of one subject in a process of its own, with two
batch sizes; the figure is what the process has grown by at its peak since the model was loaded.
Page: 150 pairs on loopback in Chromium: from the address to the first pair, and from a key to "Saved" in the page.

    python benchmarks/evaluation.py [--rounds 3] [--questions 16] [--only speed|memory|page]

It takes the extra lm-eval, the base model of the quickstart, and for the page playwright with a Chromium.
"""

from __future__ import annotations

import csv
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from tunegate.api.versions import ModelVersion
from tunegate.cli.options import print_table

SUBJECTS = {"law": "法学", "accountant": "注册会计师"}
TASK = """
task: exam-{subject}
dataset_path: exam
dataset_name: {subject}
validation_split: val
fewshot_split: dev
fewshot_config: {{sampler: first_n}}
num_fewshot: {shots}
output_type: multiple_choice
description: "以下是中国关于{title}的单项选择题，请选出其中的正确答案。\\n\\n"
doc_to_text: "{{{{question.strip()}}}}\\nA. {{{{A}}}}\\nB. {{{{B}}}}\\nC. {{{{C}}}}\\nD. {{{{D}}}}\\n答案："
doc_to_choice: ["A", "B", "C", "D"]
doc_to_target: "{{{{['A', 'B', 'C', 'D'].index(answer)}}}}"
metric_list: [{{metric: acc, aggregation: mean, higher_is_better: true}}]
"""
PAIRS = 150


@click.command(help=__doc__.split("\n")[0])
@click.option("--rounds", default=3, show_default=True, help="How often each arm is timed; the middle one counts.")
@click.option("--questions", default=16, show_default=True, help="Of the timed exam, over two subjects.")
@click.option("--long", "long_exam", default=14_000, show_default=True, help="Questions of the exam for memory.")
@click.option("--only", type=click.Choice(["speed", "memory", "page"]), multiple=True)
@click.option("--json", "as_json", is_flag=True)
@click.option("--grow", nargs=2, type=int, hidden=True)
def main(
    rounds: int, questions: int, long_exam: int, only: tuple[str, ...], as_json: bool, grow: tuple[int, int] | None
) -> None:
    if grow:
        click.echo(json.dumps(growth(*grow)))
        return
    parts: dict[str, Callable[[], Any]] = {
        "speed": lambda: speed(questions, rounds),
        "memory": lambda: memory(long_exam),
        "page": page,
    }
    results = {name: measure() for name, measure in parts.items() if not only or name in only}
    if as_json:
        click.echo(json.dumps(results, indent=2))
        return
    for name, rows in results.items():
        print_table(name, list(rows[0]), [list(row.values()) for row in rows])


def speed(questions: int, rounds: int) -> list[dict[str, Any]]:
    """With and without solved examples, in float32."""
    os.environ |= {"TQDM_DISABLE": "1", "OMP_WAIT_POLICY": "PASSIVE"}  # threads that spin would count as work
    import torch

    from tunegate.evaluation.models.local import LocalModel
    from tunegate.models.smollm2 import convert_smollm2

    with tempfile.TemporaryDirectory() as scratch:
        model = LocalModel(convert_smollm2(Path(scratch) / "model"), dtype=torch.float32)
        return [beside(model, shots, questions, rounds) for shots in (5, 0)]


def beside(model: Any, shots: int, questions: int, rounds: int) -> dict[str, Any]:
    """Questions a second of both in turns, the ratio of each round, and how many answers are the same."""
    from tunegate.evaluation import load_suite

    times: dict[str, list[tuple[float, float]]] = {"ours": [], "theirs": []}
    with tempfile.TemporaryDirectory() as scratch:
        write_exam(Path(scratch), questions // len(SUBJECTS), shots)
        for _ in range(rounds):
            answers = {name: timed(model, load_suite(Path(scratch) / name), taken) for name, taken in times.items()}
            click.echo(f"{shots} shots: {times}", err=True)
    rounds_ = list(zip(times["ours"], times["theirs"], strict=True))
    ratios, busy = ([theirs[kind] / ours[kind] for ours, theirs in rounds_] for kind in (0, 1))
    return {
        "shots": shots,
        "questions": questions,
        "ours, questions/s": round(questions / statistics.median(wall for wall, _ in times["ours"]), 2),
        "lm-eval, questions/s": round(questions / statistics.median(wall for wall, _ in times["theirs"]), 2),
        "ratio": round(statistics.median(ratios), 2),
        "of rounds": " ".join(f"{ratio:.2f}" for ratio in ratios),
        "ratio of CPU time": round(statistics.median(busy), 2),
        "same answers": sum(a == b for a, b in zip(answers["ours"], answers["theirs"], strict=True)),
    }


def timed(model: Any, suite: Any, taken: list[tuple[float, float]]) -> list[str]:
    """The letters, and into `taken` how many seconds they took, and of all CPUs together."""
    from tunegate.evaluation.run import evaluate

    digest = f"sha256:{0:064x}"
    about: Any = {"model": "m", "name": "m/run/checkpoint-0", "uri": "", "digest": digest, "format": "huggingface"}
    version = ModelVersion(created=datetime.now(UTC), **about)
    len(suite)  # reads what there is to read
    begun, used = time.monotonic(), time.process_time()
    (result,) = evaluate(model, version, [suite])
    taken.append((time.monotonic() - begun, time.process_time() - used))
    return [record.answer for record in result.records]


def write_exam(folder: Path, each: int, shots: int) -> None:
    """The same made-up questions as a suite of ours and one of lm-evaluation-harness; none is like another."""
    about = "language: zh\ndescription: Made up.\nlicense: CC0-1.0\n"
    fields = {
        "ours": f"kind: choice\ncompat: lm_eval\nshots: {shots}\ndata: ../data/exam\n",
        "theirs": f"kind: lm_eval\ndata: ../data\ntasks: [{', '.join(f'exam-{subject}' for subject in SUBJECTS)}]\n",
    }
    for name, more in fields.items():
        (folder / name).mkdir()
        (folder / name / "suite.yaml").write_text(f"name: {name}\n{about}{more}")
    for subject, title in SUBJECTS.items():
        (folder / "theirs" / f"{subject}.yaml").write_text(TASK.format(subject=subject, title=title, shots=shots))
        for split, count in (("dev", 5), ("val", each)):
            write_rows(folder / "data/exam" / split / f"{subject}_{split}.csv", count)
    mapping = {subject: [subject, title, "Other"] for subject, title in SUBJECTS.items()}
    (folder / "data/exam/subject_mapping.json").write_text(json.dumps(mapping))


def write_rows(path: Path, count: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["id", "question", "A", "B", "C", "D", "answer"])
        for number in range(count):
            price, pieces = number * 13 % 70 + 5, number * 7 % 90 + 10
            question = f"单价{price}元，买{pieces}件，共多少元？（第{number}题）"
            options = [f"{price * (pieces + step)}元" for step in range(4)]
            rows.writerow([number, question, *options, "ABCD"[number % 4]])


def memory(questions: int) -> list[dict[str, Any]]:
    """For two batch sizes, what a process grows by on a short and on the long exam."""
    rows = []
    for batch in (8, 32):
        for count in (questions // 14, questions):
            argv = [sys.executable, __file__, "--grow", str(count), str(batch)]
            done = subprocess.run(argv, check=True, capture_output=True, text=True)
            rows.append({"batch": batch, "questions": count, **json.loads(done.stdout.splitlines()[-1])})
    return rows


def growth(questions: int, batch: int) -> dict[str, Any]:
    """How many MiB this process has grown by when a tiny model has answered as many questions of one subject."""
    import torch

    from tunegate.evaluation import load_suite
    from tunegate.evaluation.models.local import LocalModel
    from tunegate.models import make_tiny

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_exam(folder, questions, 5)
        (folder / "data/exam/val/accountant_val.csv").unlink()
        (folder / "data/exam/subject_mapping.json").write_text(json.dumps({"law": ["law", "法学", "Other"]}))
        texts = [(folder / "data/exam/dev/law_dev.csv").read_text()] * 5 + [f"答案： {letter}" for letter in "ABCD"] * 9
        model = LocalModel(make_tiny(folder / "model", texts), dtype=torch.float32, batch_size=batch)
        suite = load_suite(folder / "ours")
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        begun = time.monotonic()
        timed(model, suite, [])
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        return {"MiB more": round(grown / 1024), "questions/s": round(questions / (time.monotonic() - begun))}


def page() -> list[dict[str, Any]]:
    """Seconds from the address to a pair, in a new browser each, and from a key to "Saved" for each of many."""
    from playwright.sync_api import sync_playwright

    from tunegate.api.codec import to_json
    from tunegate.evaluation.business import Message
    from tunegate.evaluation.criteria import Criterion
    from tunegate.processes import Child, free_port
    from tunegate.review.items import Answer, Item, Review, Reviewed

    items = tuple(
        Item(
            question=f"q{number}",
            messages=(Message(role="user", content=f"Which kettle is quiet, for {number} people?"),),
            answers=tuple(Answer(version=place, text=f"Kettle {place}. " * 40) for place in range(2)),
            digest=f"sha256:{number:064x}",
        )
        for number in range(PAIRS)
    )
    versions = tuple(Reviewed(name=f"shop/run-{n}/checkpoint-1", digest=f"sha256:{n:064x}") for n in range(2))
    criteria = (Criterion(name="preference", question="Which answer would you rather get?"),)
    about: Any = {"suite": "shop.pairs", "digest": f"sha256:{7:064x}", "versions": versions, "items": items}
    with tempfile.TemporaryDirectory() as scratch:
        (Path(scratch) / "review.json").write_bytes(to_json(Review(mode="pairs", criteria=criteria, share=0, **about)))
        port = free_port()
        argv = [sys.executable, "-m", "tunegate", "review", "serve", scratch, "--port", str(port)]
        with Child.start("the page", argv, log=Path(scratch) / "log") as child, sync_playwright() as playwright:
            child.wait_until(lambda: "http" in child.tail(), seconds=60)
            browser = playwright.chromium.launch(executable_path=shutil.which("chromium"))
            loads, saves = browse(browser, f"http://127.0.0.1:{port}/")
            browser.close()
    return [row("load of 150 pairs, s", loads), row("key to saved, ms", [1000 * each for each in saves])]


def browse(browser: Any, url: str) -> tuple[list[float], list[float]]:
    loads = []
    saves: list[float] = []
    for number in range(5):
        context = browser.new_context(locale="en-US")
        tab = context.new_page()
        tab.goto(url)
        tab.get_by_label("Your name").fill(f"Reviewer {number}")
        tab.keyboard.press("Enter")
        tab.locator(".judge").wait_for()
        tab.goto(url)  # as somebody who comes back
        tab.locator(".judge").wait_for()
        loads.append(tab.evaluate(LOADED))
        saves += judge(tab) if number == 0 else []
        context.close()
    return loads, saves


def judge(tab: Any) -> list[float]:
    """In the page's own clock, since what drives the browser is slower than what is measured."""
    tab.evaluate(WATCH)
    saves: list[float] = []
    for _ in range(40):
        tab.keyboard.press("a")
        while len(taken := tab.evaluate("window.taken")) == len(saves):
            tab.wait_for_timeout(5)
        saves = taken
        tab.keyboard.press("Enter")
        tab.locator("[aria-pressed=true]").first.wait_for(state="detached")
    return [taken / 1000 for taken in saves]


LOADED = """() => {
  const shown = performance.getEntriesByType("paint").find((entry) => entry.name === "first-contentful-paint");
  const got = performance.getEntriesByType("resource").map((entry) => entry.responseEnd);
  return Math.max(shown ? shown.startTime : 0, ...got) / 1000;
}"""
WATCH = """() => {
  window.taken = [];
  let pressed = null;
  addEventListener("keydown", (event) => { if (event.key === "a") pressed = performance.now(); }, true);
  new MutationObserver(() => {
    if (pressed !== null && document.querySelector(".state").textContent.trim() === "Saved") {
      taken.push(performance.now() - pressed); pressed = null;
    }
  }).observe(document.body, { subtree: true, childList: true, characterData: true });
}"""


def row(what: str, values: Sequence[float]) -> dict[str, Any]:
    ordered = sorted(values)
    p95 = ordered[round(0.95 * (len(ordered) - 1))]
    return {"what": what, "n": len(values), "p50": round(statistics.median(values), 3), "p95": round(p95, 3)}


if __name__ == "__main__":
    main()
