"""Public sets by lm-evaluation-harness: its tasks, from files that are here, as one of our suites.

Importing this package imports neither that nor torch. Its request cache, which is known by the request and not by the
model, is never used.
"""

from tunegate.evaluation.harness.suite import HarnessSuite, read_suite

__all__ = ["HarnessSuite", "read_suite"]
