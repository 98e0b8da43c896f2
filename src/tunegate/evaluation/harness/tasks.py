"""The tasks themselves: loaded, asked by lm-evaluation-harness's own code, and turned into our records and metrics."""

from __future__ import annotations

import hashlib
import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import msgspec
from lm_eval.api.metrics import mean
from lm_eval.evaluator import evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from tunegate.api.errors import DataError, EvaluationError, TunegateError
from tunegate.api.evaluation import Metric, Record
from tunegate.evaluation import scores
from tunegate.evaluation.harness.data import local_datasets
from tunegate.evaluation.sheets import Sheets

# The words that our other suites have for the same.
_NAMES = {"acc": "accuracy", "exact_match": "score"}
_BATCH = 4  # it keeps numbers for every word of the vocabulary at every token of a batch: 32 questions are gigabytes
_SEED = 1234  # lm-evaluation-harness's own, of the examples that are drawn


@runtime_checkable
class Loaded(Protocol):
    """A model in this process, as LocalModel is one."""

    def for_harness(self) -> tuple[Any, Any]:
        """Its network and its tokenizer."""
        ...


@dataclass(frozen=True)
class Asked:
    """A task with the questions that it is asked."""

    task: Any
    docs: tuple[Any, ...]

    @property
    def name(self) -> str:
        return str(self.task.task_name)


class Sample(msgspec.Struct, frozen=True):
    """What became of one question. requests: the digest of all that the model was given for it.

    values: what lm-evaluation-harness's metrics are made of, by our names.
    """

    prompt: str
    expected: str
    answer: str
    output: str
    requests: str
    values: dict[str, Any]


_encoder = msgspec.json.Encoder(enc_hook=lambda number: number.item())  # numpy's, which some metrics give


def load_tasks(names: Sequence[str], folder: Path, data: Path, limit: int | None) -> tuple[Asked, ...]:
    """The named tasks, of `folder` and the harness's own, in this order; `limit` keeps the first questions over all.

    Raises DataError naming a task that is unknown or whose data is not here.
    """
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    manager = TaskManager(include_path=str(folder), include_defaults=False)
    if not set(names) <= set(manager.all_tasks):
        manager = TaskManager(include_path=str(folder))  # reads thousands of files
    if unknown := [name for name in names if name not in manager.all_tasks]:
        remedy = f"correct it in suite.yaml, or put its YAML file into {folder}"
        raise DataError(f"lm-evaluation-harness has no task {unknown[0]}; {remedy}.")
    loaded: dict[str, Any] = {}
    for name in names:
        try:
            with local_datasets(data):
                loaded |= manager.load([name])["tasks"]
        except TunegateError:
            raise
        except Exception as error:  # whatever a task file's template, function or data set raises
            raise DataError(f"The task {name} can't be loaded: {error}; correct it.") from error
    asked, left = [], limit
    for name, task in loaded.items():
        if getattr(task, "UNSAFE_CODE", False):
            raise DataError(f"The task {name} runs code that the model writes, which is not done here; leave it out.")
        _prepare(task)
        docs = tuple(task.eval_docs)[:left]
        left = None if left is None else left - len(docs)
        if docs:
            asked.append(Asked(task, docs))
    return tuple(asked)


def measure(
    model: object, tasks: Sequence[Asked], sheets: Sheets, *, is_chat: bool = False
) -> tuple[tuple[Metric, ...], tuple[Record, ...], str]:
    """Ask every task; metrics, records, and the digest of all that the model was given.

    A task's answers are kept when it ends. Raises EvaluationError where the model is not in this process.
    """
    samples: dict[str, list[Sample]] = {}
    for asked in tasks:
        places = range(len(asked.docs))
        sheet = sheets.sheet("lm_eval", asked.name, is_chat, questions=[(n, repr(asked.docs[n])) for n in places])
        if sheet.lacks(places):
            found = _ask(model, asked, is_chat=is_chat)
            sheet.put({place: _encoder.encode(sample).decode() for place, sample in enumerate(found)})
        lines = [line for line in sheet.answers() if line is not None]  # others may be another process's
        samples[asked.name] = [msgspec.json.decode(line, type=Sample) for line in lines]
    records = tuple(_record(name, place, one) for name, rows in samples.items() for place, one in enumerate(rows))
    given = hashlib.sha256("".join(one.requests for rows in samples.values() for one in rows).encode())
    return tuple(metrics({asked.name: asked.task for asked in tasks}, samples)), records, f"sha256:{given.hexdigest()}"


