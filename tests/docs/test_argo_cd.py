"""What the guide for Argo CD gives to paste: health scripts, run by a real Lua 5.1 on what the operator writes."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from tests.apiserver import REPOSITORY, ApiServer, find_assets
from tests.builders import START, make_version
from tunegate.api.promotion import Decision, Ending, Phase, Promotion, PromotionStatus, Transition
from tunegate_operator import conditions
from tunegate_operator.conditions import Condition, Problem
from tunegate_operator.statuses import CHECKS
from tunegate_operator.types import MANAGER, to_plain

Object = dict[str, Any]
GUIDE = REPOSITORY / "docs/argo-cd.md"
SCRIPTS = REPOSITORY / "docs/argo-cd"
VERSION = make_version("run-7")
REPAIR = Problem("StoreReadable", "StoreUnreachable", "the store does not answer")
NOTICE = Problem("TrafficSplit", "NoGateway", "it switches", stops=False)


def health(kind: str, obj: Object) -> tuple[str, str]:
    """What the script says of the object. Argo CD's Lua is 5.1, too, and gives it the object as `obj`."""
    lua51 = pytest.importorskip("lupa.lua51", reason="needs Lua: pip install lupa")
    lua = lua51.LuaRuntime(unpack_returned_tuples=True)
    lua.globals().obj = table(lua, obj)
    said = lua.execute((SCRIPTS / f"{kind}.lua").read_text())
    return said.status, said.message


def table(lua: Any, value: Any) -> Any:
    if isinstance(value, dict):
        return lua.table_from({key: table(lua, each) for key, each in value.items()})
    if isinstance(value, list):
        return lua.table_from([table(lua, each) for each in value])
    return value


def make(
    kind: str, status: Object | None, found: Sequence[Condition] = (), generation: int = 1, seen: int = 1
) -> Object:
    """The object as the operator writes it; None: it has not reconciled it yet."""
    obj: Object = {
        "kind": kind,
        "metadata": {"name": "shop", "namespace": "shop", "generation": generation},
        "spec": {},
    }
    if status is None:
        return obj
    listed = conditions.written(found, obj, START)
    return {**obj, "status": {**status, "conditions": listed, "observedGeneration": seen}}


def policy(phase: str, *problems: Problem, **more: int) -> Object:
    found = conditions.of_policy(problems, CHECKS, busy=phase == "Promoting", phase=phase)
    status = {"phase": phase, "stable": to_plain(VERSION), **({"promotion": "run-8"} if phase == "Promoting" else {})}
    return make("PromotionPolicy", status, found, **more)


def promotion(
    phase: Phase, outcome: Ending | None = None, *problems: Problem, weight: int = 0, generation: int = 1
) -> Object:
    decision = Decision(outcome=outcome, reason="Why", message="the numbers", time=START) if outcome else None
    step = Transition(phase=phase, time=START, reason="Why", message="so")
    status = PromotionStatus(phase=phase, decision=decision, weight=weight, history=(step,))
    value = Promotion(name="shop", created=START, candidate=VERSION, status=status)
    found = conditions.of_promotion(value, problems, "shop", "")
    return make("Promotion", to_plain(status), found, generation=generation)


def version(phase: str, *found: Condition) -> Object:
    return make("ModelVersion", {"phase": phase}, found)


def job(*found: tuple[str, str]) -> Object:
    listed = [{"type": kind, "status": status, "message": f"it is {kind}"} for kind, status in found]
    return {"kind": "PyTorchJob", "metadata": {"name": "train"}, "status": {"conditions": listed}}


