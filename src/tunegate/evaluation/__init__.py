"""What a version is worth: suites of questions, and one result for each version digest and suite.

Importing this package is light; measuring itself, in `tunegate.evaluation.run`, imports torch.
"""

from tunegate.evaluation.results import find, save
from tunegate.evaluation.suites import Suite, load_suite, shipped_suites

__all__ = ["Suite", "find", "load_suite", "save", "shipped_suites"]
