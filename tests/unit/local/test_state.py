"""What a local platform must not forget, and that only one may hold it."""

from __future__ import annotations

import stat
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from tests.builders import at, make_policy, make_version
from tunegate.api.errors import NotFoundError, TunegateError, UsageError
from tunegate.api.policy import ClusterPolicy, write_policy_file
from tunegate.api.promotion import Promotion, PromotionStatus
from tunegate.local.state import Home, write


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


def test_promotions_come_back_as_they_were_kept_oldest_first(home: Home) -> None:
    newer = Promotion(name="a", created=at(9), candidate=make_version("run-2", created=2))
    older = Promotion(name="b", created=at(9), candidate=make_version("run-1", created=1))
    home.save(newer)
    home.save(older)
    assert home.promotions() == (older, newer)


def test_a_promotion_is_replaced_whole(home: Home) -> None:
    record = Promotion(name="a", created=at(0), candidate=make_version("run-1"))
    home.save(record)
    home.save(msgspec.structs.replace(record, status=PromotionStatus(phase="Baking")))
    assert [promotion.status.phase for promotion in home.promotions()] == ["Baking"]


def test_a_policy_is_read_as_it_is_for_a_cluster(home: Home) -> None:
    write(home.policy_file, write_policy_file(make_policy()))
    assert home.policy().model == "shop"


def test_a_policy_kept_by_the_first_release_is_read(home: Home) -> None:
    write(home.policy_file, msgspec.yaml.encode(kept := make_policy()))
    assert home.policy() == ClusterPolicy(**msgspec.structs.asdict(kept))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        pytest.param("model: [", "not a valid PromotionPolicy", id="no-yaml"),
        pytest.param("{model: shop, minimum: 1}", "PromotionPolicy", id="unknown-field"),
        pytest.param(
            "{model: m, initialVersion: s3://b/m, suites: [], gates: [], steps: [{weight: 10}]}",
            "end in '/'",
            id="slash",
        ),
        pytest.param(
            "{model: m, initialVersion: s3://b/m/, suites: [], gates: [], steps: [{weight: 50}, {weight: 10}]}",
            "ascend",
            id="weights",
        ),
        pytest.param(
            "{model: m, initialVersion: s3://b/m/, suites: [s], gates: [{suite: s, metric: x, min: 1, max: 2}], "
            "steps: [{weight: 10}]}",
            "exactly one",
            id="two-bounds",
        ),
        pytest.param(
            "{model: m, initialVersion: s3://b/m/, suites: [s], gates: [{suite: t, metric: x, min: 1}], "
            "steps: [{weight: 10}]}",
            "not evaluated",
            id="gate-without-suite",
        ),
    ],
)
def test_a_policy_that_cannot_be_meant_is_refused_by_name(home: Home, text: str, says: str) -> None:
    write(home.policy_file, text.encode())
    with pytest.raises(UsageError, match=says):
        home.policy()


def test_a_missing_policy_names_the_remedy(home: Home) -> None:
    with pytest.raises(NotFoundError, match="--policy"):
        home.policy()


def test_the_feedback_key_is_made_once_and_is_the_owners_alone(home: Home) -> None:
    key = home.feedback_key()
    assert len(bytes.fromhex(key)) == 32
    assert Home(home.folder).feedback_key() == key
    assert stat.S_IMODE((home.folder / "feedback.key").stat().st_mode) == 0o600


def test_a_second_platform_is_refused_while_the_first_runs(home: Home) -> None:
    with home.hold():
        home.announce("http://127.0.0.1:1", "s3://b", "")
        assert home.running() is not None
        with pytest.raises(TunegateError, match="local down"), Home(home.folder).hold():
            pass
    assert home.running() is None


def test_a_killed_platform_holds_nothing(home: Home) -> None:
    script = (
        "import os, pathlib, signal, sys; from tunegate.local.state import Home\n"
        "home = Home(pathlib.Path(sys.argv[1]))\n"
        "with home.hold(): home.announce('http://x', 's3://b', ''); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert subprocess.run([sys.executable, "-c", script, str(home.folder)], check=False).returncode == -9
    assert home.running() is None
    with home.hold():
        pass


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(TunegateError, match="can't be written"):
        write(tmp_path / "file" / "below", b"")
