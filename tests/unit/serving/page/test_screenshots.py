"""The pictures in the docs: the page as it is, and what they may not be.

Make them anew with: TUNEGATE_SCREENSHOTS=docs/playground python -m pytest tests/unit/serving/page/test_screenshots.py
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.chromium import DESKTOP, PHONE, needs_browser
from tests.unit.serving.page.browser import Opener, Writer, answered

if TYPE_CHECKING:
    pass

needs_browser()
DOCS = Path(__file__).parents[4] / "docs/playground"
SIZE_LIMIT = 200_000  # bytes
DEVICES: dict[str, dict[str, Any]] = {
    "desktop": DESKTOP,
    "phone": {**PHONE, "locale": "zh-CN", "color_scheme": "dark", "device_scale_factor": 2},
}
ANSWER = {
    "desktop": """Yes. With 5 cm of air on each side, a wall of **130 cm** takes a set up to 120 cm wide:

| model | width | price |
|---|---|---|
| Aurora 43 | 97 cm | 2,199 |
| Aurora 50 | 112 cm | 2,799 |

The Aurora 55 (123 cm) would touch the shelves.
""",
    "phone": """可以。两侧各留 5 厘米，**130 厘米**的墙面适合宽度不超过 120 厘米的电视：

| 型号 | 宽度 | 价格 |
|---|---|---|
| 极光 43 | 97 厘米 | 2,199 |
| 极光 50 | 112 厘米 | 2,799 |
""",
}
QUESTION = {
    "desktop": "Does the Aurora 50 fit a wall of 130 cm?",
    "phone": "130 厘米的墙放得下极光 50 吗？",
}


@pytest.mark.parametrize("name", DEVICES)
def test_a_picture_of_the_docs_is_small(open_page: Opener, engine: Writer, tmp_path: Path, name: str) -> None:
    engine.deltas = [ANSWER[name]]
    folder = Path(os.environ.get("TUNEGATE_SCREENSHOTS", tmp_path))
    with open_page(**DEVICES[name], extra_http_headers={"tunegate-step": "shop-run-2/1"}) as page:
        answered(page, QUESTION[name])
        if name == "desktop":
            page.locator(".icon.down").click()
            page.locator(".tag").nth(1).click()
        page.screenshot(path=folder / f"{name}.png")

    assert (folder / f"{name}.png").stat().st_size < SIZE_LIMIT
    assert (DOCS / f"{name}.png").stat().st_size < SIZE_LIMIT
