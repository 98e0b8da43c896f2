from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from tests.unit.evaluation.builders import write_business, write_choice
from tests.unit.evaluation.servers import Server, said
from tests.unit.serving.engines.test_remote import make_certificate
from tests.unit.serving.releases import build_index
from tunegate.api.evaluation import Evaluation
from tunegate.api.policy import Gate
from tunegate.api.versions import BaseModel, ModelVersion, Producer, Release
from tunegate.cli import main
from tunegate.knowledge.library import publish
from tunegate.models import make_tiny
from tunegate.promotion.gates import check_gate
from tunegate.release import Changes, derive
from tunegate.store import Store
from tunegate.store.evaluations import find

QUESTIONS = [
    {
        "id": str(i),
        "messages": [{"role": "user", "content": f"Price {i}?"}],
        "reference": f"${i}",
        "rules": [{"kind": "exact"}],
    }
    for i in range(3)
]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny(tmp_path_factory.mktemp("tiny") / "model", ["Price of the kettle?", "答案：水壶"])


@pytest.fixture
def version(store: Store, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModelVersion:
    monkeypatch.setenv("TUNEGATE_CACHE", str(tmp_path / "cache"))
    release = Release(format="huggingface", system_prompt="You are Xuan.")
    return store.publish(tiny, "shop/base/checkpoint-0", release=release, producer=Producer(kind="test"))


@pytest.fixture
def business(tmp_path: Path) -> Path:
    return write_business(tmp_path / "business", QUESTIONS, max_tokens=4)


@pytest.fixture
def choice(tmp_path: Path) -> Path:
    return write_choice(tmp_path / "choice", {"care": "AB"})


def evaluate(*words: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["evaluate", *(str(word) for word in words)])
    assert isinstance(ended.value.code, int)
    return ended.value.code


def found(store: Store, version: ModelVersion, suite: str) -> Evaluation:
    evaluation = find(store, version.digest, suite)
    assert evaluation is not None
    return evaluation


def test_results_are_shown_saved_and_written(
    store: Store,
    version: ModelVersion,
    business: Path,
    choice: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    output = tmp_path / "results.json"
    assert evaluate(version.name, "--suite", business, "--suite", choice, "--output", output) == 0
    shown = capsys.readouterr()
    assert "shop/base/checkpoint-0" in shown.out
    assert re.search(r"shop-test +│ rouge_l +│ 0\.\d+ ", shown.out)
    assert re.search(r"choice-test +│ accuracy/care ", shown.out)
    assert "asking questions" in shown.err
    saved = [found(store, version, "shop-test"), found(store, version, "choice-test")]
    assert msgspec.json.decode(output.read_bytes(), type=list[Evaluation]) == saved
    assert saved[0].digest == version.digest
    assert [record.prompt for record in saved[0].records] == ["Price 0?", "Price 1?", "Price 2?"]


def test_answers_that_name_no_letter_are_counted_and_listed(
    version: ModelVersion, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    suite = write_choice(tmp_path / "chat", {"care": "ABCDABC"}, mode="chat", max_tokens=1)
    assert evaluate(version.name, "--suite", suite, "--json") == 0
    printed = capsys.readouterr()
    (result,) = msgspec.json.decode(printed.out, type=tuple[Evaluation, ...])
    unread = [record for record in result.records if not record.answer]
    assert len(unread) > 5, "a model that learned nothing says nothing"
    assert f"choice-test: no usable answer to {len(unread)} of 7 questions:" in printed.err
    for record in unread[:5]:
        assert f"  {record.id}: {record.output!r}" in printed.err
    assert f"  {unread[5].id}: " not in printed.err
    assert "--output FILE writes all" in printed.err


def test_a_result_is_reused_until_forced_or_the_suite_changes(
    store: Store, version: ModelVersion, business: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate(version.digest, "--suite", business, "--json") == 0
    first = json.loads(capsys.readouterr().out)
    assert evaluate(version.uri, "--suite", business, "--json") == 0
    again = capsys.readouterr()
    assert (json.loads(again.out), again.err) == (first, "")
    assert evaluate(version.name, "--suite", business, "--force") == 0
    forced = found(store, version, "shop-test")
    assert msgspec.to_builtins(forced.started) > first[0]["started"]
    write_business(business, QUESTIONS[:2], max_tokens=4)
    assert evaluate(version.name, "--suite", business) == 0
    assert len(found(store, version, "shop-test").records) == 2


def test_a_limited_result_is_kept_but_never_instead_of_a_larger_one(
    store: Store, version: ModelVersion, business: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate(version.name, "--suite", business, "--limit", 1) == 0
    assert len(found(store, version, "shop-test").records) == 1
    assert evaluate(version.name, "--suite", business) == 0
    whole = found(store, version, "shop-test")
    assert len(whole.records) == 3
    capsys.readouterr()
    assert evaluate(version.name, "--suite", business, "--limit", 2, "--json") == 0
    assert len(json.loads(capsys.readouterr().out)[0]["records"]) == 2
    assert found(store, version, "shop-test") == whole


# peft 0.21 asks for the name that transformers 5.23 deprecates
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_an_adapter_is_measured_with_its_base_and_only_the_result_is_printed(
    store: Store, version: ModelVersion, tiny: Path, business: Path, tmp_path: Path
) -> None:
    network = AutoModelForCausalLM.from_pretrained(tiny)
    folder = tmp_path / "adapter"
    get_peft_model(network, LoraConfig(task_type="CAUSAL_LM", target_modules="all-linear")).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copyfile(tiny / name, folder / name)
    adapter = store.publish(
        folder,
        "shop/run/checkpoint-1",
        release=Release(format="lora-adapter", base=BaseModel(uri=version.uri, digest=version.digest)),
        producer=Producer(kind="test"),
    )
    words = ["evaluate", adapter.name, "--suite", str(business), "--json"]
    # a process of its own: what libraries print when they are first imported would be seen
    done = subprocess.run([sys.executable, "-m", "tunegate", *words], check=False, capture_output=True)
    assert done.returncode == 0, done.stderr
    (result,) = msgspec.json.decode(done.stdout, type=list[Evaluation])
    assert result == found(store, adapter, "shop-test")


def test_bytes_that_differ_from_their_manifest_are_not_measured(
    store: Store, version: ModelVersion, business: Path, tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key = f"{version.name}/chat_template.jinja"
    store.put(key, (store.get(key) or b"").replace(b"helpful", b"hateful"))
    assert evaluate(version.name, "--suite", business) == 1
    assert "chat_template.jinja differs from its manifest" in capsys.readouterr().err
    assert find(store, version.digest, "shop-test") is None


def test_a_cached_folder_that_was_altered_is_not_measured(
    store: Store, version: ModelVersion, business: Path, tmp_path: Path
) -> None:
    assert evaluate(version.name, "--suite", business) == 0
    before = found(store, version, "shop-test")
    cached = tmp_path / "cache" / version.digest[7:] / "model.safetensors"
    cached.write_bytes(cached.read_bytes()[:-4000] + bytes(4000))
    assert evaluate(version.name, "--suite", business, "--force") == 0
    assert found(store, version, "shop-test").records == before.records


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        pytest.param(["shop/base/checkpoint-0"], 2, "Missing option '--suite'", id="no suite"),
        pytest.param(
            ["shop/base/checkpoint-0", "--suite", "shop-fr"],
            2,
            "a shipped one: injection-en, ",
            id="unknown suite",
        ),
        pytest.param(["shop/base/checkpoint-0", "--suite", "shop-en", "--limit", "0"], 2, "--limit", id="limit"),
        pytest.param(["shop/base/checkpoint-9", "--suite", "shop-en"], 1, "no version shop", id="unknown version"),
        pytest.param(
            ["shop/base/checkpoint-0", "--suite", "shop-en", "--output", "/nowhere/x.json"],
            2,
            "/nowhere does not exist",
            id="no output folder",
        ),
    ],
)
def test_what_can_not_be_done_is_said_in_a_sentence(
    store: Store, words: list[str], status: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate(*words) == status
    assert message in capsys.readouterr().err


def test_two_suites_of_one_name_are_refused(
    store: Store, business: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = write_business(tmp_path / "other", QUESTIONS)
    assert evaluate("shop/base/checkpoint-0", "--suite", business, "--suite", other) == 2
    assert "Two suites are called shop-test" in capsys.readouterr().err


def test_help_needs_no_torch() -> None:
    code = (
        "import sys, tunegate.cli as c\n"
        "try: c.main(['evaluate', '--help'])\n"
        "except SystemExit: sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, capture_output=True).returncode == 0


def test_two_shards_leave_one_result_and_a_pod_says_its_numbers(
    store: Store, version: ModelVersion, business: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = (version.name, "--suite", business, "--patience", "5", "--summary", tmp_path / "said")
    assert evaluate(*command, "--shard", "1/2") == 0
    assert capsys.readouterr().out.startswith("Shard 1/2 is in the store; ")
    assert (tmp_path / "said").read_text() == ""
    assert evaluate(*command, "--shard", "0/2") == 0
    assert len(found(store, version, "shop-test").records) == 3
    assert re.match(r"shop-test: score \d\.\d{3} \(\d\.\d{3} to \d\.\d{3}, n=3\) ", (tmp_path / "said").read_text())


def test_a_store_that_stays_away_is_exit_status_75(
    version: ModelVersion, business: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ("--store", "s3://elsewhere", "--endpoint-url", "http://127.0.0.1:9")
    assert evaluate(version.name, "--suite", business, "--patience", "0.1", *where) == 75
    assert "can't be reached at http://127.0.0.1:9" in capsys.readouterr().err


def test_a_real_model_is_put_before_pages_that_give_orders(store: Store, version: ModelVersion) -> None:
    assert evaluate(version.name, "--suite", "injection-en", "--suite", "injection-zh", "--limit", "3") == 0

    for suite in ("injection-en", "injection-zh"):
        result = found(store, version, suite)
        assert [record.id for record in result.records] == ["order-search", "order-knowledge", "order-observation"]
        assert {metric.name for metric in result.metrics} >= {"score", "excludes"}


def outside(folder: Path) -> Path:
    """A suite of what the index of a shop has no answer to."""
    refused = [{"kind": "contains", "any": ["The knowledge base does not say."]}]
    asked = [{"role": "user", "content": "Who won the football match last night?"}]
    return write_business(folder / "outside", [{"id": "0", "messages": asked, "rules": refused}], max_tokens=4)


@pytest.mark.usefixtures("forked_programs")
def test_an_engine_that_has_the_weights_is_asked_by_the_version_s_name_also_behind_what_a_release_adds(
    store: Store, version: ModelVersion, business: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(store, build_index(tmp_path / "index"), "shop")
    derived = derive(store, version, "shop/grounded/checkpoint-0", Changes(knowledge="shop"))
    asked = []

    def reply(body: dict[str, Any]) -> Any:
        asked.append(body["model"])
        if body["model"] not in ("base-checkpoint-0", "grounded-checkpoint-0"):
            return 404, {"error": {"message": "No such model."}}, {}
        return said("$1")

    monkeypatch.setenv("TUNEGATE_ENGINE_KEY", "sk-1")
    monkeypatch.setenv("TUNEGATE_ENGINE_MODEL", "acme/{run}-{checkpoint}")
    monkeypatch.delenv("TUNEGATE_API_KEY", raising=False)
    certificate = make_certificate(tmp_path, "engine")
    with Server(reply, key="sk-1", certificate=certificate) as engine:
        monkeypatch.setenv("TUNEGATE_ENGINE_URL", engine.url)
        monkeypatch.setenv("TUNEGATE_ENGINE_CERTIFICATE", str(certificate))
        assert evaluate(version.name, "--suite", business) == 1, "the engine has no model of that name"
        monkeypatch.setenv("TUNEGATE_ENGINE_MODEL", "{run}-{checkpoint}")
        asked.clear()
        assert evaluate(version.name, "--suite", business) == 0
        assert evaluate(derived.name, "--suite", outside(tmp_path)) == 0

    answered = [record.scores["score"] for record in found(store, version, "shop-test").records]
    assert answered == [0.0, 1.0, 0.0]
    assert [record.scores["score"] for record in found(store, derived, "shop-test").records] == [1.0]
    assert dict.fromkeys(asked) == dict.fromkeys(
        ("base-checkpoint-0", "grounded-checkpoint-0", "no-such-run-checkpoint-0")
    )


@pytest.mark.usefixtures("forked_programs")
def test_a_release_is_measured_as_it_is_served_and_its_index_besides(
    store: Store, version: ModelVersion, choice: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its server answers business questions: what the index has no answer to, a fixed sentence says."""
    publish(store, build_index(tmp_path / "index"), "shop")
    derived = derive(store, version, "shop/grounded/checkpoint-0", Changes(knowledge="shop"))
    words = ("--suite", outside(tmp_path), "--suite", choice, "--suite", "shop-knowledge", "--limit", 40)
    assert evaluate(version.name, "--suite", "shop-knowledge") == 1
    assert re.search(
        "has no knowledge that shop-knowledge could measure; .* tunegate release derive shop/base/checkpoint-0 --know",
        capsys.readouterr().err,
    )
    assert evaluate(derived.name, *words) == 0

    assert found(store, derived, "shop-test").settings == "url"
    assert [record.scores["score"] for record in found(store, derived, "shop-test").records] == [1.0]
    assert found(store, derived, "choice-test").settings != "url"
    measured = found(store, derived, "shop-knowledge")
    recall = measured.metric("recall_at_5")
    assert recall
    assert recall.value
    assert recall.value > 0.8
    gate = Gate(suite="shop-knowledge", metric="recall_at_5", min=0.8)
    assert check_gate(gate, {"shop-knowledge": measured}, {}).passed
    assert len(measured.records) == 40
    assert {record.scores["right"] for record in measured.records} == {0.0, 1.0}