TABLE = [
    pytest.param(make("PromotionPolicy", None), "Progressing", "not looked at this spec yet", id="policy-new"),
    pytest.param(policy("Pending"), "Progressing", "does not answer yet", id="policy-whose-stable-starts"),
    pytest.param(
        make("PromotionPolicy", {"phase": "Pending"}, [Condition("Ready", "False", "Waiting", "it is looked up")]),
        "Progressing",
        "it is looked up",
        id="policy-whose-initial-version-is-looked-up",
    ),
    pytest.param(policy("Serving"), "Healthy", "serves shop/run-7/checkpoint-10", id="policy-serving"),
    pytest.param(policy("Serving", NOTICE), "Healthy", "serves", id="policy-serving-without-a-gateway"),
    pytest.param(policy("Serving", generation=2), "Progressing", "not looked at", id="policy-just-changed"),
    pytest.param(policy("Promoting"), "Healthy", "under way: run-8", id="policy-promoting"),
    pytest.param(policy("Suspended"), "Suspended", "spec.suspend is true", id="policy-suspended"),
    pytest.param(
        policy("Stalled", REPAIR), "Degraded", "StoreUnreachable: the store does not answer", id="policy-stalled"
    ),
    pytest.param(make("Promotion", None), "Progressing", "Pending", id="promotion-new"),
    pytest.param(promotion("Evaluating"), "Progressing", "Evaluating", id="promotion-evaluating"),
    pytest.param(promotion("Paused", weight=10), "Progressing", "Paused at 10 %", id="promotion-in-its-canary"),
    pytest.param(promotion("Paused", None, REPAIR), "Degraded", "StoreUnreachable", id="promotion-stalled"),
    pytest.param(promotion("AwaitingApproval"), "Suspended", "tunegate promotions approve shop", id="promotion-waits"),
    pytest.param(promotion("RollingBack", "RolledBack", weight=10), "Progressing", "RollingBack", id="rolling-back"),
    pytest.param(promotion("Succeeded", "Promoted"), "Healthy", "Succeeded: the numbers", id="succeeded"),
    pytest.param(promotion("Rejected", "Rejected"), "Healthy", "Rejected: the numbers", id="rejected"),
    pytest.param(promotion("RolledBack", "RolledBack"), "Healthy", "RolledBack: the numbers", id="rolled-back"),
    pytest.param(promotion("Aborted", "Aborted"), "Healthy", "Aborted", id="aborted"),
    pytest.param(promotion("Superseded", "Superseded"), "Healthy", "Superseded", id="superseded"),
    pytest.param(promotion("Failed", "Failed"), "Degraded", "Why: the numbers; when the cause is gone", id="failed"),
    pytest.param(promotion("Rejected", "Rejected", generation=2), "Healthy", "Rejected", id="changed-after-its-end"),
    pytest.param(make("ModelVersion", None), "Progressing", "not looked at", id="version-new"),
    pytest.param(
        version("Pending", Condition("Verified", "Unknown", "Waiting")), "Progressing", "", id="version-waits"
    ),
    pytest.param(version("Verified", Condition("Verified", "True", "Verified")), "Healthy", "", id="version-verified"),
    pytest.param(
        version("Evaluated", Condition("Evaluated", "True", "Evaluated")), "Healthy", "", id="version-evaluated"
    ),
    pytest.param(
        version("Missing", Condition("Verified", "False", "VersionMissing", "it is gone")),
        "Degraded",
        "VersionMissing: it is gone",
        id="version-missing",
    ),
    pytest.param(
        version("Verified", Condition("Evaluated", "False", "EvaluationFailed", "no memory")),
        "Degraded",
        "EvaluationFailed: no memory",
        id="version-whose-suite-failed",
    ),
    pytest.param({"kind": "PyTorchJob", "metadata": {}}, "Progressing", "not started", id="job-new"),
    pytest.param(job(("Created", "True")), "Progressing", "it is Created", id="job-created"),
    pytest.param(job(("Created", "True"), ("Running", "True")), "Progressing", "it is Running", id="job-running"),
    pytest.param(job(("Running", "False"), ("Restarting", "True")), "Progressing", "Restarting", id="job-restarting"),
    pytest.param(job(("Running", "False"), ("Succeeded", "True")), "Healthy", "it is Succeeded", id="job-succeeded"),
    pytest.param(job(("Running", "False"), ("Failed", "True")), "Degraded", "it is Failed", id="job-failed"),
    pytest.param(job(("Created", "True"), ("Suspended", "True")), "Suspended", "Suspended", id="job-suspended"),
    pytest.param(job(("Suspended", "False"), ("Running", "True")), "Progressing", "Running", id="job-resumed"),
]


@pytest.mark.parametrize(("obj", "status", "message"), TABLE)
def test_health(obj: Object, status: str, message: str) -> None:
    said = health(obj["kind"], obj)
    assert said[0] == status
    assert message in said[1]


def test_every_phase_of_a_promotion_has_its_health() -> None:
    """A phase that is new must be thought of here."""
    phases = set(msgspec.inspect.type_info(PromotionStatus).fields[0].type.values)
    tried = {each.values[0].get("status", {}).get("phase") for each in TABLE if each.values[0]["kind"] == "Promotion"}
    alike = {"Pending", "Verifying", "Progressing", "Promoting", "Baking"}  # as Evaluating and Paused
    assert phases - tried <= alike


def test_the_command_puts_every_script_into_the_configmap(
    api_server: ApiServer, namespace: str, tmp_path: Path
) -> None:
    api_server.kubectl("create", "configmap", "argocd-cm", "--namespace", namespace, "--from-literal=url=kept")
    (command,) = re.findall(r"^\$ (.+)$", GUIDE.read_text(), re.MULTILINE)
    assets = find_assets()
    if assets is not None:
        (tmp_path / "kubectl").symlink_to(assets / "kubectl")
    env = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "KUBECONFIG": str(api_server.kubeconfig)}
    words = ["bash", "-eo", "pipefail", "-c", command.replace("--namespace argocd", f"--namespace {namespace}")]
    done = subprocess.run(words, cwd=REPOSITORY, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    said = api_server.kubectl("get", "configmap", "argocd-cm", "--namespace", namespace, "--output", "yaml").stdout
    data = yaml.safe_load(said)["data"]
    assert data.pop("url") == "kept"
    groups = {"PyTorchJob": "kubeflow.org"}
    assert data == {
        f"resource.customizations.health.{groups.get(path.stem, 'tunegate.io')}_{path.stem}": path.read_text()
        for path in SCRIPTS.glob("*.lua")
    }


def test_the_application_leaves_alone_what_the_operator_writes() -> None:
    (block,) = re.findall(r"^```yaml\n(.*?)^```$", GUIDE.read_text(), re.MULTILINE | re.DOTALL)
    spec = yaml.safe_load(block)["spec"]
    assert spec["ignoreDifferences"][0] == {"group": "*", "kind": "*", "managedFieldsManagers": [MANAGER]}
    assert "RespectIgnoreDifferences=true" in spec["syncPolicy"]["syncOptions"]


def test_every_link_leads_somewhere() -> None:
    for target, _, anchor in (each.partition("#") for each in re.findall(r"\]\(([^)]+)\)", GUIDE.read_text())):
        path = GUIDE.parent / target
        assert path.exists(), target
        assert not anchor or re.search(rf"^#+ {anchor}$", path.read_text(), re.MULTILINE | re.IGNORECASE)