def _prepare(task: Any) -> None:
    """As lm-evaluation-harness's own command does before it asks."""
    if task.get_config("num_fewshot") is None:
        task.set_config(key="num_fewshot", value=0)
    task.set_fewshot_seed(seed=_SEED)


def _ask(model: object, asked: Asked, *, is_chat: bool) -> list[Sample]:
    """One task, by the model's own network and lm-evaluation-harness's own code."""
    if not isinstance(model, Loaded):
        raise EvaluationError("Tasks of lm-evaluation-harness are asked in this process; leave out --url.")
    network, tokenizer = model.for_harness()
    lm = HFLM(pretrained=network, tokenizer=tokenizer, batch_size=_BATCH)
    found = evaluate(
        lm=lm,
        task_dict={"tasks": {asked.name: asked.task}},
        limit=len(asked.docs),
        cache_requests=False,
        bootstrap_iters=0,
        apply_chat_template=is_chat,
        fewshot_as_multiturn=is_chat,
    )
    assert found is not None
    rows: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for row in found["samples"][asked.name]:
        rows[row["doc_id"]].append(row)  # one for each way of reading the answer
    return [_sample(asked, rows[place]) for place in sorted(rows)]


def _sample(asked: Asked, rows: Sequence[Mapping[str, Any]]) -> Sample:
    first, task = rows[0], asked.task
    target, answer, output = first["target"], first["filtered_resps"], first["resps"]
    if task.OUTPUT_TYPE == "multiple_choice":
        choices = task.doc_to_choice(first["doc"])
        chances = [chance for chance, _ in answer[: len(choices)]]
        answer, output = choices[max(range(len(chances)), key=chances.__getitem__)], ""
        target = choices[target] if isinstance(target, int) and 0 <= target < len(choices) else target
    elif task.OUTPUT_TYPE == "generate_until":
        answer, output = answer[0], output[0][0]
    values = {}
    for row in rows:
        for metric in row["metrics"]:
            name = _NAMES.get(metric, metric)
            values[name if name not in values else f"{metric}_{row['filter']}"] = row[metric]
    requests = hashlib.sha256(repr(first["arguments"]).encode()).hexdigest()
    return Sample(str(task.doc_to_text(first["doc"])), str(target), str(answer), str(output), requests, values)


def _record(task: str, place: int, sample: Sample) -> Record:
    """What is no share of 0..1, such as a perplexity, is in the metrics alone."""
    values = {name: float(value) for name, value in sample.values.items() if _is_share(value)}
    return Record(
        id=f"{task}/{place}",
        prompt=sample.prompt,
        expected=sample.expected,
        answer=sample.answer,
        output=sample.output if sample.output != sample.answer else "",
        scores=values,
    )


def metrics(tasks: Mapping[str, Any], samples: Mapping[str, Sequence[Sample]]) -> list[Metric]:
    """Each metric over the questions of all tasks, as lm-evaluation-harness weighs them, then of each task.

    What is more than a mean of the questions' values, such as a perplexity, is one number without an interval, of each
    task alone.
    """
    whole: dict[str, list[float]] = defaultdict(list)
    better: dict[str, bool] = {}
    parts: list[Metric] = []
    for handle, rows in samples.items():
        task = tasks[handle]
        for name in rows[0].values if rows else ():
            metric = next((theirs for theirs, ours in _NAMES.items() if ours == name), name)
            metric = metric if metric in task.aggregation() else metric.rpartition("_")[0]
            values, aggregate = [row.values[name] for row in rows], task.aggregation()[metric]
            better[name] = bool(task.higher_is_better().get(metric, True))
            if aggregate is mean:
                whole[name] += map(float, values)
                parts.append(_mean(f"{name}/{handle}", list(map(float, values)), is_better=better[name]))
            else:
                value = float(aggregate(values))
                parts.append(Metric(name=f"{name}/{handle}", value=value, n=len(values), higher_is_better=better[name]))
    found = [_mean(name, values, is_better=better[name]) for name, values in whole.items()]
    if len(samples) == 1:
        pooled = {metric.name for metric in found}
        named = [msgspec.structs.replace(part, name=part.name.partition("/")[0]) for part in parts]
        return [*found, *(part for part in named if part.name not in pooled)]
    return [*found, *parts]


def _mean(name: str, values: Sequence[float], *, is_better: bool) -> Metric:
    is_share = all(value in (0.0, 1.0) for value in values)
    metric = scores.share(name, [value == 1 for value in values]) if is_share else scores.mean(name, values)
    return msgspec.structs.replace(metric, higher_is_better=is_better)


def _is_share(value: Any) -> bool:
    return isinstance(value, bool | int | float) and 0 <= value <= 1
