"""`tunegate serve` as a process: with the real engine on a tiny model, and in front of a stand-in."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import openai
import pytest
from aiohttp import web
from click.testing import CliRunner

from tests.processes import processes_about
from tests.unit.serving.standin import StandIn, run_engine
from tests.waiting import wait_for
from tunegate.api.feedback import Tally
from tunegate.api.pinned import Pinned, storage_uri
from tunegate.api.versions import ModelVersion, Producer, Release
from tunegate.cli import root
from tunegate.feedback import FeedbackLog
from tunegate.feedback.interactions import days, read_day
from tunegate.models import make_tiny
from tunegate.models.mount import deliver
from tunegate.processes import Child, answers, free_port
from tunegate.store import EmbeddedStore, Store

KEY = "5e" * 32
AT, SHARED = ("--engine-url", "http://x"), ("--engine-control", "http://x")
ASK: list[Any] = [{"role": "user", "content": "Price of the kettle?"}]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny(tmp_path_factory.mktemp("tiny") / "model", ["Price of the kettle?", "答案：水壶"])


@pytest.fixture
def version(store: Store, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModelVersion:
    monkeypatch.setenv("TUNEGATE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TUNEGATE_FEEDBACK_KEY", KEY)
    release = Release(format="huggingface", system_prompt="You are Xuan.", generation={"max_tokens": 5})
    return store.publish(tiny, "shop/base/checkpoint-0", release=release, producer=Producer(kind="test"))


@pytest.fixture
def engine() -> Iterator[StandIn]:
    with run_engine() as running:
        yield running


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as opened:
        yield opened


@contextmanager
def serving(log: Path, *words: str, port: int | None = None, env: Mapping[str, str] | None = None) -> Iterator[Any]:
    """A server process and its URL."""
    port = port or free_port()
    argv = [sys.executable, "-m", "tunegate", "serve", *words, "--port", str(port)]
    with Child.start("the server", argv, log=log, env=env) as child:
        yield child, f"http://127.0.0.1:{port}"


def until_ready(child: Child, url: str) -> None:
    child.wait_until(lambda: answers(f"{url}/v2/health/ready"), seconds=300)


def until_ended(child: Child) -> int:
    wait_for(lambda: child.exit_code is not None, what="the server to end")
    assert child.exit_code is not None
    return child.exit_code


def get(url: str) -> tuple[int, Any]:
    try:
        with urllib.request.urlopen(url, timeout=100) as reply:
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def judge(url: str, response_id: str) -> int:
    body = json.dumps({"response_id": response_id, "verdict": "up"}).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(f"{url}/v1/feedback", body), timeout=120) as reply:
            return int(reply.status)
    except urllib.error.HTTPError as error:
        return error.code


def process_of(word: str, folder: Path) -> int:
    """The process whose command line has `word` and whose environment or words have `folder`."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().split(b"\0")
            around = (process / "environ").read_bytes()
        except OSError:
            continue
        if word.encode() in words and b"tunegate.processes" not in words and str(folder).encode() in around:
            return int(process.name)
    raise AssertionError(f"no process has {word}")


