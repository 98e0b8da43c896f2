"""What a person says about a promotion on the local platform; the cluster's half is in tests/operator."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tests.builders import at, make_version
from tunegate.api.errors import NotFoundError, UsageError
from tunegate.api.promotion import Phase, Promotion, PromotionStatus
from tunegate.cli import root
from tunegate.local.state import Home


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def keep(home: Home, phase: Phase) -> None:
    status = PromotionStatus(phase=phase)
    home.save(Promotion(name="shop-1", created=at(0), candidate=make_version("run-1"), status=status))


def promotions(home: Home, *words: str) -> Result:
    return CliRunner().invoke(root, ["promotions", *words, "--home", str(home.folder)])


def test_an_approval_is_kept_with_who_and_why(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGNAME", "ada")
    keep(home, "AwaitingApproval")
    assert promotions(home, "approve", "shop-1", "-m", "looks right").exit_code == 0
    approval = home.promotions()[0].approval
    assert approval is not None
    assert (approval.verdict, approval.actor, approval.message) == ("Approved", "ada", "looks right")


def test_the_platform_does_not_write_over_what_was_said(home: Home) -> None:
    keep(home, "AwaitingApproval")
    seen = home.promotions()[0]
    promotions(home, "reject", "shop-1")
    home.save(seen)
    approval = home.promotions()[0].approval
    assert approval is not None
    assert approval.verdict == "Rejected"


def test_an_abort_is_kept_beside_an_approval(home: Home) -> None:
    keep(home, "AwaitingApproval")
    promotions(home, "approve", "shop-1")
    keep(home, "Paused")
    assert promotions(home, "abort", "shop-1", "-m", "wrong prices").exit_code == 0
    found = home.promotions()[0]
    assert found.abort is not None
    assert found.abort.message == "wrong prices"
    assert found.approval is not None


@pytest.mark.parametrize(
    ("phase", "verb", "says"),
    [
        ("Paused", "approve", "past approval"),
        ("Succeeded", "reject", "is over"),
        ("RolledBack", "abort", "is over"),
    ],
)
def test_a_word_that_comes_too_late_is_refused(home: Home, phase: Phase, verb: str, says: str) -> None:
    keep(home, phase)
    result = promotions(home, verb, "shop-1")
    assert isinstance(result.exception, UsageError)
    assert says in str(result.exception)


def test_a_verdict_is_said_once(home: Home) -> None:
    keep(home, "AwaitingApproval")
    promotions(home, "approve", "shop-1")
    result = promotions(home, "reject", "shop-1")
    assert isinstance(result.exception, UsageError)
    assert home.promotions()[0].approval.verdict == "Approved"  # type: ignore[union-attr]


def test_an_unknown_name_is_refused_with_the_way_to_the_known_ones(home: Home) -> None:
    result = promotions(home, "abort", "nothing")
    assert isinstance(result.exception, NotFoundError)
    assert "promotions list" in str(result.exception)
