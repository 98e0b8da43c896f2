"""What the server refuses, of its flags, its files and its engine, it takes once the message's words were followed."""

from __future__ import annotations

import asyncio
import json
import re
import shlex
import shutil
import socket
import sys
import urllib.error
import urllib.request
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web

from tests.builders import make_version
from tests.refusals import call, past, refused, without_story
from tests.unit.serving.releases import ANSWER, opened, write_prompts
from tests.unit.serving.standin import KEY, MODEL, Documents, Server, StandIn, embedded, run_engine
from tunegate.api import environment
from tunegate.api.errors import ServingError
from tunegate.api.versions import Producer, Release
from tunegate.processes import Child, free_port
from tunegate.prompts.library import BUILTIN
from tunegate.serving.auth import Keys
from tunegate.serving.config import EngineConfig, ServeConfig
from tunegate.serving.engines import remote, transformers, vllm
from tunegate.serving.engines.heartbeat import Progress
from tunegate.serving.engines.remote import Engine, Pulse
from tunegate.serving.features import TRANSFORMERS, VLLM
from tunegate.serving.launch import start_engine
from tunegate.serving.listening import listen
from tunegate.serving.parts import open_parts
from tunegate.serving.version import ServedVersion
from tunegate.store import Store

PLAIN = Release(format="huggingface")


def test_what_is_found_is_shown_or_not_looked_for(tmp_path: Path, shop_index: Path) -> None:
    plain = ANSWER.replace("  knowledge: {type: list, description: What was found., default: []}\n", "")
    plain = re.sub(r"{% for.*endfor %}\n", "", plain, flags=re.DOTALL)
    prompts = write_prompts(tmp_path / "plain", answer=plain)

    with refused("declare the variable knowledge and show it, or take the knowledge out of the release."):
        opened(prompts, shop_index)
    assert opened(prompts).index is None
    assert opened(write_prompts(tmp_path / "prompts"), shop_index).index


def test_prompts_are_for_answers_or_for_tools(tmp_path: Path) -> None:
    react = (BUILTIN / "react-en.prompt").read_text()
    prompts = write_prompts(tmp_path / "prompts", react=react)

    with refused("The release has prompts but none for answers; add answer"):
        opened(prompts)
    assert opened(prompts, tools=("calculator",)).templates
    assert opened(write_prompts(prompts, react=react, answer=ANSWER)).templates


def test_knowledge_is_looked_up_by_a_tool_or_without_any(shop_index: Path) -> None:
    with refused("add knowledge to its tools, or take the knowledge out of the release."):
        opened(index=shop_index, tools=("calculator",))
    assert opened(index=shop_index, tools=("calculator", "knowledge")).tools
    assert opened(tools=("calculator",)).tools


def test_tool_calls_are_asked_of_an_engine_that_reads_them() -> None:
    release = Release(format="huggingface", tools=("calculator",), dialect="openai")
    with refused(
        "serve it with --engine vllm if its chat template knows tools, or make a version with --dialect react."
    ):
        open_parts(release, None, None, None, TRANSFORMERS)
    assert open_parts(release, None, None, None, VLLM)
    assert open_parts(msgspec.structs.replace(release, dialect="react"), None, None, None, TRANSFORMERS)


def test_another_port_is_listened_on() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        with refused("; choose another "):
            listen("127.0.0.1", taken.getsockname()[1])
        listen("127.0.0.1", free_port()).close()


def test_a_key_file_is_made_by_the_command_of_the_message_and_then_readable(tmp_path: Path) -> None:
    path = tmp_path / "a folder/keys.yaml"
    path.parent.mkdir()
    with refused("; make one with: tunegate keys create NAME --keys ") as caught:
        Keys(path)
    command = shlex.split(str(caught.value).partition("make one with: ")[2])
    key = call(*["web" if word == "NAME" else word for word in command[1:]]).strip()
    assert Keys(path).find(key)
    path.rename(path.with_suffix(".old"))
    path.symlink_to("/proc/self/mem")  # readable for nobody, also as root
    with refused("; make it readable."):
        Keys(path)
    path.unlink()
    path.with_suffix(".old").rename(path)
    assert Keys(path).find(key)


