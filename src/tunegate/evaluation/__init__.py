"""What a version is worth: suites of questions, and how they are asked and scored.

Importing this package is light; only `tunegate.evaluation.models.local` imports torch.
"""

from tunegate.evaluation.suites import Suite, load_suite, load_suites, shipped_suites

__all__ = ["Suite", "load_suite", "load_suites", "shipped_suites"]
