"""How often answers of a version were liked and disliked, as Prometheus counted it.

No counts is never zero: an absent series, a number that is none, or a server that does not answer is a problem with a
name, and the analysis waits. Verdicts of before the canary are never counted, whatever Prometheus has lost: where its
data begin later than the canary, counting begins there, for both versions. What is decided on is counted from the log
of votes: `feedback_log`.
"""

from __future__ import annotations

import http.client
import math
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Literal

import msgspec

from tunegate.api.codec import prepare
from tunegate.api.digest import short
from tunegate.api.feedback import Tally, Verdicts, promotion_tag, step_tag
from tunegate.processes import open_url
from tunegate.promotion.counting import Counted
from tunegate.promotion.snapshot import Snapshot
from tunegate_operator.conditions import Problem

TIMEOUT_SECONDS = 5.0
# How far back a series is looked for that was there before the canary began; its value then is not counted.
_LOOKBACK, _LEAST_STEP = 300_000, 5_000  # milliseconds
_MOST_POINTS = 400
_MOST_BYTES = 1 << 25
# From a server's start to its first scrape: discovery and an interval. What is seen later has lost its beginning.
_FIRST_SCRAPE_SECONDS = 120.0
# Of one that was seen this soon after its start, all verdicts count: hardly any can be from before the canary.
_NEW_SECONDS = 30.0
_VERDICTS, _QUESTIONS = "tunegate_feedback_total", "tunegate_questions_total"
# By the name of the counter, of the series that says when it began.
_CREATED = {_VERDICTS: "tunegate_feedback_created", _QUESTIONS: "tunegate_questions_created"}
# From one scrape of a server to the next, at most. Each server's counts are of another moment within it.
_SCRAPE_SECONDS = 60.0

AWAY = frozenset({"PrometheusUnreachable", "PrometheusRefused"})
"""Reasons that somebody should hear of, although promotions go on by the log of votes."""

CREDENTIALS = ("token", "username", "password", "ca.crt")
"""The files that a folder of credentials may have: a bearer token or a user's name and password, and a CA."""


class Series(msgspec.Struct):
    """One series of a range query's answer."""

    metric: dict[str, str]
    values: list[tuple[float, str]]


class _Matrix(msgspec.Struct, rename="camel"):
    result_type: Literal["matrix"]
    result: list[Series]


class _Answer(msgspec.Struct):
    data: _Matrix
    warnings: list[str] = []


@dataclass(frozen=True)
class Counts:
    """tallies: verdicts by digest and step; None: not known, for the reason in `problem`, or as they are just read.

    is_whole: Prometheus still has them from the beginning of the canary on. splits: how many questions the candidate
    and the stable were asked in the step, counted in several ways; empty: not known.
    """

    tallies: Mapping[str, Verdicts] | None
    is_whole: bool = True
    splits: tuple[tuple[int, int], ...] = ()
    problem: Problem | None = None


def with_counts(snapshot: Snapshot, counts: Counts | Problem) -> Snapshot:
    """The snapshot with what is counted; without tallies where that is not known."""
    if isinstance(counts, Problem):
        return replace(snapshot, tallies=None, splits=())
    return replace(snapshot, tallies=counts.tallies, splits=counts.splits)


def problems_of(counts: Counts | Problem) -> tuple[Problem, ...]:
    """What is in the way of counting."""
    if isinstance(counts, Problem):
        return (counts,)
    if counts.problem:
        return (counts.problem,)
    if counts.is_whole:
        return ()
    message = "Prometheus has lost the beginning of this canary: verdicts are counted from the log alone"
    remedy = "keep its data on a volume, and for longer than a canary takes"
    return (Problem("FeedbackReadable", "FeedbackHistoryLost", f"{message}; {remedy}", stops=False),)


@dataclass(frozen=True)
class _Sample:
    """created: when the counter began at 0; None where its server does not say so."""

    time: float
    value: float
    created: float | None