@pytest.mark.parametrize(
    ("words", "wrong", "right"),
    [
        (
            "what the engine at --engine-url calls the model; give both",
            ["--engine-model", "x"],
            [["--engine-model", "x", "--engine-url", "http://127.0.0.1:9"]],
        ),
        (
            "--engine-model can't be used: ",
            ["--engine-model", "{run}", "--engine-url", "http://127.0.0.1:9"],
            [["--engine-model", "{run}-{checkpoint}", "--engine-url", "http://127.0.0.1:9"]],
        ),
        (
            " is not a URL; write it as http://HOST:PORT.",
            ["--engine-url", "127.0.0.1:9"],
            [["--engine-url", "http://127.0.0.1:9"]],
        ),
        (
            " is not an origin; write it as https://HOST or https://HOST:PORT.",
            ["--cors-origin", "https://shop.example/"],
            [["--cors-origin", "https://shop.example", "--cors-origin", "http://localhost:3000"]],
        ),
        (
            "; write it as 10.0.0.0/8 or 10.1.2.3.",
            ["--trusted-proxy", "10.0.0.0/99"],
            [["--trusted-proxy", "10.0.0.0/8", "--trusted-proxy", "10.1.2.3"]],
        ),
        (
            "--tensor-parallel-size is for --engine vllm;",
            ["--tensor-parallel-size", "2"],
            [["--tensor-parallel-size", "2", "--engine", "vllm"], []],
        ),
        (
            "--quantization is for an engine started here, not one at --engine-url; give one of them",
            ["--quantization", "int4", "--engine-url", "http://127.0.0.1:9"],
            [["--quantization", "int4"], ["--engine-url", "http://127.0.0.1:9"]],
        ),
        (
            "--share-base is for the embedded engine; for vLLM run `tunegate engine`, and give its ports as",
            ["--share-base", "--engine", "vllm"],
            [
                ["--share-base"],
                ["--engine-url", "http://127.0.0.1:9", "--engine-control", "http://127.0.0.1:9"],
            ],
        ),
        (
            "--quantization makes weights that nobody shares; leave it or --share-base out.",
            ["--share-base", "--quantization", "int4"],
            [["--share-base"], ["--quantization", "int4"]],
        ),
        (
            "--engine-url names one that runs; give one of them",
            ["--engine", "vllm", "--engine-url", "http://127.0.0.1:9"],
            [["--engine", "vllm"], ["--engine-url", "http://127.0.0.1:9"]],
        ),
    ],
)
def test_flags_of_an_engine_go_together_as_the_message_says(
    store: Store, words: str, wrong: list[str], right: list[list[str]]
) -> None:
    with refused(words):
        call("serve", "tea/run/checkpoint-1", *wrong)
    for flags in right:
        past(words, "serve", "tea/run/checkpoint-1", *flags)


