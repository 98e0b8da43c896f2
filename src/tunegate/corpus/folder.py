"""The folder of a corpus: the data, what was not taken, what waits for people, and the card."""

from __future__ import annotations

from typing import Any

import msgspec
import yaml

from tunegate.api.codec import from_json, to_json_lines
from tunegate.api.digest import Digest
from tunegate.api.errors import UsageError
from tunegate.corpus.build import Corpus
from tunegate.corpus.card import card
from tunegate.corpus.plan import Plan
from tunegate.corpus.records import Rejected
from tunegate.store.folders import Folder

DATA = "data/train.jsonl"
_QUEUE = "queue.jsonl"


def write(folder: Folder, plan: Plan, corpus: Corpus, teacher: str) -> None:
    """Each file whole, in place of an older one. Raises UsageError or StoreError where it can't be written."""
    body = to_json_lines(corpus.records)
    digests = {"plan": str(Digest.of_bytes(msgspec.json.encode(plan))), "data": str(Digest.of_bytes(body))}
    folder.put(DATA, body)
    folder.put(_QUEUE, to_json_lines(corpus.queue))
    folder.put("rejected.jsonl", to_json_lines(corpus.rejected))
    folder.put("README.md", card(plan, corpus, teacher, digests).encode())


def read_queue(name: str, folder: Folder) -> list[Rejected]:
    """What waits for people. Raises UsageError where there is no corpus."""
    body = folder.get(_QUEUE)
    if body is None:
        raise UsageError(f"{name} holds no corpus; make one with: tunegate corpus build PLAN {name} --url URL")
    return [from_json(line, Rejected, f"{name}/{_QUEUE}") for line in body.splitlines()]


def keep_for_run(name: str, folder: Folder) -> tuple[str, str]:
    """Copy the data to where it stays as it is; the name of the run that learns it, and where the copy is. The name is
    empty where the data is. Raises UsageError where there is no corpus."""
    body = folder.get(DATA)
    if body is None:
        raise UsageError(f"{name} has no {DATA}; make the corpus with: tunegate corpus build PLAN {name}")
    run = f"learned-{Digest.of_bytes(body).hex[:10]}" if body else ""
    copy = f"runs/{run}.jsonl"
    if body and folder.get(copy) != body:
        folder.put(copy, body)
    return run, f"{name.rstrip('/')}/{copy}"


def fill_in(text: str, file: str, run: str, data: str) -> dict[str, Any]:
    """The training job of a file, with the run and its data. Raises UsageError for one that does not name both."""
    missing = [name for name in ("${RUN}", "${CORPUS}") if name not in text]
    try:
        job = yaml.safe_load(text.replace("${RUN}", run).replace("${CORPUS}", data))
    except yaml.YAMLError as error:
        raise UsageError(f"{file} is not YAML ({error}); correct it.") from None
    if missing or not isinstance(job, dict) or job.get("kind") != "PyTorchJob" or "namespace" not in job["metadata"]:
        what = f"; {' and '.join(missing)} is missing" if missing else ""
        raise UsageError(f"{file} is no PyTorchJob with a namespace that names its run and its data{what}.")
    return job
