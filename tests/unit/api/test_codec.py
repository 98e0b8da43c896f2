from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("module", "kinds"),
    [
        ("tunegate.api.policy", "PolicyFile ClusterPolicy CanaryStep"),
        ("tunegate.api.promotion", "Promotion PromotionStatus Approval Abort"),
        ("tunegate.api.versions", "Manifest ModelVersion Release Training"),
        ("tunegate.api.evaluation", "Evaluation Record"),
        ("tunegate.api.feedback", "FeedbackRecord Feedback Tally"),
        ("tunegate.api.kubernetes", "PromotionSpec"),
        ("tunegate.store.claims", "ClaimRecord"),
        ("tunegate.kube.errors", "Status"),
        ("tunegate.review.desk", "Join Said Mark"),
        ("tunegate_operator.types", "EvaluationSummary ServerRecord"),
        ("tunegate_operator.feedback_counts", "_Answer"),
    ],
)
def test_what_threads_read_is_known_before_they_do(module: str, kinds: str) -> None:
    """Once a type is known, msgspec needs none of the names in its annotations any more."""
    code = (
        "import importlib, sys, msgspec; module = importlib.import_module(sys.argv[1])\n"
        "kinds = [vars(module)[name] for name in sys.argv[2].split()]\n"
        "for name in [name for name in vars(module) if not name.startswith('__')]: delattr(module, name)\n"
        "for kind in kinds:\n"
        "    try: msgspec.convert({'unknown': 0}, kind)\n"
        "    except msgspec.ValidationError: pass\n"
    )
    done = subprocess.run([sys.executable, "-c", code, module, kinds], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