def test_the_certificate_of_an_engine_is_put_where_it_is_looked_for(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("serve", "tea/run/checkpoint-1", "--engine-url", "https://127.0.0.1:9")
    monkeypatch.setenv(environment.ENGINE_CERTIFICATE, str(file := tmp_path / "engine.crt"))
    missing = "which is no file; put the certificate of the engine there."
    with refused(missing):
        call(*words)
    file.touch()
    past(missing, *words)


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder on PATH: a machine's nvidia-smi lists its GPUs there, and vLLM lies beside its own Python."""
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    (tmp_path / "bin").mkdir()
    return tmp_path / "bin"


def put_program(path: Path, script: str) -> None:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def test_vllm_starts_where_it_is_and_another_engine_where_it_is_not(base: Path, programs: Path, tmp_path: Path) -> None:
    with refused("vllm is not installed; use an image built with ENGINE=vllm, or --engine transformers"):
        vllm.start(base, MODEL, tmp_path / "log")
    with transformers.start(base, PLAIN, tmp_path / "log") as engine:
        assert engine.child is not None
    put_program(programs / "vllm", "")
    put_program(programs / "python", "exec /bin/sleep 60")
    with vllm.start(base, MODEL, tmp_path / "log") as engine:
        assert engine.child is not None
        assert engine.child.exit_code is None


def test_a_model_is_spread_over_the_gpus_that_there_are(base: Path, programs: Path, tmp_path: Path) -> None:
    put_program(programs / "vllm", "")
    put_program(programs / "python", "exec /bin/sleep 60")
    put_program(programs / "nvidia-smi", "echo 23028")
    with refused(" needs as many GPUs; there are ") as caught:
        vllm.start(base, MODEL, tmp_path / "log", 2)
    (there,) = re.findall(r"there are (\d+): lower it", str(caught.value))
    vllm.start(base, MODEL, tmp_path / "log", int(there)).stop()
    with pytest.raises(ServingError, match="or lower --max-adapters or --max-rank"):
        vllm.start(base, MODEL, tmp_path / "log", sharing=vllm.Sharing("127.0.0.1", free_port(), 10_000, 512))
    vllm.start(base, MODEL, tmp_path / "log", sharing=vllm.Sharing("127.0.0.1", free_port(), 10, 512)).stop()


def test_a_model_whose_files_can_be_read_is_published_under_another_name(
    store: Store, base: Path, tmp_path: Path
) -> None:
    def fetched(folder: Path, name: str) -> Path:
        store.publish(folder, name, release=PLAIN, producer=Producer(kind="test"))
        return store.fetch(name, tmp_path / name)

    for number, file in enumerate(("tokenizer.json", "config.json")):
        folder = shutil.copytree(base, tmp_path / file)
        (folder / file).write_text("{")
        with refused(". Publish the model again under another name."):
            transformers.read_limits(fetched(folder, f"tea/run/checkpoint-{number}"), PLAIN)
    assert transformers.read_limits(fetched(base, "tea/again/checkpoint-1"), PLAIN).context > 0


def test_a_release_sets_what_the_engine_knows(base: Path) -> None:
    with refused(", which the embedded engine can't do; it knows ") as caught:
        transformers.generation_config(base, release(presence_penalty=1.0))
    known = str(caught.value).partition("it knows ")[2].rstrip(".").split(", ")
    config = transformers.generation_config(base, release(**dict.fromkeys(known, 1.0)))
    assert config["do_sample"]


def release(**values: float) -> Release:
    return Release(format="huggingface", generation=values)


def test_there_are_weights_in_a_folder_or_in_an_engine_that_runs(base: Path, tmp_path: Path) -> None:
    def start(folder: Path | None, url: str | None) -> Engine:
        served = ServedVersion(make_version("run-1"), PLAIN, folder)
        return start_engine(ServeConfig(served, EngineConfig(url=url), MODEL, KEY, Documents()))

    with refused("no weights to serve; give a folder, or the URL of an engine that has them"):
        start(None, None)
    assert start(None, "http://127.0.0.1:9").child is None
    start(base, None).stop()


def warm(engine: Engine, key: str | None = None) -> None:
    """Returns when the engine has answered a first request."""

    async def main() -> None:
        async with remote.session(key) as session:
            await engine.until_warm(session)

    asyncio.run(main())


class Particular(StandIn):
    """It answers for one name and to one key, and takes `breaks` requests without answering them."""

    breaks = 0

    async def chat(self, request: web.Request) -> web.StreamResponse:
        if self.breaks:
            self.breaks -= 1
            assert request.transport is not None
            request.transport.abort()
        if request.headers.get("authorization") != "Bearer sk-1":
            return web.json_response({"error": {"message": "Who are you?"}}, status=401)
        if (await request.json())["model"] != self.model:
            return web.json_response({"error": {"message": "No such model."}}, status=404)
        return await super().chat(request)


def test_an_engine_answers_for_the_model_and_key_that_it_knows() -> None:
    with run_engine(Particular()) as engine:
        words = "; check --engine-model and TUNEGATE_ENGINE_KEY"
        for model, key in (("shop", "sk-1"), (engine.model, None)):
            with refused("refused to answer for ") as caught:
                warm(Engine(engine.url, model), key)
            assert words in str(caught.value)
        warm(Engine(engine.url, engine.model), "sk-1")


def test_an_engine_that_answers_for_every_name_serves_no_version_until_it_refuses_others() -> None:
    """As a gateway with one model behind it, or a server that does not look at the name."""
    with run_engine() as engine, refused("; have it refuse names that it does not serve.") as caught:
        warm(Engine(engine.url, engine.model, absent="shop-000000000000"))
    assert "answers for 'shop-000000000000' as for '/models/x@main'" in str(caught.value)
    with run_engine(Particular()) as engine:
        warm(Engine(engine.url, engine.model, absent="shop-000000000000"), "sk-1")


def test_an_engine_that_was_started_is_waited_for_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    with refused("did not come up within "), monkeypatch.context() as patched:
        patched.setattr(remote, "START_SECONDS", 0.1)
        warm(Engine(f"http://127.0.0.1:{free_port()}", MODEL))
    with run_engine() as engine:
        warm(Engine(engine.url, engine.model))


def test_an_engine_that_broke_off_is_asked_again_once_its_log_was_read() -> None:
    with run_engine(Particular()) as engine:
        engine.breaks = 1
        with refused("broke off its first answer ("):
            warm(Engine(engine.url, engine.model), "sk-1")
        warm(Engine(engine.url, engine.model), "sk-1")


def started(log: Path, program: str) -> Child:
    """An engine of ours: `program` in Python, beside a stand-in that answers for it."""
    return Child.start("the engine", [sys.executable, "-c", program], log=log)


def watched(engine: Engine) -> None:
    """Watch an engine until it counts as gone."""

    async def main() -> None:
        async with remote.session() as session:
            await engine.until_ended(session)

    asyncio.run(main())


class Ill(StandIn):
    """Its health says that it broke down."""

    async def health(self, request: web.Request) -> web.Response:
        return web.json_response({}, status=503)


@pytest.mark.parametrize("how", ["ended", "broke down", "did nothing"])
def test_the_log_that_a_message_names_says_why_an_engine_is_gone(how: str, tmp_path: Path) -> None:
    """Whoever supervises the server starts both again; what the engine complains of is put right first."""
    needed = tmp_path / "needed"
    program = f"""
import pathlib, signal
if not pathlib.Path({str(needed)!r}).exists():
    print("needed is missing", flush=True)
    {"raise SystemExit(3)" if how == "ended" else "signal.pause()"}
signal.pause()
"""
    words = {
        "ended": "The engine ended with status ",
        "broke down": "The engine says that it broke down: ",
        "did nothing": "The engine did nothing for ",
    }
    with run_engine(Ill() if how == "broke down" else StandIn()) as running:
        with started(tmp_path / "log", program) as child:
            pulse = Pulse("/health", lambda body: Progress(1, 1))
            child.wait_until(lambda: "missing" in child.tail() or child.exit_code is not None, seconds=120)
            stall_seconds = 0.1 if how == "did nothing" else 100
            with refused(words[how]) as caught:
                watched(Engine(running.url, running.model, child, pulse=pulse, stall_seconds=stall_seconds))
        (log,) = re.findall(r"\(log: (.+?)\)", str(caught.value))
        assert "needed is missing" in Path(log).read_text()
    needed.touch()
    with run_engine() as running, started(tmp_path / "log", program) as child:
        warm(Engine(running.url, running.model, child))
        assert child.exit_code is None


@pytest.mark.parametrize("limits", [embedded()])
def test_json_that_is_nested_too_deeply_is_asked_for_again(server: Server) -> None:
    """Where a schema refers to itself, and the engine writes on as it allows; a schema without that has an end."""
    inner = {"type": "object", "properties": {"in": {"$ref": "#"}}}

    def ask(schema: dict[str, Any]) -> tuple[int, str]:
        asked = {"type": "json_schema", "json_schema": {"name": "price", "schema": schema}}
        body = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}], "response_format": asked}
        request = urllib.request.Request(f"{server.url}/v1/chat/completions", json.dumps(body).encode())
        try:
            with urllib.request.urlopen(request, timeout=100) as reply:
                return reply.status, reply.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    nested = '{"in": ' * 300 + "{}" + "}" * 300
    server.engine.says = [nested, nested, '{"price": 20}', nested]
    status, told = ask(inner)
    assert status == 502
    assert "The answer is not the JSON that is asked for: it is nested too deeply." in told
    assert "; ask again, or simplify the schema." in told
    assert ask(inner)[0] == 200
    assert ask({"type": "object"})[0] == 200


