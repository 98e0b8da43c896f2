"""How often answers of a version were liked and disliked, as Prometheus counted it.

No counts is never zero: an absent series, a number that is none, or a server that does not answer is a problem with a
name, and the analysis waits.
"""

from __future__ import annotations

import json
import math
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from tunegate.api.digest import short
from tunegate.api.feedback import Tally
from tunegate_operator.conditions import Problem

TIMEOUT_SECONDS = 5.0
# How far back a series is looked for that was there before the canary began; its value then is not counted.
_LOOKBACK_SECONDS = 300.0
_MOST_POINTS = 500


def read_tallies(
    url: str, namespace: str, digests: Sequence[str], since: datetime, now: datetime
) -> Mapping[str, Tally] | Problem:
    """The verdicts on each version since `since`, over all its servers' lives; or why they can't be told."""
    versions = "|".join(short(digest) for digest in digests)
    chosen = f'{{namespace="{namespace}",model_version=~"{versions}"}}'
    query = f"sum by (model_version, verdict, pod, instance) (tunegate_feedback_total{chosen})"
    span = (now - since).total_seconds() + _LOOKBACK_SECONDS
    step = max(5.0, span / _MOST_POINTS)
    start = now.timestamp() - math.ceil(span / step) * step  # so that the last point is now, not up to a step ago
    parameters = {
        "query": query,
        "start": f"{start:.3f}",
        "end": f"{now.timestamp():.3f}",
        "step": f"{step:.3f}",
        "timeout": f"{TIMEOUT_SECONDS:.0f}s",
    }
    try:
        address = f"{url.rstrip('/')}/api/v1/query_range?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(address, timeout=TIMEOUT_SECONDS) as answer:
            series = json.load(answer)["data"]["result"]
    except (OSError, ValueError, KeyError) as error:
        message = f"Prometheus at {url} does not answer ({error}); check --prometheus-url and that it is running"
        return Problem("FeedbackReadable", "PrometheusUnreachable", message)
    return count(series, digests, since)


def count(series: Sequence[Any], digests: Sequence[str], since: datetime) -> Mapping[str, Tally] | Problem:
    """Add up the growth of every series since `since`, also through restarts of its server."""
    grown: dict[tuple[str, str], float] = {}
    for counter in series:
        labels = counter["metric"]
        values = [(float(time), float(value)) for time, value in counter["values"]]
        if not all(math.isfinite(value) for _, value in values):
            return _no_counts(f"Prometheus gives a count for {labels.get('model_version')} that is not a number")
        key = (labels["model_version"], labels["verdict"])
        grown[key] = grown.get(key, 0.0) + growth(values, since.timestamp())
    for digest in digests:
        if any((short(digest), verdict) not in grown for verdict in ("up", "down")):
            return _no_counts(f"Prometheus has no tunegate_feedback_total of version {short(digest)}")
    return {
        digest: Tally(up=round(grown[short(digest), "up"]), down=round(grown[short(digest), "down"]))
        for digest in digests
    }


def growth(values: Sequence[tuple[float, float]], since: float) -> float:
    """How much a counter grew after `since`; it starts at 0 with its server, and again whenever that restarts."""
    before = [value for time, value in values if time <= since]
    last, total = before[-1] if before else 0.0, 0.0
    for time, value in values:
        if time > since:
            total += value - last if value >= last else value
            last = value
    return total


def _no_counts(what: str) -> Problem:
    remedy = "check that it scrapes the predictors (PodMonitor) and keeps the labels namespace and model_version"
    return Problem("FeedbackReadable", "NoFeedbackCounts", f"{what}; {remedy}", stops=False)
