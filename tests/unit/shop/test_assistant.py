"""The example assistant: prompts that a release takes as they are, and cases that tell true answers from invented."""

from __future__ import annotations

import json
import re

import pytest
from click.testing import CliRunner

from tests.answering import answering
from tunegate.cli import root
from tunegate.prompts.assistant import load_assistant
from tunegate.release import check_prompts
from tunegate.shop import DATA

FOLDER = DATA / "assistant"
ANSWERS = {
    "en": {
        "a bag": "What will you carry in it, and how far?",
        "weekend": "Yustal backpack, $61, 32 L [1]\nFaloon backpack, $56, 28 L [2]",
        "bigger": "Take the Yustal backpack for $61 [1]: it holds 32 L [1].",
        "send it back": "Yes: send it back unused within 14 days of receiving it [1].",
        "tent": "We do not sell tents; there is a Kestrin blanket [1].",
    },
    "zh": {
        "买个包": "您主要用来装什么呢？",
        "周末": "悠斯双肩包，429元，32升[1]\n法伦双肩包，389元，28升[2]",
        "大一点": "推荐悠斯双肩包，429元[1]，容量32升[1]。",
        "能退吗": "可以，签收后14天内未使用即可退货[1]。",
        "帐篷": "本店不卖帐篷。",
    },
}


@pytest.mark.parametrize("language", ["en", "zh"])
def test_true_answers_pass_all_cases_and_invented_ones_fail(language: str) -> None:
    def tell(prompt: str) -> str:
        asked = re.split("Customer:|顾客：", prompt)[-1]
        return next(text for words, text in ANSWERS[language].items() if words in asked)

    for say, passed in ((tell, 5), (lambda _: "Only $5, hurry! 只要5元，赶紧！", 0)):
        with answering(say) as (url, _):
            words = ["prompts", "try", str(FOLDER / f"cases-{language}.yaml"), "--url", url, "--format", "json"]
            done = CliRunner().invoke(root, words)
        outcomes = json.loads(done.stdout)[0]["outcomes"]
        assert sum(outcome["passed"] for outcome in outcomes) == passed, done.stdout
        assert len(outcomes) == 5
        assert done.exit_code == (0 if passed else 1)


def test_a_release_takes_the_folder_as_it_is() -> None:
    assert set(load_assistant(FOLDER).templates) == {"answer-en", "answer-zh"}
    check_prompts(FOLDER)
