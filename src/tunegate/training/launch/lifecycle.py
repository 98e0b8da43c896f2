"""What is done once for a run, before its ranks train and after: plan it, find where it resumes, and leave its result.

Level-triggered: what an earlier attempt did is found, and not done again.
"""

from __future__ import annotations

import logging
import os
import time
from dataclasses import dataclass
from pathlib import Path

from tunegate.api.errors import UsageError
from tunegate.api.versions import ModelVersion
from tunegate.models.weights import check_weights
from tunegate.store import Store
from tunegate.training.config import TrainConfig
from tunegate.training.run.checkpoints import (
    check_owner,
    complete_checkpoints,
    fetch_checkpoint,
    publish_checkpoint,
    remove_incomplete,
    remove_surplus,
    step_of,
    unpublished,
    versions_of,
)
from tunegate.training.run.layout import FINISHED, NODE_LOCAL, STOP, check_output_dir
from tunegate.training.run.plan import (
    Plan,
    check_same_run,
    for_processes,
    identity_of,
    make_plan,
    open_store,
    read_record,
    record_of,
)
from tunegate.training.run.progress import Report, cut_log
from tunegate.training.run.stored_log import bring_log, keep

_LOG = logging.getLogger(__name__)
_POLL_SECONDS = 0.5
_ENDING_SECONDS = 5.0  # from the first node's last write until Kubernetes knows that its pod has succeeded


@dataclass(frozen=True)
class PlannedRun:
    """A planned run; one that `is_complete` has nothing left to train, one that `is_published` nothing to publish."""

    plan: Plan
    is_complete: bool
    is_published: bool = False


def begin(config: TrainConfig, output_dir: Path, processes: int, report: Report | None) -> PlannedRun:
    """Plan the run of so many processes in `output_dir`, which the caller owns, and clear away what a killed attempt
    left half-done.

    Raises UsageError, DataError, ModelError or StoreError for what can't be used.
    """
    check_output_dir(output_dir)
    store = open_store(config)
    plan = make_plan(config, store, output_dir, processes, report)
    published = versions_of(store, config.model, config.run) if store else []
    latest = store.manifest(published[-1].uri) if store and published else None
    stored = record_of(latest.producer) if latest else None
    # An attempt that kept nothing does not bind the next one.
    kept = read_record(output_dir) if complete_checkpoints(output_dir) else None
    plan = check_same_run(plan, output_dir, kept, stored)
    check_owner(output_dir, identity_of(output_dir))
    remove_incomplete(output_dir)
    for left in (STOP, FINISHED):
        (output_dir / left).unlink(missing_ok=True)
    if not config.resume and (published or complete_checkpoints(output_dir)):
        other = "--run and --output_dir" if store else "--output_dir"
        message = f"The run {config.run} in {output_dir} has checkpoints"
        raise UsageError(f"{message}; leave out --resume False to resume, or give a new {other}.")
    if latest is not None and latest.is_last:
        return PlannedRun(plan, is_complete=True, is_published=True)
    local = complete_checkpoints(output_dir)
    newest = local[-1] if local else None
    if store and published and (newest is None or step_of(published[-1]) > newest.step):
        newest = fetch_checkpoint(store, published[-1], output_dir)
        bring_log(store, config.model, config.run, output_dir)
    cut_log(output_dir, newest.step if newest else 0)
    if newest is not None and newest.is_last and not newest.marker.part:  # ranks of all nodes publish parts
        return PlannedRun(plan, is_complete=True)
    if config.resume_from and newest is None:
        _LOG.info(
            "the run trains a version further, and its optimizer starts anew", extra={"version": config.resume_from}
        )
    for_processes(plan, processes)  # refused before anything starts; ranks decide for those that there are
    return PlannedRun(plan, is_complete=False)


def join(config: TrainConfig, output_dir: Path, processes: int) -> PlannedRun:
    """The same for a node that is not the first: it only finds what training needs here."""
    output_dir.mkdir(parents=True, exist_ok=True)
    if (output_dir / NODE_LOCAL).exists():  # elsewhere the first node does so
        (output_dir / STOP).unlink(missing_ok=True)
    store = open_store(config)
    plan = make_plan(config, store, output_dir, processes)
    local = complete_checkpoints(output_dir)
    is_published = bool(store and _is_published(store, config))
    is_complete = is_published or (bool(local) and local[-1].is_last and not local[-1].marker.part)
    return PlannedRun(plan, is_complete=is_complete, is_published=is_published)


def wait_until_finished(config: TrainConfig, output_dir: Path) -> None:
    """Wait on a node that is not the first until the first has published what the run left, and has ended.

    Kubeflow's controller takes an elastic job for succeeded when any of its pods has, and ends those that still run.
    """
    _LOG.info("waiting until the first node has finished")
    if config.store and (output_dir / NODE_LOCAL).exists():  # what the first leaves in its own folder is not seen here
        store = Store.at(config.store, endpoint_url=config.endpoint_url)
        while not _is_published(store, config):
            time.sleep(_ENDING_SECONDS)
    else:
        finished = output_dir / FINISHED
        while not finished.exists() or finished.read_text() != (config.store or ""):
            time.sleep(_POLL_SECONDS)
    time.sleep(_ENDING_SECONDS)


def _is_published(store: Store, config: TrainConfig) -> bool:
    """Whether the store has the end of the run."""
    published = versions_of(store, config.model, config.run)
    return bool(published) and store.manifest(published[-1].uri).is_last


def finish(plan: Plan, output_dir: Path) -> list[ModelVersion]:
    """Publish what a killed attempt completed and did not get to publish; return the run's versions, oldest first.

    Without a store the newest checkpoint is what the run leaves: its files appear in `output_dir`, too.
    """
    store = open_store(plan.config)
    model, run = plan.config.model, plan.config.run
    if store:
        for checkpoint in unpublished(store, model, run, output_dir):
            publish_checkpoint(store, checkpoint, f"{model}/{run}", plan.release, plan.producer)
        if not (output_dir / NODE_LOCAL).exists():  # else the first rank is elsewhere, with the run's log
            keep(store, model, run, output_dir)
    remove_surplus(complete_checkpoints(output_dir), plan.config.kept)
    if store is None:
        check_weights(complete_checkpoints(output_dir)[-1].folder)
        for path in (path for path in complete_checkpoints(output_dir)[-1].folder.iterdir() if path.is_file()):
            target = output_dir / path.name
            target.unlink(missing_ok=True)
            os.link(path, target)
    (output_dir / FINISHED).write_text(plan.config.store or "")
    return versions_of(store, model, run) if store else []
