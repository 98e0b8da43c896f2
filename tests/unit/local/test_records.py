"""Records of the local platform: written when a promotion ends, signed by a key that is made once, verified by name."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tests.answering import listening, serving
from tests.builders import at, make_evaluation, make_policy
from tests.unit.local.test_platform import Waiting, keep, publish
from tests.unit.records.conftest import PLACE, promoted, with_status
from tunegate.api.errors import UsageError
from tunegate.api.promotion import Promotion
from tunegate.cli import root
from tunegate.local.platform import Platform, PlatformConfig
from tunegate.local.records import signer, write_records
from tunegate.local.state import Home
from tunegate.processes import free_port
from tunegate.records.writing import folder_of
from tunegate.store import Store
from tunegate.store.evaluations import save


@pytest.fixture
def platform(store: Store, tmp_path: Path) -> Iterator[Platform]:
    base = publish(store, tmp_path, "base/base/checkpoint-0")
    candidate = publish(store, tmp_path, "shop/run-7/checkpoint-5", step=5)
    save(store, make_evaluation(base, score=0.8))
    save(store, make_evaluation(candidate, score=0.9))
    made = Waiting(PlatformConfig(Home(tmp_path / "home"), free_port()), store, {})
    keep(made, make_policy(initial_version=base.uri))
    made.config.home.save(promoted(candidate, base, "run-7", 0))
    with contextlib.closing(made):
        yield made


def ticked(platform: Platform) -> tuple[Promotion, ...]:
    platform.tick(at(20_000))
    return platform.config.home.promotions()


def run(platform: Platform, *words: str) -> Result:
    home, store = platform.config.home, platform.store
    where = ["--home", str(home.folder), "--store", store.uri, "--endpoint-url", str(store.endpoint_url)]
    return CliRunner().invoke(root, ["promotions", *words, *where])


def test_a_promotion_that_ends_is_recorded_and_verified_by_its_name(platform: Platform, tmp_path: Path) -> None:
    (found,) = ticked(platform)
    assert found.status.record is not None
    with listening(serving(found.candidate.digest)) as url:
        done = run(platform, "verify", found.name, "--url", url)
        assert done.exit_code == 0, done.output
        assert done.output.splitlines()[0].startswith("record holds: signed by the key ")
        as_json = json.loads(run(platform, "verify", found.name, "--url", url, "--json").stdout)
        assert as_json["holds"]
        assert as_json["links"][-1]["name"] == "serving"
    done = run(platform, "explain", found.name, "--html", str(tmp_path / "why.html"))
    assert done.exit_code == 0, done.output
    assert "Promoted" in (tmp_path / "why.html").read_text()


def test_a_record_that_is_refused_keeps_no_other_out(platform: Platform, tmp_path: Path) -> None:
    home, (first,) = platform.config.home, platform.config.home.promotions()
    later = publish(platform.store, tmp_path, "shop/run-8/checkpoint-5", step=5)
    home.save(promoted(later, first.candidate, "run-8", 10_000))
    platform.store.put(f"{folder_of(first, PLACE)}decision.json", b"{}")
    refused, written = ticked(platform)
    assert "is not as it was signed" in platform._unrecorded
    assert (refused.status.record, written.status.record is not None) == (None, True)
    platform.store.delete(f"{folder_of(first, PLACE)}decision.json")
    assert all(promotion.status.record for promotion in ticked(platform))


def test_a_link_that_does_not_hold_is_named_with_status_1(platform: Platform) -> None:
    (found,) = ticked(platform)
    platform.store.put(f"{found.candidate.name}/config.json", b"other weights")
    done = run(platform, "verify", found.name, "--url", "http://127.0.0.1:9")
    assert done.exit_code == 1
    assert "weights does not hold: " in done.output
    assert "evaluations not looked at" in done.output


def test_the_key_is_made_once_for_its_owner_and_may_be_rotated(platform: Platform) -> None:
    home = platform.config.home
    first = signer(home, None).public_key.keyid
    assert signer(home, None).public_key.keyid == first
    assert home.signing_key.stat().st_mode & 0o777 == 0o600
    (found,) = ticked(platform)
    home.signing_key.unlink()
    assert signer(home, None).public_key.keyid != first
    with listening(serving(found.candidate.digest)) as url:
        assert run(platform, "verify", found.name, "--url", url).exit_code == 0
    known = next(home.public_keys.glob(f"{first[:12]}*"))
    known.rename(home.folder / "earlier.pem")
    assert "is not known here" in run(platform, "verify", found.name).output
    with listening(serving(found.candidate.digest)) as url:
        earlier = ("--public-key", str(home.folder / "earlier.pem"))
        assert run(platform, "verify", found.name, "--url", url, *earlier).exit_code == 0


def test_a_version_that_left_gets_a_second_record(platform: Platform, store: Store, tmp_path: Path) -> None:
    (first,) = ticked(platform)
    later = publish(store, tmp_path, "shop/run-8/checkpoint-5", step=6)
    save(store, make_evaluation(later, score=0.9))
    platform.config.home.save(promoted(later, first.candidate, "run-8", 10_000))
    left = next(each for each in ticked(platform) if each.name == first.name)
    assert left.status.record is not None
    assert left.status.record.departure.endswith("/departure.json")
    assert store.get(left.status.record.departure)


def test_a_record_that_cannot_be_written_stops_nothing_and_is_told(platform: Platform) -> None:
    """Somebody put another document in its place."""
    (found,) = ticked(platform)
    assert found.status.record is not None
    platform.store.put(found.status.record.key, b"{}")
    platform.config.home.save(with_status(found, record=None))
    (found,) = ticked(platform)
    assert found.status.record is None
    assert "is not as it was signed" in platform._unrecorded


def test_a_key_that_is_none_is_refused_before_anything_starts(store: Store, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.pem"
    wrong.write_text("no key")
    with pytest.raises(UsageError, match="make one with: openssl genpkey"):
        Platform(PlatformConfig(Home(tmp_path), free_port(), signing_key=wrong), store, {})


def test_verify_finds_the_embedded_store_whether_or_not_a_platform_runs(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    with Platform.open(PlatformConfig(home, free_port())) as platform:
        base = publish(platform.store, tmp_path, "base/base/checkpoint-0")
        candidate = publish(platform.store, tmp_path, "shop/run-7/checkpoint-5", step=5)
        save(platform.store, make_evaluation(candidate, score=0.9))
        keep(platform, make_policy(initial_version=base.uri))
        home.save(promoted(candidate, base, "run-7", 0))
        write_records(home, platform.store, home.policy(), signer(home, None))
        words = ["promotions", "verify", "shop-run-7", "--home", str(home.folder)]
        with listening(serving(candidate.digest)) as url:
            done = CliRunner().invoke(root, [*words, "--url", url])
        assert done.exit_code == 0, (done.output, done.exception)
    done = CliRunner().invoke(root, words)
    assert done.exit_code == 1
    assert "serving does not hold: No platform runs on" in done.output
