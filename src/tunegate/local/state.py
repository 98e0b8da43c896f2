"""The folder in which a local platform keeps what it must not forget.

Everything is a small file that is replaced whole, so that a platform killed between any two writes finds a state it
can resume from.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shlex
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from tunegate.api.codec import Resource, from_json, from_yaml, to_json
from tunegate.api.errors import NotFoundError, TunegateError, UsageError
from tunegate.api.policy import ClusterPolicy, is_bare_spec, read_policy_file
from tunegate.api.promotion import Abort, Approval, Promotion, RunChoice
from tunegate.files import disk_errors_as, is_locked, locked, replace_file


class Running(Resource, frozen=True, kw_only=True):
    """A platform that is up: its process and the addresses it answers on.

    problems: what is wrong, by its reason, such as InvalidPolicy while the policy file is not the policy in use.
    """

    pid: int
    url: str
    store: str
    endpoint_url: str
    started: datetime
    problems: dict[str, str] = {}


class _Choices(Resource, frozen=True, kw_only=True):
    runs: tuple[RunChoice, ...]


class UserDecisions(Resource, frozen=True, kw_only=True):
    """What a person decided about a promotion; a file of its own, so that the platform never writes over it."""

    approval: Approval | None = None
    abort: Abort | None = None


class Home:
    """Paths and records of one local platform."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self.store = self.folder / "store"
        self.cache = self.folder / "cache"
        self.logs = self.folder / "logs"
        self.policy_file = self.folder / "policy.yaml"
        self.route_file = self.folder / "route.json"
        self.signing_key = self.folder / "signing.key"
        self.public_keys = self.folder / "public-keys"
        self._promotions = self.folder / "promotions"
        self._decisions = self.folder / "words"  # as 0.1.0 called it
        self._choices = self.folder / "runs.json"
        self._running = self.folder / "running.json"
        self._lock = self.folder / "lock"

    @property
    def option(self) -> str:
        """How another command names it."""
        return f"--home {shlex.quote(str(self.folder))}"

    def policy(self) -> ClusterPolicy:
        """Raises NotFoundError when there is none yet, UsageError when it is malformed."""
        if not self.policy_file.exists():
            raise NotFoundError(f"{self.policy_file} does not exist; write a PromotionPolicy there or pass --policy.")
        text, source = self.policy_file.read_bytes(), str(self.policy_file)
        with contextlib.suppress(msgspec.DecodeError):
            if is_bare_spec(text):  # as 0.1.0 kept it
                return from_yaml(text, ClusterPolicy, source)
        return read_policy_file(text, source)

    def promotions(self) -> tuple[Promotion, ...]:
        """Every attempt on record, oldest first."""
        found = [from_json(path.read_bytes(), Promotion, str(path)) for path in sorted(self._promotions.glob("*.json"))]
        decided = []
        for promotion in found:
            decisions = self._user_decisions(promotion.name)
            decided.append(msgspec.structs.replace(promotion, approval=decisions.approval, abort=decisions.abort))
        return tuple(sorted(decided, key=lambda promotion: (promotion.candidate.created, promotion.name)))

    def save(self, promotion: Promotion) -> None:
        write(self._promotions / f"{promotion.name}.json", to_json(promotion))

    def choices(self) -> tuple[RunChoice, ...]:
        """What `selection` chose of each run, newest first."""
        if not self._choices.exists():
            return ()
        return from_json(self._choices.read_bytes(), _Choices, str(self._choices)).runs

    def save_choices(self, choices: tuple[RunChoice, ...]) -> None:
        """Keep what was chosen, if that is another than before."""
        if choices != self.choices():
            write(self._choices, to_json(_Choices(runs=choices)))

    def save_decision(self, name: str, decision: Approval | Abort) -> None:
        """Keep a person's decision; the platform acts on it when it next reconciles. Each kind is made once.

        Raises UsageError when it was made before.
        """
        made = self._user_decisions(name)
        field = "abort" if isinstance(decision, Abort) else "approval"
        if before := getattr(made, field):
            remedy = f"see: tunegate promotions explain {name} {self.option}"
            raise UsageError(f"{before.actor} has said so about {name} before; {remedy}")
        write(self._decisions / f"{name}.json", to_json(msgspec.structs.replace(made, **{field: decision})))

    def _user_decisions(self, name: str) -> UserDecisions:
        path = self._decisions / f"{name}.json"
        return from_json(path.read_bytes(), UserDecisions, str(path)) if path.exists() else UserDecisions()

    def feedback_key(self) -> str:
        """The hex key that signs response ids: made once, readable by its owner alone."""
        path = self.folder / "feedback.key"
        if not path.exists():
            write(path, secrets.token_hex(32).encode())
        return path.read_text()

    def running(self) -> Running | None:
        """The platform that holds this folder now, if any."""
        if not is_locked(self._lock) or not self._running.exists():
            return None
        return from_json(self._running.read_bytes(), Running, str(self._running))

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        """Be the only platform on this folder; the kernel lets go when we die.

        Raises TunegateError when another one holds it.
        """
        busy = TunegateError(
            f"A platform already runs on {self.folder}; stop it with: tunegate local down {self.option}"
        )
        with locked(self._lock, busy=busy):
            try:
                yield
            finally:
                self._running.unlink(missing_ok=True)

    def announce(self, url: str, store: str, endpoint_url: str) -> None:
        """Say where the platform answers, for `status`, `ask` and `down`."""
        running = Running(pid=os.getpid(), url=url, store=store, endpoint_url=endpoint_url, started=datetime.now(UTC))
        write(self._running, to_json(running))

    def report_problems(self, problems: dict[str, str]) -> None:
        """Say what is wrong, for `status`; nothing when all is well."""
        running = from_json(self._running.read_bytes(), Running, str(self._running))
        write(self._running, to_json(msgspec.structs.replace(running, problems=problems)))


def write(path: Path, body: bytes) -> None:
    """Replace `path` whole, readable by its owner alone; after a crash it holds the old text or the new one.

    Raises TunegateError when the disk is full or the folder can't be written.
    """
    with disk_errors_as(TunegateError, path, "Free some space or choose another --home."):
        replace_file(path, body, private=True)
