"""The page as text: complete in itself, small, and safe whatever models write."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest
from msgspec.structs import replace

from tests.unit.report.builders import business, exam, make
from tunegate.api.evaluation import Evaluation, Metric
from tunegate.evaluation.choice.exams import names
from tunegate.report.contents import LeakCheck, Leaks
from tunegate.report.leaks import Hit
from tunegate.report.page import render, summary


class Texts(HTMLParser):
    """What the page says, without tags."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(page)

    def handle_data(self, data: str) -> None:
        self.found.append(data)


def says(page: str) -> str:
    return " ".join("".join(Texts(page).found).split())


def test_it_says_what_fell_what_it_cost_and_what_is_missing() -> None:
    report = make(
        [business(0, "+" * 40, tokens_written=800)],
        [business(1, "-" * 20 + "+" * 20)],
        [],
        seconds=61.5,
        bytes=2_000_000,
    )
    said = says(render(report))

    assert "B against A, shop: -50.0 points (100.0 % to 50.0 %; 95 %: -63.4 points to -31.8 points); 20 lost" in said
    assert "20 lost and 0 gained of 40" in said
    assert "C has no result; run: tunegate evaluate shop/run-2/checkpoint-1 --suite shop" in said
    assert "B is better in 0, worse in 1 and not told apart in 0 of the suites" in said
    assert "Answers that changed sides in B: 20 lost, 0 won" in said
    assert "61.5 s" in said
    assert "2.0 MB" in said
    assert "800" in said
    assert "200" in said  # tokens a second


def test_its_style_is_as_it_was_written() -> None:
    """Escaped, every rule with a quote or a `>` would be lost."""
    style = render(make([business(0, "+")])).partition("<style>")[2].partition("</style>")[0]
    assert "&" not in style
    assert '"Segoe UI"' in style


def test_the_same_report_is_the_same_page() -> None:
    assert render(make([business(0, "+-")])) == render(make([business(0, "+-")]))


def test_what_models_write_is_text() -> None:
    bad = business(1, "--")
    records = tuple(
        replace(record, prompt="<script>alert(1)</script>", expected="&", answer="</dd><img src=x>")
        for record in bad.records
    )
    page = render(make([business(0, "++")], [replace(bad, records=records)]))

    assert "<script" not in page
    assert "<img" not in page
    assert "alert(1)" in page


def test_it_needs_no_script_and_no_other_file() -> None:
    page = render(make([exam(0, {"law": "++"})], [exam(1, {"law": "--"})]))

    assert not re.search(r"<(script|link|img|iframe)|https?://|url\(|@import", page)
    assert "default-src 'none'" in page


def test_the_longest_is_less_than_2_mb() -> None:
    """All that C-Eval asks in 4 versions, whose answers all changed sides, at length."""
    long = "答" * 5000
    hits = tuple(
        Hit(item=f"q{n}", question=long[:300], line=n, text=long[:300], similarity=1, records=1) for n in range(999)
    )
    check = LeakCheck(
        found=tuple(
            Leaks(suite="ceval", dataset=f"set-{n}", digest="", letters=("A",), records=9, items=9, hits=hits)
            for n in range(5)
        )
    )

    def asked(place: int) -> list[Evaluation]:
        sign = "-" if place else "+"
        made = exam(place, dict.fromkeys(names("ceval"), sign * 26))
        records = tuple(replace(record, prompt=long, output=long) for record in made.records)
        return [replace(made, records=records)]

    page = render(make(*map(asked, range(4)), leaks=check))

    assert len(page.encode()) < 2_000_000
    assert "more are in the JSON" in page


def test_versions_are_told_apart_without_color() -> None:
    page = render(make(*([business(place, "+-")] for place in range(6))))

    assert len(set(re.findall(r'class="mark v(\d)"[^>]*><path d="([^"]+)"', page))) == 6


def test_a_scale_of_its_own_is_drawn_within_its_bounds() -> None:
    strength = [Metric(name="strength", value=value, low=value - 0.5, high=value + 0.5, n=9) for value in (-1.0, 1.0)]
    judged = [business(place, "+") for place in range(2)]
    page = render(make(*([replace(found, metrics=(found.metrics[0], strength[n]))] for n, found in enumerate(judged))))

    drawn = [float(x) for x in re.findall(r'x1?="([\d.-]+)%"', page)]
    assert min(drawn) == 0
    assert max(drawn) <= 100
    assert "-1.000" in says(page)


@pytest.mark.parametrize(("right", "counted"), [("+" * 40, (0, 0, 1)), ("-" * 40, (0, 1, 0))])
def test_the_summary_counts_suites(right: str, counted: tuple[int, int, int]) -> None:
    better, worse, alike = counted
    (line,) = summary(make([business(0, "+" * 40)], [business(1, right)]))

    assert f"better in {better}, worse in {worse} and not told apart in {alike}" in line
