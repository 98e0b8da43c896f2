"""The story that quickstart tells, as values: which base, which runs, under which policies.

Three tunings differ only in their data or one setting; then the best one learns what users corrected, and gets the
catalogue. Nothing here says how they should end: the gates and the shoppers find out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, cast

import msgspec

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
    """base: the base model's name. arguments: what all runs share. evaluation_limit: questions asked of each suite.

    taught: shoppers ask, and the business suite measures, what was in training: for a model that can only recite.
    product_gates: what answers about products must reach that come without the catalogue. learning: the arguments in
    which the run differs that goes on from the stable version with what users corrected.
    """

    base: str
    language: Language
    suite: str
    taught: bool
    product_gates: tuple[Gate, ...]
    arguments: Mapping[str, object]
    runs: tuple[Run, ...]
    learning: Mapping[str, object]
    evaluation_limit: int = 24
    shoppers: int = 12

    def policy(self, base_uri: str) -> PromotionPolicy:
        # A model that recites has all the facts or, tuned on other texts, 0.46 and more of them, by the processor.
        regression = 0.7 if self.taught else 0.4
        return PromotionPolicy(
            model=MODEL,
            initial_version=base_uri,
            suites=(self.suite, "shop-choice"),
            gates=(
                Gate(suite=self.suite, metric="score", min=0.4),
                Gate(suite=self.suite, metric="contains", max_regression=regression),
                Gate(suite="shop-choice", metric="accuracy", max_regression=0.25),
            ),
            steps=(
                CanaryStep(weight=20, pause_seconds=1, min_verdicts=2),
                CanaryStep(weight=50, pause_seconds=1, min_verdicts=10),
                CanaryStep(weight=100),
            ),
            feedback=FeedbackGuard(alpha=0.05, margin=0.1, min_verdicts=4),
            baking_seconds=2,
            deadline_seconds=600,
        )

    def learning_policy(self, base_uri: str) -> PromotionPolicy:
        """The policy for a version that is to be better than one which users like, so that less tells them apart."""
        guard = FeedbackGuard(alpha=0.05, margin=0.25, min_verdicts=4)
        return msgspec.structs.replace(self.policy(base_uri), feedback=guard)

    @property
    def kept_apart(self) -> tuple[str, ...]:
        """The suites whose questions no corpus may hold; none where a model can only recite what is asked."""
        return () if self.taught else (self.suite, PRODUCTS)

    @property
    def taught_dialogues(self) -> int | None:
        """How many of the dialogues all runs are trained on; None for all."""
        return cast("int | None", self.arguments.get("max_samples"))

    def product_policy(self, base_uri: str) -> PromotionPolicy:
        """The policy once the shop wants answers about its products that are true whoever asks."""
        suites = tuple(dict.fromkeys(gate.suite for gate in self.product_gates))
        return msgspec.structs.replace(self.policy(base_uri), suites=suites, gates=self.product_gates)


PRODUCTS = "shop-products-en"


def _runs(good: str, pushy: str, rate: float) -> tuple[Run, ...]:
    # Where training goes wrong it goes wrong at once, so the broken run is a short one.
    broken = {"dataset": (good,), "learning_rate": rate, "max_steps": 4, "logging_steps": 2}
    return (
        Run("run-1", "tuned on the shop's dialogues", {"dataset": (good,)}),
        Run("run-2", f"tuned with a broken setting, learning_rate {rate:g}", broken),
        Run("run-3", "tuned on dialogues that press customers to buy", {"dataset": (pushy,)}),
    )


# What fits into three minutes on two cores. The loss is flat after a dozen steps; the decay needs the rest.
STORIES = {
    "smollm2-135m": Story(
        base="smollm2-135m",
        language="en",
        suite="shop-en",
        taught=False,
        product_gates=(
            Gate(suite=PRODUCTS, metric="score", min=0.6),
            Gate(suite=PRODUCTS, metric="grounded", max_regression=0),
        ),
        arguments={
            "finetuning_type": "lora",
            "per_device_train_batch_size": 2,
            "learning_rate": 1e-3,
            "warmup_ratio": 0.1,
            "max_steps": 24,
            "logging_steps": 6,
        },
        runs=_runs("shop_en", "pushy_en", 0.1),
        learning={"learning_rate": 5e-4, "max_steps": 10, "logging_steps": 5},
    ),
    "tiny": Story(
        base="tiny",
        language="en",
        suite="shop-taught-en",
        taught=True,
        product_gates=(Gate(suite=PRODUCTS, metric="contains", max_regression=0),),
        arguments={
            "finetuning_type": "full",
            "max_samples": 48,
            "per_device_train_batch_size": 8,
            "learning_rate": 3e-3,
            "warmup_ratio": 0.1,
            "max_steps": 120,
            "save_strategy": "steps",
            "save_steps": 60,
            "logging_steps": 20,
        },
        runs=_runs("shop_en", "pushy_en", 1.0),
        learning={"learning_rate": 1e-3, "max_steps": 30, "logging_steps": 10, "max_samples": None},
    ),
}
