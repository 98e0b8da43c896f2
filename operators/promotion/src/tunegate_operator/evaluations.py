"""What is known of each suite on each version: recorded in a ModelVersion, in the store, or why its Job failed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping

import msgspec

from tunegate.api.evaluation import is_reviewed
from tunegate.api.policy import ClusterPolicy
from tunegate.api.versions import ModelVersion
from tunegate.kube.kinds import Object
from tunegate.promotion.snapshot import EvaluationJob, EvaluationState
from tunegate_operator.manifests import evaluation_name
from tunegate_operator.read import Queued, job_state
from tunegate_operator.store_watch import Source
from tunegate_operator.types import EvaluationSummary, object_name, read_summaries, to_evaluation

NOTHING: Mapping[str, str] = {}


def find_summaries(
    policy: ClusterPolicy,
    versions: Iterable[ModelVersion],
    model_versions: Mapping[str, Object],
    jobs: Mapping[str, Object],
    source: Source,
    pod_message: Callable[[str], str],
    awaited: Collection[str] = (),
    engine_failures: Mapping[str, str] = NOTHING,
) -> dict[tuple[str, str], EvaluationSummary]:
    """By (digest, suite). `pod_message` reads why a Job's pod failed.

    engine_failures: why versions have no engine that could be asked, by digest.

    awaited: digests of the versions whose results by people are wanted now; the store is asked for them.
    A Job that failed and was deleted makes its suite unknown again: it is tried again. Where there was no Job, since
    the engine that it was to ask did not come up, the ModelVersion remembers it.
    """
    found = {}
    for version in versions:
        model_version = model_versions.get(object_name(version))
        recorded = {summary.suite: summary for summary in read_summaries(model_version)} if model_version else {}
        for suite in policy.suites:
            known = recorded.get(suite)
            job = jobs.get(evaluation_name(EvaluationJob(version, suite)))
            if known and not known.failures:
                found[version.digest, suite] = known
            elif is_reviewed(suite):
                judged = source.result((version.digest, suite, ""), policy.model) if version.digest in awaited else None
                if judged:
                    found[version.digest, suite] = judged
            elif job is not None and (state := job_state(job)).done:
                if state.failed:
                    name = job["metadata"]["name"]
                    message = f"{state.message} {pod_message(name)}".strip() + f"; delete Job {name} to try again"
                    known = known or EvaluationSummary(suite=suite, failures=1, message=message[:4096])
                else:
                    known = source.result((version.digest, suite, job["metadata"]["uid"]), policy.model)
                if known and known.failures:
                    known = msgspec.structs.replace(known, failures=policy.evaluation_attempts)
                if known:
                    found[version.digest, suite] = known
            elif job is None and version.digest in engine_failures:
                found[version.digest, suite] = _without_engine(policy, suite, engine_failures[version.digest])
            elif job is None and known and known.engine_failed and policy.serving.llm_inference_service:
                found[version.digest, suite] = known
    return found


def _without_engine(policy: ClusterPolicy, suite: str, why: str) -> EvaluationSummary:
    failures = policy.evaluation_attempts
    return EvaluationSummary(suite=suite, failures=failures, message=why[:4096], engine_failed=True)


def evaluation_states(
    policy: ClusterPolicy,
    versions: Iterable[ModelVersion],
    summaries: Mapping[tuple[str, str], EvaluationSummary],
    progress: Callable[[str, str], str],
    queues: Mapping[str, Queued],
    engine_waits: Mapping[str, str] = NOTHING,
) -> dict[tuple[str, str], EvaluationState]:
    """The same, as `decide` gets it, with how far people are where a result is missing, and what its Job waits for.

    queues: by the name of the Job. engine_waits: what is said of the engines that have to be there before a Job is, by
    the digests of their versions.
    """
    states = {}
    for version in versions:
        for suite in policy.suites:
            job = evaluation_name(EvaluationJob(version, suite))
            queue = queues.get(job, Queued())
            if summary := summaries.get((version.digest, suite)):
                result = None if summary.failures else to_evaluation(version, summary)
                states[version.digest, suite] = EvaluationState(result, summary.failures, summary.message)
            elif queue.waiting or queue.admitted:
                said = f"{suite} on {version.name} {queue.waiting}" if queue.waiting else ""
                states[version.digest, suite] = EvaluationState(None, 0, said, bool(queue.waiting), queue.admitted)
            elif job not in queues and not is_reviewed(suite) and policy.serving.llm_inference_service:
                said = engine_waits.get(version.digest, f"{suite} on {version.name} waits for its turn")
                states[version.digest, suite] = EvaluationState(None, 0, said, queued=True)
            elif said := progress(version.digest, suite):
                states[version.digest, suite] = EvaluationState(message=said)
    return states
