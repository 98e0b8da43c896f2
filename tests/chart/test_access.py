"""Who may do what, as far as the objects say it; what an API server makes of it is in test_cluster.py."""

from __future__ import annotations

import pytest

from tests.chart.rendering import kinds, pick, render


@pytest.mark.parametrize(
    ("role", "joins"),
    [("viewer", {"view", "edit", "admin"}), ("editor", {"edit", "admin"}), ("approver", set())],
)
def test_what_the_roles_join(role: str, joins: set[str]) -> None:
    labels = pick(render(), "ClusterRole", f"tunegate-{role}")["metadata"]["labels"]
    prefix = "rbac.authorization.k8s.io/aggregate-to-"
    assert {label.removeprefix(prefix) for label in labels if label.startswith(prefix)} == joins


def test_whoever_approves_may_do_what_the_guide_to_troubleshooting_says() -> None:
    rules = pick(render(), "ClusterRole", "tunegate-approver")["rules"]
    may = {(resource, verb) for rule in rules for resource in rule["resources"] for verb in rule["verbs"]}
    assert {("promotions", "create"), ("promotions", "delete"), ("modelversions", "delete")} <= may
    assert ("promotionpolicies", "update") not in may


def test_roles_and_admission_policy_can_be_left_to_somebody_else() -> None:
    values = {"rbac": {"userRoles": False}, "approvals": {"verifyActor": False}, "serving": {"checkNames": False}}
    objects = render(values)
    assert [each["metadata"]["name"] for each in objects if each["kind"] == "ClusterRole"] == ["tunegate-operator"]
    assert not {"ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"} & kinds(objects)
