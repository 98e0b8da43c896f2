"""An index as it is built, opened and searched; the embedder is a real server that hashes words."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from tests.unit.knowledge.embedding import Hashing, embedding
from tunegate.api.errors import KnowledgeError
from tunegate.knowledge.build import build
from tunegate.knowledge.contents import HEAD
from tunegate.knowledge.documents import Document, Section
from tunegate.knowledge.embedders import UrlEmbedder
from tunegate.knowledge.index import Found, Index
from tunegate.knowledge.measure import Questions, read_questions
from tunegate.store.artifacts import digest_of_folder

TEXTS = {
    "退货": "签收后14天内可以退货。",
    "保修": "电水壶KT-100保修两年，请保留发票。",
    "Returns": "You may send it back within 14 days.",
    "Warranty": "The kettle KT-200 has a warranty of two years.",
}


def documents(**more: str) -> list[Document]:
    sections = tuple(Section(text, ("Help", title)) for title, text in (TEXTS | more).items())
    return [Document("help.md", "Help", sections)]


def shown(found: Found) -> list[str]:
    return [hit.chunk.headings[-1] for hit in found.hits]


@pytest.fixture(scope="module")
def server() -> Iterator[Hashing]:
    with embedding() as running:
        yield running


@pytest.fixture(scope="module")
def embedder(server: Hashing) -> UrlEmbedder:
    return UrlEmbedder(server.url, "hashing")


@pytest.fixture(scope="module")
def lexical(tmp_path_factory: pytest.TempPathFactory) -> Index:
    """Without vectors."""
    folder = tmp_path_factory.mktemp("lexical") / "index"
    build(documents(), folder)
    return Index(folder)


def questions(tmp_path: Path, *rows: dict[str, object]) -> Questions:
    path = tmp_path / "questions.jsonl"
    path.write_bytes(b"\n".join(map(msgspec.json.encode, rows)))
    return read_questions(path)


@pytest.mark.parametrize(
    ("question", "first"),
    [
        ("怎么退货？", "退货"),
        ("how do I send something back", "Returns"),
        ("kt200", "Warranty"),
        ("KT-100有发票吗", "保修"),
    ],
)
def test_words_find_chunks_in_both_languages(lexical: Index, question: str, first: str) -> None:
    found = lexical.search(question)

    assert shown(found)[0] == first
    assert [hit.number for hit in found.hits] == list(range(1, len(found.hits) + 1))


@pytest.mark.parametrize(
    ("question", "sentence"),
    [
        ("雨？", "知识库中没有相关内容。"),
        ("Sky?", "The knowledge base does not say."),
        ("?!", "The knowledge base does not say."),
    ],
)
def test_nothing_found_is_a_fixed_sentence(lexical: Index, question: str, sentence: str) -> None:
    found = lexical.search(question)

    assert (found.hits, found.is_answerable, found.refusal) == ((), False, sentence)


def test_a_question_without_an_end_is_cut(lexical: Index) -> None:
    assert shown(lexical.search("怎么退货？" + "x" * 1_000_000))[0] == "退货"
    assert len(lexical.search("退" * 1_000_000).question) < 10_000


def test_the_very_ids_come_first_whatever_the_vectors_say(tmp_path: Path, embedder: UrlEmbedder) -> None:
    build(documents(), tmp_path / "index", embedder=embedder)
    index = Index(tmp_path / "index", embedder)

    found = index.search("send it back within 14 days: KT-100", most=2)

    assert shown(found) == ["保修", "Returns"]
    assert found.hits[0].ids == ("kt100",)
    assert (found.hits[0].cosine or 0) < (found.hits[1].cosine or 0)


def test_equal_documents_give_an_equal_digest_that_names_no_machine(
    tmp_path: Path, embedder: UrlEmbedder, server: Hashing
) -> None:
    for name in ("a", "b"):
        build(documents(), tmp_path / name, embedder=embedder)

    assert digest_of_folder(tmp_path / "a") == digest_of_folder(tmp_path / "b")
    everything = b"".join(path.read_bytes() for path in (tmp_path / "a").rglob("*") if path.is_file())
    assert str(tmp_path).encode() not in everything
    assert server.url.encode() not in everything
    build(documents(more="Something else."), tmp_path / "b", embedder=embedder)
    assert digest_of_folder(tmp_path / "a") != digest_of_folder(tmp_path / "b")


def test_only_what_is_new_is_embedded_again(tmp_path: Path, embedder: UrlEmbedder, server: Hashing) -> None:
    index = tmp_path / "index"
    assert build(documents(), index, embedder=embedder).embedded == 4
    server.texts.clear()

    built = build(documents(Payment="Cards and transfers."), index, embedder=embedder, previous=index)

    assert (built.head.chunks, built.embedded) == (5, 1)
    assert [text for text in server.texts if "Cards" in text] == ["Help > Payment\nCards and transfers."]
    build(documents(Payment="Cards and transfers."), tmp_path / "anew", embedder=embedder)
    assert digest_of_folder(index) == digest_of_folder(tmp_path / "anew")


def test_a_build_that_fails_leaves_what_was_there(tmp_path: Path, embedder: UrlEmbedder, server: Hashing) -> None:
    build(documents(), tmp_path / "index")
    before = digest_of_folder(tmp_path / "index")
    server.fails = True
    try:
        with pytest.raises(KnowledgeError, match="refuses to embed with hashing"):
            build(documents(), tmp_path / "index", embedder=embedder)
    finally:
        server.fails = False

    assert digest_of_folder(tmp_path / "index") == before
    assert [path.name for path in tmp_path.iterdir()] == ["index"]


def test_an_interrupted_build_resumes(tmp_path: Path, embedder: UrlEmbedder, server: Hashing) -> None:
    many = documents(**{f"Model {number}": f"It weighs {number} g." for number in range(2 * embedder.batch)})
    build(many, tmp_path / "undisturbed", embedder=embedder)
    server.fails_after = 2  # of which one is the probe
    try:
        with pytest.raises(KnowledgeError, match="refuses to embed"):
            build(many, tmp_path / "index", embedder=embedder, journal=tmp_path / "cache")
    finally:
        server.fails_after = None
    (kept,) = (tmp_path / "cache").iterdir()
    with kept.open("ab") as file:
        file.write(b"half of a vector")

    built = build(many, tmp_path / "index", embedder=embedder, journal=tmp_path / "cache")

    assert built.embedded == built.head.chunks - embedder.batch
    assert digest_of_folder(tmp_path / "index") == digest_of_folder(tmp_path / "undisturbed")
    assert list((tmp_path / "cache").iterdir()) == []


def test_another_embedder_is_refused(tmp_path: Path, embedder: UrlEmbedder, server: Hashing, lexical: Index) -> None:
    index = tmp_path / "index"
    build(documents(), index, embedder=embedder)

    with pytest.raises(KnowledgeError, match=r"was made with hashing \(64 numbers\); name a server that has it"):
        Index(index)
    with pytest.raises(KnowledgeError, match="not with other"):
        Index(index, UrlEmbedder(server.url, "other"))
    server.salt = "other weights under the same name"
    try:
        with pytest.raises(KnowledgeError, match="its vectors differ"):
            Index(index, embedder)
        assert build(documents(), tmp_path / "anew", embedder=embedder, previous=index).embedded == 4
    finally:
        server.salt = ""
    build(documents(), index)
    with pytest.raises(KnowledgeError, match="no vectors"):
        Index(index, embedder)


@pytest.mark.parametrize("text", ["", " \n", "———", "…？"])
def test_documents_without_text_are_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(KnowledgeError, match="hold no text"):
        build([Document("a.md", "A", (Section(text),))], tmp_path / "index")
    assert list(tmp_path.iterdir()) == []


def test_a_chunk_that_no_word_finds_fails_the_build(tmp_path: Path) -> None:
    with pytest.raises(KnowledgeError, match=r"the\.md: no word of 'is it' can be looked up"):
        build([Document("the.md", "the", (Section("is it"),))], tmp_path / "index")


@pytest.mark.parametrize("name", [HEAD, "chunks.jsonl", "offsets.npy", "words/data.npy", "words/words.txt"])
def test_an_index_that_is_not_whole_is_refused(tmp_path: Path, name: str) -> None:
    build(documents(), tmp_path / "index")
    (tmp_path / "index" / name).unlink()

    with pytest.raises(KnowledgeError, match="build one"):
        Index(tmp_path / "index")


def test_a_head_of_other_chunks_is_refused(tmp_path: Path) -> None:
    build(documents(), tmp_path / "a")
    build(documents(more="x"), tmp_path / "b")
    shutil.copy(tmp_path / "b/chunks.jsonl", tmp_path / "a/chunks.jsonl")

    with pytest.raises(KnowledgeError, match="is not whole"):
        Index(tmp_path / "a")


def test_calibration_is_of_the_index_and_refuses_what_it_does_not_know(tmp_path: Path) -> None:
    asked = questions(
        tmp_path,
        {"id": "1", "question": "kettle warranty of two years", "contains": ["KT-200"]},
        {"id": "2", "question": "within how many days may I send it back", "contains": ["send it back"]},
        {"id": "3", "question": "two days of rain"},
    )

    built = build(documents(), tmp_path / "index", questions=asked)
    index = Index(tmp_path / "index")

    assert built.head.calibration == index.head.calibration
    assert index.search("kettle warranty of two years").is_answerable
    refused = index.search("two days of rain")
    assert refused.hits
    assert refused.refusal == "The knowledge base does not say."


def test_questions_of_one_kind_can_not_calibrate(tmp_path: Path) -> None:
    asked = questions(tmp_path, {"id": "1", "question": "退货", "contains": ["退货"]})

    with pytest.raises(KnowledgeError, match="can't calibrate"):
        build(documents(), tmp_path / "index", questions=asked)
    assert not (tmp_path / "index").exists()
