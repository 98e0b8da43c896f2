"""A version on an engine that it shares with others: it is there while its server renews its lease, and looked at.

What an engine answers under a name is known by its log-probabilities for a few texts: those that the version's
evaluation kept, or the first that were measured here. An engine that answers otherwise has other weights there. Then
the answers since the last good look are struck, the engine is told to start again, and this server ends.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import msgspec

from tunegate.api.digest import short
from tunegate.api.errors import ServingError, StoreError
from tunegate.api.evaluation import Probe
from tunegate.api.feedback import Struck
from tunegate.api.pinned import storage_uri
from tunegate.api.versions import ModelVersion
from tunegate.feedback import struck
from tunegate.serving.engines import remote
from tunegate.serving.engines.remote import Engine
from tunegate.store import Store
from tunegate.store.evaluations import of_version

logger = logging.getLogger(__name__)
RENEW_SECONDS = 10.0
CHECK_EVERY = 3  # renewals
# Of the mean difference of log-probabilities. Half precision on one side, float32 or another card on the other: see
# docs/engines.md for what was measured. The same engine repeats itself far better; what other requests are computed
# beside changes its last digits alone.
KEPT_BOUND, REPEATED_BOUND = 0.1, 0.06
# Where no evaluation kept any: every vocabulary has these, and other weights find them otherwise likely.
ANY_TOKENS = ((11, 42, 7, 64, 23, 90, 35, 58, 16, 77, 49, 3), (88, 5, 61, 30, 72, 14, 97, 26, 53, 9, 44, 81))
# Before its first good look a server does not know when one before it had its last: that looked as often as we do.
_UNKNOWN = timedelta(seconds=2 * CHECK_EVERY * RENEW_SECONDS)
_ASKING = aiohttp.ClientTimeout(total=30)
_LOOKING = aiohttp.ClientTimeout(total=60)  # it waits its turn on a busy engine, and a lease outlives that
_LOADING = aiohttp.ClientTimeout(total=remote.START_SECONDS)  # an adapter is fetched, and others before it
_WAIT_SECONDS = 1.0


class EngineLostError(Exception):
    """The engine does not answer for this version now, which is waited for; the message says why."""


@dataclass
class Check:
    """How a version is known. probes: what its evaluation kept. good: when it was last seen to answer as it should.

    first: what this engine told for `tokens` when it was first asked. wrong: what was seen instead, once it was.
    """

    probes: tuple[Probe, ...] = ()
    first: list[list[float]] | None = None
    good: datetime | None = None
    wrong: str = ""

    @property
    def tokens(self) -> list[list[int]]:
        return [[*probe.tokens] for probe in self.probes] or [[*tokens] for tokens in ANY_TOKENS]

    def judge(self, told: list[list[float]]) -> str:
        """How `told` is not what these weights say; empty where it is."""
        kept = [probe.logprobs for probe in self.probes]
        if kept and (far := mean_difference(kept, told)) > KEPT_BOUND:
            return _says(far, "in its evaluation", KEPT_BOUND)
        if self.first is not None and (far := mean_difference(self.first, told)) > REPEATED_BOUND:
            return _says(far, "when this server first asked", REPEATED_BOUND)
        self.first = self.first or told
        return ""


def mean_difference(ones: Sequence[Sequence[float]], others: Sequence[Sequence[float]]) -> float:
    """Between two measurements of the same tokens; infinite where they are not of the same."""
    if [len(each) for each in ones] != [len(each) for each in others]:
        return math.inf
    far = [abs(a - b) for one, other in zip(ones, others, strict=True) for a, b in zip(one, other, strict=True)]
    return math.fsum(far) / len(far)


def _says(far: float, where: str, bound: float) -> str:
    return f"its log-probabilities are {far:.3f} from those {where} on average, where {bound} is the most"


@dataclass(frozen=True, kw_only=True)
class Leased(Engine):
    """An engine that several versions share, asked at `control` to have ours."""

    control: str
    version: ModelVersion
    store: Store
    check: Check = field(default_factory=Check)

    async def until_warm(self, session: aiohttp.ClientSession) -> None:
        """Also until our version is on it, and was seen to answer. Raises ServingError where it can't be there, or
        where something else answers by its name."""
        if self.check.wrong:
            await self._strike(session)
        await self._until_leased(session)
        await super().until_warm(session)
        if self.check.good is None:
            await asyncio.to_thread(self._read_probes)
        try:
            await self._look(session, _LOADING)  # vLLM compiles what tells log-probabilities when it is first asked
        except EngineLostError as lost:
            raise ServingError(f"{lost} Start this server again.") from None
        if self.check.wrong:
            await self._strike(session)

    async def until_ended(self, session: aiohttp.ClientSession) -> None:
        """Until the engine does not answer for this version, or not as it should: it has to get warm once more."""
        try:
            while True:
                for _ in range(CHECK_EVERY):
                    await asyncio.sleep(RENEW_SECONDS)
                    await self._renew(session, _ASKING)
                await self._look(session, _LOOKING)
                if self.check.wrong:
                    return
        except EngineLostError as lost:
            logger.warning("waiting for the engine", extra={"engine": self.url, "reason": str(lost)})

    async def _until_leased(self, session: aiohttp.ClientSession) -> None:
        deadline = asyncio.get_running_loop().time() + remote.START_SECONDS
        while True:
            try:
                return await self._renew(session, _LOADING)
            except EngineLostError as lost:
                if asyncio.get_running_loop().time() > deadline:
                    raise ServingError(
                        f"The engine at {self.control} did not come up within {remote.START_SECONDS:.0f} s; start it. "
                        f"{lost}"
                    ) from None
            await asyncio.sleep(_WAIT_SECONDS)

    async def _renew(self, session: aiohttp.ClientSession, timeout: aiohttp.ClientTimeout) -> None:
        """Raises EngineLostError, or ServingError in the engine's words where this version has no place there."""
        body = {"uri": storage_uri(self.version)}
        status, text = await self._ask(session, "PUT", f"{self.control}/adapters/{self.model}", body, timeout)
        if status in (409, 422):
            raise ServingError(_error_of(text))
        if status != 200:
            raise EngineLostError(f"The engine at {self.control} says {status}: {_error_of(text)}")

    async def _look(self, session: aiohttp.ClientSession, timeout: aiohttp.ClientTimeout) -> None:
        """Compare what answers by our name with what should. Raises EngineLostError where nothing does."""
        began = datetime.now(UTC)
        body = {"model": self.model, "prompt": self.check.tokens, "max_tokens": 1, "prompt_logprobs": 0}
        status, text = await self._ask(session, "POST", f"{self.url}/v1/completions", body, timeout)
        if status != 200:
            raise EngineLostError(
                f"The engine at {self.url} refuses to tell log-probabilities, with status {status}: {text}"
            )
        self.check.wrong = self.check.judge(read_logprobs(text, self.check.tokens))
        if not self.check.wrong:
            self.check.good = began

    async def _strike(self, session: aiohttp.ClientSession) -> None:
        """Say that what was answered since the last good look is none of the version's. Raises ServingError."""
        now = datetime.now(UTC)
        since = self.check.good or now - _UNKNOWN
        reason = f"The engine at {self.url} answered with other weights than {self.version.name}'s: {self.check.wrong}."
        told = Struck(digest=self.version.digest, since=since, until=now, reason=reason)
        try:
            await asyncio.to_thread(struck.write, self.store, told)
        except StoreError as error:
            logger.error(  # noqa: TRY400 - the way it failed is the sentence
                "wrong answers could not be struck", extra={"since": since, "until": now, "error": str(error)}
            )
        try:
            body = {"name": self.model, "reason": reason}
            await self._ask(session, "POST", f"{self.control}/wrong", body, _ASKING)
        except EngineLostError as lost:
            logger.warning("the engine was not told", extra={"reason": str(lost)})
        raise ServingError(f"{reason} It starts again; answers since {since:%Y-%m-%d %H:%M:%S} UTC are no evidence.")

    def _read_probes(self) -> None:
        """What an evaluation kept; a store that is away keeps nobody from answering."""
        try:
            kept = sorted(of_version(self.store, self.version.digest), key=lambda result: result.started)
            self.check.probes = next((result.probes for result in reversed(kept) if result.probes), ())
        except StoreError as error:
            logger.warning("evaluations can't be read", extra={"error": str(error)})
        if not self.check.probes:
            message = "no evaluation kept how likely these weights find a text; the first look here is what counts"
            logger.warning(message, extra={"version": self.version.name, "digest": short(self.version.digest)})

    async def _ask(
        self, session: aiohttp.ClientSession, method: str, url: str, body: Any, timeout: aiohttp.ClientTimeout
    ) -> tuple[int, str]:
        try:
            async with session.request(method, url, json=body, timeout=timeout) as reply:
                return reply.status, await reply.text()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise EngineLostError(f"{url} can't be reached ({type(error).__name__}: {error}).") from None


class _Logprob(msgspec.Struct):
    logprob: float


class _Choice(msgspec.Struct):
    index: int
    prompt_logprobs: list[dict[str, _Logprob] | None]


class _Completion(msgspec.Struct):
    choices: list[_Choice]


def read_logprobs(text: str, prompts: Sequence[Sequence[int]]) -> list[list[float]]:
    """What vLLM tells of the tokens of each prompt, from the second one on. Raises EngineLostError where it doesn't."""
    try:
        choices = sorted(msgspec.json.decode(text, type=_Completion).choices, key=lambda choice: choice.index)
        return [
            [
                told[str(token)].logprob
                for token, told in zip(prompt[1:], choice.prompt_logprobs[1:], strict=True)
                if told
            ]
            for prompt, choice in zip(prompts, choices, strict=True)
        ]
    except (msgspec.DecodeError, ValueError, KeyError) as error:
        raise EngineLostError(
            f"The engine tells no log-probabilities of a text ({error}); start it with: tunegate engine."
        ) from None


def _error_of(text: str) -> str:
    try:
        return str(msgspec.json.decode(text, type=dict[str, str])["error"])
    except (msgspec.DecodeError, KeyError):
        return " ".join(text.split())[:300]
