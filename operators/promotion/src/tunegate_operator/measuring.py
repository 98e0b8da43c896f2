"""Which evaluations begin now, and which engines are there for them. Pure.

Where versions have engines of their own an evaluation asks the one of its version. Its Job is made when that answers,
so that none of its time is spent on weights that are still being loaded; until then the engine has the place of the
Job, and there are never more engines at once than evaluations could run.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tunegate.api.evaluation import is_reviewed
from tunegate.api.labels import VERSION
from tunegate.api.promotion import Promotion
from tunegate.api.versions import ModelVersion
from tunegate.promotion.snapshot import EvaluationJob, EvaluationState, Plan
from tunegate_operator.gather import Gathered
from tunegate_operator.manifests import evaluation_name
from tunegate_operator.read import job_state
from tunegate_operator.types import object_name, server_name

# With so many evaluation pods of one policy under way none is added: a store full of old checkpoints must not fill the
# cluster. A Job may have more by itself, where the policy says so.
MOST_PODS = 4


@dataclass(frozen=True)
class Measuring:
    """jobs: those to make. engines: the versions that are to have an engine, so that it can be asked.

    kept: the names of engines that stay where they are there.
    """

    jobs: tuple[EvaluationJob, ...]
    engines: tuple[ModelVersion, ...]
    kept: frozenset[str]


def measuring(gathered: Gathered, plan: Plan, promotions: Iterable[Promotion]) -> Measuring:
    """`promotions` as the plan has them."""
    known, name = gathered.objects, gathered.name
    unfinished = {job: obj for job, obj in known.jobs.items() if not job_state(obj).done}
    room = MOST_PODS - sum(obj["spec"].get("completions") or 1 for obj in unfinished.values())
    # One whose ModelVersion is being created has its turn in the next reconcile.
    missing = [
        each
        for each in plan.evaluations
        if evaluation_name(each) not in known.jobs and object_name(each.version) in known.model_versions
    ]
    # An engine that comes up for one keeps its place, whatever is more urgent by now: its GPUs are taken.
    missing.sort(key=lambda each: server_name(name, each.version.digest) not in known.engines)
    begun = missing[: max(0, -(-room // gathered.policy.evaluation.shards))]
    running = [each for each in plan.evaluations if evaluation_name(each) in unfinished]
    asking = [each.version for each in (*begun, *running)] if gathered.policy.serving.llm_inference_service else []
    going_on = [server_name(name, it.candidate.digest) for it in promotions if _goes_on(gathered, it)]
    of_jobs = [f"{name}-{obj['metadata'].get('labels', {}).get(VERSION, '')}" for obj in unfinished.values()]
    return Measuring(
        jobs=tuple(each for each in begun if each.version.digest not in gathered.engine_waits),
        engines=tuple({version.digest: version for version in asking}.values()),
        kept=frozenset((*going_on, *of_jobs)),
    )


def _goes_on(gathered: Gathered, promotion: Promotion) -> bool:
    """Whether a canary may begin soon, so that its engine is not ended to be made again at once. People take too long
    for that."""
    if promotion.status.phase != "Evaluating":
        return False
    found = gathered.snapshot.evaluations
    judged = (found.get((promotion.candidate.digest, suite)) for suite in gathered.policy.suites if is_reviewed(suite))
    return all((state or EvaluationState()).result for state in judged)
