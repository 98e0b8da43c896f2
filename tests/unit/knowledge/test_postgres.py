"""An index in a real PostgreSQL with pgvector is searched as the same index in this process."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.postgres import HAS_POSTGRES, needs_postgres, postgres
from tests.unit.knowledge.embedding import embedding
from tunegate.api.errors import KnowledgeError, NotFoundError, UsageError
from tunegate.cli import root
from tunegate.knowledge.build import build
from tunegate.knowledge.embedders import UrlEmbedder
from tunegate.knowledge.index import Found, Index
from tunegate.knowledge.measure import read_questions
from tunegate.knowledge.readers import read
from tunegate.processes import free_port
from tunegate.shop import DATA
from tunegate.store.artifacts import digest_of_folder

if HAS_POSTGRES:
    from tunegate.knowledge.postgres import PostgresIndex, load

pytestmark = needs_postgres
QUESTIONS = read_questions(DATA / "knowledge_questions.jsonl")


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with postgres(tmp_path_factory.mktemp("postgres")) as url:
        yield url


@pytest.fixture(scope="module")
def embedder() -> Iterator[UrlEmbedder]:
    with embedding() as server:
        yield UrlEmbedder(server.url, "hashing")


@pytest.fixture(scope="module", params=["words", "vectors"])
def made(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, embedder: UrlEmbedder
) -> tuple[Path, UrlEmbedder | None]:
    """The shop's index, calibrated, with what it was made with."""
    folder, made_with = tmp_path_factory.mktemp("index") / "shop", embedder if request.param == "vectors" else None
    build(read([str(DATA / "knowledge")], folder).documents, folder, embedder=made_with, questions=QUESTIONS)
    return folder, made_with


def told(found: Found) -> tuple[object, ...]:
    """What must be equal. Chunks that are equally good may change places: sums in another order differ a little."""
    scores = [round(hit.bm25 if hit.cosine is None else hit.cosine, 2) for hit in found.hits]
    is_clear = len(set(scores)) == len(scores)
    ids = sorted(hit.ids for hit in found.hits)
    return scores, ids, is_clear and ([round(sign, 2) for sign in found.signs], found.is_answerable)


def test_it_finds_what_the_same_index_finds_in_this_process(
    database: str, made: tuple[Path, UrlEmbedder | None]
) -> None:
    folder, made_with = made
    load(folder, digest_of_folder(folder), f"{database}#shop")

    here, there = Index(folder, made_with), PostgresIndex(f"{database}#shop", made_with)

    assert there.digest == digest_of_folder(folder)
    for question in [
        *(question.question for question in QUESTIONS.questions[::5]),
        "",
        "kettle kettle",
        "?",
        "kettle\0",
        "壶" * 100_000,
    ]:
        assert told(there.search(question)) == told(here.search(question)), question


def test_a_name_stands_for_what_was_loaded_last(database: str, tmp_path: Path) -> None:
    for name, text in (("a", "Kettles are steel."), ("b", "Lamps are glass.")):
        (tmp_path / f"{name}.txt").write_text(text)
        build(read([str(tmp_path / f"{name}.txt")], tmp_path).documents, tmp_path / name)
    digests = [digest_of_folder(tmp_path / name) for name in ("a", "b")]

    for name, digest in (("a", digests[0]), ("b", digests[1]), ("b", digests[1]), ("a", digests[0])):
        load(tmp_path / name, digest, f"{database}#things")
        assert PostgresIndex(f"{database}#things").digest == digest
    assert PostgresIndex(f"{database}#things").search("steel").hits[0].chunk.text == "Kettles are steel."


def test_who_asks_only_needs_to_read(database: str, tmp_path: Path) -> None:
    reading = f"{database}&options=-c%20default_transaction_read_only%3Don"
    with pytest.raises(NotFoundError):
        PostgresIndex(f"{reading}#read")
    (tmp_path / "a.txt").write_text("Kettles are steel.")
    build(read([str(tmp_path / "a.txt")], tmp_path).documents, tmp_path / "index")

    load(tmp_path / "index", digest_of_folder(tmp_path / "index"), f"{database}#read")

    assert PostgresIndex(f"{reading}#read").search("steel").is_answerable
    with pytest.raises(KnowledgeError, match="read-only"):
        load(tmp_path / "index", digest_of_folder(tmp_path / "index"), f"{reading}#read")


def test_what_is_wrong_is_said_without_the_address(
    database: str, made: tuple[Path, UrlEmbedder | None], embedder: UrlEmbedder
) -> None:
    folder, made_with = made
    load(folder, digest_of_folder(folder), f"{database}#shop")

    with pytest.raises(UsageError, match="names no index"):
        PostgresIndex(database)
    with pytest.raises(NotFoundError, match=r"no index other in that database; there are: shop"):
        PostgresIndex(f"{database}#other")
    with pytest.raises(KnowledgeError, match="can't be used") as refused:
        PostgresIndex(f"postgresql://user:secret@127.0.0.1:{free_port()}/db#shop")
    assert "secret" not in str(refused.value)
    with pytest.raises(KnowledgeError, match="no vectors" if made_with is None else "name a server that has it"):
        PostgresIndex(f"{database}#shop", embedder if made_with is None else None)


def test_the_command_line_loads_asks_and_measures(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TUNEGATE_STORE", raising=False)
    documents = read([str(DATA / "knowledge/help_en.md")], tmp_path).documents
    build(documents, tmp_path / "index")

    def run(*words: str) -> str:
        result = CliRunner().invoke(root, ["knowledge", *words], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.stdout

    url = f"{database}#cli"
    assert digest_of_folder(tmp_path / "index") in run("load", str(tmp_path / "index"), url)
    assert "[1] Xuan's shop: help > Returns and refunds" in run("ask", url, "refunds after returns")
    questions = str(DATA / "knowledge_questions.jsonl")
    assert json.loads(run("measure", url, questions, "--json"))["index"] == digest_of_folder(tmp_path / "index")