# of engines that versions share
ELSEWHERE = {
    ", and adapters alone, made by LoRA, share the engine of ": "test_whole_models_and_adapters_of_another_base",
    " is on another base (": "test_whole_models_and_adapters_of_another_base",
    "; the name of each is all 64 digits of its digest.": "test_whole_models_and_adapters_of_another_base",
    "vLLM refuses …: ": "test_whole_models_and_adapters_of_another_base",
    " has rank …, and the engine takes ": "test_what_one_adapter_of_several_can_not_be",
    ", which vLLM can't do for one adapter of several": "test_what_one_adapter_of_several_can_not_be",
    " has another chat template than its base": "test_what_one_adapter_of_several_can_not_be",
    " ends its answers with token ": "test_what_one_adapter_of_several_can_not_be",
    "; the engine starts again and fetches it anew. See who writes there.": "test_an_adapter_that_changes_on_the_disk",
    "There is no place for ": "test_a_full_engine_names_what_it_has",
    "The engine answered with other weights for ": "test_other_weights_are_found_out",
    " answered with other weights than ": "test_other_weights_are_found_out",
    " is an adapter; give the folder of its base": "test_an_engine_is_started_on_a_base",
    "vLLM at … broke off ": "test_a_vllm_that_is_away",
    " Start this server again.": "test_a_vllm_that_is_away",
}


def test_every_message_has_its_story() -> None:
    assert without_story("serving", Path(__file__)) == []
    told = (Path(__file__).parent / "engines" / "test_shared.py").read_text()
    assert all(f"\ndef {test}" in told for test in ELSEWHERE.values())
