"""Which InferenceServices, and engines of their own, are made, changed and deleted. Pure.

A server that answers is never rewritten unasked: whatever changes in what its pods are made of replaces every one of
them, and KServe makes them of the annotations, too. So what we remember of servers is in the policy's status, and a
changed policy only scales a server that answers; the rest of it is for those that don't, for those to come, and for
when a person asks for a rollout.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from tunegate.api.labels import APPLIED
from tunegate.api.policy import ServingPods
from tunegate.api.versions import ModelVersion
from tunegate.kube.kinds import Object
from tunegate.promotion.snapshot import Plan
from tunegate_operator import manifests, placement
from tunegate_operator.config import Config
from tunegate_operator.edits import Edit, applied, edits, is_same
from tunegate_operator.engines import is_engine_answering, llm_inference_service, stands_before, unneeded_engines
from tunegate_operator.gather import Gathered
from tunegate_operator.measuring import Measuring
from tunegate_operator.shared import asked_by, engine_name, held_by_engine, shared_engine
from tunegate_operator.types import ServerRecord, server_name

# How long a server that gets no more traffic stays, for answers under way and gateways that lag behind.
DRAIN_SECONDS = 30


def engine_changes(
    gathered: Gathered, plan: Plan, config: Config, asked: Iterable[ModelVersion] = ()
) -> Iterable[Object]:
    """The LLMInferenceServices that are to be written: new ones, and those that the policy wants otherwise.

    asked: the versions that evaluations need one of, besides those that are served.
    One whose version is served by something else already is made when a person asks for a rollout. One that answers is
    only scaled, as servers are. What was applied last says what is to be written, and nobody is written against.
    """
    if gathered.snapshot.modified or gathered.policy.serving.llm_inference_service is None:
        return
    for version in {each.digest: each for each in (*plan.servers, *asked)}.values():
        if gathered.snapshot.misfits.get(version.digest, "") != "":
            continue
        made = llm_inference_service(gathered.namespace, gathered.policy, gathered.name, version, config)
        name = made["metadata"]["name"]
        live, server = gathered.objects.engines.get(name), gathered.objects.inference_services.get(name)
        if live is None:
            if server is None or stands_before(server, None) or _is_free(gathered, name):
                yield manifests.owned(manifests.remembered(made), gathered.obj)
            continue
        before, is_restored = applied(live), gathered.edit.is_restoring and bool(edits(live))
        if before is None and not gathered.rollout:
            continue  # somebody took away what says how it was; what a rollout makes of it is known
        spec = _engine_spec(made["spec"], before, as_before=is_restored, anew=_is_free(gathered, name))
        if spec != before or is_restored:
            wanted = manifests.remembered({**made, "spec": spec})
            yield manifests.over(manifests.owned(wanted, gathered.obj), live)


def _engine_spec(wanted: Object, before: Object | None, *, as_before: bool, anew: bool) -> Object:
    """What is written over an engine that is there; anew: whether more than its size may change."""
    if before is None or (anew and not as_before):
        return wanted
    return before if as_before else {**before, "replicas": wanted["replicas"]}


def _is_free(gathered: Gathered, name: str) -> bool:
    """Whether a server and its engine may become something else: they answer nobody, or a person asks for it."""
    if gathered.rollout:
        return True
    engine, record = gathered.objects.engines.get(name), gathered.servers.get(name)
    return not is_engine_answering(engine) if engine else record is not None and record.away_since is not None


def shared_engine_changes(gathered: Gathered, plan: Plan, config: Config) -> Iterable[Object]:
    """The engines that versions share which are to be written: new ones; what the policy says anew of one that does not
    answer, or of all when a person asks for a rollout; and what a person changed, when one asks to put it back."""
    if gathered.snapshot.modified or not gathered.policy.serving.share_base:
        return
    done = set()
    for version in plan.servers:
        base, name = held_by_engine(version), server_name(gathered.name, version.digest)
        server, seen = gathered.objects.inference_services.get(name), gathered.behind.get(name)
        if base is None or base.digest in done or gathered.snapshot.misfits.get(version.digest, "") != "":
            continue
        if server and not gathered.rollout and engine_name(gathered.name, base) not in asked_by([server]):
            continue  # it has the weights itself
        done.add(base.digest)
        is_free = bool(gathered.rollout) or seen is None or not is_engine_answering(seen)
        for made in shared_engine(gathered.namespace, gathered.policy, gathered.name, base, config):
            live = gathered.objects.shared.get((made["kind"], made["metadata"]["name"]))
            if live and gathered.edit.is_restoring and edits(live):
                made["spec"] = applied(live)
            elif live and not (is_free and applied(live) != made["spec"]):
                continue
            yield manifests.over(manifests.owned(manifests.remembered(made), gathered.obj), live)


def is_waiting(gathered: Gathered, plan: Plan) -> bool:
    """Whether a server of the plan waits for its engine."""
    return any(_waits(gathered, server_name(gathered.name, version.digest)) for version in plan.servers)


def _waits(gathered: Gathered, name: str) -> bool:
    return gathered.policy.serving.has_made_engine and name not in gathered.addresses


def new_servers(gathered: Gathered, plan: Plan, config: Config) -> Iterable[Object]:
    """Those of the plan that are not there, but for what can't fit on its GPUs or where that is not known yet.

    One in front of an engine is made when that answers, so that it is not ended for what it waits for.
    """
    if gathered.snapshot.modified:
        return
    for version in plan.servers:
        if gathered.snapshot.misfits.get(version.digest, "") != "":
            continue
        name = server_name(gathered.name, version.digest)
        if name not in gathered.objects.inference_services and not _waits(gathered, name):
            yield manifests.owned(_server(gathered, version, config), gathered.obj)


def _server(gathered: Gathered, version: ModelVersion, config: Config) -> Object:
    engine = gathered.engine_of(version)
    return manifests.inference_service(gathered.namespace, gathered.policy, gathered.name, version, config, engine)


def server_patches(gathered: Gathered, plan: Plan, config: Config) -> Iterable[Object]:
    """What is to change of those that are there; everything else of them stays as it is.

    Asking again for what was asked for already, of an object that is as it was then, would change nothing: a webhook
    has made something else of it.
    """
    if gathered.snapshot.modified:
        return
    for version in plan.servers:
        name = server_name(gathered.name, version.digest)
        live = gathered.objects.inference_services.get(name)
        if live is None:
            continue
        wanted = _server(gathered, version, config)
        record = gathered.servers.get(name)
        changed = edits(live, wanted["spec"]) if gathered.edit.is_restoring else ()
        if changed:
            spec = put_back(live["spec"], changed)
        elif gathered.rollout and not _waits(gathered, name):
            spec = _rollout(wanted["spec"]["predictor"], live["spec"]["predictor"])
        else:
            is_answering = record is None or record.away_since is None or _waits(gathered, name)
            spec = _policy_changes(wanted["spec"], live["spec"], gathered.policy.serving, is_answering)
        generation = live["metadata"].get("generation", 0)
        if spec and gathered.last.asked.get(name) != (spec, generation):
            metadata = {key: live["metadata"][key] for key in ("name", "namespace")}
            if gathered.rollout and applied(live) is not None:
                # What an operator of before remembers is not true any more, and all pods are replaced in any case.
                metadata["annotations"] = {APPLIED: None}
            yield {"apiVersion": live["apiVersion"], "kind": live["kind"], "metadata": metadata, "spec": spec}


def put_back(spec: Object, changed: Iterable[Edit]) -> Object:
    """The merge patch that undoes these edits of a spec, and nothing else."""
    patch: Object = {}
    after = copy.deepcopy(spec)
    for edit in changed:
        # Lists are replaced as a whole, so the patch ends at the first one.
        keys = [step.removeprefix("f:") for step in edit.steps[1:]]
        depth = next((number for number, step in enumerate(edit.steps[1:]) if step.startswith("k:")), len(keys))
        into, field = after, patch
        for key in keys[: depth - 1]:
            into, field = into.setdefault(key, {}), field.setdefault(key, {})
        last = keys[depth - 1]
        into[last] = edit.wanted if depth == len(keys) else _with_item(into[last], edit.steps[depth + 1 :], edit.wanted)
        field[last] = into[last]
    return patch


def server_records(gathered: Gathered, plan: Plan, now: datetime) -> tuple[ServerRecord, ...]:
    """What is remembered of the servers that are there: since when no plan has needed one that still runs."""
    needed = {server_name(gathered.name, version.digest) for version in plan.servers}
    waits = bool(gathered.snapshot.modified) or gathered.snapshot.weights is None
    return tuple(
        ServerRecord(
            name=name,
            away_since=record.away_since,
            unused_since=None if name in needed else record.unused_since or (None if waits else now),
        )
        for name, record in sorted(gathered.servers.items())
    )


def drained_servers(
    gathered: Gathered, plan: Plan, records: Iterable[ServerRecord], now: datetime, measured: Measuring
) -> Iterable[Object]:
    """Servers that have not been needed for so long that their last answers are over, and those that give none.

    One that never came up must not be there, with its age, when a person tries its version again. Their engines go
    with them, and those that no evaluation asks any more.
    """
    if gathered.snapshot.modified or gathered.snapshot.weights is None:
        return
    kept = dict(gathered.objects.inference_services)
    for record in records:
        if record.unused_since and (record.away_since or (now - record.unused_since).total_seconds() >= DRAIN_SECONDS):
            yield kept.pop(record.name)
    if gathered.snapshot.versions is None:
        return  # which versions are to be evaluated is not known
    has_engines = gathered.policy.serving.llm_inference_service is not None
    wanted = (*plan.servers, *measured.engines) if has_engines else ()
    needed = {server_name(gathered.name, version.digest) for version in wanted}
    yield from unneeded_engines(gathered.objects.engines, kept, needed | measured.kept)


def retired_engines(gathered: Gathered, plan: Plan, going: Iterable[Object]) -> Iterable[Object]:
    """Engines that versions share, of which none is to be served any more and none is; going: what is deleted now."""
    if gathered.snapshot.modified or gathered.snapshot.weights is None:
        return
    gone = {obj["metadata"]["name"] for obj in going if obj["kind"] == "InferenceService"}
    kept = [server for name, server in gathered.objects.inference_services.items() if name not in gone]
    wanted = [held_by_engine(version) for version in plan.servers] if gathered.policy.serving.share_base else []
    needed = {engine_name(gathered.name, base) for base in wanted if base} | asked_by(kept)
    yield from (obj for (_, name), obj in gathered.objects.shared.items() if name not in needed)


def _policy_changes(wanted: Object, live: Object, serving: ServingPods, is_answering: bool) -> Object:
    """The merge patch to what the policy asks for now; of a server that answers, only how many pods there are."""
    before, after = live["predictor"], wanted["predictor"]
    patch = {key: after[key] for key in ("minReplicas", "maxReplicas") if after[key] != before.get(key)}
    if not is_answering:
        given = [*placement.stated(serving), *_named(labels=serving.pod_labels, annotations=serving.pod_annotations)]
        patch |= {key: after[key] for key in given if not is_same(after[key], before.get(key))}
        model = {}
        if manifests.is_vllm(before["model"]) != manifests.is_vllm(after["model"]):
            model["runtime"] = after["model"]["runtime"]
        if manifests.elsewhere(before["model"]) != manifests.elsewhere(after["model"]):
            model |= {key: after["model"][key] for key in ("storageUri", "env")}
            model |= _changed("volumeMounts", before["model"], after["model"])
            patch |= _changed("volumes", before, after)
        elif serving.extra_env and not is_same(after["model"]["env"], before["model"].get("env")):
            model["env"] = after["model"]["env"]
        if serving.resources and not _are_same(serving.resources, before["model"].get("resources", {})):
            model["resources"] = _instead(serving.resources, before["model"].get("resources", {}))
        patch |= {"model": model} if model else {}
    return {"predictor": patch} if patch else {}


def _rollout(wanted: Object, found: Object) -> Object:
    """The merge patch to what a new server would be. Placement that the policy no longer states is taken away."""
    gone = {key: None for key in placement.OPTIONAL if key in found and key not in wanted}
    patch = gone | {
        key: value for key, value in wanted.items() if key != "model" and not is_same(value, found.get(key))
    }
    before, after = found["model"], wanted["model"]
    model: Object = {
        key: None for key in ("envFrom", "volumeMounts", "startupProbe") if key in before and key not in after
    }
    model |= {key: value for key, value in after.items() if key != "resources" and not is_same(value, before.get(key))}
    if not _are_same(after.get("resources", {}), before.get("resources", {})):
        model["resources"] = _instead(after.get("resources", {}), before.get("resources", {}))
    patch |= {"model": model} if model else {}
    return {"predictor": patch} if patch else {}


def _changed(key: str, before: Object, after: Object) -> Object:
    """The merge patch of one field that may be there or not."""
    return {key: after.get(key)} if after.get(key) != before.get(key) else {}


def _named(**values: Any) -> list[str]:
    return [name for name, value in values.items() if value]


def _are_same(wanted: Object, found: Object) -> bool:
    """Whether the resources are these and no others."""
    keys = {(part, name) for side in (wanted, found) for part, amounts in side.items() for name in amounts}
    both = all(name in wanted.get(part, {}) and name in found.get(part, {}) for part, name in keys)
    return both and is_same({"resources": wanted}, {"resources": found})


def _instead(wanted: Mapping[str, Any], found: Mapping[str, Any]) -> Object:
    """The merge patch that makes `wanted` of `found`, also where that has more."""
    patch: Object = {}
    for key in {**found, **wanted}:
        is_inner = isinstance(found.get(key), dict) and isinstance(wanted.get(key), dict)
        patch[key] = _instead(wanted[key], found[key]) if is_inner else wanted.get(key)
    return patch


def _with_item(items: list[Object], steps: tuple[str, ...], value: Any) -> list[Object]:
    """The list with one field of one item set; `steps` name the item and the field as fieldsV1 does."""
    key = json.loads(steps[0][2:])
    changed = copy.deepcopy(items)
    item = next(item for item in changed if key.items() <= item.items())
    for step in steps[1:-1]:
        item = item.setdefault(step.removeprefix("f:"), {})
    item[steps[-1].removeprefix("f:")] = value
    return changed