def test_a_real_engine_answers_is_judged_and_takes_the_server_with_it(
    version: ModelVersion, store: Store, tmp_path: Path
) -> None:
    with serving(tmp_path / "log", version.name) as (child, url):
        until_ready(child, url)
        client = openai.OpenAI(base_url=f"{url}/v1", api_key="none")

        raw = client.chat.completions.with_raw_response.create(model="shop", messages=ASK, temperature=0)
        whole = raw.parse()
        assert raw.headers["x-tunegate-version"] == version.digest
        assert whole.usage is not None
        assert whole.usage.completion_tokens <= 5

        chunks = list(client.chat.completions.create(model="shop", messages=ASK, stream=True, max_tokens=3))
        assert {(chunk.id, chunk.model) for chunk in chunks} == {(chunks[0].id, "shop")}
        with pytest.raises(openai.BadRequestError, match="temperature"):
            client.chat.completions.create(model="shop", messages=ASK, temperature=2.5)
        with pytest.raises(openai.BadRequestError, match="must fit"):
            client.chat.completions.create(model="shop", messages=[{"role": "user", "content": "水 " * 20_000}])

        assert [judge(url, whole.id), judge(url, whole.id), judge(url, chunks[0].id)] == [202, 200, 202]
        assert FeedbackLog(store).tally(version.digest) == Tally(up=2)
        _, metrics = get(f"{url}/metrics")
        label = f'model_version="{version.digest[7:19]}"'
        assert f'tunegate_answers_total{{{label},step=""}} 2.0' in metrics
        assert f'tunegate_feedback_total{{{label},step="",verdict="up"}} 2.0' in metrics
        assert json.loads(get(f"{url}/v1/models")[1])["data"][0]["digest"] == version.digest

        os.kill(process_of("tunegate.serving.engines.program", tmp_path), signal.SIGKILL)
        assert until_ended(child) == 1
        assert "The engine ended with status" in child.tail()
    logged = {found.id: found for day in days(store) for found in read_day(store, day, [])}  # also by one that fails
    assert logged[whole.id].output_tokens == whole.usage.completion_tokens
    assert {whole.id, chunks[0].id} <= logged.keys()
    log = (tmp_path / "log").read_text()
    assert "kettle" not in log
    assert "Traceback" not in log
    (warm,) = [json.loads(line) for line in log.splitlines() if "engine became warm" in line]
    assert (warm["logger"], warm["level"], warm["model"]) == ("tunegate.serving.app", "info", "shop")


@pytest.fixture
def mounted(version: ModelVersion, store: Store, tmp_path: Path) -> Iterator[Path]:
    """What the storage initializer left, and may not be written."""
    deliver(store, Pinned(version.name, version.digest), folder := tmp_path / "models")
    set_writable(folder, False)
    yield folder
    set_writable(folder, True)


def set_writable(folder: Path, writable: bool) -> None:
    for path in [folder, *folder.rglob("*")]:
        path.chmod((0o755 if path.is_dir() else 0o644) if writable else (0o555 if path.is_dir() else 0o444))


@pytest.mark.usefixtures("forked_programs")
def test_a_mounted_folder_is_served_while_the_store_is_down(
    version: ModelVersion, mounted: Path, engine: StandIn, tmp_path: Path
) -> None:
    env = {"AWS_ENDPOINT_URL": "http://127.0.0.1:9", "TUNEGATE_MODEL_NAME": "xuan"}
    with serving(
        tmp_path / "log", "--folder", str(mounted), "--engine-url", engine.url, "--engine-model", "x", env=env
    ) as (child, url):
        until_ready(child, url)
        client = openai.OpenAI(base_url=f"{url}/v1", api_key="none")
        answer = client.chat.completions.with_raw_response.create(model="xuan", messages=ASK)

        assert answer.headers["x-tunegate-version"] == version.digest
        assert engine.asked[-1]["messages"][0]["content"] == "You are Xuan."
        assert judge(url, answer.parse().id) == 503  # the verdict can't be kept now


@pytest.mark.usefixtures("forked_programs")
def test_a_release_without_weights_is_served_in_front_of_an_engine_that_knows_the_version_by_name(
    version: ModelVersion, store: Store, tmp_path: Path
) -> None:
    """As in a pod: the folder is what the initializer left, and the engine stands in the environment."""
    uri = storage_uri(version, weights=False)
    assert CliRunner().invoke(root, ["initialize", uri, str(tmp_path / "models"), *where(store)]).exit_code == 0
    assert not list((tmp_path / "models").rglob("*.safetensors"))
    with run_engine(ByName(model=f"shop-{version.digest[7:19]}")) as engine:
        env = {"TUNEGATE_ENGINE_URL": f"{engine.url}/v1", "TUNEGATE_ENGINE_MODEL": "{model}-{digest}"}
        with serving(tmp_path / "log", "--folder", str(tmp_path / "models"), env=env) as (child, url):
            until_ready(child, url)
            client = openai.OpenAI(base_url=f"{url}/v1", api_key="none")
            answer = client.chat.completions.with_raw_response.create(model="shop", messages=ASK)
            assert answer.headers["x-tunegate-version"] == version.digest
            assert judge(url, answer.parse().id) == 202
    assert {each["model"] for each in engine.asked} == {engine.model}
    assert engine.asked[-1]["messages"][0]["content"] == "You are Xuan."


