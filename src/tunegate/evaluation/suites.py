"""Suites: folders of questions that a version is measured on, read and checked before any model is loaded."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta

from tunegate.api.codec import Resource, from_yaml
from tunegate.api.digest import Digest
from tunegate.api.errors import DataError, UsageError
from tunegate.evaluation import business, choice, injection, knowledge
from tunegate.evaluation.criteria import Criterion
from tunegate.evaluation.harness import HarnessSuite, read_suite
from tunegate.files import default_cache
from tunegate.store.files import fetch_plain, is_uri

SHIPPED = Path(str(files("tunegate"))) / "shop" / "data" / "suites"
SUITE = "suite.yaml"
_LANGUAGES = {"en": "english", "zh": "chinese"}

Suite = business.BusinessSuite | choice.ChoiceSuite | HarnessSuite
AnySuite = Suite | knowledge.KnowledgeSuite


class SuiteFile(Resource, frozen=True, kw_only=True, rename=None):
    """`suite.yaml`: what the folder holds and how it is asked.

    max_tokens: the longest answer, in tokens; by default 64, and 512 with a chain of thought.
    topic: the table of a report that the suite stands in, such as `mathematics`; by default `business`, or an exam's
    language.
    criteria: what people judge of an answer, in a business suite.
    data, in a suite of questions to an index: their JSONL file; by default questions.jsonl.
    tasks: of lm-evaluation-harness, in a suite of kind lm_eval; of what follows, `data` and `mode` are for those, too.
    The rest is for multiple choice. exam: whose wording and averages; compat: as which harness has them.
    data: a folder or zip, from this folder or an s3:// or oss:// URI; by default this folder.
    split: the questions asked; shots: solved examples before each; cot: with a chain of thought.
    mode: whether the letter is a base model's next token, or read out of a chat model's answer.
    """

    name: Annotated[str, Meta(pattern="^[a-z0-9][a-z0-9._-]*$")]
    kind: Literal["business", "choice", "injection", "knowledge", "lm_eval"]
    language: Annotated[str, Meta(min_length=1)]
    description: str
    license: str
    topic: str = ""
    max_tokens: Annotated[int, Meta(ge=1)] | None = None
    criteria: tuple[Criterion, ...] = ()
    tasks: tuple[str, ...] = ()
    exam: choice.ExamName = "ceval"
    data: str = ""
    shots: Annotated[int, Meta(ge=0, le=5)] = 5
    split: choice.Split = "val"
    mode: choice.Mode = "base"
    cot: bool = False
    compat: choice.Compat = "official"


def load_suite(path_or_name: str | Path, limit: int | None = None, *, endpoint_url: str | None = None) -> AnySuite:
    """Read a shipped suite by name, or any suite by its folder; `limit` keeps the first questions only.

    endpoint_url: of the bucket, for `data` in one. Raises UsageError for an unknown name, an unusable `suite.yaml` or
    limit, DataError for unusable questions, StoreError when a bucket can't be read.
    """
    if limit is not None and limit < 1:
        raise UsageError(f"A limit of {limit} leaves no question; give 1 or more.")
    folder = _folder(path_or_name)
    about = from_yaml((folder / SUITE).read_bytes(), SuiteFile, str(folder / SUITE))
    topic = about.topic or ("business" if about.kind == "business" else _LANGUAGES.get(about.language, about.language))
    if about.kind == "business":
        questions = business.read_questions(folder / business.QUESTIONS, judged=bool(about.criteria))[:limit]
        return business.BusinessSuite(
            about.name, _digest(folder, limit), about.max_tokens or 64, questions, about.criteria, topic
        )
    if about.kind == "injection":
        asked = injection.read_questions(folder, "zh" if about.language == "zh" else "en")[:limit]
        digest = _digest(folder, limit, injection.digest_of(asked))
        return business.BusinessSuite(about.name, digest, about.max_tokens or 64, asked, topic=topic, is_rendered=True)
    if about.kind == "knowledge":
        return _knowledge_suite(about, folder, limit)
    data = _data(folder, about.data, endpoint_url)
    is_elsewhere = not data.resolve().is_relative_to(folder.resolve())
    digest = _digest(folder, limit, choice.digest_of(data) if is_elsewhere else None)
    if about.kind == "lm_eval":
        return read_suite(about.name, digest, folder, data, about.tasks, mode=about.mode, limit=limit, topic=topic)
    wording = choice.wording(about.exam, about.compat, about.mode, cot=about.cot)
    subjects = choice.read_subjects(data, about.exam, about.split, about.shots, limit, explained=about.cot)
    return choice.ChoiceSuite(
        name=about.name,
        digest=digest,
        subjects=subjects,
        wording=wording,
        mode=about.mode,
        cot=about.cot,
        max_tokens=about.max_tokens or (512 if about.cot else 64),
        topic=topic,
    )


def load_suites(
    paths_or_names: Sequence[str | Path], limit: int | None = None, *, endpoint_url: str | None = None
) -> list[AnySuite]:
    """`load_suite` for each, once. Raises UsageError also when two have one name: their results would be one."""
    suites = [load_suite(suite, limit, endpoint_url=endpoint_url) for suite in dict.fromkeys(paths_or_names)]
    names = [suite.name for suite in suites]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UsageError(f"Two suites are called {twice}; change the name in one suite.yaml.")
    return suites


def shipped_suites() -> list[str]:
    """The names of the suites that come with tunegate."""
    return sorted(path.parent.name for path in SHIPPED.glob(f"*/{SUITE}"))


def _knowledge_suite(about: SuiteFile, folder: Path, limit: int | None) -> knowledge.KnowledgeSuite:
    from tunegate.knowledge.measure import Questions, read_questions  # numpy, which others do without

    path = folder / (about.data or knowledge.QUESTIONS)
    asked = read_questions(path)
    outside = None if path.resolve().is_relative_to(folder.resolve()) else asked.digest
    questions = Questions(asked.digest, asked.questions[:limit])
    return knowledge.KnowledgeSuite(about.name, _digest(folder, limit, outside), questions)


def _folder(path_or_name: str | Path) -> Path:
    if str(path_or_name) in shipped_suites():
        return SHIPPED / path_or_name
    folder = Path(path_or_name)
    if not folder.is_dir():
        names = ", ".join(shipped_suites()) or "none"
        raise UsageError(f"No suite {path_or_name}; give a folder with a {SUITE} or a shipped one: {names}.")
    if not (folder / SUITE).is_file():
        raise UsageError(f"{folder} has no {SUITE}, so it is not a suite; see a shipped one for an example.")
    return folder


def _data(folder: Path, data: str, endpoint_url: str | None) -> Path:
    """Where the questions lie, fetched where that is a bucket."""
    if is_uri(data):
        return fetch_plain(data, default_cache(), endpoint_url=endpoint_url)
    return folder / data


def _digest(folder: Path, limit: int | None, data: str | None = None) -> str:
    """sha256 over the paths and bytes of all files, and over the limit, so that a part never passes as the whole.

    data: the digest of questions that lie elsewhere.
    """
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        try:
            content = path.read_bytes()
        except OSError as error:
            raise DataError(f"{path} can't be read ({error.strerror}); make it readable or remove it.") from None
        name = path.relative_to(folder).as_posix().encode()
        digest.update(b"%d %s %d " % (len(name), name, len(content)) + content)
    if limit is not None:
        digest.update(b"limit %d" % limit)
    if data is not None:
        digest.update(b"data " + data.encode())
    return str(Digest.of_raw(digest.digest()))
