"""What has had its time: finished Jobs, old promotions and the records of versions that are gone. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from tunegate.api.digest import short
from tunegate.api.labels import SUITE, VERSION
from tunegate.api.promotion import TERMINAL, Promotion
from tunegate.api.records import Place
from tunegate.kube.kinds import Object
from tunegate.records.writing import unrecorded
from tunegate_operator.gather import Gathered
from tunegate_operator.read import job_state
from tunegate_operator.types import dns

# How long the Job of a recorded evaluation stays, with its logs.
KEEP_JOB_SECONDS = 3600


def finished_jobs(gathered: Gathered, now: datetime) -> Iterable[Object]:
    """Evaluation Jobs that did their work a while ago: their numbers are recorded, and their logs are old."""
    recorded = {
        (short(model_version["spec"]["digest"]), dns(evaluation["suite"]))
        for model_version in gathered.objects.model_versions.values()
        for evaluation in model_version.get("status", {}).get("evaluations", ())
        if not evaluation.get("failures")
    }
    for job in gathered.objects.jobs.values():
        state, labels = job_state(job), job["metadata"].get("labels", {})
        if state.failed or not state.done or (labels.get(VERSION), labels.get(SUITE)) not in recorded:
            continue
        ended = datetime.fromisoformat(job["status"].get("completionTime", now.isoformat()))
        if (now - ended).total_seconds() >= KEEP_JOB_SECONDS:
            yield job


def outdated_records(gathered: Gathered, promotions: tuple[Promotion, ...]) -> Iterable[Object]:
    """Ended promotions beyond the limit, and records of versions that are gone and that no promotion speaks of.

    Kept besides the newest: the one that made the stable version, and the one with the newest candidate, which is what
    keeps older ones from being tried again. And all of which a record or a departure is still to be written.
    """
    ended = [promotion for promotion in promotions if promotion.status.phase in TERMINAL]
    made = [promotion for promotion in ended if promotion.status.phase == "Succeeded" and promotion.status.decision]
    keep = {promotion.name for promotion in ended[-gathered.policy.history_limit :]}
    keep |= {max(made, key=lambda promotion: promotion.status.decision.time).name} if made else set()  # type: ignore[union-attr]
    keep |= {max(promotions, key=lambda promotion: promotion.candidate.created).name} if promotions else set()
    if gathered.is_recording:
        place = Place(policy=gathered.name, namespace=gathered.namespace)
        keep |= {asked.promotion.name for asked in unrecorded(promotions, gathered.policy, place)}
    gone = [promotion for promotion in ended if promotion.name not in keep]
    yield from (gathered.objects.promotions[promotion.name] for promotion in gone)
    if gathered.snapshot.versions is None:
        return
    spoken_of = {
        version.digest for version in (gathered.initial, gathered.snapshot.initial, *gathered.snapshot.versions)
    }
    names = {promotion.name for promotion in gone}
    spoken_of |= {promotion.candidate.digest for promotion in promotions if promotion.name not in names}
    for model_version in gathered.objects.model_versions.values():
        if model_version["spec"]["digest"] not in spoken_of and model_version["spec"]["model"] == gathered.policy.model:
            yield model_version
