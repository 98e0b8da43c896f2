"""What a version is worth: suites of questions, and how they are asked and scored.

Importing this package is light; measuring itself, in `tunegate.evaluation.run`, imports torch.
"""

from tunegate.evaluation.suites import Suite, load_suite, shipped_suites

__all__ = ["Suite", "load_suite", "shipped_suites"]
