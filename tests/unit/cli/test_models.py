"""`tunegate models` as a person and as a script use it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from transformers import AutoConfig, AutoModelForCausalLM

from tests.builders import make_evaluation
from tunegate.api.pinned import base_of
from tunegate.api.versions import Producer, Release
from tunegate.cli import main, root
from tunegate.models import make_tiny
from tunegate.store import Store
from tunegate.store.evaluations import save

NAME = "tea/run/checkpoint-1"
POLICY = """
apiVersion: tunegate.io/v1alpha1
kind: PromotionPolicy
metadata: {{name: tea}}
spec:
  model: tea
  initialVersion: {uri}
  suites: []
  gates: []
  steps: [{{weight: 100}}]
"""


def run(*argv: str) -> Result:
    return CliRunner().invoke(root, ["models", *argv], catch_exceptions=False)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny(tmp_path_factory.mktemp("tiny") / "model", ["Which tea?"])


@pytest.fixture
def model(tiny: Path, tmp_path: Path) -> Path:
    """What a test may add to, so that it has another digest."""
    return Path(shutil.copytree(tiny, tmp_path / "model"))


@pytest.fixture
def published(store: Store, model: Path) -> Store:
    assert run("publish", str(model), NAME).exit_code == 0
    return store


def test_publish_prints_uri_and_digest(store: Store, model: Path) -> None:
    result = run("publish", str(model), NAME)
    version = store.resolve(NAME)
    assert result.stdout == f"{version.uri} {version.digest}\n"
    assert json.loads(run("publish", str(model), NAME, "--json").stdout)["digest"] == version.digest


@pytest.mark.parametrize(("kind", "format_"), [("prompt", "prompt-adapter"), ("prefix", "prompt-adapter")])
def test_adapter_is_recognized_and_needs_its_base(
    store: Store, base: Path, request: pytest.FixtureRequest, kind: str, format_: str
) -> None:
    adapter = str(request.getfixturevalue(kind))
    assert run("publish", str(base), NAME).exit_code == 0
    refused = run("publish", adapter, "tea/tuned/checkpoint-5")
    assert refused.exit_code == 2
    assert "add --base VERSION" in refused.stderr
    assert run("publish", adapter, "tea/tuned/checkpoint-5", "--base", NAME).exit_code == 0
    version = store.resolve("tea/tuned/checkpoint-5")
    assert (version.format, version.base) == (format_, base_of(store.resolve(NAME)))


def test_adapter_of_another_base_is_refused(
    store: Store, base: Path, prompt: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other"
    AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(base, hidden_size=64)).save_pretrained(other)
    assert run("publish", str(other), NAME).exit_code == 0
    with pytest.raises(SystemExit) as end:
        main(["models", "publish", str(prompt), "tea/tuned/checkpoint-5", "--base", NAME])
    assert end.value.code == 1
    assert "does not fit" in capsys.readouterr().err
    assert [version.name for version in store.list()] == [NAME]


def test_fetch_brings_the_folder(published: Store, model: Path, tmp_path: Path) -> None:
    digest = published.resolve(NAME).digest
    assert run("fetch", digest, str(tmp_path / "out"), "--digest", digest).exit_code == 0
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == (model / "model.safetensors").read_bytes()


@pytest.mark.usefixtures("published")
def test_list_shows_a_table_or_json() -> None:
    table = run("list").stdout
    assert NAME in table
    assert "Digest" in table
    assert [version["name"] for version in json.loads(run("list", "tea", "--json").stdout)] == [NAME]
    assert json.loads(run("list", "coffee", "--json").stdout) == []


def test_show_tells_the_files_and_the_origin(published: Store, model: Path) -> None:
    shown = run("show", NAME).stdout
    assert "model.safetensors" in shown
    assert f"{(model / 'model.safetensors').stat().st_size:,}" in shown
    assert json.loads(run("show", NAME, "--json").stdout)["digest"] == published.resolve(NAME).digest


def test_verify_says_intact_or_names_the_file(published: Store, capsys: pytest.CaptureFixture[str]) -> None:
    assert f"{NAME} is intact: 7 files" in run("verify", NAME).stdout
    published.put(f"{NAME}/model.safetensors", b"damaged")
    with pytest.raises(SystemExit) as end:
        main(["models", "verify", NAME])
    assert end.value.code == 1
    assert f"{NAME}/model.safetensors differs from its manifest" in capsys.readouterr().err


@pytest.mark.usefixtures("published")
@pytest.mark.parametrize(
    ("argv", "code", "words"),
    [
        (["show", "coffee/run/checkpoint-1"], 1, "no version coffee/run/checkpoint-1"),
        (["show", "coffee"], 2, "write MODEL/RUN/checkpoint-STEP"),
        (["publish", "nowhere", "tea/run/checkpoint-2"], 2, "is not a folder"),
        (["list", "--endpoint-url", "http://127.0.0.1:9"], 75, "can't be reached"),
        (["list", "--store", "nonsense"], 2, "write s3://BUCKET"),
        (["lst"], 2, "No such command"),
    ],
)
def test_bad_input_is_one_sentence_and_a_status(
    argv: list[str], code: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        main(["models", *argv])
    shown = capsys.readouterr()
    assert end.value.code == code
    assert words in shown.err
    assert shown.out == ""


@pytest.mark.usefixtures("published")
def test_a_refusal_is_no_traceback() -> None:
    argv = [sys.executable, "-m", "tunegate", "models", "show", "coffee/run/checkpoint-1"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert done.stderr.startswith("tunegate: ")
    assert (len(done.stderr.splitlines()), done.stdout) == (1, "")


def test_store_must_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TUNEGATE_STORE", raising=False)
    assert run("list").exit_code == 2


def test_the_curve_of_a_run_is_its_loss_beside_what_its_checkpoints_were_measured_at(
    store: Store, model: Path, tmp_path: Path
) -> None:
    for step in (5, 10):
        (model / "notes.json").write_text(f'{{"step": {step}}}')
        producer = Producer(kind="test", run="run", step=step, loss=10 / step)
        release = Release(format="huggingface")
        made = store.publish(model, f"tea/run/checkpoint-{step}", release=release, producer=producer)
    save(store, make_evaluation(made, score=0.5))
    shown = run("curve", "tea/run", "--output", str(tmp_path / "curve.png")).stdout
    assert [word in shown for word in ("1.0000", "quality score", "0.480 to 0.520")] == [True] * 3
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
    found = json.loads(run("curve", "tea/run", "--json").stdout)
    assert found["loss"] == [{"step": 5, "loss": 2.0}, {"step": 10, "loss": 1.0}]
    assert (found["scores"][0]["step"], found["scores"][0]["value"]) == (10, 0.5)


def test_old_versions_go_that_nobody_names(published: Store, model: Path, tmp_path: Path) -> None:
    policy = tmp_path / "policy.yaml"
    other = ["tea/run/checkpoint-2", "tea/run/checkpoint-3", "tea/run/checkpoint-4"]
    for name in other:
        (model / "notes.json").write_text(f'{{"of": "{name}"}}')
        assert run("publish", str(model), name).exit_code == 0
    gc = ("gc", "--keep", "1", "--older-than", "0", "--home", str(tmp_path / "none"))
    nobody = CliRunner().invoke(root, ["models", *gc])
    assert "Say who uses this store: --cluster, --policy FILE or --home DIR" in str(nobody.exception)
    policy.write_text(POLICY.format(uri=f"{published.uri}/{NAME}/"))
    named = (*gc, "--policy", str(policy))

    dry = run(*named)
    assert "2 of 4 versions go" in dry.stdout
    assert "nothing was deleted; add --yes to do it" in dry.stdout
    assert len(published.list()) == 4
    stays = {row["name"]: row["stays"] for row in json.loads(run(*named, "--json").stdout)["versions"]}
    assert stays == {
        NAME: "the initial version of a policy",
        other[0]: "",
        other[1]: "",
        other[2]: "one of the 1 newest",
    }
    run(*named, "--yes")
    assert [version.name for version in published.list()] == [NAME, other[2]]


def test_a_version_is_deleted_unless_somebody_needs_it(published: Store, model: Path, tmp_path: Path) -> None:
    assert run("publish", str(model), "tea/run/checkpoint-2").exit_code == 0
    policy = tmp_path / "policy.yaml"
    policy.write_text(POLICY.format(uri=f"{published.uri}/other/run/checkpoint-1/"))
    (model / "notes.json").write_text("{ }")
    assert run("publish", str(model), "other/run/checkpoint-1").exit_code == 0
    named = ("--policy", str(policy), "--home", str(tmp_path / "none"))

    refused = CliRunner().invoke(root, ["models", "delete", "other/run/checkpoint-1", *named, "--yes"])
    assert "is the initial version of a policy; end that first" in str(refused.exception)
    assert "would delete tea/run/checkpoint-2" in run("delete", "tea/run/checkpoint-2", *named).stdout
    assert "deleted tea/run/checkpoint-2" in run("delete", "tea/run/checkpoint-2", *named, "--yes").stdout
    assert [version.name for version in published.list()] == [NAME, "other/run/checkpoint-1"]
