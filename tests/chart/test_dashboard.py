"""The dashboard: a real Prometheus that scrapes our metrics answers each of its queries, and it
keeps the linter's rules."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import urllib.parse
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry, Counter, Histogram, start_http_server

from tests.chart.test_monitoring import ALERTS, DASHBOARD
from tests.waiting import wait_for
from tunegate.api.feedback import step_tag
from tunegate.processes import Child, answers, free_port, open_url
from tunegate.serving import metrics as serving
from tunegate.serving.events import Finished, Sources, Step
from tunegate.training.loop import metrics as training
from tunegate.training.run.progress import Progress
from tunegate_operator import metrics as operator

DIGEST = "sha256:" + "a" * 64
PANELS = {panel["title"]: panel for panel in DASHBOARD["panels"]}
TARGETS = [(panel["title"], target["expr"]) for panel in DASHBOARD["panels"] for target in panel["targets"]]


@contextlib.contextmanager
def served(registry: CollectorRegistry) -> Iterator[str]:
    server, thread = start_http_server(0, "127.0.0.1", registry)
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def progress() -> Progress:
    return Progress(
        current_steps=10,
        total_steps=100,
        loss=1.5,
        eval_loss=1.6,
        lr=1e-4,
        epoch=0.1,
        percentage=10.0,
        elapsed_time="0:01",
        remaining_time="0:09",
        tokens_per_second=100.0,
        padding=0.1,
        mfu=0.4,
    )


def use(server: serving.Metrics) -> None:
    """All that can happen to a predictor."""
    step = step_tag("shop-run-1", 0)
    server.asked(step)
    server.answered(1.0, step, 20)
    server.first_token(0.2, step)
    server.judged(DIGEST, "up", step, 5)
    server.judged(DIGEST, "down", None, 1)
    server.failed("engine", step)
    server.admitted("shop")
    server.refused("rate", "shop", step)
    for event in (Sources(()), Step(1, "thought", "Calculator", "1+1", "2", 0.1), Finished("stop", cited=())):
        server.happened(event, step)


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of one that has scraped all three twice and more, with changes in between."""
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("needs prometheus on the PATH (Debian's package prometheus)")
    folder, port, registry = tmp_path_factory.mktemp("prometheus"), free_port(), CollectorRegistry()
    predictor, trainer, acting = serving.Metrics(DIGEST, "shop", registry), training.Metrics(), operator.Metrics()
    trainer.logged(progress())
    acting.leader.set(1)
    acting.evaluated(("shop", "shop"), "shop", "a" * 12, {"quality": datetime.now(UTC)})
    use(predictor)
    acting.errors.labels("StoreUnreachable")
    idle = CollectorRegistry()
    serving.Metrics(DIGEST, "shop", idle)
    shown = (registry, trainer.registry, acting.registry, idle, old())
    with contextlib.ExitStack() as stack:
        targets = [stack.enter_context(served(each)) for each in shown]
        labels = {"namespace": "shop", "pod": "a", "tunegate_io_run": "run-1"}
        places = [labels] * 3 + [{"namespace": "idle", "pod": "b"}, {"namespace": "old", "pod": "c"}]
        jobs = [{"targets": [target], "labels": of} for target, of in zip(targets, places, strict=True)]
        (folder / "rules.yaml").write_text(ALERTS.read_text())
        file = folder / "prometheus.yml"
        interval = {"scrape_interval": "1s", "evaluation_interval": "1s"}
        scraped = [{"job_name": "tunegate", "static_configs": jobs}]
        file.write_text(yaml.safe_dump({"global": interval, "rule_files": ["rules.yaml"], "scrape_configs": scraped}))
        words = [f"--config.file={file}", f"--storage.tsdb.path={folder / 'tsdb'}", "--log.level=error"]
        argv = [program, *words, f"--web.listen-address=127.0.0.1:{port}"]
        with Child.start("prometheus", argv, log=folder / "prometheus.log") as child:
            url = f"http://127.0.0.1:{port}"
            child.wait_until(lambda: answers(f"{url}/-/ready"), seconds=120)

            def happened() -> bool:
                use(predictor)
                acting.reconciled(0.1, None)
                acting.reconciled(0.1, ValueError())
                acting.store_scan_seconds.observe(0.1)
                acting.decisions.labels("Promoted").inc()
                acting.errors.labels("StoreUnreachable").inc()
                is_each_there = ask(url, "min(sum_over_time(up[1m])) > 1")
                return bool(is_each_there and ask(url, "increase(tunegate_answers_total[1m]) > 0"))

            wait_for(happened, what="two scrapes of each with answers between them")
            yield url


def old() -> CollectorRegistry:
    """What a predictor of before steps shows."""
    registry = CollectorRegistry()
    Counter("tunegate_answers", "", ["model_version"], registry=registry).labels("b" * 12).inc()
    Histogram("tunegate_answer_seconds", "", ["model_version"], registry=registry).labels("b" * 12).observe(1)
    errors = Counter("tunegate_answer_errors", "", ["model_version", "reason"], registry=registry)
    errors.labels("b" * 12, "engine").inc()
    return registry


