"""A release made of another one: the same weights, known by another digest, and refused before it is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.refusals import call, refused, without_story
from tests.unit.knowledge.embedding import embedding
from tunegate.api.errors import DigestError
from tunegate.api.pinned import base_of, index_of
from tunegate.api.versions import ModelVersion, Producer, Release
from tunegate.files import default_cache
from tunegate.knowledge.build import build
from tunegate.knowledge.documents import Document, Section
from tunegate.knowledge.embedders import UrlEmbedder
from tunegate.knowledge.library import publish
from tunegate.models.derive import merge_to_folder
from tunegate.release import Changes, derive
from tunegate.serving.version import from_store
from tunegate.store import Store
from tunegate.store.release import read_release

MADE = Producer(kind="tunegate train", run="run", seed=3)
HELP = [Document("help.md", "Help", (Section("You may send a kettle back within 14 days."),))]
PROMPT = """---
variables:
  question: {type: text, description: What is asked.}
  sources: {type: text, description: What was found., default: ""}
---
--- system
You are the assistant of a shop. Answer from: {{ sources | fence }}
--- user
%s in 2 sentences: {{ question | fence }}
"""
BARE = """---
variables:
  question: {type: text, description: What is asked.}
---
--- system
You are the assistant of a shop.
--- user
Answer in 2 sentences: {{ question | fence }}
"""


@pytest.fixture
def tuned(store: Store, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModelVersion:
    monkeypatch.setenv("TUNEGATE_CACHE", str(tmp_path / "cache"))
    release = Release(format="huggingface", system_prompt="You are Xuan.")
    return store.publish(base, "shop/run/checkpoint-3", release=release, producer=MADE)


@pytest.fixture
def help_index(store: Store, tmp_path: Path) -> str:
    """An index in the store without vectors; its digest."""
    build(HELP, tmp_path / "index", embedder=None)
    return publish(store, tmp_path / "index", "help").digest


def prompts(folder: Path, verb: str = "Answer") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "answer.prompt").write_text(PROMPT % verb)
    return folder


def test_equal_inputs_are_one_digest_whatever_way_they_came(
    store: Store, tuned: ModelVersion, help_index: str, tmp_path: Path
) -> None:
    folder = prompts(tmp_path / "prompts")
    whole = Changes(prompts=folder, knowledge="help", generation={"temperature": 0})
    once = derive(store, tuned, "shop/run-a/checkpoint-3", whole)
    first = derive(store, tuned, "shop/run-b/checkpoint-3", Changes(prompts=prompts(tmp_path / "other", "Reply")))
    again = derive(store, first, "other/run-c/checkpoint-7", whole)

    assert once.digest == again.digest != tuned.digest
    assert derive(store, tuned, once.name, whole) == once  # the same again
    release = read_release(store, once)
    assert release.knowledge == index_of("help", help_index)
    assert (release.system_prompt, release.generation) == ("You are Xuan.", {"temperature": 0})
    producer = store.manifest(again.digest).producer
    assert (producer.kind, producer.seed) == ("tunegate release derive", 3)
    assert store.manifest(once.uri).is_last
    assert not store.manifest(tuned.uri).is_last
    store.verify(once.name)


def test_parts_are_kept_replaced_and_taken_out(store: Store, tuned: ModelVersion, tmp_path: Path) -> None:
    first = derive(store, tuned, "shop/a/checkpoint-3", Changes(prompts=prompts(tmp_path / "prompts")))
    kept = derive(store, first, "shop/b/checkpoint-3", Changes(system_prompt="Be kind.", limits={"steps": 2}))
    replaced = derive(store, first, "shop/c/checkpoint-3", Changes(prompts=prompts(tmp_path / "prompts", "Reply")))
    bare = derive(store, first, "shop/d/checkpoint-3", Changes(without=("prompts",)))

    def said(version: ModelVersion) -> bytes | None:
        return store.get(f"{version.name}/prompts/answer.prompt")

    assert said(kept) == said(first) != said(replaced)
    assert read_release(store, kept).limits.steps == 2
    assert said(bare) is None
    assert bare.digest == tuned.digest  # the same bytes as before any of it
    shown = call("release", "show", first.name)
    assert "prompts/answer.prompt" in shown
    assert "shop/run/checkpoint-3" in "".join(shown.split())


def test_an_adapter_gets_prompts_and_knowledge_as_whole_weights_do(
    store: Store, tuned: ModelVersion, prompt: Path, help_index: str, tmp_path: Path
) -> None:
    release = Release(format="prompt-adapter", base=base_of(tuned))
    adapter = store.publish(prompt, "shop/prompt/checkpoint-3", release=release, producer=MADE)
    folder = prompts(tmp_path / "prompts")
    made = call("release", "derive", adapter.name, "--prompt", folder, "--knowledge", f"help@{help_index}",
                "--tools", "calculator, knowledge", "--name", "shop/prompt-shop/checkpoint-3")  # fmt: skip

    derived = store.resolve("shop/prompt-shop/checkpoint-3")
    assert made == f"{derived.uri} {derived.digest}\n"
    assert (derived.format, derived.base) == (adapter.format, adapter.base)
    served = from_store(store, derived.name, whole=True, fetch=True)
    assert served.release.tools == ("calculator", "knowledge")
    assert served.folder
    assert served.prompts
    assert (served.prompts / "answer.prompt").read_text() == (folder / "answer.prompt").read_text()
    assert served.knowledge
    assert (served.knowledge / "index.json").is_file()
    merge_to_folder(store, derived, tmp_path / "merged")
    assert (tmp_path / "merged/prompts/answer.prompt").is_file()


def test_a_damaged_index_is_named_where_it_would_be_served(store: Store, tuned: ModelVersion, help_index: str) -> None:
    derived = derive(store, tuned, "shop/help/checkpoint-3", Changes(knowledge="help"))
    key = f"{store.artifacts('knowledge').find('help').name}/chunks.jsonl"
    store.put(key, (store.get(key) or b"").replace(b"14", b"41"))
    for path in (default_cache() / "knowledge").rglob("chunks.jsonl"):
        path.unlink()
    with pytest.raises(DigestError, match=r"\.knowledge/help/.*chunks\.jsonl differs from its manifest"):
        from_store(store, derived.name, whole=True, fetch=False)


NAME = "shop/new/checkpoint-3"


def test_what_no_server_could_serve_is_not_written(
    store: Store, tuned: ModelVersion, help_index: str, tmp_path: Path
) -> None:
    folder = prompts(tmp_path / "prompts")
    (folder / "answer.prompt").write_text(BARE)
    wrong: dict[str, Any] = {
        "again; say what is to be different, such as --prompt FOLDER": ["--system-prompt", "You are Xuan."],
        "A release sets no …; it may set: ": ["--generation", "warmth=1"],
        "can't be read; write NAME=NUMBER, such as ": ["--generation", "temperature=warm"],
        "A release has no such limits (…); set steps, seconds or tokens": ["--limit", "steps=0"],
        "for a release; the tools are: ": ["--tools", "calculator,abacus"],
        "The tool knowledge needs an index; give one with --knowledge NAME": ["--tools", "knowledge"],
        "; give it a run of its own": ["--name", "shop/run/checkpoint-4", "--knowledge", "help"],
        "There is no ": ["--knowledge", "helb"],
        "The tool catalogue needs a table; give a folder with catalogue.csv by --prompt.": ["--tools", "catalogue"],
    }
    for words, options in wrong.items():
        with refused(words):
            call("release", "derive", tuned.name, "--name", NAME, *options)
    with refused("can't be read; write NAME=NUMBER, such as "):
        call("release", "derive", tuned.name, "--name", NAME, "--limit", "seconds=nan")
    with refused("leaves out what is found in the release's knowledge; declare the variable "):
        call("release", "derive", tuned.name, "--name", NAME, "--prompt", folder, "--knowledge", "help")
    (folder / "answer.prompt").write_text(
        "---\nvariables:\n  question: {type: text, description: What.}\n---\nAnswer {{ question }}"
    )
    with refused("findings); mend it, and see: tunegate prompts lint FILE") as caught:
        call("release", "derive", tuned.name, "--name", NAME, "--prompt", folder)
    assert f"{folder}/answer.prompt:5: " in str(caught.value)
    assert [version.name for version in store.list()] == [tuned.name]
    right = [
        *("--prompt", prompts(folder), "--knowledge", "help", "--tools", "knowledge", "--limit", "steps=2"),
        *("--generation", "temperature=0.5", "--system-prompt", "Be kind."),
    ]
    call("release", "derive", tuned.name, "--name", NAME, *right)
    assert store.resolve(NAME)
    (tmp_path / "table").mkdir()
    (tmp_path / "table/catalogue.csv").write_text("Number,Price\nSO-103,30\n")
    table = ["--prompt", tmp_path / "table", "--tools", "catalogue", "--name", "shop/table/checkpoint-3"]
    call("release", "derive", tuned.name, *table)


def test_an_index_of_another_embedder_is_refused_by_name(
    store: Store, tuned: ModelVersion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with embedding() as server:
        build(HELP, tmp_path / "index", embedder=UrlEmbedder(server.url, "hashing"))
        publish(store, tmp_path / "index", "help")
        with refused(", and no server has it; name its URL in "):
            derive(store, tuned, NAME, Changes(knowledge="help"))
        monkeypatch.setenv("TUNEGATE_EMBEDDER_URL", server.url)
        server.salt = "other weights under the same name"
        with refused("its vectors differ; build it again, or start the model that it was made with"):
            derive(store, tuned, NAME, Changes(knowledge="help"))
        assert len(store.list()) == 1
        server.salt = ""
        assert derive(store, tuned, NAME, Changes(knowledge="help"))


def test_every_message_has_its_story() -> None:
    assert without_story("release", Path(__file__)) == []
