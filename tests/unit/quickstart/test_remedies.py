"""What the quickstart ends with is over once the message's words were followed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.builders import at, make_version
from tests.refusals import refused, without_story
from tunegate.api.promotion import TERMINAL, Promotion, PromotionStatus
from tunegate.local.state import Home
from tunegate.models import check_folder
from tunegate.quickstart import run
from tunegate.quickstart.base_models import make_base
from tunegate.quickstart.run import Quickstart
from tunegate.quickstart.scenario import STORIES


def test_a_base_model_is_one_of_those_that_the_message_names(tmp_path: Path) -> None:
    with refused("There is no base model ") as caught:
        make_base("smolm2", tmp_path / "base")
    *_, named = str(caught.value).rstrip(".").partition("choose one of ")[2].split(", ")
    make_base(named, tmp_path / "base")
    check_folder(tmp_path / "base")


def test_a_version_that_was_not_decided_is_waited_for_by_the_next_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It finds the versions that were published, and what the platform decided of them meanwhile."""
    version = make_version("run-1")
    story = Quickstart(Home(tmp_path), STORIES["tiny"], 8080, lambda line: None)
    monkeypatch.setattr(run, "END_SECONDS", 0.0)
    with refused(". Run the quickstart again: it resumes.") as caught:
        story._wait_for(version, TERMINAL)
    assert str(story.home.logs) in str(caught.value)
    status = PromotionStatus(phase="Succeeded")
    story.home.save(Promotion(name="shop-1", created=at(0), candidate=version, status=status))
    story._wait_for(version, TERMINAL)


def test_every_message_has_its_story() -> None:
    assert without_story("quickstart", Path(__file__)) == []