def read_counts(
    url: str, namespace: str, asked: Counted, now: datetime, credentials: Path | None = None
) -> Counts | Problem:
    """The verdicts on both versions since the canary began, over all their servers' lives; or why they can't be told.

    `credentials` is a folder with CREDENTIALS, read each time, since tokens are replaced while we run.
    """
    versions = "|".join(short(digest) for digest in asked.digests)
    # Of this promotion's steps, and of none: a server keeps those of earlier promotions, too.
    steps = f"({promotion_tag(asked.promotion)}/[0-9]+)?"
    labels = f'namespace="{namespace}",model_version=~"{versions}",step=~"{steps}"'
    chosen = f'{{__name__=~"{"|".join((*_CREATED, *_CREATED.values()))}",{labels}}}'
    # In milliseconds, as Prometheus counts, so that one point is the canary's beginning and the last one is now.
    begin, end = int(asked.since.timestamp() * 1000), int(now.timestamp() * 1000)
    points = min(_MOST_POINTS, max(1, (end - begin) // _LEAST_STEP))
    step = max(1000, math.ceil((end - begin) / points))
    lookback = math.ceil(_LOOKBACK / step) * step
    parameters = {
        # By the largest of a pod: whoever scrapes it besides has counted the same verdicts.
        "query": f"max by (__name__, model_version, step, verdict, pod, instance) ({chosen})",
        "start": f"{(begin - lookback) / 1000:.3f}",
        "end": f"{(begin + points * step) / 1000:.3f}",
        "step": f"{step / 1000:.3f}",
        "timeout": f"{TIMEOUT_SECONDS:.0f}s",
    }
    try:
        body = _get(f"{url.rstrip('/')}/api/v1/query_range?{urllib.parse.urlencode(parameters)}", credentials)
        answer = msgspec.json.decode(body, type=_Answer)
    except urllib.error.HTTPError as error:
        return _unreadable(url, error)
    except (OSError, ValueError, http.client.HTTPException, msgspec.MsgspecError) as error:
        message = f"Prometheus at {url} does not answer ({error}); check --prometheus-url and that it is running"
        return Problem("FeedbackReadable", "PrometheusUnreachable", message)
    if answer.warnings:
        return _no_counts(f"Prometheus warns that its answer may lack something ({'; '.join(answer.warnings)[:500]})")
    return count(answer.data.result, asked, step / 1000)


def count(series: Sequence[Series], asked: Counted, resolution: float = 5.0) -> Counts | Problem:
    """Add up the growth of every counter since the canary began, also through restarts of its server.

    `resolution` is the time from one point of a series to the next, in seconds.
    """
    counters = _counters(series)
    if isinstance(counters, Problem):
        return counters
    start = asked.since.timestamp()
    begin = max([start, *(_history_begin(counter.samples, start, resolution) for counter in counters[_VERDICTS])])
    grown = _grown(counters[_VERDICTS], begin)
    tallies = {}
    for digest in asked.digests:
        if {verdict for version, _, verdict in grown if version == short(digest)} != {"up", "down"}:
            return _no_counts(f"Prometheus has no {_VERDICTS} of version {short(digest)}")
        steps = dict.fromkeys(step for version, step, _ in grown if version == short(digest))
        found = {
            int(step.partition("/")[2]) if step else None: Tally(
                up=round(grown.get((short(digest), step, "up"), 0)),
                down=round(grown.get((short(digest), step, "down"), 0)),
            )
            for step in steps
        }
        tallies[digest] = {step: tally for step, tally in found.items() if tally.n}  # only the steps that were judged
    return Counts(tallies, begin == start, _splits(counters[_QUESTIONS], asked, resolution))


@dataclass(frozen=True)
class _Counter:
    labels: Mapping[str, str]
    samples: Sequence[_Sample]


def _counters(series: Sequence[Series]) -> dict[str, list[_Counter]] | Problem:
    """The counters by name, with the times when they began; a problem where one is not what was asked for."""
    by_name: dict[str, list[Series]] = {name: [] for pair in _CREATED.items() for name in pair}
    for one in series:
        labels = {"model_version", "verdict"} if "feedback" in one.metric.get("__name__", "") else {"model_version"}
        if one.metric.get("__name__") not in by_name or not labels <= one.metric.keys():
            return _no_counts(f"Prometheus answers with a series that was not asked for ({one.metric})")
        by_name[one.metric["__name__"]].append(one)
    counters: dict[str, list[_Counter]] = {}
    for name, created in _CREATED.items():
        began = {_identity(one): dict(one.values) for one in by_name[created]}
        for counter in by_name[name]:
            times = began.get(_identity(counter), {})
            try:
                samples = [
                    _Sample(at, float(value), float(times[at]) if at in times else None) for at, value in counter.values
                ]
            except ValueError:
                samples = [_Sample(0, math.nan, None)]
            if not all(math.isfinite(sample.value) and sample.value >= 0 for sample in samples):
                return _no_counts(
                    f"Prometheus gives a count for {counter.metric['model_version']} that is not a number"
                )
            counters.setdefault(name, []).append(_Counter(counter.metric, samples))
    return {name: counters.get(name, []) for name in _CREATED}


def _grown(counters: Iterable[_Counter], begin: float, end: float = math.inf) -> dict[tuple[str, str, str], float]:
    """How much was counted from `begin` to `end`, by version, step and verdict.

    Of each pod once: one that is scraped under two addresses has counted the same.
    """
    pods: dict[tuple[str, str, str], dict[str, float]] = {}
    for counter in counters:
        labels = counter.labels
        of_pods = pods.setdefault((labels["model_version"], labels.get("step", ""), labels.get("verdict", "")), {})
        pod = labels.get("pod") or labels.get("instance", "")
        samples = [sample for sample in counter.samples if sample.time <= end]
        of_pods[pod] = max(of_pods.get(pod, 0.0), growth(samples, begin))
    return {key: sum(counts.values()) for key, counts in pods.items()}


def _splits(counters: Sequence[_Counter], asked: Counted, resolution: float) -> tuple[tuple[int, int], ...]:
    """The questions of the step that each version was asked in one time: the fewest of the candidate with the most of
    the stable, the other way round, and the most of both.

    Servers are scraped one after the other, so no two counts are of the same moment: the fewest are of a shorter time,
    the most of a longer one. Nothing where the step is too young for both, where a server of 0.1.0 does not count them,
    or where a beginning was lost.
    """
    told = {counter.labels["model_version"] for counter in counters}
    if asked.step_since is None or not {short(digest) for digest in asked.digests} <= told:
        return ()
    begin, step = asked.step_since.timestamp(), step_tag(asked.promotion, asked.step)
    of_step = [counter for counter in counters if counter.labels.get("step") == step]
    now = max((sample.time for counter in of_step for sample in counter.samples), default=begin)
    lag = _SCRAPE_SECONDS + resolution
    if now - 3 * lag <= begin:
        return ()
    if any(_history_begin(counter.samples, begin, resolution) > begin for counter in of_step):
        return ()

    def asked_between(first: float, last: float) -> tuple[int, int]:
        before, after = _grown(of_step, begin, first), _grown(of_step, begin, last)
        keys = [(short(digest), step, "") for digest in asked.digests]
        candidate, stable = (round(after.get(key, 0) - before.get(key, 0)) for key in keys)
        return candidate, stable

    fewest, most = asked_between(begin + 2 * lag, now - lag), asked_between(begin + lag, now)
    return (fewest[0], most[1]), (most[0], fewest[1]), most


def growth(samples: Sequence[_Sample], begin: float) -> float:
    """How much a counter grew after `begin`: from its last value before, from 0 where its server began with the canary,
    else from the first value that is known, and then verdicts of one scrape interval may be missing."""
    before = [sample for sample in samples if sample.time <= begin]
    counted = [*before[-1:], *(sample for sample in samples if sample.time > begin)]
    total = 0.0
    if not before and counted and (created := counted[0].created) is not None:
        is_new = created > begin or counted[0].time - created <= _NEW_SECONDS
        total = counted[0].value if is_new else 0.0
    for last, sample in pairwise(counted):
        restarted = sample.value < last.value or (last.created and sample.created and sample.created > last.created)
        total += sample.value if restarted else sample.value - last.value
    return total


def _history_begin(samples: Sequence[_Sample], since: float, resolution: float) -> float:
    """From when on this counter's growth is known: `since`, or its first sample where what it counted before is not."""
    if not samples or samples[0].time <= since or samples[0].value == 0:
        return since
    first = samples[0]
    is_seen_whole = first.created is not None and first.time - first.created <= _FIRST_SCRAPE_SECONDS + resolution
    return since if is_seen_whole else first.time


def _identity(series: Series) -> tuple[str, ...]:
    return tuple(series.metric.get(label, "") for label in ("model_version", "step", "verdict", "pod", "instance"))


def _get(address: str, credentials: Path | None) -> bytes:
    """The body of the answer. Raises OSError, ValueError or HTTPException."""
    files = {name: credentials / name for name in CREDENTIALS} if credentials else {}
    given = {name: path.read_text().strip() for name, path in files.items() if path.is_file()}
    request = urllib.request.Request(address)
    # Not as an ordinary header, which would follow a redirection to another server.
    if "token" in given:
        request.add_unredirected_header("Authorization", f"Bearer {given['token']}")
    elif "username" in given:
        user = f"{given['username']}:{given.get('password', '')}"
        request.add_unredirected_header("Authorization", f"Basic {b64encode(user.encode()).decode()}")
    context = ssl.create_default_context(cadata=given["ca.crt"]) if "ca.crt" in given else None
    deadline, body = time.monotonic() + 2 * TIMEOUT_SECONDS, b""
    with open_url(request, seconds=TIMEOUT_SECONDS, context=context) as answer:
        while part := answer.read1(1 << 16):
            body += part
            if len(body) > _MOST_BYTES or time.monotonic() > deadline:
                raise ValueError(f"its answer had not ended after {len(body)} bytes")
    return body


def _unreadable(url: str, error: urllib.error.HTTPError) -> Problem:
    """What an answer with a status says: one that refuses us, or that can't do what we ask."""
    try:
        said = " ".join(error.read(300).decode(errors="replace").split())
    except (OSError, http.client.HTTPException):
        said = ""
    if error.code in (401, 403):
        message = f"Prometheus at {url} refuses us ({error.code} {said}); give the operator a token that it takes"
        remedy = "operator.prometheusSecret in the chart"
        return Problem("FeedbackReadable", "PrometheusRefused", f"{message} ({remedy})")
    message = f"Prometheus at {url} does not answer ({error.code} {said}); check --prometheus-url and its log"
    return Problem("FeedbackReadable", "PrometheusUnreachable", message)


def _no_counts(what: str) -> Problem:
    remedy = "check that it scrapes the predictors (PodMonitor) and keeps the labels namespace and model_version"
    return Problem("FeedbackReadable", "NoFeedbackCounts", f"{what}; {remedy}", stops=False)


prepare(_Answer)