def ask(url: str, query: str) -> list[dict[str, Any]]:
    with open_url(f"{url}/api/v1/query?{urllib.parse.urlencode({'query': query})}", seconds=10) as answer:
        found: list[dict[str, Any]] = json.load(answer)["data"]["result"]
    return found


def filled(expression: str, namespace: str = ".*") -> str:
    """As Grafana asks it with all versions and steps chosen, and one namespace or all."""
    for variable, value in (("$__rate_interval", "1m"), ("$namespace", namespace), ("$version", ".*"), ("$step", ".*")):
        expression = expression.replace(variable, value)
    assert "$" not in expression
    return expression


@pytest.mark.parametrize(("title", "expression"), TARGETS, ids=[title for title, _ in TARGETS])
def test_a_real_prometheus_answers_every_query_of_a_panel(prometheus: str, title: str, expression: str) -> None:
    found: list[dict[str, Any]] = []

    def answered() -> bool:
        found[:] = ask(prometheus, filled(expression))
        return any(each["value"][1] != "NaN" for each in found)

    wait_for(answered, what=f"an answer to {title}")


@pytest.mark.parametrize("namespace", ["idle", "old", "nowhere"])
def test_no_query_fails_where_nothing_was_asked_or_labels_are_missing_or_all_is(
    prometheus: str, namespace: str
) -> None:
    for title, expression in TARGETS:
        if "$namespace" not in expression:
            continue
        found = ask(prometheus, filled(expression, namespace))  # an error of Prometheus's ends it
        assert not found or namespace != "nowhere", title
        assert not any("Inf" in each["value"][1] for each in found), title
    seen = ask(prometheus, filled(dict(TARGETS)["Answers by step of a promotion"], namespace))
    assert bool(seen) == (namespace != "nowhere")


def test_a_real_prometheus_answers_the_choices_at_the_top(prometheus: str) -> None:
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] == "query":
            (series, label) = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["query"]["query"]).groups()  # type: ignore[union-attr]
            assert {each["metric"].get(label, "") for each in ask(prometheus, filled(series))} - {""}


def test_a_real_prometheus_keeps_what_is_recorded(prometheus: str) -> None:
    for rule in (rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]):
        if "record" in rule:
            wait_for(lambda name=rule["record"]: ask(prometheus, name), what=rule["record"])


# The rules of grafana/dashboard-linter, each with what it asks. Left out are those for logs (Loki), and the two that
# want `job` and `instance` in every query: what we ask about is a version, whichever pod it is in.
def aggregates_counters(text: str) -> bool:
    """Counters only inside rate, irate or increase."""
    return all(
        re.search(rf"(rate|increase)\({name}", text)
        for name in re.findall(r"tunegate_\w+_(?:total|bucket|sum|count)", text)
    )


RULES: dict[str, Callable[[], bool]] = {
    "uneditable-dashboard": lambda: DASHBOARD["editable"] is False,
    "template-datasource-rule": lambda: any(
        (each["type"], each["name"], each["query"]) == ("datasource", "datasource", "prometheus")
        for each in DASHBOARD["templating"]["list"]
    ),
    "template-datasource-label-rule": lambda: all(each["label"] for each in DASHBOARD["templating"]["list"]),
    "template-on-time-change-reload-rule": lambda: all(
        each["refresh"] == 2 for each in DASHBOARD["templating"]["list"] if each["type"] == "query"
    ),
    "panel-datasource-rule": lambda: all(
        each["datasource"] == {"type": "prometheus", "uid": "${datasource}"} for each in DASHBOARD["panels"]
    ),
    "panel-title-description-rule": lambda: all(each["title"] and each["description"] for each in DASHBOARD["panels"]),
    "panel-units-rule": lambda: all(each["fieldConfig"]["defaults"]["unit"] for each in DASHBOARD["panels"]),
    "panel-no-targets-rule": lambda: all(each["targets"] for each in DASHBOARD["panels"]),
    "target-rate-interval-rule": lambda: all(
        not re.search(r"rate\([^)]*\[(?!\$__rate_interval)", text) for _, text in TARGETS
    ),
    "target-counter-agg-rule": lambda: all(aggregates_counters(text) for _, text in TARGETS),
    "target-aggregation-clause-placement-rule": lambda: all(
        not re.search(r"\)\s*by\s*\(", text) for _, text in TARGETS
    ),
}


@pytest.mark.parametrize("rule", RULES)
def test_the_dashboard_keeps_the_rules_of_the_linter(rule: str) -> None:
    assert RULES[rule]()


def test_panels_lie_side_by_side() -> None:
    places = [tuple(panel["gridPos"][key] for key in ("x", "y")) for panel in DASHBOARD["panels"]]
    assert len(set(places)) == len(places) == len(PANELS)
    assert Path(ALERTS).exists()
