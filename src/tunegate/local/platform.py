"""The promotion loop on one machine: gather, decide, apply, with processes in place of pods.

It decides nothing itself. Whatever it needs after a crash is in the home folder, in the store, or in the route that
the proxy reports, so a platform that is killed and started again resumes where it was.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from queue import SimpleQueue

import msgspec

from tunegate.api import environment
from tunegate.api.codec import to_json
from tunegate.api.digest import short
from tunegate.api.errors import DecisionRecordError, NotFoundError, StoreError, UsageError
from tunegate.api.policy import ClusterPolicy
from tunegate.api.traffic import CHAT_PATH
from tunegate.api.versions import ModelVersion
from tunegate.feedback import FeedbackLog
from tunegate.local import records
from tunegate.local.evaluations import Evaluations
from tunegate.local.keeping import Kept, keep
from tunegate.local.route import Backend, Route
from tunegate.local.servers import Servers
from tunegate.local.state import Home, write
from tunegate.processes import Child, answers, open_url
from tunegate.promotion.counting import counted, shown
from tunegate.promotion.decide import decide
from tunegate.promotion.pairs import compare_pairs
from tunegate.promotion.snapshot import Event, Plan, Snapshot
from tunegate.store import EmbeddedStore, Store
from tunegate.store.evaluations import find, find_progress
from tunegate.store.stops import RunStop, stop_run, stopped_runs

TICK_SECONDS = 1.0  # each lists the store: three a second took a tenth of a core where nothing happened
UNREADY_SECONDS = 15.0  # a server that is busy may miss a question or two
# As long as the chart gives a predictor: a server that is stopped finishes its answers.
_GRACE_SECONDS = "60"
# How long an evaluation waits for a store that is away, before another one does.
_PATIENCE_SECONDS = 600
# For every child. No model hub is asked; threads that wait leave the CPU to others (spinning, two models at work are
# six times slower).
_FOR_CHILDREN = {
    "HF_HUB_OFFLINE": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
}


@dataclass(frozen=True)
class PlatformConfig:
    """Where a platform runs.

    store_uri: a store of your own; None starts the embedded one in the home folder.
    evaluation_limit: how many questions of each suite are asked; None asks all.
    signing_key: the file with the key that signs decision records; None takes the home folder's own.
    """

    home: Home
    port: int
    store_uri: str | None = None
    endpoint_url: str | None = None
    evaluation_limit: int | None = None
    signing_key: Path | None = None


class Platform:
    """A running platform; `Platform.open` holds its home folder until the `with` ends."""

    def __init__(self, config: PlatformConfig, store: Store, variables: Mapping[str, str]) -> None:
        self.config = config
        self.store = store
        self.environment = variables  # of every child, besides ours
        self.url = f"http://127.0.0.1:{config.port}"
        self.parts: Sequence[Kept] = ()
        self._signer = records.signer(config.home, config.signing_key)
        self._log = FeedbackLog(store)
        self._said: SimpleQueue[Event] = SimpleQueue()
        self._servers = Servers(self._start_server, self._said.put)
        self._evaluations = Evaluations(
            self._start_evaluation, partial(find, store), partial(find_progress, store), self._said.put
        )
        self._policy: tuple[ClusterPolicy, ModelVersion] | None = None  # the last good one, and its initial version
        self._problem = self._unrecorded = self._uncounted = self._counted = ""
        self._was_up, self._told_up = time.monotonic(), False

    @classmethod
    @contextlib.contextmanager
    def open(cls, config: PlatformConfig) -> Iterator[Platform]:
        """Start the proxy and the store; on the way out stop every process again.

        Raises TunegateError when the folder is held by another platform or the port is in use.
        """
        home = config.home
        with home.hold(), contextlib.ExitStack() as stack:
            parts = [Kept("the proxy", stack.enter_context(Proxy.start(home, config.port)))]
            variables = {environment.FEEDBACK_KEY: home.feedback_key(), environment.CACHE: str(home.cache)}
            keys: dict[str, str] = {}  # none: credentials come from where AWS tools look for them
            if config.store_uri:
                variables |= {environment.STORE: config.store_uri}
                variables |= {environment.ENDPOINT_URL: config.endpoint_url} if config.endpoint_url else {}
            else:
                embedded = stack.enter_context(EmbeddedStore.start(home.store))
                parts.append(Kept("the embedded store", embedded))
                variables, keys = variables | embedded.environment, embedded.keys
            store = Store.open(
                variables[environment.STORE], endpoint_url=variables.get(environment.ENDPOINT_URL), **keys
            )
            variables[environment.GRACE] = os.environ.get(environment.GRACE) or _GRACE_SECONDS
            platform = cls(config, store, {**_FOR_CHILDREN, **variables})
            platform.parts = parts
            stack.callback(platform.close)
            home.announce(platform.url, store.uri, store.endpoint_url or "")
            yield platform

    @contextlib.contextmanager
    def running(self, report: Callable[[Event], None]) -> Iterator[None]:
        """Run in a thread of its own until the `with` ends."""
        stop = threading.Event()
        loop = threading.Thread(target=self.run, args=(stop, report), name="platform")
        loop.start()
        try:
            yield
        finally:
            stop.set()
            loop.join()

    def run(self, stop: threading.Event, report: Callable[[Event], None]) -> None:
        """Tick until `stop` is set, and at once again where a promotion has moved on; start what ends again.

        A store that is away, a policy that can't be used and the like are reported once each, and when it is over.
        """
        problems: dict[str, str] = {}
        keeping = threading.Thread(target=self._keep, args=(stop,), name="keeping")
        keeping.start()
        try:
            while not stop.is_set():
                away, pause = "", TICK_SECONDS
                try:
                    plan = self.tick(datetime.now(UTC))
                    for event in (*plan.events, *(Event(it.run, "TrainingStopped", it.message) for it in plan.stops)):
                        report(event)
                    pause = 0.0 if plan.create or plan.events else TICK_SECONDS
                except StoreError as error:
                    away = str(error)
                while not self._said.empty():
                    report(self._said.get())
                problems = self._tell(problems, self._problems(away), report)
                stop.wait(pause)
        finally:
            stop.set()
            keeping.join()

    def _keep(self, stop: threading.Event) -> None:
        """Beside the ticks, which a slow store may hold up."""
        keep(self.parts, stop, self._said.put)
        self.store.hurry()  # nobody waits for a busy one to end us

    def _problems(self, away: str) -> dict[str, str]:
        """What is wrong now, by its reason."""
        unready = ""
        if time.monotonic() - self._was_up > UNREADY_SECONDS:
            self._told_up, unready = False, f"no version answers at {self.url}; applications get status 503."
        found = {
            "StoreUnreachable": away,
            "InvalidPolicy": self._problem,
            "NotRecorded": self._unrecorded,
            "FeedbackUnreadable": self._uncounted,
            "NotReady": unready,
        }
        return {reason: message for reason, message in found.items() if message}

    def _tell(
        self, before: dict[str, str], problems: dict[str, str], report: Callable[[Event], None]
    ) -> dict[str, str]:
        """Keep it for `status`, and report what is new: who reads of a problem finds it there."""
        if problems == before:
            return before
        self.config.home.report_problems(problems)
        for reason, message in problems.items():
            if message != before.get(reason):
                report(Event("", reason, message))
        return problems

    def tick(self, now: datetime) -> Plan:
        """Reconcile once: gather, decide, apply."""
        snapshot = self.gather()
        plan = decide(snapshot, now)
        self.apply(snapshot, plan)
        try:
            records.write_records(self.config.home, self.store, snapshot.policy, self._signer)
            self._unrecorded = ""
        except (DecisionRecordError, UsageError) as error:  # nothing that users see waits for it
            self._unrecorded = str(error)
        return plan

    def gather(self) -> Snapshot:
        """Everything that `decide` is given. What can't be read is None, never a guess."""
        policy, initial = self._read_policy()
        weights, splits = self._traffic()
        promotions = self.config.home.promotions()
        manifests = self.store.manifests(policy.model)
        versions = tuple(self.store.version_of(manifest) for manifest in manifests)
        keys = [(version.digest, suite) for version in (initial, *versions) for suite in policy.suites]
        asks = policy.stop_training or policy.selection.type == "BestOf"
        stopped = stopped_runs(self.store, policy.model) if asks else frozenset()
        # Nobody tells which trainers run: the run with the newest checkpoint may be one, until it has its last.
        trained = [manifest for manifest in manifests if manifest.producer.derived is None]
        training = {manifest.name.split("/")[1] for manifest in trained[-1:] if not manifest.is_last}
        snapshot = Snapshot(
            policy=policy,
            initial=initial,
            versions=versions,
            finished_runs=frozenset(manifest.name.split("/")[1] for manifest in manifests if manifest.is_last),
            stopped_runs=stopped,
            training_runs=frozenset(training - stopped),
            promotions=promotions,
            evaluations=self._evaluations.states(keys),
            servers=self._servers.states(),
            weights=weights,
            splits=splits,
        )
        return self._count(replace(snapshot, differences=compare_pairs(snapshot)))

    def _traffic(self) -> tuple[dict[str, int] | None, tuple[tuple[int, int], ...]]:
        """What the proxy shares out, by digest, and how many conversations went which way; None where it is silent."""
        try:
            with open_url(f"{self.url}/_tunegate/route", seconds=2) as answer:
                backends = json.load(answer)["backends"]
            weights = {backend["version"]: backend["weight"] for backend in backends}
            conversations = [backend["conversationsSinceChange"] for backend in reversed(backends)]
        except (OSError, http.client.HTTPException, ValueError):
            return None, ()
        return weights, ((conversations[0], conversations[1]),) if len(conversations) == 2 else ()

    def _count(self, snapshot: Snapshot) -> Snapshot:
        """The snapshot with the votes of the promotion under way, as far as the log can be read."""
        if (asked := counted(snapshot)) is None:
            self._uncounted = ""
            return replace(snapshot, tallies={})
        if self._counted != asked.promotion:  # what was read for the one before is of no use
            self._counted, self._log = asked.promotion, FeedbackLog(self.store)
        try:
            tallies = {
                digest: self._log.tallies(digest, asked.promotion, asked.since, asked.per_address)
                for digest in asked.digests
            }
            struck = self._log.struck(asked.candidate, asked.since)
        except StoreError as error:  # nothing grows meanwhile, and what a person or a server says is still acted on
            self._uncounted = str(error)
            return snapshot
        self._uncounted = ""
        return replace(snapshot, tallies=tallies, struck={asked.candidate: struck})

    def _read_policy(self) -> tuple[ClusterPolicy, ModelVersion]:
        """The policy in the file and its initial version; as long as the file can't be used, what was there before.

        Raises UsageError or NotFoundError where nothing was there before.
        """
        try:
            policy = self.config.home.policy()
            known = self._policy[1] if self._policy else None
            is_known = known is not None and known.uri == policy.initial_version
            self._policy = policy, known if known and is_known else self.store.resolve(policy.initial_version)
            self._problem = ""
        except (UsageError, NotFoundError) as error:
            if self._policy is None:
                raise
            self._problem = f"{error} The last good policy stays in use."
        return self._policy

    def apply(self, snapshot: Snapshot, plan: Plan) -> None:
        """Make the plan true: records first, so that what users see can always be explained."""
        home = self.config.home
        serving = [digest for digest, weight in (snapshot.weights or {}).items() if weight]
        if any(digest in snapshot.servers and snapshot.servers[digest].ready for digest in serving):
            self._was_up = time.monotonic()
            if not self._told_up:
                self._told_up = True
                self._said.put(Event("", "Ready", f"applications are answered at {self.url}{CHAT_PATH}"))
        for promotion in plan.create:
            home.save(promotion)
        for promotion in snapshot.promotions:
            if promotion.name in plan.statuses:
                home.save(msgspec.structs.replace(promotion, status=plan.statuses[promotion.name]))
        home.save_choices(plan.choices)
        for stop in plan.stops:
            word = RunStop(message=stop.message, time=datetime.now(UTC))
            stop_run(self.store, snapshot.policy.model, stop.run, word)
        self._evaluations.ensure(plan.evaluations)
        self._servers.ensure(plan.servers)
        urls = self._servers.urls()
        backends = tuple(
            Backend(version=digest, url=urls[digest], weight=weight)
            for digest, weight in plan.weights.items()
            if digest in urls
        )
        # A new shuffle for each promotion: it should not be the same conversations that try every candidate.
        visible = shown(
            msgspec.structs.replace(promotion, status=plan.statuses.get(promotion.name, promotion.status))
            for promotion in snapshot.promotions
        )
        if sum(backend.weight for backend in backends) == 100:
            text = to_json(Route(salt=visible.name if visible else "", step=plan.step, backends=backends))
            file = self.config.home.route_file
            if not file.exists() or file.read_bytes() != text:
                write(file, text)

    def close(self) -> None:
        """Stop every evaluation and server; returns when they are gone."""
        self._evaluations.close()
        self._servers.close()

    def _start_server(self, version: ModelVersion, port: int) -> Child:
        policy, _ = self._read_policy()
        argv = ["serve", version.uri, "--port", str(port), "--model-name", policy.model, *self._engine_of_policy()]
        argv += ["--share-base"] if policy.serving.share_base else []
        return self._start(f"serve-{short(version.digest)}", argv)

    def _start_evaluation(self, version: ModelVersion, suites: Sequence[str]) -> Child:
        argv = ["evaluate", version.uri, *(part for suite in suites for part in ("--suite", suite))]
        argv += ["--patience", str(_PATIENCE_SECONDS), *self._engine_of_policy()]
        if self.config.evaluation_limit:
            argv += ["--limit", str(self.config.evaluation_limit)]
        return self._start(f"evaluate-{short(version.digest)}", argv)

    def _engine_of_policy(self) -> list[str]:
        url = self._read_policy()[0].serving.url
        return ["--engine-url", url.address, "--engine-model", url.model] if url else []

    def _start(self, name: str, argv: Sequence[str]) -> Child:
        log = self.config.home.logs / f"{name}.log"
        return Child.start(name, [sys.executable, "-m", "tunegate", *argv], log=log, env=self.environment)


class Proxy:
    """The proxy's process on its port, which may be started again. Close it, or use it in a `with`."""

    def __init__(self, home: Home, port: int) -> None:
        self._home, self._port = home, port
        self._child: Child | None = None

    @classmethod
    def start(cls, home: Home, port: int) -> Proxy:
        """The proxy, when it answers. Raises UsageError where the port is in use."""
        proxy = cls(home, port)
        proxy.restart()
        return proxy

    @property
    def exit_code(self) -> int | None:
        return self._child.exit_code if self._child else None

    def restart(self) -> None:
        """Raises as `start`."""
        self.stop()
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                sock.bind(("127.0.0.1", self._port))
            except OSError as error:
                message = f"Port {self._port} can't be used ({error.strerror}); choose another one with --port."
                raise UsageError(message) from None
        home, port = self._home, str(self._port)
        argv = [sys.executable, "-m", "tunegate.local.proxy", "--port", port, "--route", str(home.route_file)]
        self._child = Child.start("the proxy", argv, log=home.logs / "proxy.log")
        try:
            self._child.wait_until(lambda: answers(f"http://127.0.0.1:{port}/_tunegate/route"), seconds=120)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        if self._child:
            self._child.stop()

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