class ByName(StandIn):
    """It answers for one name."""

    async def chat(self, request: web.Request) -> web.StreamResponse:
        if (await request.json())["model"] != self.model:
            return web.json_response({"error": {"message": "No such model."}}, status=404)
        return await super().chat(request)


def where(store: Store) -> list[str]:
    return ["--store", store.uri, *(["--endpoint-url", store.endpoint_url] if store.endpoint_url else [])]


@pytest.mark.usefixtures("forked_programs")
def test_a_mounted_folder_that_differs_is_never_served(mounted: Path, tmp_path: Path) -> None:
    set_writable(mounted, True)
    body = (mounted / "model.safetensors").read_bytes()
    (mounted / "model.safetensors").write_bytes(body[:-1] + bytes([body[-1] ^ 1]))

    with serving(tmp_path / "log", "--folder", str(mounted)) as (child, _):
        assert until_ended(child) == 1
        assert "model.safetensors is not the file that shop/base/checkpoint-0" in child.tail()


VLLM = """#!{python}
import argparse, json, os, sys
sys.path.insert(0, "{root}")
from aiohttp import web
from tests.unit.serving.standin import StandIn
words = argparse.ArgumentParser()
words.add_argument("-m", choices=["vllm.entrypoints.openai.api_server"])
for name in ("--model", "--served-model-name", "--host", "--port", "--max-model-len", "--tensor-parallel-size"):
    words.add_argument(name, required=True)
words.add_argument("--kv-cache-memory-bytes")  # where there is no GPU
words.add_argument("--structured-outputs-config", type=json.loads, required=True)
asked = words.parse_args()
assert os.path.isfile(asked.model + "/config.json") and asked.host == "127.0.0.1", asked
assert os.environ["HF_HUB_OFFLINE"] == os.environ["VLLM_NO_USAGE_STATS"] == "1"
web.run_app(StandIn(model=asked.served_model_name, own_ids=True).application(), host=asked.host, port=int(asked.port))
"""


@pytest.mark.usefixtures("forked_programs")
def test_vllm_is_started_on_the_folder_and_asked_by_the_served_name(mounted: Path, tmp_path: Path) -> None:
    program = tmp_path / "bin" / "python"
    program.parent.mkdir()
    program.write_text(VLLM.format(python=sys.executable, root=Path(__file__).parents[3]))
    program.chmod(0o755)
    program.with_name("vllm").symlink_to(program)
    env = {"PATH": f"{program.parent}:{os.environ['PATH']}"}
    words = ("--folder", str(mounted), "--engine", "vllm", "--model-name", "xuan")
    with serving(tmp_path / "log", *words, env=env) as (child, url):
        until_ready(child, url)
        client = openai.OpenAI(base_url=f"{url}/v1", api_key="none")
        answer = client.chat.completions.create(model="xuan", messages=ASK, temperature=1.5, stop=["x"])

        assert judge(url, answer.id) == 202
    assert not processes_about(tmp_path)
    (told,) = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines() if "needs memory" in line]
    assert told["estimate"].startswith("weights take 0.0 GiB of each of 1 GPUs")


@pytest.mark.usefixtures("forked_programs")
def test_weights_are_rounded_once_where_it_is_asked_for(version: ModelVersion, engine: StandIn, tmp_path: Path) -> None:
    for log in ("first", "second"):
        with serving(tmp_path / log, version.name, "--quantization", "int8") as (child, url):
            until_ready(child, url)
            client = openai.OpenAI(base_url=f"{url}/v1", api_key="none")
            assert client.chat.completions.create(model="shop", messages=ASK).usage
    (made,) = (tmp_path / "cache" / "quantized").glob("*-int8")
    assert "quantization_config" in json.loads((made / "config.json").read_text())
    assert "tunegate quantize" in (tmp_path / "first").read_text()


