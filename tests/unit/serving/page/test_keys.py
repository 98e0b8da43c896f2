"""The playground before a server that wants an API key."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.chromium import needs_browser
from tests.unit.serving.page.browser import Writer, answered, say
from tests.unit.serving.standin import MODEL
from tunegate.api.codec import to_yaml
from tunegate.serving.auth import Admission, ApiKey, KeyFile, Keys, hash_of

if TYPE_CHECKING:
    from playwright.sync_api import Page

expect = needs_browser().expect
KEY = "tg-of-the-page"


@pytest.fixture
def admission(tmp_path: Path) -> Admission:
    path = tmp_path / "keys.yaml"
    path.write_bytes(to_yaml(KeyFile(keys=(ApiKey(name="page", sha256=hash_of(KEY), requests_per_minute=2),))))
    return Admission(Keys(path), 100)


def test_it_leads_to_the_keys_field_and_takes_the_key_from_there(page: Page, engine: Writer) -> None:
    expect(page.get_by_role("alert")).to_contain_text("The server asks for an API key")
    page.get_by_role("button", name="Enter a key").click()
    field = page.get_by_label("API key")
    expect(field).to_be_focused()

    page.keyboard.type("tg-wrong")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("not known")
    field.fill(KEY)
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name=f"Talk to {MODEL}")).to_be_visible()
    answered(page)
    expect(page.get_by_role("alert")).to_have_count(0)


def test_the_key_stays_in_the_tab(page: Page) -> None:
    page.get_by_label("API key").fill(KEY)
    page.keyboard.press("Enter")
    answered(page)

    assert KEY not in page.locator("#panel").inner_text()
    assert '-H "authorization: Bearer $API_KEY"' in page.locator("#curl").inner_text()
    assert KEY not in page.evaluate("JSON.stringify(localStorage)")
    page.reload()
    expect(page.get_by_label("API key")).to_have_value(KEY)
    expect(page.get_by_role("heading", name=f"Talk to {MODEL}")).to_be_visible()


def test_a_used_up_limit_says_when_to_try_again(page: Page, engine: Writer) -> None:
    page.get_by_label("API key").fill(KEY)
    page.keyboard.press("Enter")
    for _ in range(2):
        answered(page)
    say(page, "Again?")

    expect(page.get_by_role("alert")).to_contain_text("Too many requests at the moment. Try again in ")
    assert len(engine.asked) == 2
