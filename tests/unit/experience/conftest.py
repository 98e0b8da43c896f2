"""A real Chromium to look at the page with."""

from tests.chromium import browser  # noqa: F401 (a fixture)