@pytest.mark.usefixtures("forked_programs")
def test_sigterm_lets_answers_end_and_leaves_nothing(version: ModelVersion, engine: StandIn, tmp_path: Path) -> None:
    engine.healthy = False
    with serving(tmp_path / "log", version.digest, "--engine-url", engine.url) as (child, url):
        child.wait_until(lambda: answers(f"{url}/v2/health/live"), seconds=120)
        assert get(f"{url}/v2/health/ready")[0] == 503
        engine.healthy = True
        until_ready(child, url)
        client = openai.OpenAI(base_url=f"{url}/openai/v1", api_key="none")
        stream = client.chat.completions.create(
            model="shop", messages=[{"role": "user", "content": "go on"}], stream=True
        )
        next(stream)
        os.kill(process_of("serve", tmp_path), signal.SIGTERM)
        child.wait_until(lambda: not answers(f"{url}/v2/health/live"), seconds=120)
        engine.go_on.set()

        assert list(stream)[-1].choices[0].finish_reason == "stop"
        assert until_ended(child) == 0
    assert not processes_about(tmp_path)


@pytest.mark.usefixtures("forked_programs")
@pytest.mark.parametrize("way", ["flag", "environment"])
def test_a_server_takes_no_longer_than_its_grace(
    version: ModelVersion, engine: StandIn, tmp_path: Path, way: str
) -> None:
    words = ("--grace-seconds", "3") if way == "flag" else ()
    env = {"TUNEGATE_GRACE_SECONDS": "3"} if way == "environment" else {}
    with serving(tmp_path / "log", version.digest, "--engine-url", engine.url, *words, env=env) as (child, url):
        until_ready(child, url)
        client = openai.OpenAI(base_url=f"{url}/openai/v1", api_key="none")
        stream = client.chat.completions.create(
            model="shop", messages=[{"role": "user", "content": "go on"}], stream=True
        )
        next(stream)
        os.kill(process_of("serve", tmp_path), signal.SIGTERM)
        assert until_ended(child) == 0
        assert not engine.go_on.is_set()
        with pytest.raises(openai.APIConnectionError):
            list(stream)


@pytest.mark.usefixtures("forked_programs")
def test_a_verdict_outlives_the_server_and_waits_for_the_store(
    tiny: Path, engine: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stack: ExitStack
) -> None:
    monkeypatch.setenv("TUNEGATE_FEEDBACK_KEY", KEY)
    monkeypatch.setenv("TUNEGATE_CACHE", str(tmp_path / "cache"))
    embedded = stack.enter_context(EmbeddedStore.start(tmp_path / "store"))
    with pytest.MonkeyPatch.context() as inner:
        for name, value in embedded.environment.items():
            inner.setenv(name, value)
        store = Store.open(embedded.uri, endpoint_url=embedded.endpoint_url)
    release = Release(format="huggingface")
    version = store.publish(tiny, "shop/base/checkpoint-0", release=release, producer=Producer(kind="test"))
    words = (version.uri, "--engine-url", engine.url, "--engine-model", "theirs", "--model-name", "xuan")
    with serving(tmp_path / "one.log", *words, env=embedded.environment) as (child, url):
        until_ready(child, url)
        client = openai.OpenAI(base_url=f"{url}/v1", api_key="none")
        ids = [client.chat.completions.create(model="xuan", messages=ASK).id for _ in range(2)]
        assert engine.asked[-1]["model"] == "theirs"
        assert judge(url, ids[0]) == 202
        embedded.stop()
        assert judge(url, ids[1]) == 503
        assert 'verdict="up"} 1.0' in get(f"{url}/metrics")[1]
    restarted = stack.enter_context(EmbeddedStore.start(tmp_path / "store"))
    with serving(tmp_path / "two.log", *words, env=restarted.environment) as (child, url):
        until_ready(child, url)
        assert [judge(url, each) for each in (*ids, *ids)] == [202, 202, 200, 200]
    store = Store.open(restarted.uri, endpoint_url=restarted.endpoint_url, **restarted.keys)
    assert FeedbackLog(store).tally(version.digest) == Tally(up=2)
    logged = [found.id for day in days(store) for found in read_day(store, day, [])]
    assert sorted(logged) == sorted(ids), "the first server could not send what it had logged"


