"""What a version is worth: suites of questions, and how they are asked and scored.

Importing this package is light; only `tunegate.evaluation.models.local` imports torch.
"""

from tunegate.evaluation.suites import AnySuite, Suite, load_suite, load_suites, shipped_suites

__all__ = ["AnySuite", "Suite", "load_suite", "load_suites", "shipped_suites"]
