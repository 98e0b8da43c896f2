"""Verdicts as a real Prometheus counts those of our metrics: scraped twice, restarted without its data."""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml
from prometheus_client import CollectorRegistry, Metric, start_http_server
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from tests.builders import make_version
from tests.waiting import wait_for
from tunegate.api.digest import short
from tunegate.api.feedback import StepTag, Tally, step_tag
from tunegate.processes import Child, answers, free_port, open_url
from tunegate.promotion.counting import Counted
from tunegate.serving.metrics import Metrics
from tunegate_operator.conditions import Problem
from tunegate_operator.feedback_counts import Counts, read_counts

STABLE, CANDIDATE = make_version("base").digest, make_version("run-1").digest


@contextlib.contextmanager
def served(registry: CollectorRegistry) -> Iterator[str]:
    server, thread = start_http_server(0, "127.0.0.1", registry)
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextlib.contextmanager
def pod(digest: str) -> Iterator[tuple[Metrics, str]]:
    registry = CollectorRegistry()
    metrics = Metrics(digest, "shop", registry)
    with served(registry) as target:
        yield metrics, target


@dataclass(eq=False)
class OldPod(Collector):
    """What a predictor shows that has been up for an hour, with so many thumbs down."""

    down: int = 0
    began: float = field(default_factory=lambda: time.time() - 3600)

    def collect(self) -> Iterator[Metric]:
        family = CounterMetricFamily("tunegate_feedback", "Verdicts.", labels=["model_version", "verdict"])
        for verdict, value in (("up", 0), ("down", self.down)):
            family.add_metric([short(STABLE), verdict], value, created=self.began)
        yield family


@contextlib.contextmanager
def scraping(program: str, folder: Path, targets: dict[str, str], jobs: int = 1) -> Iterator[str]:
    """A Prometheus whose jobs all scrape these pods, each second; it keeps its data in `folder`."""
    listed = [{"targets": [target], "labels": {"namespace": "shop", "pod": name}} for name, target in targets.items()]
    configs = [{"job_name": f"job-{number}", "static_configs": listed} for number in range(jobs)]
    file, port = folder / "prometheus.yml", free_port()
    file.write_text(yaml.safe_dump({"global": {"scrape_interval": "1s"}, "scrape_configs": configs}))
    words = [f"--config.file={file}", f"--storage.tsdb.path={folder / 'tsdb'}", "--log.level=error"]
    url = f"http://127.0.0.1:{port}"
    argv = [program, *words, f"--web.listen-address=127.0.0.1:{port}"]
    with Child.start("prometheus", argv, log=folder / "prometheus.log") as child:
        child.wait_until(lambda: answers(f"{url}/-/ready"), seconds=120)
        yield url


def until_scraped(url: str, total: float) -> None:
    """Until each scraped series of thumbs down is there with this sum."""

    def seen() -> bool:
        query = f"{url}/api/v1/query?query=sum(max+by(pod,step)(tunegate_feedback_total%7Bverdict%3D%22down%22%7D))"
        with open_url(query, seconds=5) as answer:
            result = json.load(answer)["data"]["result"]
        return bool(result) and float(result[0]["value"][1]) == total

    wait_for(seen, what=f"{total} verdicts to be scraped")


def read(url: str, since: datetime) -> Counts | Problem:
    return read_counts(url, "shop", Counted("shop-run-1", CANDIDATE, STABLE, since), datetime.now(UTC))


def judge(metrics: Metrics, digest: str, times: int, step: StepTag | None = None) -> None:
    for _ in range(times):
        metrics.judged(digest, "down", step)


@pytest.mark.parametrize("jobs", [1, 2], ids=["once", "twice"])
def test_each_verdict_counts_once_however_often_its_pod_is_scraped(prometheus: str, tmp_path: Path, jobs: int) -> None:
    with pod(STABLE) as (stable, here), pod(CANDIDATE) as (candidate, there):
        judge(stable, STABLE, 30)
        with scraping(prometheus, tmp_path, {"a": here, "b": there}, jobs) as url:
            until_scraped(url, 30)
            since = datetime.now(UTC)
            first, second = (step_tag("shop-run-1", index) for index in (0, 1))
            judge(stable, STABLE, 2, first)
            judge(stable, STABLE, 1)
            judge(stable, STABLE, 1, step_tag("shop-run-0", 0))
            judge(candidate, CANDIDATE, 3, first)
            judge(candidate, CANDIDATE, 2, second)
            until_scraped(url, 39)
            ours, theirs = {0: Tally(down=3), 1: Tally(down=2)}, {0: Tally(down=2), None: Tally(down=1)}
            expected = Counts({CANDIDATE: ours, STABLE: theirs})
            wait_for(lambda: read(url, since) == expected, what="the counts")


def test_verdicts_of_before_are_not_counted_when_prometheus_lost_its_data(prometheus: str, tmp_path: Path) -> None:
    stable, registry, since = OldPod(down=520), CollectorRegistry(), datetime.now(UTC)
    registry.register(stable)
    with served(registry) as here, pod(CANDIDATE) as (candidate, there):
        with scraping(prometheus, tmp_path, {"a": here, "b": there}) as url:
            until_scraped(url, 520)
        shutil.rmtree(tmp_path / "tsdb")
        with scraping(prometheus, tmp_path, {"a": here, "b": there}) as url:
            until_scraped(url, 520)

            def both_are_counted() -> bool:
                stable.down += 1
                judge(candidate, CANDIDATE, 1)
                counts = read(url, since)
                if isinstance(counts, Problem):
                    return False
                assert not counts.is_whole
                down = [sum(tally.down for tally in counts.tallies[digest].values()) for digest in (STABLE, CANDIDATE)]
                assert down[0] <= stable.down - 520
                return min(down) > 0

            wait_for(both_are_counted, what="verdicts of both to be counted")