@pytest.mark.usefixtures("forked_programs")
def test_keys_rotate_and_neither_key_nor_question_is_printed(
    version: ModelVersion, engine: StandIn, tmp_path: Path
) -> None:
    keys = tmp_path / "keys.yaml"

    def create() -> str:
        done = CliRunner().invoke(root, ["keys", "create", "web", "--keys", str(keys)])
        assert done.exit_code == 0
        return done.output.strip()

    def ask(key: str) -> int:
        client = openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0)
        try:
            client.chat.completions.create(model="shop", messages=ASK, user="mei-lin")
        except openai.AuthenticationError as error:
            return error.status_code
        return 200

    old = create()
    env = {"TUNEGATE_KEYS": str(keys), "TUNEGATE_ENGINE_KEY": "sk-of-the-engine"}
    with serving(tmp_path / "log", version.name, "--engine-url", f"{engine.url}/v1/", env=env) as (child, url):
        until_ready(child, url)
        assert [ask(old), ask("tg-made-up")] == [200, 401]
        keys.unlink()
        new = create()
        assert [ask(old), ask(new)] == [401, 200]
        said = (tmp_path / "log").read_text() + get(f"{url}/metrics")[1] + keys.read_text()
        assert 'tunegate_requests_admitted_total{key="web"' in said
    said += (tmp_path / "log").read_text()
    assert set(engine.keys) == {"Bearer sk-of-the-engine"}
    for secret in (old, new, "tg-made-up", "sk-of-the-engine", "kettle", "mei-lin", KEY):
        assert secret not in said


@pytest.mark.usefixtures("forked_programs")
def test_a_port_in_use_is_one_clear_sentence(version: ModelVersion, engine: StandIn, tmp_path: Path) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
        with serving(tmp_path / "log", version.name, "--engine-url", engine.url, port=port) as (child, _):
            assert until_ended(child) == 1
            assert child.tail().startswith(f"tunegate: Can't listen on 127.0.0.1 port {port}: Address already in use;")


@pytest.mark.parametrize(
    ("words", "key", "message", "status"),
    [
        (["shop/base/checkpoint-0"], "", "TUNEGATE_FEEDBACK_KEY is not set", 2),
        (["shop/base/checkpoint-0"], "abc", "TUNEGATE_FEEDBACK_KEY must be", 2),
        (["shop/base/checkpoint-9"], KEY, "checkpoint-9", 1),
        (["shop/base/checkpoint-0", "--engine-model", "x"], KEY, "--engine-url", 2),
        (["shop/base/checkpoint-0", "--engine-url", "127.0.0.1:1"], KEY, "http://HOST:PORT", 2),
        (["shop/base/checkpoint-0", "--port", "99999"], KEY, "99999", 2),
        (["shop/base/checkpoint-0", "--folder", "/models"], KEY, "either a VERSION", 2),
        ([], KEY, "either a VERSION", 2),
        (["shop/base/checkpoint-0", "--engine-url", "http://x", "--keys", "/nowhere"], KEY, "tunegate keys create", 2),
        (["shop/base/checkpoint-0", "--engine-control", "http://x"], KEY, "--engine-url gives leases; give both", 2),
        (["shop/base/checkpoint-0", *AT, "--engine-control", "x:1"], KEY, "--engine-control x:1 is not a URL", 2),
        (["shop/base/checkpoint-0", *AT, *SHARED, "--engine-model", "x"], KEY, "leave out --engine-model", 2),
        (["shop/base/checkpoint-0", "--tensor-parallel-size", "2"], KEY, "--engine vllm", 2),
        (["shop/base/checkpoint-0", "--quantization", "int8", "--engine-url", "http://x"], KEY, "started here", 2),
        (["--folder", "/nowhere"], KEY, "tunegate initialize", 1),
        (["shop/base/checkpoint-0", "--engine", "vllm", "--engine-url", "http://x"], KEY, "give one of them", 2),
        (["shop/base/checkpoint-0", "--engine", "vllm", "--port", "0"], KEY, "vllm is not installed", 1),
    ],
)
def test_wrong_words_are_refused(
    version: ModelVersion,
    words: list[str],
    key: str,
    message: str,
    status: int,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from tunegate.cli import main

    monkeypatch.setenv("TUNEGATE_FEEDBACK_KEY", key)
    with pytest.raises(SystemExit) as ended:
        main(["serve", *words])

    assert ended.value.code == status
    assert message in capsys.readouterr().err
