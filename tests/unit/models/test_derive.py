"""`tunegate merge` and `tunegate quantize`: versions that are made from versions."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
import torch
from click.testing import CliRunner, Result
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.adapters import make_prefix, tuned
from tunegate.api.pinned import base_of
from tunegate.api.versions import BaseModel, Cost, Dataset, Derived, Format, ModelVersion, Producer, Release, Training
from tunegate.cli import main, root
from tunegate.models import check_folder, materialize
from tunegate.store import Store
from tunegate.store.release import read_release

MADE = Producer(
    kind="tunegate train",
    run="prompt",
    uid="42",
    seed=7,
    datasets=(Dataset(name="shop", digest="sha256:" + "1" * 64),),
    step=3,
    loss=0.5,
    training=Training(method="p_tuning", total_steps=3, cost=Cost(seconds=12.5)),
)


@pytest.fixture
def beneath(store: Store, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModelVersion:
    monkeypatch.setenv("TUNEGATE_CACHE", str(tmp_path / "cache"))
    return store.publish(base, "shop/base/checkpoint-0", release=Release(format="huggingface"), producer=MADE)


@pytest.fixture
def version(store: Store, beneath: ModelVersion, prompt: Path) -> ModelVersion:
    return publish(store, beneath, prompt, "shop/prompt/checkpoint-3", "prompt-adapter")


def publish(store: Store, beneath: ModelVersion, folder: Path, name: str, format_: Format) -> ModelVersion:
    base = BaseModel(uri=beneath.uri, digest=beneath.digest)
    release = Release(format=format_, base=base, system_prompt="You are Xuan.", generation={"max_tokens": 5})
    return store.publish(folder, name, release=release, producer=MADE)


def run(*argv: str) -> Result:
    return CliRunner().invoke(root, argv, catch_exceptions=False)


def refused(*argv: str, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as ended:
        main(list(argv))
    assert ended.value.code in (1, 2)
    said = capsys.readouterr().err
    assert said.startswith("tunegate: ")
    return said


def test_a_merged_folder_says_what_the_adapter_says(
    store: Store, version: ModelVersion, base: Path, prompt: Path, tmp_path: Path
) -> None:
    assert run("merge", version.name, str(tmp_path / "merged")).exit_code == 0

    check_folder(tmp_path / "merged")
    ask = [{"role": "user", "content": "Price?"}]
    logits = []
    for model, folder in ((tuned(base, prompt), base), (None, tmp_path / "merged")):
        words = AutoTokenizer.from_pretrained(folder).apply_chat_template(ask, return_tensors="pt", return_dict=True)
        with torch.no_grad():
            logits.append((model or AutoModelForCausalLM.from_pretrained(folder))(**words).logits[0, -1])
    torch.testing.assert_close(logits[1][: len(logits[0])], logits[0], atol=1e-4, rtol=0)
    release = msgspec.yaml.decode((tmp_path / "merged" / "release.yaml").read_bytes(), type=Release)
    assert (release.format, release.system_prompt, release.base) == ("huggingface", "You are Xuan.", version.base)


def test_a_merged_version_tells_where_it_came_from(store: Store, version: ModelVersion) -> None:
    said = run("merge", version.digest, "--publish", "shop/prompt-merged/checkpoint-3", "--json").stdout

    merged = store.resolve("shop/prompt-merged/checkpoint-3")
    assert json.loads(said)["digest"] == merged.digest
    assert (merged.format, merged.base) == ("huggingface", version.base)
    release = read_release(store, merged)
    assert (release.system_prompt, release.generation) == ("You are Xuan.", {"max_tokens": 5})
    producer = store.manifest(merged.digest).producer
    assert (producer.kind, producer.run, producer.uid) == ("tunegate merge", "prompt-merged", "")
    assert (producer.seed, producer.datasets, producer.loss) == (MADE.seed, MADE.datasets, MADE.loss)
    assert (producer.training, producer.derived) == (MADE.training, Derived(uri=version.uri, digest=version.digest))
    assert {file.path for file in store.manifest(merged.digest).files} >= {"model.safetensors", "tokenizer.json"}
    assert run("merge", version.name, "--publish", merged.name).exit_code == 0  # the same bytes again


def test_a_quantized_version_is_one_of_its_own(store: Store, version: ModelVersion, tmp_path: Path) -> None:
    done = run("quantize", version.name)

    small = store.resolve("shop/prompt-int8/checkpoint-3")
    assert done.stdout == f"{small.uri} {small.digest}\n"
    assert "MB became" in done.stderr
    assert (small.format, small.base) == ("huggingface", base_of(version))
    assert read_release(store, small).system_prompt == "You are Xuan."
    producer = store.manifest(small.digest).producer
    assert (producer.kind, producer.run, producer.derived.quantization) == ("tunegate quantize", "prompt-int8", "int8")
    assert 0 < producer.derived.weight_error < 0.02
    folder = materialize(store, small)
    assert json.loads((folder / "config.json").read_bytes())["quantization_config"]["format"] == "pack-quantized"
    assert not list((tmp_path / "cache").glob("quantizing-*"))


def test_the_name_and_the_method_can_be_chosen(store: Store, beneath: ModelVersion) -> None:
    words = ("quantize", beneath.name, "--method", "fp8", "--publish", "small/fp8/checkpoint-1", "--json")
    # a process of its own: libraries print as they load
    done = subprocess.run([sys.executable, "-m", "tunegate", *words], capture_output=True, text=True, timeout=120)
    assert json.loads(done.stdout)["name"] == "small/fp8/checkpoint-1", done.stderr
    assert store.resolve("small/fp8/checkpoint-1").base == base_of(beneath)


def test_a_prefix_is_neither_merged_nor_quantized(
    store: Store, beneath: ModelVersion, base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    adapter = make_prefix(base, tmp_path / "prefix")
    name = publish(store, beneath, adapter, "shop/prefix/checkpoint-3", "prompt-adapter").name

    assert "no whole model" in refused("merge", name, str(tmp_path / "merged"), capsys=capsys)
    assert "no whole model" in refused("quantize", name, capsys=capsys)
    assert not (tmp_path / "merged").exists()


@pytest.mark.usefixtures("version")
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["merge", "shop/prompt/checkpoint-3"], "either a FOLDER, or --publish NAME"),
        (["merge", "shop/prompt/checkpoint-3", "."], "exists; name a folder"),
        (["merge", "shop/prompt/checkpoint-3", "--publish", "nonsense"], "MODEL/RUN/checkpoint-STEP"),
        (["merge", "shop/prompt/checkpoint-3", "--publish", "shop/prompt/checkpoint-4"], "a run of its own"),
        (["merge", "shop/base/checkpoint-0", "/nowhere/model"], "is whole already"),
        (["quantize", "shop/base/checkpoint-9"], "checkpoint-9"),
        (["quantize", "shop/base/checkpoint-0", "--publish", "shop/base/checkpoint-1"], "a run of its own"),
    ],
)
def test_wrong_words_are_told(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert said in refused(*words, capsys=capsys)
