from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner

from tests.chromium import PHONE, browser, needs_browser, opened
from tests.unit.training.conftest import Run as Trained
from tests.unit.training.conftest import Shop
from tunegate.api.errors import UsageError
from tunegate.api.versions import Release
from tunegate.cli import root
from tunegate.store import Store
from tunegate.training.run.curves import Peak, Run, read_run, read_stored, render
from tunegate.training.run.progress import Progress

__all__ = ["browser"]
needs_browser()
# What DeepSpeed, accelerate, peft and torch think of one another's names.
pytestmark = [pytest.mark.filterwarnings(f"ignore::{kind}") for kind in ("DeprecationWarning", "FutureWarning")]


@pytest.fixture
def page(full: Trained, lora: Trained, tmp_path: Path) -> Path:
    """Two runs over one another."""
    path = tmp_path / "curves.html"
    words = ["runs", "show", str(full.output), str(lora.output), "--output", str(path)]
    assert CliRunner().invoke(root, words, catch_exceptions=False).exit_code == 0
    return path


def test_a_page_has_every_curve_of_each_run_and_its_rows(page: Path, full: Trained) -> None:
    text = page.read_text("utf-8")

    panels = ["Loss", "Learning rate", "Gradient norm", "Tokens/s"]
    assert re.findall(r"<h2>(\w.*?)</h2>", text) == [*panels, "Memory of a process at its peak, in GiB"]
    assert text.count("<path") == 8  # of two runs
    assert text.count("The rows of ") == 2
    assert "24 examples are trained on, 0 are the validation split." in text


def test_a_page_has_predicted_memory_beside_measured() -> None:
    def step(number: int, **memory: int) -> Progress:
        at = {"elapsed_time": "0:00:01", "remaining_time": "0:00:01", "epoch": 1.0, "percentage": 50.0}
        return Progress(current_steps=number, total_steps=2, **at, **memory)  # type: ignore[arg-type]

    gib = 2**30
    on_gpu = Peak.of([step(n, planned_memory_bytes=20 * gib, gpu_memory_bytes=(20 + n) * gib) for n in (1, 2)])
    on_cpu = Peak.of([step(1, process_memory_bytes=gib)])
    curves: dict[str, Any] = defaultdict(tuple)
    runs = [
        Run("gpu", curves, peak=on_gpu),
        Run("cpu", curves, peak=on_cpu),
        Run("old", curves, peak=Peak.of([step(1)])),
    ]
    cells = re.findall(r'row">(\w+)</th><td>(.*?)</td><td>(.*?)</td><td>(.*?)</td></tr>', _memory_of(render(runs)))

    assert cells == [("gpu", "its GPU", "20", "22"), ("cpu", "the machine", "–", "1")]
    assert "Memory of a process" not in render([Run("old", curves)])


def _memory_of(page: str) -> str:
    return page.partition("Memory of a process")[2].partition("</section>")[0]


def test_a_run_of_ours_has_both(page: Path) -> None:
    numbers = re.findall(r"machine</td><td>([\d.]+)</td><td>([\d.]+)</td>", _memory_of(page.read_text("utf-8")))

    assert len(numbers) == 2


def test_a_page_names_no_place_on_the_machine(page: Path, full: Trained) -> None:
    text = page.read_text("utf-8")

    assert str(full.output.parent) not in text
    assert not re.search(r"https?://|<script|/tmp/|/home/", text)


def test_a_page_is_wide_and_narrow_as_its_reader(page: Path, browser: object) -> None:
    for options in ({}, {**PHONE, "viewport": {"width": 390, "height": 844}}):
        with opened(browser, page.as_uri(), **options) as seen:  # type: ignore[arg-type]
            assert seen.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
            assert all(box["height"] > 100 for box in [svg.bounding_box() for svg in seen.locator("svg").all()])


def test_a_run_in_the_store_is_shown_as_its_folder_is(shop: Shop, full: Trained) -> None:
    stored, here = read_stored(shop.store, "tiny", "full"), read_run(full.output)

    assert stored.name == "tiny/full"
    assert stored.curves == here.curves
    assert stored.last("tokens_per_second")
    assert stored.account == here.account


def test_a_run_of_an_earlier_tunegate_has_what_its_checkpoint_logged(
    shop: Shop, full: Trained, store: Store, tmp_path: Path
) -> None:
    version = full.versions[-1]
    folder = shop.store.fetch(version.name, tmp_path / "checkpoint", include_resume=True)
    producer = shop.store.manifest(version.name).producer
    store.publish(folder, version.name, release=Release(format=version.format), producer=producer)
    stored, here = read_stored(store, "tiny", "full"), read_run(full.output)

    assert [step for step, _ in stored.curves["loss"]] == [step for step, _ in here.curves["loss"]]
    assert stored.curves["grad_norm"] == here.curves["grad_norm"] != ()
    assert stored.account is None


def test_names_are_text_and_a_run_without_steps_says_so(full: Trained) -> None:
    empty = dict.fromkeys(read_run(full.output).curves, ())
    text = render([Run("<b>&amp;", empty)])

    assert "&lt;b&gt;&amp;amp;" in text
    assert "No step has been logged yet." in text


def test_the_account_of_the_rows_is_the_runs(full: Trained) -> None:
    account = read_run(full.output).account

    assert account is not None
    assert [(dataset.name, dataset.examples, dataset.rejected_records) for dataset in account.datasets] == [
        ("shop", 24, 0)
    ]
    assert msgspec.json.decode((full.output / "account.json").read_bytes())["trainExamples"] == 24


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is no run's folder; give an --output_dir"):
        read_run(tmp_path)
    words = ["runs", "show", str(tmp_path / "none")]
    result = CliRunner().invoke(root, words)
    assert "give its folder, or MODEL/RUN and --store" in str(result.exception)
