"""SIGTERM, sent for real: whoever hears it, all ranks stop at one step with a complete checkpoint, and status 143."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.processes import processes_about
from tests.unit.training.alone import start_two
from tests.unit.training.builders import make_config
from tests.unit.training.conftest import Shop
from tests.unit.training.forked import Forks
from tests.unit.training.watching import ranks_of, start, start_under_torchrun, wait_beside
from tests.waiting import wait_for
from tunegate.api.codec import from_json, to_json
from tunegate.api.errors import Preempted
from tunegate.store.stops import RunStop, stop_run
from tunegate.training.launch.failure import Failure
from tunegate.training.run.checkpoints import complete_checkpoints
from tunegate.training.run.layout import STOP, VERSIONS, failure_path, failures
from tunegate.training.run.preemption import stoppable
from tunegate.training.run.progress import read_log

pytestmark = pytest.mark.usefixtures("forked_programs")
MANY = 40  # epochs, so that the signal comes long before the end


def _interrupted(launched: subprocess.Popen[str], output: Path, pids: Callable[[], list[int]]) -> tuple[int, str]:
    """Send SIGTERM to `pids` when training has begun. Returns the status and what was said."""
    try:
        wait_beside(launched, lambda: bool(read_log(output)))
        for pid in pids():
            os.kill(pid, signal.SIGTERM)
        _, said = launched.communicate(timeout=300)
    finally:
        launched.kill()
        launched.communicate()
    assert not processes_about(output)
    return launched.returncode, said


def test_a_run_that_was_asked_to_stop_keeps_and_publishes_what_it_has(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PET_MAX_RESTARTS", "3")  # torchrun must not take the end for a failure
    config = shop.config("asked", run="asked", num_train_epochs=MANY)
    output = Path(config.output_dir)
    launched = start(config, stderr=subprocess.PIPE)

    status, said = _interrupted(launched, output, lambda: [launched.pid])

    *saved, kept = (checkpoint.step for checkpoint in complete_checkpoints(output))
    assert status == 143
    assert all(step % 3 == 0 for step in saved)
    assert f"did at step {kept}; the same command resumes from there" in said
    assert shop.store.list("tiny")[-1].name == f"tiny/asked/checkpoint-{kept}"


def test_a_run_is_stopped_for_its_numbers_with_everything_published(shop: Shop) -> None:
    config = shop.config("worse", run="worse", num_train_epochs=MANY)
    output = Path(config.output_dir)
    launched = start(config, stderr=subprocess.PIPE)
    try:
        wait_beside(launched, lambda: (output / VERSIONS).is_file())
        word = RunStop(message="score is 0.4, worse than 0.6", time=datetime.now(UTC))
        stop_run(shop.store, "tiny", "worse", word)
        _, said = launched.communicate(timeout=300)
    finally:
        launched.kill()
        launched.communicate()
    kept = complete_checkpoints(output)[-1].step
    assert launched.returncode == 1
    assert f"stopped for its numbers at step {kept}, with everything published: {word.message}. The same" in said
    assert shop.store.list("tiny")[-1].name == f"tiny/worse/checkpoint-{kept}"


def test_a_rank_that_is_asked_has_the_others_stop_at_its_step(shop: Shop) -> None:
    config = shop.config("rank", run="rank", num_train_epochs=MANY)
    output = Path(config.output_dir)

    status, said = _interrupted(start(config, stderr=subprocess.PIPE), output, lambda: ranks_of(output, "1"))

    assert status == 143
    assert f"did at step {complete_checkpoints(output)[-1].step}" in said


def test_ranks_that_are_all_asked_agree_on_a_step(shop: Shop, forks: Forks) -> None:
    model = str(shop.folder / "model")
    config = make_config(None, shop.data, shop.folder / "ranks", model_name_or_path=model, num_train_epochs=MANY)
    output = Path(config.output_dir)

    ranks = start_two(forks, config)
    wait_for(lambda: read_log(output), what=f"steps, see {ranks.log}")
    for pid in ranks.pids:
        os.kill(pid, signal.SIGTERM)

    assert ranks.wait() == [143, 143]
    failed = [from_json(path.read_bytes(), Failure, path.name) for path in failures(output).values()]
    said = f"The run was asked to stop and did at step {complete_checkpoints(output)[-1].step}; "
    assert [failure.message.startswith(said) for failure in failed] == [True, True]


def test_ranks_that_did_as_they_were_asked_do_no_step_when_torchrun_restarts_them(shop: Shop, forks: Forks) -> None:
    model = str(shop.folder / "model")
    config = make_config(None, shop.data, shop.folder / "again", model_name_or_path=model, num_train_epochs=MANY)
    output = Path(config.output_dir)
    output.mkdir()
    (output / STOP).touch()
    for rank in (0, 1):
        failure_path(output, rank).write_bytes(to_json(Failure(message="It stopped.", explained=True, exit_code=143)))

    assert start_two(forks, config).wait() == [143, 143]
    assert not read_log(output)
    assert len(failures(output)) == 2


def test_a_launcher_of_the_users_that_is_asked_leaves_a_complete_checkpoint(shop: Shop) -> None:
    config = shop.config("theirs", run="theirs", num_train_epochs=MANY)
    output = Path(config.output_dir)
    launched = start_under_torchrun(config, stderr=subprocess.PIPE)

    _, said = _interrupted(launched, output, lambda: [launched.pid])

    kept = complete_checkpoints(output)[-1]
    assert not kept.is_last
    assert said.count(f"tunegate: The run was asked to stop and did at step {kept.step}") == 1


def test_before_training_begins_the_wish_is_fulfilled_at_once() -> None:
    with pytest.raises(Preempted, match="asked to stop") as caught, stoppable():
        os.kill(os.getpid(), signal.SIGTERM)

    assert caught.value.exit_code == 143


def test_while_training_goes_on_the_second_wish_is_an_order() -> None:
    with stoppable() as stop:
        stop.is_training = True
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.requested

        with pytest.raises(Preempted):
            os.kill(os.getpid(), signal.SIGTERM)
