"""`tunegate serve` of a release with prompts, knowledge and tools: on a real model behind the embedded engine."""

from __future__ import annotations

import gc
import json
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dashscope
import openai
import pytest
from dashscope import Generation
from dashscope.api_entities.http_request import close_shared_sync_session

from tests.unit.knowledge.embedding import embedding
from tests.unit.serving.releases import build_index, write_prompts
from tests.waiting import wait_for
from tunegate.api.pinned import Pinned
from tunegate.api.versions import KNOWLEDGE, ModelVersion, Producer, Release
from tunegate.knowledge.build import build
from tunegate.knowledge.documents import Document, Section
from tunegate.knowledge.embedders import UrlEmbedder
from tunegate.knowledge.library import publish
from tunegate.models.mount import deliver
from tunegate.processes import Child, answers, free_port
from tunegate.release import Changes, derive
from tunegate.store import EmbeddedStore, Store

pytestmark = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.usefixtures("forked_programs"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # clients leave sockets to the garbage collector
]
RETURNS: list[Any] = [{"role": "user", "content": "How many days do I have to send something back?"}]
NOBODY: list[Any] = [{"role": "user", "content": "谁是世界冠军？"}]


class Shop:
    """A store with a model, and releases of it."""

    def __init__(self, embedded: EmbeddedStore, weights: Path, folder: Path) -> None:
        uri = f"{embedded.uri}/releases"
        self.folder = folder
        self.environment = {
            **embedded.environment,
            "TUNEGATE_CACHE": str(folder / "cache"),
            "TUNEGATE_FEEDBACK_KEY": "5e" * 32,
            "TUNEGATE_STORE": uri,
        }
        self.store = Store.open(uri, endpoint_url=embedded.endpoint_url)
        release = Release(format="huggingface")
        self.base = self.store.publish(
            weights, "shop/base/checkpoint-0", release=release, producer=Producer(kind="test")
        )

    def serve(self, *words: str) -> tuple[Child, str]:
        port = free_port()
        argv = [sys.executable, "-m", "tunegate", "serve", *words, "--port", str(port)]
        child = Child.start("the server", argv, log=self.folder / f"{port}.log", env=self.environment)
        return child, f"http://127.0.0.1:{port}"


@pytest.fixture(scope="module")
def shop(embedded_store: EmbeddedStore, base: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in embedded_store.environment.items():
            patch.setenv(name, value)
        patch.setenv("TUNEGATE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield Shop(embedded_store, base, tmp_path_factory.mktemp("releases"))
    gc.collect()


@pytest.fixture(scope="module")
def grounded(shop: Shop) -> ModelVersion:
    publish(shop.store, build_index(shop.folder / "index"), "shop")
    changes = Changes(prompts=write_prompts(shop.folder / "prompts"), knowledge="shop", generation={"max_tokens": 8})
    return derive(shop.store, shop.base, "shop/grounded/checkpoint-0", changes)


def until_ended(child: Child) -> str:
    """What is said by a server that ends with an error."""
    with child:
        wait_for(lambda: child.exit_code is not None, what="the server to end")
        assert child.exit_code == 1
        return child.tail()


def test_prompts_and_knowledge_answer_unmodified_clients(
    shop: Shop, grounded: ModelVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    child, url = shop.serve(grounded.name)
    with child, openai.OpenAI(base_url=f"{url}/v1", api_key="none") as client:
        child.wait_until(lambda: answers(f"{url}/v2/health/ready"), seconds=120)
        chunks = list(client.chat.completions.create(model="shop", messages=RETURNS, stream=True))
        sources = [extra["tunegate"] for chunk in chunks if "tunegate" in (extra := chunk.model_extra or {})]
        assert sources[0]["sources"][0]["title"].endswith("Returns and refunds")
        assert list(sources[-1]) == ["cited"]
        assert any(chunk.choices[0].delta.content for chunk in chunks[1:])
        missed = client.chat.completions.create(model="shop", messages=NOBODY)
        assert missed.choices[0].message.content == "知识库中没有相关内容。"

        monkeypatch.setattr(dashscope, "base_http_api_url", f"{url}/api/v1")
        monkeypatch.setattr(dashscope, "api_key", "none")
        answer: Any = Generation.call(model="shop", messages=RETURNS, enable_search=True)
        assert answer.output["search_info"]["search_results"][0]["index"] == 1
        close_shared_sync_session()

        with urllib.request.urlopen(f"{url}/v2/models/shop", timeout=100) as reply:
            parts = json.loads(reply.read())["parameters"]
        with urllib.request.urlopen(f"{url}/metrics", timeout=100) as reply:
            metrics = reply.read().decode()
    assert set(parts) == {"prompts", "knowledge"}
    assert f'tunegate_knowledge_misses_total{{model_version="{grounded.digest[7:19]}",step=""}} 1.0' in metrics


def test_a_damaged_index_is_never_served(shop: Shop, grounded: ModelVersion) -> None:
    folder = shop.folder / "mounted"
    deliver(shop.store, Pinned(grounded.name, grounded.digest), folder)
    chunks = folder / KNOWLEDGE / "chunks.jsonl"
    body = chunks.read_bytes()
    chunks.unlink()
    chunks.write_bytes(body.replace(b"14 days", b"99 days"))
    child, _ = shop.serve("--folder", str(folder))

    said = until_ended(child)
    assert "is not the index shop@" in said
    assert "tunegate initialize" in said


def test_an_index_of_another_embedder_is_never_served(shop: Shop) -> None:
    documents = [Document("help.md", "Help", (Section("You may send it back within 14 days."),))]
    with embedding() as server:
        build(documents, shop.folder / "vectors", embedder=UrlEmbedder(server.url, "hashing"))
        publish(shop.store, shop.folder / "vectors", "vectors")
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("TUNEGATE_EMBEDDER_URL", server.url)
            version = derive(shop.store, shop.base, "shop/vectors/checkpoint-0", Changes(knowledge="vectors"))
        server.salt = "other weights"
        shop.environment["TUNEGATE_EMBEDDER_URL"] = server.url
        child, _ = shop.serve(version.name)

        assert "made with another hashing" in until_ended(child)
