"""What should exist for the promotions as they stand: the weights of the traffic, the servers, the evaluations."""

from __future__ import annotations

from collections.abc import Mapping

from tunegate.api.evaluation import is_reviewed
from tunegate.api.policy import CanaryStep, PromotionPolicy
from tunegate.api.promotion import PromotionStatus
from tunegate.api.traffic import step_label
from tunegate.api.versions import ModelVersion
from tunegate.promotion.counting import name_in_store, shown, stable_version
from tunegate.promotion.snapshot import EvaluationJob, EvaluationState, ServerState, Snapshot


def canary_steps(policy: PromotionPolicy) -> tuple[CanaryStep, ...]:
    """The steps that share the traffic. A step of 100 % is the promotion itself."""
    return tuple(step for step in policy.steps if step.weight < 100)


def baking_weight(policy: PromotionPolicy) -> int:
    """The candidate's share in percent while it bakes: what the policy leaves it, and no less than it had. Where the
    traffic can't be shared, all of it."""
    steps = canary_steps(policy)
    return max(100 - policy.baking_stable_weight, steps[-1].weight) if steps else 100


def compared_weights(policy: PromotionPolicy) -> list[int]:
    """The candidate's shares in percent in the steps in which the stable answers beside it, in order; one at least."""
    shares = {*(step.weight for step in canary_steps(policy)), baking_weight(policy)} - {100}
    return sorted(shares) or [50]


def step_index(status: PromotionStatus, steps: tuple[CanaryStep, ...]) -> int:
    """The step it is at; the last one when the policy has fewer by now."""
    return min(status.step, len(steps) - 1)


def desired_weights(snapshot: Snapshot) -> dict[str, int]:
    """The share of each version in percent, by digest. Empty: leave the traffic alone."""
    if snapshot.modified:
        return {}
    stable, promotion = stable_version(snapshot), shown(snapshot.promotions)
    share = 0
    if promotion and promotion.status.phase != "RollingBack":
        is_stable_away = not snapshot.servers.get(stable.digest, ServerState()).ready
        share = _share(snapshot.policy, promotion.status, is_stable_away)
        server = snapshot.servers.get(promotion.candidate.digest, ServerState())
        if server.queued:  # its pods were taken, and nobody knows when it has others
            share = 0
        elif not server.ready:
            # Not ready yet, or down for a moment: traffic stays where it was last seen, but none goes there first.
            share = min(share, (snapshot.weights or {}).get(promotion.candidate.digest, 0))
    if not promotion or share == 0:
        return {stable.digest: 100}
    return {stable.digest: 100 - share, promotion.candidate.digest: share}


def _share(policy: PromotionPolicy, status: PromotionStatus, is_stable_away: bool) -> int:
    """The share that the candidate is to have, in percent. What is kept for a stable that is away would only fail."""
    steps = canary_steps(policy)
    if steps and status.phase not in ("Promoting", "Baking"):
        return steps[step_index(status, steps)].weight
    return 100 if status.baked or is_stable_away else baking_weight(policy)


def desired_step(snapshot: Snapshot, weights: Mapping[str, int]) -> str:
    """The label of the step that these weights are of; empty while no candidate has traffic.

    It follows the share and not the status: a share that is held back still is the one of the step before.
    """
    promotion = shown(snapshot.promotions)
    share = weights.get(promotion.candidate.digest, 0) if promotion else 0
    if not promotion or share == 0:
        return ""
    index = sum(step.weight < share for step in canary_steps(snapshot.policy))
    return step_label(name_in_store(snapshot, promotion), index)


def desired_servers(snapshot: Snapshot) -> tuple[ModelVersion, ...]:
    """The stable, the candidate users may see, and whatever the route still points at: pods stay until it moved on."""
    promotion = shown(snapshot.promotions)
    needed = [stable_version(snapshot), *([promotion.candidate] if promotion else [])]
    known = [snapshot.initial, *(promotion.candidate for promotion in snapshot.promotions)]
    routed = [version for version in known if (snapshot.weights or {}).get(version.digest, 0) > 0]
    return tuple({version.digest: version for version in (*needed, *routed)}.values())


def desired_evaluations(
    snapshot: Snapshot,
) -> tuple[EvaluationJob, ...]:
    """Candidates that wait for their gates first, then the stable for comparison, then every other checkpoint: the
    newest, or where a run is judged by several in a row, the one that all later ones wait for."""
    policy = snapshot.policy
    waiting = [promotion.candidate for promotion in snapshot.promotions if promotion.status.phase == "Evaluating"]
    is_in_order = policy.stop_training is not None or policy.selection.type == "BestOf"
    others = (snapshot.versions or ())[:: 1 if is_in_order else -1]
    versions = {version.digest: version for version in (*waiting, stable_version(snapshot), *others)}
    limit = policy.evaluation_attempts
    return tuple(
        EvaluationJob(version, suite)
        for version in versions.values()
        for suite in snapshot.policy.suites
        if not is_reviewed(suite)
        and (state := snapshot.evaluations.get((version.digest, suite), EvaluationState())).result is None
        and state.failures < limit
    )
