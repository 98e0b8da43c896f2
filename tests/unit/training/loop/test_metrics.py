from __future__ import annotations

import shutil
import socket
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from prometheus_client import generate_latest

from tunegate.api.errors import UsageError
from tunegate.processes import free_port
from tunegate.training.loop.metrics import Metrics, host_for
from tunegate.training.run.progress import Progress

_STEP = Progress(
    current_steps=5,
    total_steps=20,
    loss=1.5,
    lr=1e-3,
    epoch=0.5,
    percentage=25.0,
    elapsed_time="0:00:05",
    remaining_time="0:00:15",
    tokens_per_second=1200.0,
    padding=0.125,
)


@contextmanager
def _served(metrics: Metrics, port: int) -> Iterator[str]:
    server = metrics.serve(port, "127.0.0.1")
    try:
        yield f"http://127.0.0.1:{port}/metrics"
    finally:
        server.shutdown()
        server.server_close()


def _values(metrics: Metrics) -> dict[str, float]:
    return {sample.name: sample.value for family in metrics.registry.collect() for sample in family.samples}


def test_prometheus_gets_what_was_logged() -> None:
    metrics = Metrics()
    metrics.logged(_STEP)

    with _served(metrics, free_port()) as url, urllib.request.urlopen(url) as answer:
        lines = answer.read().decode().splitlines()

    assert {
        "tunegate_training_loss 1.5",
        "tunegate_training_step 5.0",
        "tunegate_training_planned_steps 20.0",
        "tunegate_training_learning_rate 0.001",
        "tunegate_training_tokens_per_second 1200.0",
        "tunegate_training_padding_ratio 0.125",
        "tunegate_training_mfu NaN",
        "tunegate_training_last_published_timestamp_seconds NaN",
    } <= set(lines)


def test_a_look_at_held_out_rows_keeps_the_training_loss() -> None:
    metrics = Metrics()
    metrics.logged(_STEP)
    held_out = Progress(
        current_steps=5,
        total_steps=20,
        eval_loss=1.75,
        epoch=0.5,
        percentage=25.0,
        elapsed_time="0:00:06",
        remaining_time="0:00:18",
    )

    metrics.logged(held_out)

    values = _values(metrics)
    assert (values["tunegate_training_loss"], values["tunegate_training_eval_loss"]) == (1.5, 1.75)


def test_the_age_of_the_newest_checkpoint_starts_anew_with_each(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1_000.0
    monkeypatch.setattr("time.time", lambda: now)
    metrics = Metrics()
    now = 1_060.0
    before = _values(metrics)["tunegate_training_checkpoint_age_seconds"]
    metrics.saved()
    metrics.published()
    now = 1_065.0

    after = _values(metrics)

    assert (before, after["tunegate_training_checkpoint_age_seconds"]) == (60.0, 5.0)
    assert after["tunegate_training_last_published_timestamp_seconds"] == 1_060.0


def test_a_port_in_use_is_refused_with_the_remedy() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(UsageError, match=r"Address already in use; choose another --metrics_port\.$"):
            Metrics().serve(taken.getsockname()[1], "127.0.0.1")


def test_a_pod_is_open_to_prometheus_and_a_workstation_to_nobody() -> None:
    assert host_for({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}) == "0.0.0.0"  # noqa: S104
    assert host_for({}) == "127.0.0.1"


@pytest.mark.skipif(shutil.which("promtool") is None, reason="needs `promtool`, of Prometheus")
def test_the_names_are_as_prometheus_wants_them() -> None:
    metrics = Metrics()
    metrics.logged(_STEP)

    done = subprocess.run(
        ["promtool", "check", "metrics"], input=generate_latest(metrics.registry), capture_output=True
    )

    assert (done.returncode, done.stdout + done.stderr) == (0, b"")
