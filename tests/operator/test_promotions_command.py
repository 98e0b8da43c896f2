"""`tunegate promotions -n`: what a person says of a promotion in a cluster."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tests.apiserver import ApiServer
from tests.operator.objects import VERSION, Api, promotion
from tunegate.api.errors import NotFoundError, UsageError
from tunegate.cli import root

pytestmark = pytest.mark.usefixtures("tunegate_crds")
NAME = promotion()["metadata"]["name"]


def say(namespace: str, *words: str) -> Result:
    return CliRunner().invoke(root, ["promotions", *words, "-n", namespace])


def test_an_abort_is_kept_beside_an_approval(api: Api, namespace: str) -> None:
    api.create(promotion())
    api.change(promotion(), "status", status={"phase": "AwaitingApproval", "candidate": VERSION})
    for verb in ("approve", "abort"):
        result = say(namespace, verb, NAME, "-m", f"I {verb}")
        assert result.exit_code == 0, (result.output, result.exception)
    spec = api.get(promotion())["spec"]
    assert (spec["approval"]["message"], spec["abort"]["message"]) == ("I approve", "I abort")
    assert spec["approval"]["actor"] == spec["abort"]["actor"] != ""


def test_what_is_not_there_or_not_allowed_is_told_with_a_remedy(
    api: Api, api_server: ApiServer, namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert isinstance(say(namespace, "explain", "nothing").exception, NotFoundError)
    stranger = api_server.kubeconfig_as(namespace, "stranger", tmp_path)
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(stranger))
    refused = say(namespace, "list").exception
    assert isinstance(refused, UsageError)
    assert f"ask for the role tunegate-approver in {namespace}" in str(refused)
