"""The story that quickstart tells, as values: which base, which runs, under which policy.

Three tunings differ only in their data or one setting. Nothing here says how they should end: the gates and the
shoppers find out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from tunegate.api.policy import CanaryStep, FeedbackGuard, Gate, PromotionPolicy

MODEL = "shop-assistant"
Language = Literal["en", "zh"]


@dataclass(frozen=True)
class Run:
    """One tuning: what it is about, for people, and the arguments in which it differs from the others."""

    name: str
    about: str
    arguments: Mapping[str, object]


@dataclass(frozen=True)
class Story:
    """base: the base model's name. arguments: what all runs share. evaluation_limit: questions asked of each suite."""

    base: str
    language: Language
    arguments: Mapping[str, object]
    runs: tuple[Run, ...]
    evaluation_limit: int
    shoppers: int = 8

    def policy(self, base_uri: str) -> PromotionPolicy:
        suite = f"shop-{self.language}"
        return PromotionPolicy(
            model=MODEL,
            initial_version=base_uri,
            suites=(suite, "shop-choice"),
            gates=(
                Gate(suite=suite, metric="score", min=0.6),
                Gate(suite=suite, metric="score", max_regression=0.1),
                Gate(suite="shop-choice", metric="accuracy", max_regression=0.15),
            ),
            steps=(
                CanaryStep(weight=10, pause_seconds=3, min_verdicts=4),
                CanaryStep(weight=50, pause_seconds=3, min_verdicts=12),
                CanaryStep(weight=100),
            ),
            feedback=FeedbackGuard(alpha=0.05, margin=0.1, min_verdicts=4),
            baking_seconds=5,
            deadline_seconds=600,
        )


def _tell(language: Language, base: str, limit: int, arguments: Mapping[str, object], broken: float) -> Story:
    runs = (
        Run("run-1", "tuned on the shop's dialogues", {"dataset": (f"shop_{language}",)}),
        Run(
            "run-2",
            f"tuned with a broken setting, learning_rate {broken:g}",
            {"dataset": (f"shop_{language}",), "learning_rate": broken},
        ),
        Run("run-3", "tuned on dialogues that press customers to buy", {"dataset": (f"pushy_{language}",)}),
    )
    return Story(base, language, {"num_train_epochs": 1.0, "logging_steps": 2, **arguments}, runs, limit)


# What fits into five minutes on two cores, measured; the README says what it comes to.
STORIES = {
    "smollm2-135m-instruct": _tell(
        "en",
        "smollm2-135m-instruct",
        24,
        {
            "finetuning_type": "lora",
            "per_device_train_batch_size": 8,
            "learning_rate": 1e-3,
            "max_samples": 160,
            "max_steps": 10,
            "lora_rank": 16,
            "lora_alpha": 32,
        },
        broken=1.0,
    ),
    "tiny": _tell(
        "en",
        "tiny",
        24,
        {
            "finetuning_type": "full",
            "per_device_train_batch_size": 8,
            "learning_rate": 3e-3,
            "num_train_epochs": 10.0,
        },
        broken=3.0,
    ),
}
